//! systemd-resolved, told by `resolvectl` that names below `.ztna`, and no others, are asked of us on our interface.
//!
//! Everything is a setting of our link: it goes with the interface, and `resolvectl revert` takes it back from one that
//! stays. No other link, and no file, is touched.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::resolv_conf::{self, Original};

/// How long one call may take; the service may have to start.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a call is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Where the service listens: its stub, and the one that asks nothing but unicast DNS.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Whether programs of this host ask the service: `resolv.conf` names its stub, and it answers.
pub(crate) fn is_in_charge(resolv_conf: &Path) -> bool {
    let Ok((_, text)) = Original::read(resolv_conf) else {
        return false;
    };
    let first = resolv_conf::servers(&text).first().map(SocketAddr::ip);
    let is_stub = first.is_some_and(|ip| STUBS.into_iter().any(|stub| IpAddr::V4(stub) == ip));
    is_stub && call(&["dns"]).is_ok()
}

/// Makes us the server of our interface, for `.ztna` alone.
///
/// # Errors
/// What `resolvectl` says.
pub(crate) fn apply(interface: &str, listen: SocketAddr) -> Result<(), String> {
    let server = match listen.port() {
        53 => listen.ip().to_string(),
        _ => listen.to_string(),
    };
    call(&["dns", interface, &server])?;
    // The tilde makes it a route for questions and not a suffix that is tried on short names.
    call(&["domain", interface, "~ztna"])?;
    // These have been there for a shorter time, or mean less: a service that knows one of them less is served all the
    // same. Without the first, the interface would be asked everything if no other has a server; signatures there are
    // none for a zone that does not exist elsewhere, and the way is within this host.
    for setting in [
        ["default-route", interface, "no"],
        ["dnssec", interface, "no"],
        ["dnsovertls", interface, "no"],
        ["llmnr", interface, "no"],
        ["mdns", interface, "no"],
    ] {
        if let Err(why) = call(&setting) {
            log::debug!("{why}");
        }
    }
    Ok(())
}

/// Takes everything back.
///
/// # Errors
/// What `resolvectl` says, for one that the interface is gone.
pub(crate) fn revert(interface: &str) -> Result<(), String> {
    call(&["revert", interface])
}

fn call(words: &[&str]) -> Result<(), String> {
    let shown = format!("resolvectl {}", words.join(" "));
    let mut child = Command::new("resolvectl")
        .args(words)
        .env("SYSTEMD_PAGER", "")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(GLANCE),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{shown}: no answer in {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // It has ended, so all there is to read is in the pipe.
        let _ = stderr.take(512).read_to_string(&mut said);
    }
    Err(format!("{shown}: {}", said.lines().next().unwrap_or("failed")))
}
