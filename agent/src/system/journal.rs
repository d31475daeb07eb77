//! The journal: what was changed on this host and how it was before, on disk before the change is made.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::resolv_conf::Original;

/// A journal larger than this is none.
const MAX: u64 = 4 << 20;

/// What one `ztna up` changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Of which version of the program this is the journal: fields are added, never changed.
    pub(crate) version: u32,
    /// Its interface.
    pub(crate) interface: String,
    /// A `resolv.conf` in which we stand.
    #[serde(default)]
    pub(crate) resolv_conf: Option<ResolvConf>,
    /// Whether systemd-resolved was told about the interface.
    #[serde(default)]
    pub(crate) resolved: bool,
}

/// A `resolv.conf` and how it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvConf {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How it was.
    pub(crate) original: Original,
}

impl Journal {
    /// Without a change.
    pub(crate) fn new(interface: &str) -> Self {
        Self {
            version: 1,
            interface: interface.to_owned(),
            resolv_conf: None,
            resolved: false,
        }
    }

    /// Replaces the file, whole or not at all, and returns when it would outlive a power cut.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("journal.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_folder(path)
    }

    /// The journal there, if there is one.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "too large for a journal",
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let bytes = std::fs::read(path)?;
        serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
    }

    /// Removes it; one that is gone already is as good.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => sync_folder(path),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
