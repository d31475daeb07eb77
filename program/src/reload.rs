//! Settings read again while the program runs: at SIGHUP, and when the file has another content.
//!
//! A thread of its own reads and parses, so that packets do not wait; what is new reaches the machine by a command. A bad
//! file changes nothing: what ran before keeps running, and one line says what to put right. The file's content is
//! compared, not its date or its inode, so that a rename over it and the symbolic links of Kubernetes are noticed alike; a
//! content counts when it has been the same for two looks, so that a half-written file is none.
//!
//! To use it, a program starts a [`Reload`] where it has a `CommandSender`, with a closure that loads and parses its
//! settings, hands them to its machine (`commands.send(|context| context.machine.reconfigure(…))`) and returns what it
//! did; it calls [`Reload::wanted`] at `Notice::Reload`, sets `Snapshot::RELOADS`, and calls [`write()`] in
//! `Snapshot::write`.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::metrics::Exposition;
use crate::settings::SettingsError;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(500);

/// As much of a file is compared as may be a configuration.
const MOST: u64 = 1 << 20;

/// Reloads of this process, for its metrics.
static SUCCEEDED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static LAST_SUCCESS: AtomicU64 = AtomicU64::new(0);

/// Reads the settings again, hands them on, and says in a few words what has changed.
pub type Attempt = Box<dyn FnMut() -> Result<String, SettingsError> + Send>;

/// Asks for a reload; the thread behind it ends with it.
#[derive(Clone, Debug)]
pub struct Reload(Option<SyncSender<()>>);

impl Reload {
    /// Starts the thread. Without a file, only [`Reload::wanted`] has an effect.
    pub fn start(file: Option<PathBuf>, attempt: Attempt) -> Self {
        let (sender, wanted) = mpsc::sync_channel(1);
        // Looked at before the thread runs: what is written in between is news.
        let loaded = file.as_deref().and_then(fingerprint);
        let spawned = std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || watch(file.as_deref(), loaded, &wanted, attempt));
        match spawned {
            Ok(_) => Self(Some(sender)),
            Err(error) => {
                log::error!("cannot watch the configuration: {error}");
                Self(None)
            }
        }
    }

    /// Somebody asked for it, by SIGHUP say. Cheap, never blocks.
    pub fn wanted(&self) {
        if let Some(sender) = &self.0 {
            // A full channel has a request already.
            let _ = sender.try_send(());
        }
    }
}

/// Writes what became of the reloads so far.
pub fn write(text: &mut Exposition) {
    text.by_result(
        "ztna_config_reload_total",
        "Reloads of the configuration, by result.",
        &[
            ("success", SUCCEEDED.load(Ordering::Relaxed)),
            ("failure", FAILED.load(Ordering::Relaxed)),
        ],
    );
    text.gauge(
        "ztna_config_last_reload_success_timestamp_seconds",
        "When the configuration was last reloaded, in seconds since 1970; 0 for never.",
        LAST_SUCCESS.load(Ordering::Relaxed),
    );
}

fn watch(file: Option<&Path>, mut loaded: Option<u64>, wanted: &Receiver<()>, mut attempt: Attempt) {
    let look = || file.and_then(fingerprint);
    let mut seen = loaded;
    loop {
        match wanted.recv_timeout(LOOK) {
            Ok(()) => {
                loaded = look();
                seen = loaded;
                try_once(&mut attempt);
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = look();
                // A file that is not there for a moment is one that is being replaced.
                let settled = now.is_some() && now == seen;
                seen = now;
                if settled && now != loaded {
                    loaded = now;
                    try_once(&mut attempt);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn try_once(attempt: &mut Attempt) {
    match attempt() {
        Ok(changes) => {
            SUCCEEDED.fetch_add(1, Ordering::Relaxed);
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            LAST_SUCCESS.store(now.map_or(0, |now| now.as_secs()), Ordering::Relaxed);
            log::info!("configuration reloaded: {changes}");
        }
        Err(error) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
            log::error!("configuration not reloaded, the one before keeps running: {error}");
        }
    }
}

/// Tells contents apart; `None` if there is none to read.
fn fingerprint(path: &Path) -> Option<u64> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MOST + 1).read_to_end(&mut content).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests;
