//! The guard: a child process that outlives a `ztna up` that is killed, and works its journal off.
//!
//! It holds one end of a pipe and nothing else: no socket, no interface. The kernel closes the other end however the
//! parent ends. It has a session of its own and ignores the signals that end its parent, or they would end both. A
//! journal that is gone by then, or that somebody else works off, is none of its business.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use program::exit::Failure;

use crate::place::{Lock, LockError, Place};

/// How long the parent's lock may take to come free once its pipe is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of which `ztna up`.
#[derive(Clone, Debug, clap::Args)]
pub struct GuardArgs {
    /// Its lock
    #[arg(long)]
    pub lock: PathBuf,

    /// Its journal
    #[arg(long)]
    pub journal: PathBuf,
}

/// A guard that waits for the end of this process. Dropped, it is let go, and awaited: without a journal it ends at once.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts one, and returns when it is on its own feet.
    pub(super) fn start(place: &Place) -> io::Result<Self> {
        // Itself, also when its file was replaced in the meantime.
        let mut child = Command::new("/proc/self/exe")
            .arg("guard")
            .arg("--lock")
            .arg(&place.lock)
            .arg("--journal")
            .arg(&place.journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != READY {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other("it did not start"));
        }
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

const READY: &str = "ready";

/// `ztna guard`.
pub(crate) fn run(args: &GuardArgs) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Run(format!("guard: {error}"));
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGQUIT,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&ignored)).map_err(failed)?;
    }
    // It fails for the leader of a group, which a shell makes of it: then it has a group of its own at least.
    let _ = rustix::process::setsid();
    // Whatever the parent's folder is on can be unmounted.
    let _ = std::env::set_current_dir("/");
    {
        let mut stdout = io::stdout();
        writeln!(stdout, "{READY}")
            .and_then(|()| stdout.flush())
            .map_err(failed)?;
    }
    wait_for_the_end();
    if !args.journal.exists() {
        return Ok(());
    }
    let place = Place {
        lock: args.lock.clone(),
        control: PathBuf::new(),
        journal: args.journal.clone(),
    };
    let _lock = match Lock::within(&place.lock, PATIENCE) {
        Ok(lock) => lock,
        // The next `ztna up`, which does the same.
        Err(LockError::Held(_)) => return Ok(()),
        Err(LockError::File(error)) => return Err(failed(error)),
    };
    super::restore(&place).map(drop)
}

/// Reads until the parent's end of the pipe is closed.
fn wait_for_the_end() {
    let mut stdin = io::stdin();
    let mut nothing = [0; 16];
    loop {
        match stdin.read(&mut nothing) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
