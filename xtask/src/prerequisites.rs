//! What a bare Debian or Ubuntu machine lacks, and how it gets it.
//!
//! BoringSSL needs a C++ tool chain, cmake and libclang; the laboratory needs iproute2, nftables and its instruments. With
//! root they are installed; without, the exact command is printed, because guessing on somebody's machine helps nobody.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::command::{is_root, on_path};

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Compiling the workspace at all.
    Build,
    /// The network laboratory: tier 4, the demo, the benchmarks.
    Lab,
}

#[derive(Debug)]
struct Need {
    package: &'static str,
    purpose: Purpose,
    present: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        package: "cmake",
        purpose: Purpose::Build,
        present: || on_path("cmake"),
    },
    Need {
        package: "git",
        purpose: Purpose::Build,
        present: || on_path("git"),
    },
    Need {
        package: "g++",
        purpose: Purpose::Build,
        present: || on_path("c++") || on_path("g++"),
    },
    Need {
        package: "make",
        purpose: Purpose::Build,
        present: || on_path("make") || on_path("ninja"),
    },
    Need {
        package: "libclang-dev",
        purpose: Purpose::Build,
        present: libclang,
    },
    Need {
        package: "iproute2",
        purpose: Purpose::Lab,
        present: || on_path("ip") && on_path("tc"),
    },
    Need {
        package: "nftables",
        purpose: Purpose::Lab,
        present: || on_path("nft"),
    },
    Need {
        package: "iputils-ping",
        purpose: Purpose::Lab,
        present: || on_path("ping"),
    },
    Need {
        package: "curl",
        purpose: Purpose::Lab,
        present: || on_path("curl"),
    },
    Need {
        package: "iperf3",
        purpose: Purpose::Lab,
        present: || on_path("iperf3"),
    },
    Need {
        package: "openssh-server",
        purpose: Purpose::Lab,
        present: || on_path("sshd"),
    },
    Need {
        package: "openssh-client",
        purpose: Purpose::Lab,
        present: || on_path("ssh") && on_path("scp") && on_path("ssh-keygen"),
    },
    Need {
        package: "bind9-dnsutils",
        purpose: Purpose::Lab,
        present: || on_path("dig"),
    },
    Need {
        package: "traceroute",
        purpose: Purpose::Lab,
        present: || on_path("traceroute"),
    },
    Need {
        package: "postgresql",
        purpose: Purpose::Lab,
        present: || on_path("psql") && Path::new("/usr/lib/postgresql").is_dir(),
    },
    Need {
        package: "nginx-light",
        purpose: Purpose::Lab,
        present: || on_path("nginx"),
    },
    Need {
        package: "wireguard-tools",
        purpose: Purpose::Lab,
        present: || on_path("wg"),
    },
];

/// What is still missing for `purpose` after an attempt to install it.
pub(crate) fn ensure(purpose: Purpose) -> Result<Vec<&'static str>> {
    let lacking = missing(purpose);
    if lacking.is_empty() || !is_root() || !on_path("apt-get") {
        return Ok(lacking);
    }
    println!("installing {}", lacking.join(" "));
    apt_get(&lacking)?;
    Ok(missing(purpose))
}

/// The line that installs `packages`.
pub(crate) fn advice(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    )
}

/// `cargo xtask setup`.
pub(crate) fn setup() -> Result<ExitCode> {
    let mut lacking = ensure(Purpose::Build)?;
    lacking.extend(ensure(Purpose::Lab)?);
    if lacking.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "missing: {}\ninstall with:\n  {}",
        lacking.join(" "),
        advice(&lacking)
    );
    Ok(ExitCode::from(2))
}

fn missing(purpose: Purpose) -> Vec<&'static str> {
    NEEDS
        .iter()
        .filter(|need| need.purpose == purpose && !(need.present)())
        .map(|need| need.package)
        .collect()
}

fn apt_get(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages);
        quiet(&mut command)
    };
    // A machine that was never updated knows no packages, and an old list names versions that are gone.
    if install()? {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "--quiet"]);
    if !quiet(&mut update)? || !install()? {
        bail!("apt-get could not install {}", packages.join(" "));
    }
    Ok(())
}

fn quiet(command: &mut Command) -> Result<bool> {
    let status = command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    Ok(status.success())
}

/// bindgen loads this library by looking where LLVM puts it.
fn libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let mut folders: Vec<PathBuf> = ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
        .map(PathBuf::from)
        .to_vec();
    for base in ["/usr/lib", "/usr/local"] {
        folders.extend(
            entries(Path::new(base))
                .into_iter()
                .map(|entry| entry.join("lib")),
        );
        folders.extend(
            entries(Path::new(base))
                .into_iter()
                .filter(|entry| entry.to_string_lossy().ends_with("-linux-gnu")),
        );
    }
    folders.iter().flat_map(|folder| entries(folder)).any(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name == "libclang.so"
            || name.starts_with("libclang.so.")
            || name.starts_with("libclang-") && name.contains(".so")
    })
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .map(|list| list.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}
