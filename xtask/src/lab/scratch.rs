//! One folder for everything a run writes: logs, keys, configurations.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What the names of our folders and namespaces begin with; the process id follows.
pub(crate) const PREFIX: &str = "ztna-lab-";

/// A folder that goes when this goes, unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes `name` in this run's folder.
    pub(crate) fn new(name: &str, keep: bool) -> Result<Self> {
        let path = std::env::temp_dir()
            .join(format!("{PREFIX}{}", std::process::id()))
            .join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A folder that cannot be removed now is removed by the next run's clean-up.
        let _ = fs::remove_dir_all(&self.path);
        // Succeeds for the last one only.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}
