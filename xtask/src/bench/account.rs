//! What a process has cost, as the kernel accounts for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The ids of a process's threads.
fn threads(pid: u32) -> Result<Vec<u32>> {
    let folder =
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    Ok(folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// CPU time of all threads, user and system together.
///
/// It is the sum that `utime` and `stime` of `/proc/PID/stat` are scaled to, in nanoseconds where those are in hundredths
/// of a second: at 20,000 packets a second a hundredth would be a tenth of the result.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for thread in threads(pid)? {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
        let running: u64 = text
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        total += running;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it ever was.
pub(crate) fn most_resident(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, which: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .with_context(|| format!("no {which}"))?;
    let kibibytes: u64 = line
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .context("no number")?;
    Ok(kibibytes * 1024)
}

/// Lets a process run on these processors only; those that the machine does not have are left out.
pub(super) fn pin(pid: u32, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    for thread in threads(pid)? {
        let id = i32::try_from(thread).ok().and_then(Pid::from_raw);
        // A thread that has just ended needs no place.
        let _ = sched_setaffinity(id, &set);
    }
    Ok(())
}
