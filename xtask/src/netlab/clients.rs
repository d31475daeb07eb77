//! Programs that people use, through the tunnel: the product is good when they notice nothing.
//!
//! Every story starts its own backend in the private network and takes it away again.

mod files;
mod names;
mod reach;
mod sessions;
mod shell;
mod sql;
mod throughput;

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Test;
use crate::lab::process::Process;
use crate::lab::programs::Service;
use crate::lab::site::PRIVATE;
use crate::lab::world::{PATIENCE, World};

const fn service(id: &'static str, last: u8, port: u16, protocol: &'static str) -> Service {
    Service {
        id,
        address: Ipv4Addr::new(10, 99, 1, last),
        backend: PRIVATE,
        port,
        protocol,
    }
}

/// A web server, without and with TLS and HTTP/2.
const FILES: Service = service("files", 1, 8_081, "tcp");
const FILES_TLS: Service = service("files-tls", 2, 8_443, "tcp");
const SSH: Service = service("ssh", 3, 2_222, "tcp");
const SQL: Service = service("sql", 4, 5_433, "tcp");
const NAMES: Service = service("names", 5, 5_354, "udp");
const IPERF: Service = service("iperf", 6, 5_201, "both");
const SESSIONS: Service = service("sessions", 7, 7_100, "tcp");
/// A backend that stops in the middle of everything.
const LAZY: Service = service("lazy", 8, 7_103, "tcp");

/// What the connector of this world publishes beside the usual.
pub(super) const SERVICES: [Service; 8] = [FILES, FILES_TLS, SSH, SQL, NAMES, IPERF, SESSIONS, LAZY];

/// All of it.
pub(super) fn tests() -> Vec<Test> {
    [
        reach::TESTS,
        names::TESTS,
        files::TESTS,
        shell::TESTS,
        sql::TESTS,
        throughput::TESTS,
        sessions::TESTS,
    ]
    .concat()
}

/// Starts a backend in the private network and waits until it says `ready`.
fn backend(world: &World, name: &str, words: &[&str], ready: &str) -> Result<Process> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let mut process = world.start(name, &world.site.private, &words)?;
    process.wait_for(ready, PATIENCE)?;
    Ok(process)
}

/// The same of an instrument.
fn instrument(world: &World, words: &[&str]) -> Result<Process> {
    let program = world.programs.instruments().display().to_string();
    let name = format!("backend-{}", words.first().context("which?")?);
    backend(
        world,
        &name,
        &[&[program.as_str(), "tool"], words].concat(),
        "ready",
    )
}

/// Runs a client on device 1 to its end, at most `seconds`, and returns what it printed; a failure says what it complained
/// about.
fn client(world: &World, seconds: u32, words: &[&str]) -> Result<String> {
    let mut command = world.device(1)?.command("timeout");
    command.arg(seconds.to_string()).args(words);
    crate::command::output(&mut command)
}

/// Waits until something listens on a port of the private host.
fn wait_for_port(world: &World, port: u16, patience: Duration) -> Result<()> {
    let what = format!("port {port}");
    let look = || {
        let listening = world
            .site
            .private
            .command("ss")
            .args(["-Hltn", &format!("sport = :{port}")])
            .output()?;
        Ok((!listening.stdout.is_empty()).then_some(()))
    };
    crate::lab::wait_until(&what, patience, look).map(drop)
}

/// Makes a folder of this world's that belongs to `nobody`, whom some servers insist on being.
fn folder_of_nobody(world: &World, name: &str) -> Result<std::path::PathBuf> {
    let path = world.folder().join(name);
    std::fs::create_dir(&path)?;
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))?;
    Ok(path)
}

const NOBODY: u32 = 65_534;

/// The words that make a program run as `nobody`.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The SHA-256 of a file.
fn digest(path: &std::path::Path) -> Result<String> {
    let said = crate::command::output(Command::new("sha256sum").arg(path))?;
    let digest = said.split_whitespace().next().context("sha256sum is silent")?;
    ensure!(digest.len() == 64, "{said}");
    Ok(digest.to_owned())
}
