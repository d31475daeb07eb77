//! The control socket of a running `ztna up`: one line of JSON asks, one line answers.
//!
//! Whoever may ask is decided by the kernel's word on the peer (`SO_PEERCRED`), not by file modes: the same user, or
//! root. Lines and times are bounded, so a bad peer costs a thread of its own two seconds, and the packet loop nothing.
//! The answer to `down` leaves the connection open: it closes when the process is gone, which is what `ztna down`
//! waits for.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use program::exit::Failure;
use program::settings::describe;
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// The version of requests and answers; a peer of another one is told so.
pub(crate) const VERSION: u32 = 1;

/// Longest request, and longest answer: a report of 1,024 services with long names.
const MAX_REQUEST: u64 = 4096;
const MAX_ANSWER: u64 = 4 << 20;

/// How long a request may take to arrive and an answer to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that wait for the end; the oldest gives way.
const WAITING: usize = 16;

/// Pause after the system had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// What does it do?
    Status,
    /// End in order.
    Down,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    command: Command,
}

/// What is answered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    version: u32,
    /// Why there is nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The answer to [`Command::Status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Report>,
}

/// What a request is put to.
pub(crate) trait Station: Send + 'static {
    /// What it does now.
    fn status(&self) -> Result<Report, String>;

    /// Asks for the orderly end.
    fn end(&self) -> Result<(), String>;
}

/// A control socket; its file goes when this goes.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    file: SocketFile,
}

/// The name of a socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listening {
    /// Listens at `path`. A socket there that nobody answers at is a leftover: the caller holds the lock.
    ///
    /// # Errors
    /// If the name is taken by something else, or cannot be had.
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let refuse = |why: &str| Failure::Start(format!("control: {shown}: {why}; choose another path"));
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => {
                use std::os::unix::fs::FileTypeExt as _;
                if !metadata.file_type().is_socket() {
                    return Err(refuse("exists and is no socket"));
                }
                if UnixStream::connect(path).is_ok() {
                    return Err(refuse("another process answers there"));
                }
                std::fs::remove_file(path).map_err(|error| refuse(&describe(&error)))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refuse(&describe(&error))),
        }
        let listener = UnixListener::bind(path).map_err(|error| refuse(&describe(&error)))?;
        let file = SocketFile(path.to_path_buf());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| refuse(&describe(&error)))?;
        Ok(Self { listener, file })
    }

    /// Answers on a thread of its own until the process ends; the file stays as long as what is returned.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn serve(self, station: impl Station) -> io::Result<SocketFile> {
        let Self { listener, file } = self;
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let mut waiting = Vec::new();
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            // A client that breaks off is its own affair.
                            if let Ok(Some(stream)) = attend(stream, &station) {
                                if waiting.len() >= WAITING {
                                    waiting.remove(0);
                                }
                                waiting.push(stream);
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => std::thread::sleep(PAUSE),
                    }
                }
            })?;
        Ok(file)
    }
}

/// Answers one request; the stream comes back if it is to stay open.
fn attend(stream: UnixStream, station: &impl Station) -> io::Result<Option<UnixStream>> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    let ours = rustix::process::geteuid();
    if !(peer.uid.is_root() || peer.uid == ours) {
        log::warn!("user {} may not use the control socket", peer.uid.as_raw());
        return Ok(None);
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = read_line(&stream, MAX_REQUEST, Instant::now() + PATIENCE)?;
    let (answer, stays) = answer(&line, station);
    write_line(&stream, &answer)?;
    Ok(stays.then_some(stream))
}

/// The answer, and whether the connection stays open to show the end.
fn answer(line: &[u8], station: &impl Station) -> (Answer, bool) {
    let error = |text: String| Answer {
        version: VERSION,
        error: Some(text),
        status: None,
    };
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(_) => return (error("not a request".to_owned()), false),
    };
    if request.version != VERSION {
        let text = format!(
            "version {} of the request is not known; this is {VERSION}",
            request.version
        );
        return (error(text), false);
    }
    match request.command {
        Command::Status => match station.status() {
            Ok(report) => {
                let answer = Answer {
                    version: VERSION,
                    error: None,
                    status: Some(report),
                };
                (answer, false)
            }
            Err(text) => (error(text), false),
        },
        Command::Down => match station.end() {
            Ok(()) => {
                let answer = Answer {
                    version: VERSION,
                    ..Answer::default()
                };
                (answer, true)
            }
            Err(text) => (error(text), false),
        },
    }
}

/// Asks the process at `path`; the answer comes with the connection and the other side's process id. `None` if nobody
/// is there.
///
/// # Errors
/// If there is somebody who gives no answer, or one that says why not.
pub(crate) fn ask(path: &Path, command: Command) -> Result<Option<(Answer, UnixStream, i32)>, Failure> {
    let shown = path.display();
    let failed = |error: io::Error| Failure::Run(format!("{shown}: {}", describe(&error)));
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => {
            let is = |kind| error.kind() == kind;
            if is(io::ErrorKind::NotFound) || is(io::ErrorKind::ConnectionRefused) {
                return Ok(None);
            }
            if is(io::ErrorKind::PermissionDenied) {
                return Err(Failure::Start(format!(
                    "{shown}: it belongs to another user; ask as that user, or as root"
                )));
            }
            return Err(failed(error));
        }
    };
    let pid = rustix::net::sockopt::socket_peercred(&stream)
        .map_err(|error| failed(error.into()))?
        .pid
        .as_raw_nonzero()
        .get();
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = Request {
        version: VERSION,
        command,
    };
    write_line(&stream, &request).map_err(failed)?;
    // The station itself may wait a second for the packet loop.
    let line = read_line(&stream, MAX_ANSWER, Instant::now() + 2 * PATIENCE).map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&line).map_err(|_| {
        Failure::Run(format!(
            "{shown}: the answer cannot be understood (another version?)"
        ))
    })?;
    match answer.error {
        Some(error) => Err(Failure::Run(format!("{shown}: {error}"))),
        None => Ok(Some((answer, stream, pid))),
    }
}

fn write_line(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads to the first newline, or to the end, within a length and until a deadline, however slowly bytes come.
fn read_line(mut stream: &UnixStream, max: u64, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Ok(line),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..count).unwrap_or_default();
        let end = read.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(read.get(..end.unwrap_or(count)).unwrap_or_default());
        if line.len() as u64 > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests;
