//! A small internet inside the machine: namespaces, cables, a firewall, and processes in them.
//!
//! This half knows networks and processes and nothing of the product; [`world`] puts the product into it. Everything made
//! here disappears when its owner is dropped, when the run is interrupted, and, should the machine have been cruel, at
//! the next start.

pub(crate) mod behind;
pub(crate) mod leftovers;
pub(crate) mod namespace;
pub(crate) mod nat;
pub(crate) mod neighbourhood;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod scratch;
pub(crate) mod site;
pub(crate) mod transfer;
pub(crate) mod wire;
pub(crate) mod world;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often something that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, and returns it with the time it took; what never comes is an error named `what`.
pub(crate) fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let started = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok((found, started.elapsed()));
        }
        if started.elapsed() > patience {
            bail!("waited {} s for {what}", patience.as_secs_f32());
        }
        thread::sleep(GLANCE);
    }
}

/// Whether this machine can hold the laboratory; otherwise why not.
pub(crate) fn obstacle() -> Option<String> {
    if !crate::command::is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let lacking = match crate::prerequisites::ensure(crate::prerequisites::Purpose::Lab) {
        Ok(lacking) => lacking,
        Err(error) => return Some(format!("{error:#}")),
    };
    if !lacking.is_empty() {
        return Some(format!(
            "missing packages; install with: {}",
            crate::prerequisites::advice(&lacking)
        ));
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    None
}
