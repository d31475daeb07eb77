//! A process in a namespace: started with its output in a file, awaited by what it says, ended when dropped.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{leftovers, wait_until};

/// Lines of a log that an error quotes.
const QUOTED: usize = 12;

/// One running (or ended) process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, whose output goes to `folder/name.log` after what an earlier process of that name wrote.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        leftovers::still_running()?;
        let log = unused(folder, name);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let stdin = child.stdin.take();
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            stdin,
            ended: None,
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> Result<bool> {
        Ok(self.poll()?.is_none())
    }

    /// Waits for a line that contains `needle` and returns it, with the time it took. An early end is an error.
    pub(crate) fn wait_for(&mut self, needle: &str, patience: Duration) -> Result<(String, Duration)> {
        let what = format!("{} to say {needle:?}", self.name);
        let found = wait_until(&what, patience, || {
            // Asked first: what it said before it ended is in the log by the time the log is read.
            let ended = self.poll()?;
            if let Some(line) = self.log().lines().find(|line| line.contains(needle)) {
                return Ok(Some(line.to_owned()));
            }
            match ended {
                Some(status) => bail!("{} ended ({status}) without saying {needle:?}", self.name),
                None => Ok(None),
            }
        });
        found.map_err(|error| self.quote(&error))
    }

    /// Writes a line to its standard input.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("nobody listens any more")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} does not listen", self.name))
    }

    /// Closes its standard input, which ends the instruments, and waits for the end.
    pub(crate) fn hang_up(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.stdin = None;
        self.wait(patience)
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.poll()?.is_some() {
            bail!("{} has ended already", self.name);
        }
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let found = wait_until(&what, patience, || self.poll());
        found
            .map(|(status, _)| status)
            .map_err(|error| self.quote(&error))
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// The end of the log, indented, under its name.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let mut text = format!("\n      --- {}", self.name);
        for line in lines
            .get(lines.len().saturating_sub(QUOTED)..)
            .unwrap_or_default()
        {
            text.push_str("\n      | ");
            text.push_str(line);
        }
        text
    }

    /// The error with the end of the log.
    fn quote(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{error:#}{}", self.last_words())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of `name.log`, `name.2.log`, … that does not exist.
fn unused(folder: &Path, name: &str) -> PathBuf {
    let first = folder.join(format!("{name}.log"));
    if !first.exists() {
        return first;
    }
    (2..)
        .map(|turn: u32| folder.join(format!("{name}.{turn}.log")))
        .find(|path| !path.exists())
        .unwrap_or(first)
}
