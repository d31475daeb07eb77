//! Short UDP payloads that wait, in memory that is allocated once: whoever sends them costs nothing.

use crate::machine::FourTuple;

/// Payloads that may wait at one time; further ones are dropped and counted.
pub const STATELESS_SLOTS: usize = 64;

/// The longest of them: a Retry with its token.
const ENTRY_LEN: usize = 256;

#[derive(Debug)]
struct Entry {
    path: Option<FourTuple>,
    len: usize,
    bytes: [u8; ENTRY_LEN],
}

/// A ring of payloads, each with its path.
#[derive(Debug)]
pub(super) struct Ring {
    ring: Vec<Entry>,
    first: usize,
    len: usize,
}

impl Ring {
    pub(super) fn new(enabled: bool) -> Self {
        let slots = if enabled { STATELESS_SLOTS } else { 0 };
        let ring = (0..slots)
            .map(|_| Entry {
                path: None,
                len: 0,
                bytes: [0; ENTRY_LEN],
            })
            .collect();
        Self {
            ring,
            first: 0,
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `write` fill the next free place; `false` if there is none or nothing was written.
    pub(super) fn push(
        &mut self,
        path: FourTuple,
        write: impl FnOnce(&mut [u8; ENTRY_LEN]) -> Option<usize>,
    ) -> bool {
        let capacity = self.ring.len();
        if self.len == capacity {
            return false;
        }
        let Some(entry) = self.ring.get_mut((self.first + self.len) % capacity) else {
            return false;
        };
        let Some(len) = write(&mut entry.bytes) else {
            return false;
        };
        entry.path = Some(path);
        entry.len = len.min(ENTRY_LEN);
        self.len += 1;
        true
    }

    /// Copies the oldest entry into `out`.
    pub(super) fn pop(&mut self, out: &mut [u8]) -> Option<(usize, FourTuple)> {
        if self.len == 0 {
            return None;
        }
        let entry = self.ring.get(self.first)?;
        self.first = (self.first + 1) % self.ring.len();
        self.len -= 1;
        let path = entry.path?;
        out.get_mut(..entry.len)?
            .copy_from_slice(&entry.bytes[..entry.len]);
        Some((entry.len, path))
    }
}
