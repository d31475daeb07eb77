//! The program that TCP through the product is compared with: found, or fetched and built.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::command::{cargo, on_path, target};

/// The version that the figures of `docs/operations.md` were measured with.
const VERSION: &str = "0.7.1";

/// Where it is; `None`, said loudly, if this machine has none and cannot get one.
pub(super) fn find() -> Result<Option<PathBuf>> {
    if !on_path("wg") {
        println!("SKIPPED: the comparison with boringtun-cli: wg (package wireguard-tools) is missing");
        return Ok(None);
    }
    let root = target().join("boringtun");
    let program = root.join("bin").join("boringtun-cli");
    if !works(&program) {
        println!("installing boringtun-cli {VERSION} into {}", root.display());
        let folder = root.display().to_string();
        let words = [
            "install",
            "--locked",
            "--quiet",
            "--root",
            &folder,
            "--version",
            VERSION,
            "boringtun-cli",
        ];
        // Its own target directory: nothing of ours is to be rebuilt because of it.
        let built = cargo(&words)
            .env("CARGO_TARGET_DIR", root.join("build"))
            .status()?;
        if !built.success() || !works(&program) {
            println!("SKIPPED: the comparison with boringtun-cli: it could not be installed");
            return Ok(None);
        }
    }
    Ok(Some(program))
}

fn works(program: &std::path::Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
