//! Where a running `ztna up` keeps what others must find: its lock, its control socket, its journal.
//!
//! Interface names belong to a network namespace, so files do as well: the namespace of process 1 has `/run/ztna`,
//! every other one, or one that cannot be compared, a folder of its own below it. Who may not write there has a folder in his runtime directory. The
//! lock says who is running: the kernel gives it back however a process ends.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use program::exit::Failure;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Where root keeps it.
const SYSTEM: &str = "/run/ztna";

/// How often a lock that is waited for is looked at: there is no way to wait for one with a limit.
const GLANCE: Duration = Duration::from_millis(20);

/// The files of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Held by the process that is up; its number stands in it.
    pub(crate) lock: PathBuf,
    /// The control socket.
    pub(crate) control: PathBuf,
    /// What was changed on the host.
    pub(crate) journal: PathBuf,
}

impl Place {
    fn below(directory: &Path, interface: &str, control: Option<&Path>) -> Self {
        let file = |suffix: &str| directory.join(format!("{interface}.{suffix}"));
        Self {
            lock: file("lock"),
            control: control.map_or_else(|| file("sock"), Path::to_path_buf),
            journal: file("journal"),
        }
    }

    /// For `ztna up`: the first folder that this process may write to, made if it is not there.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn make(interface: &str, control: Option<&Path>) -> Result<Self, Failure> {
        let mut last = None;
        for directory in candidates() {
            match prepare(&directory) {
                Ok(()) => return Ok(Self::below(&directory, interface, control)),
                Err(error) => last = Some((directory, error)),
            }
        }
        Err(match last {
            Some((directory, error)) => Failure::Start(format!(
                "cannot use {}: {}; make it writable for this user, or set XDG_RUNTIME_DIR",
                directory.display(),
                program::settings::describe(&error)
            )),
            None => Failure::Start("there is no folder for runtime files; set XDG_RUNTIME_DIR".to_owned()),
        })
    }

    /// For `ztna status` and `ztna down`: the first folder in which a `ztna up` left something, else the first.
    pub(crate) fn find(interface: &str, control: Option<&Path>) -> Self {
        let places = || candidates().map(|directory| Self::below(&directory, interface, control));
        places()
            .find(|place| place.lock.exists() || place.journal.exists())
            .or_else(|| places().next())
            .unwrap_or_else(|| Self::below(Path::new(SYSTEM), interface, control))
    }
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let own = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|folder| PathBuf::from(folder).join("ztna"))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("ztna-{user}")));
    let system = Some(PathBuf::from(SYSTEM));
    let own = (user != 0).then_some(own);
    system
        .into_iter()
        .chain(own)
        .map(|folder| match foreign_namespace() {
            Some(inode) => folder.join(format!("netns-{inode}")),
            None => folder,
        })
}

/// The number of this process's network namespace, unless it is known to be the one of process 1.
fn foreign_namespace() -> Option<u64> {
    let ours = std::fs::metadata("/proc/self/ns/net").ok()?.ino();
    // Whoever may not look there cannot tell, and had better not meet somebody else's.
    let usual = std::fs::metadata("/proc/1/ns/net")
        .ok()
        .map(|metadata| metadata.ino());
    (usual != Some(ours)).then_some(ours)
}

/// Makes the folder, for its owner to write and everybody to see; one that belongs to somebody else is not used.
fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let metadata = std::fs::symlink_metadata(directory)?;
    let is_ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::from(Errno::ACCESS));
    }
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)?;
    Ok(())
}

/// The lock of an interface, held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it; its number, if it wrote one.
    Held(Option<u32>),
    /// The file cannot be had.
    File(io::Error),
}

impl Lock {
    /// Takes it and writes this process's number into it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(LockError::File)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Without the number it is still held.
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Held(text.trim().parse().ok()));
            }
            Err(error) => return Err(LockError::File(error.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(LockError::File)?;
        Ok(Self(file))
    }

    /// Takes it as soon as whoever has it lets go, within `patience`.
    pub(crate) fn within(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::take(path) {
                Err(LockError::Held(_)) if Instant::now() < deadline => std::thread::sleep(GLANCE),
                taken => return taken,
            }
        }
    }
}

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(Some(pid)) => write!(f, "held by process {pid}"),
            Self::Held(None) => f.write_str("held by another process"),
            Self::File(error) => f.write_str(&program::settings::describe(error)),
        }
    }
}

#[cfg(test)]
mod tests;
