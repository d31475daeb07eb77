//! The bytes of one direction of a connection, and the budget that all connections of a stack share.
//!
//! A [`Ring`] begins without memory, doubles while bytes come in faster than they go, and gives everything back when its
//! owner says that the connection rests. What it holds is counted against a [`Budget`]: where that is used up a ring
//! stays as it is, but its first [`FLOOR`] bytes are always granted, so that every connection makes progress.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The least memory of a ring that holds anything.
pub(super) const FLOOR: usize = 4096;

/// The memory that the buffers of many connections share. Clones count against the same limit.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    denied: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            limit,
            used: AtomicUsize::new(0),
            denied: AtomicU64::new(0),
        }))
    }

    /// The bytes that buffers hold now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How often a buffer was not allowed to grow.
    pub fn denied(&self) -> u64 {
        self.0.denied.load(Ordering::Relaxed)
    }

    /// How large one buffer may become now: half of what is left, so that many can grow and none takes all.
    pub(super) fn share(&self) -> usize {
        (self.0.limit.saturating_sub(self.used()) / 2).max(FLOOR)
    }

    fn take(&self, bytes: usize, always: bool) -> bool {
        let used = self.used();
        if !always && used.saturating_add(bytes) > self.0.limit {
            self.0.denied.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    fn give(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A queue of bytes. Its capacity is a power of two, or nothing.
pub(super) struct Ring {
    bytes: Vec<u8>,
    head: usize,
    len: usize,
    budget: Budget,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("len", &self.len)
            .field("capacity", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Ring {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            len: 0,
            budget,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// How large the ring may become now.
    pub(super) fn allowed(&self) -> usize {
        self.bytes.len().max(self.budget.share())
    }

    /// Whether the ring can hold `wanted` bytes, after growing if need be.
    pub(super) fn reserve(&mut self, wanted: usize) -> bool {
        let old = self.bytes.len();
        if wanted <= old {
            return true;
        }
        let new = wanted.next_power_of_two().max(FLOOR);
        if !self.budget.take(new - old, new == FLOOR) {
            return false;
        }
        self.resize(new);
        true
    }

    /// Gives back what is not needed for the first `keep` bytes; these include what was written ahead.
    pub(super) fn shrink(&mut self, keep: usize) {
        let old = self.bytes.len();
        let keep = keep.max(self.len);
        let new = match keep {
            0 => 0,
            keep => keep.next_power_of_two().max(FLOOR),
        };
        if new < old {
            self.resize(new);
            self.budget.give(old - new);
        }
    }

    /// Whether [`Ring::shrink`] would free something.
    pub(super) fn has_slack(&self, keep: usize) -> bool {
        let needed = match keep.max(self.len) {
            0 => 0,
            keep => keep.next_power_of_two().max(FLOOR),
        };
        needed < self.bytes.len()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.shrink(0);
    }

    fn resize(&mut self, new: usize) {
        let mut bytes = vec![0; new];
        let (first, second) = self.pieces(0, self.bytes.len().min(new));
        let (left, right) = bytes.split_at_mut(first.len());
        left.copy_from_slice(first);
        right[..second.len()].copy_from_slice(second);
        self.bytes = bytes;
        self.head = 0;
    }

    fn position(&self, offset: usize) -> usize {
        (self.head + offset) & self.bytes.len().wrapping_sub(1)
    }

    /// `len` bytes from `offset` of the front; they lie within the capacity.
    pub(super) fn pieces(&self, offset: usize, len: usize) -> (&[u8], &[u8]) {
        if len == 0 {
            return (&[], &[]);
        }
        let from = self.position(offset);
        let first = len.min(self.bytes.len() - from);
        (&self.bytes[from..from + first], &self.bytes[..len - first])
    }

    /// Writes at `offset` of the front, possibly ahead of what the ring counts as held. The room was reserved.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let from = self.position(offset);
        let first = data.len().min(self.bytes.len() - from);
        let (left, right) = data.split_at(first);
        self.bytes[from..from + first].copy_from_slice(left);
        self.bytes[..right.len()].copy_from_slice(right);
    }

    /// Counts so many more bytes, already written, as held.
    pub(super) fn extend(&mut self, count: usize) {
        self.len = (self.len + count).min(self.bytes.len());
    }

    /// The bytes in front, as far as they lie in one piece.
    pub(super) fn front(&self) -> &[u8] {
        self.pieces(0, self.len).0
    }

    /// The room behind the last byte, as far as it lies in one piece and the ring holds no more than `limit`.
    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        let free = limit.min(self.bytes.len()).saturating_sub(self.len);
        if free == 0 {
            return &mut [];
        }
        let from = self.position(self.len);
        let to = (from + free).min(self.bytes.len());
        &mut self.bytes[from..to]
    }

    /// Drops bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        if count > 0 {
            self.head = self.position(count);
            self.len -= count;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.budget.give(self.bytes.len());
    }
}
