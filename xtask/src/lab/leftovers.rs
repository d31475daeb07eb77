//! Removing what a run left behind: our own when interrupted, a dead run's at the next start.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::scratch::PREFIX;
use crate::command::output;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails once this run was told to stop, so that nothing new is made while things are being removed.
pub(super) fn still_running() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// From here on Ctrl-C and SIGTERM leave nothing behind.
pub(crate) fn clean_when_interrupted() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("\ninterrupted: removing namespaces and processes");
            remove(|owner| owner == std::process::id());
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Removes the namespaces, processes and folders of runs that no longer exist; returns how many things that were.
pub(crate) fn clean() -> usize {
    remove(|owner| owner != std::process::id() && !alive(owner))
}

fn alive(owner: u32) -> bool {
    // The id may be somebody else's by now.
    fs::read_to_string(format!("/proc/{owner}/comm")).is_ok_and(|name| name.trim() == "xtask")
}

fn remove(is_ours: impl Fn(u32) -> bool) -> usize {
    let names: Vec<String> = output(Command::new("ip").args(["netns", "list"]))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| owner(name).is_some_and(&is_ours))
        .map(str::to_owned)
        .collect();
    for name in &names {
        delete_namespace(name);
    }
    let folders: Vec<_> = fs::read_dir(std::env::temp_dir())
        .map(|list| list.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .filter(|path| {
            path.file_name()
                .and_then(|name| owner(&name.to_string_lossy()))
                .is_some_and(&is_ours)
        })
        .collect();
    for folder in &folders {
        let _ = fs::remove_dir_all(folder);
    }
    names.len() + folders.len()
}

/// Whether this run has nothing left: no namespace, no folder, no process that was started with a path in it.
pub(crate) fn nothing_of_ours() -> bool {
    let mine = format!("{PREFIX}{}", std::process::id());
    let namespaces = output(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    let processes =
        fs::read_dir("/proc").map(|list| list.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    let process = processes.unwrap_or_default().into_iter().any(|path| {
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&mine)
    });
    !namespaces.contains(&mine) && !std::env::temp_dir().join(&mine).exists() && !process
}

/// The process whose run made something of this name.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.split('-').next()?.parse().ok()
}

/// Where an agent keeps its files, in a folder for each namespace (`agent/src/place.rs`).
const RUNTIME: &str = "/run/ztna";

/// The folder that agents in the namespace have made, if any have.
pub(crate) fn runtime_folder(name: &str) -> Option<PathBuf> {
    let inode = fs::metadata(Path::new("/run/netns").join(name)).ok()?.ino();
    Some(Path::new(RUNTIME).join(format!("netns-{inode}")))
}

/// Ends every process in the namespace and removes it, with what its agents kept.
pub(super) fn delete_namespace(name: &str) {
    let folder = runtime_folder(name);
    let pids = output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter_map(Pid::from_raw)
    {
        // It may have ended by itself in the meantime.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = output(Command::new("ip").args(["netns", "delete", name]));
    if let Some(folder) = folder {
        // Most namespaces have none. The number of the namespace may soon be another's, who had better not find this.
        let _ = fs::remove_dir_all(folder);
    }
}
