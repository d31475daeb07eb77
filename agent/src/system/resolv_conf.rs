//! `resolv.conf`: what stands in it, what we put there, and how it is put back.
//!
//! We are the only server in ours: a second one would be asked as soon as we do not answer at once, or at the same time
//! (musl), and would be told private names. Search list and options stay. The first line says whose file it is, so that
//! nobody's later version is ever overwritten with an old one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A file larger than this is no `resolv.conf`.
const MAX: u64 = 64 << 10;

/// Everybody reads it.
pub(crate) const MODE: u32 = 0o644;

/// The beginning of the first line of ours; the interface follows.
const MARK: &str = "# ztna up: ";

/// The servers that the C library looks at (`MAXNS`).
const SERVERS: usize = 3;

const PORT: u16 = 53;

/// How a `resolv.conf` was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Original {
    /// There was none.
    #[default]
    Absent,
    /// A symbolic link to this.
    Link(PathBuf),
    /// A file with this text and mode.
    File(String, u32),
}

impl Original {
    /// What is at `path`, and the text that is read there.
    ///
    /// # Errors
    /// If it cannot be read, or is no text.
    pub(crate) fn read(path: &Path) -> io::Result<(Self, String)> {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(error),
        };
        let text = match read_text(path) {
            // A link to what a service will make when it starts.
            Err(error) if error.kind() == io::ErrorKind::NotFound && metadata.is_symlink() => String::new(),
            read => read?,
        };
        if metadata.is_symlink() {
            return Ok((Self::Link(std::fs::read_link(path)?), text));
        }
        Ok((
            Self::File(text.clone(), metadata.permissions().mode() & 0o7777),
            text,
        ))
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "too large for a resolv.conf",
        ));
    }
    Ok(text)
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(Option<(u64, u64, i64, i64, u64)>);

impl Seen {
    /// The state now.
    pub(crate) fn of(path: &Path) -> Self {
        // Of what a link leads to as well: a service may rewrite that.
        let of = |m: std::fs::Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size());
        Self(std::fs::metadata(path).ok().map(of))
    }
}

/// Whose file it is, if it is one of ours: the name of an interface.
pub(crate) fn owner(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix(MARK)?.split_whitespace().next()
}

/// The servers in it, as the C library reads them.
pub(crate) fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_whitespace().next())
        .filter_map(server)
        .take(SERVERS)
        .collect()
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = text.split_once('%') {
        let index = rustix::net::netdevice::name_to_index(any_socket()?, scope).ok();
        let index = index.or_else(|| scope.parse().ok())?;
        return Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into());
    }
    Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT))
}

/// The kernel wants a socket, whichever, to be asked about interfaces.
fn any_socket() -> Option<std::os::unix::net::UnixDatagram> {
    std::os::unix::net::UnixDatagram::unbound().ok()
}

/// The text with us as the only server.
pub(crate) fn ours(text: &str, interface: &str, listen: IpAddr) -> String {
    let mut ours = format!(
        "{MARK}{interface} answers names below .ztna and sends other questions on to the servers below.\n\
         # The file is put back when it ends; `ztna down --tun-name {interface}` does so if it was killed.\n\
         nameserver {listen}\n"
    );
    // What an earlier `ztna up` left is no part of the original.
    let is_comment_of_ours = |line: &&str| owner(text).is_some() && line.starts_with('#');
    for line in text.lines().filter(|line| !is_comment_of_ours(line)) {
        if line.starts_with("nameserver") {
            ours.push_str("# ");
        }
        ours.push_str(line);
        ours.push('\n');
    }
    ours
}

/// Replaces the file. Where it cannot be replaced whole, because something is mounted on it as in a container, its
/// contents are.
///
/// # Errors
/// If neither can be done.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = beside(path);
    let replaced = create(&beside, text, mode).and_then(|()| std::fs::rename(&beside, path));
    let Err(error) = replaced else {
        return Ok(());
    };
    let _ = std::fs::remove_file(&beside);
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if is_link || !is_immovable(&error) {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // A leftover of a process that was killed in between.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether the error says that the file itself cannot be moved, or its folder not be written to.
fn is_immovable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BUSY | Errno::XDEV | Errno::ACCESS | Errno::PERM | Errno::ROFS)
    )
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("conf.ztna")
}

/// Puts the original back if the file is still ours, and says whether it was.
///
/// # Errors
/// If it is, and cannot be put back.
pub(crate) fn put_back(path: &Path, original: &Original, interface: &str) -> io::Result<bool> {
    let (_, text) = Original::read(path)?;
    if owner(&text) != Some(interface) {
        return Ok(false);
    }
    match original {
        Original::File(text, mode) => write(path, text, *mode)?,
        Original::Absent => std::fs::remove_file(path)?,
        Original::Link(target) => {
            let beside = beside(path);
            let _ = std::fs::remove_file(&beside);
            std::os::unix::fs::symlink(target, &beside)?;
            std::fs::rename(&beside, path)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
