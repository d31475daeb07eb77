//! What happened in a world: a hash of everything, and the last of it in words.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

/// How many entries are kept in words.
const KEPT: usize = 300;

/// A hash that is the same on every machine and in every run (FNV-1a, 64 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes, and their number so that neighbours cannot trade them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.raw(&(bytes.len() as u64).to_le_bytes());
        self.raw(bytes);
    }

    /// Adds a value as its `Debug` form shows it.
    pub fn debug(&mut self, value: &dyn Debug) {
        // Hashing cannot fail.
        let _ = write!(self, "{value:?};");
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }

    fn raw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.raw(text.as_bytes());
        Ok(())
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A datagram left a host.
    Sent {
        /// The sender, as the network sees it.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
        /// Bytes of payload.
        len: usize,
        /// The hash of the payload.
        payload: u64,
    },
    /// The network dropped a datagram.
    Dropped {
        /// The sender.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
        /// Why.
        why: &'static str,
    },
    /// One or more datagrams reached a host in one batch.
    Arrived {
        /// The sender.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
        /// Bytes in all.
        len: usize,
    },
    /// A machine was woken by its own deadline.
    Woken {
        /// The host.
        host: String,
        /// The reason it gave.
        why: String,
    },
    /// A machine had something for its own side: the hash of it.
    Local {
        /// The host.
        host: String,
        /// The hash of what it was.
        what: u64,
    },
    /// A fault or another action of the scenario.
    Action(String),
}

/// The record of a world.
#[derive(Debug, Default)]
pub struct Trace {
    digest: Digest,
    recent: VecDeque<(Duration, Entry)>,
    count: u64,
}

impl Trace {
    pub(super) fn record(&mut self, at: Duration, entry: Entry) {
        self.digest.raw(&at.as_nanos().to_le_bytes());
        self.digest.debug(&entry);
        self.count += 1;
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((at, entry));
    }

    /// The hash of everything that has happened: equal for equal runs.
    pub fn hash(&self) -> u64 {
        self.digest.value()
    }

    /// How many things have happened.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the last {} of {} events, hash {:016x}:",
            self.recent.len(),
            self.count,
            self.hash()
        )?;
        for (at, entry) in &self.recent {
            write!(f, "{:>14.6} s  ", at.as_secs_f64())?;
            match entry {
                Entry::Sent {
                    from,
                    to,
                    len,
                    payload,
                } => {
                    writeln!(f, "{from} -> {to} sent {len} bytes #{:04x}", payload & 0xffff)?;
                }
                Entry::Dropped { from, to, why } => writeln!(f, "{from} -> {to} dropped: {why}")?,
                Entry::Arrived { from, to, len } => writeln!(f, "{from} -> {to} arrived, {len} bytes")?,
                Entry::Woken { host, why } => writeln!(f, "{host} woken: {why}")?,
                Entry::Local { host, what } => writeln!(f, "{host} gave out #{:04x}", what & 0xffff)?,
                Entry::Action(what) => writeln!(f, "*** {what}")?,
            }
        }
        Ok(())
    }
}
