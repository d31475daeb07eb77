//! What each stage runs.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::command::{cargo, on_path};
use crate::lab::obstacle;
use crate::netlab::{self, Options};
use crate::tally::{Reader, Tally};

/// The packages with the three programs.
const PROGRAMS: [&str; 3] = ["ztna-intermediate", "ztna-connector", "ztna"];

pub(super) fn fmt() -> Result<Tally> {
    check(&["fmt", "--all", "--check"], &[])
}

pub(super) fn clippy() -> Result<Tally> {
    check(
        &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )
}

pub(super) fn doc() -> Result<Tally> {
    check(
        &["doc", "--locked", "--workspace", "--no-deps"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

pub(super) fn deny() -> Result<Tally> {
    if !on_path("cargo-deny") && !has_subcommand("deny") {
        println!("SKIPPED: licences and sources: cargo-deny is not installed (cargo install cargo-deny)");
        println!("SKIPPED: advisories: cargo-deny is not installed");
        return Ok(Tally {
            skipped: 2,
            ..Tally::default()
        });
    }
    let mut tally = check(&["deny", "check", "bans", "licenses", "sources"], &[])?;
    // The advisory database is a git repository; a closed network is no fault of this tree.
    let fetched = cargo(&["deny", "fetch", "db"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if fetched {
        tally += check(&["deny", "check", "--disable-fetch", "advisories"], &[])?;
    } else {
        println!("SKIPPED: advisories: the advisory database cannot be reached from here");
        tally += Tally::skip();
    }
    Ok(tally)
}

/// Tiers 0 to 3, streamed and counted.
pub(super) fn tests() -> Result<Tally> {
    let mut command = cargo(&[
        "test",
        "--locked",
        "--workspace",
        "--no-fail-fast",
        "--",
        "--show-output",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut reader = Reader::default();
    let mut of_successes = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        reader.line(&line);
        // What a test printed is of interest if it failed, or if it says that it was skipped.
        match line.as_ref() {
            "successes:" => of_successes = true,
            "failures:" => of_successes = false,
            line if line.starts_with("test result:") => of_successes = false,
            _ => {}
        }
        if !of_successes || line.trim_start().starts_with("SKIPPED:") {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    let mut tally = reader.finish();
    if !status.success() && tally.failed == 0 {
        // Something did not compile, or a test took the harness down with it.
        tally.failed = 1;
    }
    Ok(tally)
}

pub(super) fn release() -> Result<Tally> {
    build_release().map(|()| Tally::one(true))
}

/// Builds the three programs as they are shipped.
pub(crate) fn build_release() -> Result<()> {
    let mut words = vec!["build", "--locked", "--release"];
    for program in PROGRAMS {
        words.extend(["--bin", program]);
    }
    let status = cargo(&words).status().context("cannot run cargo build")?;
    ensure!(status.success(), "the release build failed");
    Ok(())
}

/// Tier 4, once per runtime.
pub(super) fn lab() -> Result<Tally> {
    if let Some(why) = obstacle() {
        println!("SKIPPED: the network laboratory, once per runtime: {why}");
        return Ok(Tally {
            skipped: 2,
            ..Tally::default()
        });
    }
    build_release()?;
    netlab::run(&Options::all())
}

fn check(words: &[&str], environment: &[(&str, &str)]) -> Result<Tally> {
    println!("cargo {}", words.join(" "));
    let status = cargo(words)
        .envs(environment.iter().copied())
        .status()
        .context("cannot run cargo")?;
    Ok(Tally::one(status.success()))
}

fn has_subcommand(name: &str) -> bool {
    cargo(&[name, "--version"])
        .output()
        .is_ok_and(|done| done.status.success())
}
