//! The CRYPTO stream of one packet number space: an ordered, reliable byte stream of handshake messages.

use std::collections::VecDeque;

use super::ranges::Ranges;

/// Most bytes of handshake that are taken from a peer in one space: room for any chain of certificates.
const MAX_RECEIVED: u64 = 1 << 16;

/// Both directions of a CRYPTO stream.
#[derive(Debug)]
pub(super) struct CryptoStream {
    sent: Vec<u8>,
    /// Ranges of `sent` that are to go into packets, again or for the first time.
    queue: VecDeque<(usize, usize)>,
    received: Vec<u8>,
    filled: Ranges,
    /// How much of `received` has been read as messages.
    read: usize,
}

impl CryptoStream {
    pub(super) fn new() -> Self {
        Self {
            sent: Vec::new(),
            queue: VecDeque::new(),
            received: Vec::new(),
            filled: Ranges::new(64),
            read: 0,
        }
    }

    /// Appends a message, with its length before it.
    pub(super) fn push_message(&mut self, message: &[u8]) {
        let start = self.sent.len();
        self.sent.extend_from_slice(&(message.len() as u32).to_be_bytes());
        self.sent.extend_from_slice(message);
        self.queue.push_back((start, self.sent.len()));
    }

    /// Whether bytes wait to be sent.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next bytes to send, at most `room` of them, with their offset.
    pub(super) fn next_chunk(&mut self, room: usize) -> Option<(usize, &[u8])> {
        let (start, end) = *self.queue.front()?;
        if room == 0 {
            return None;
        }
        let cut = end.min(start + room);
        match self.queue.front_mut() {
            Some(front) if cut < end => front.0 = cut,
            _ => drop(self.queue.pop_front()),
        }
        Some((start, &self.sent[start..cut]))
    }

    /// Bytes were lost: send them again.
    pub(super) fn requeue(&mut self, start: usize, end: usize) {
        if !self.queue.contains(&(start, end)) {
            self.queue.push_back((start, end));
        }
    }

    /// Sends everything from the beginning again: the server has answered with a Retry.
    pub(super) fn restart(&mut self) {
        self.queue.clear();
        if !self.sent.is_empty() {
            self.queue.push_back((0, self.sent.len()));
        }
    }

    /// Takes received bytes; `false` if they lie beyond what is taken from any peer.
    pub(super) fn receive(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(end) = offset
            .checked_add(data.len() as u64)
            .filter(|&end| end <= MAX_RECEIVED)
        else {
            return false;
        };
        if data.is_empty() || end <= self.filled.prefix() {
            return true;
        }
        let (start, stop) = (offset as usize, end as usize);
        if self.received.len() < stop {
            self.received.resize(stop, 0);
        }
        self.received[start..stop].copy_from_slice(data);
        self.filled.insert(offset, end);
        true
    }

    /// The next complete message.
    pub(super) fn next_message(&mut self) -> Option<Vec<u8>> {
        let ready = self.received.get(self.read..self.filled.prefix() as usize)?;
        let (len, rest) = ready.split_first_chunk::<4>()?;
        let message = rest.get(..u32::from_be_bytes(*len) as usize)?.to_vec();
        self.read += 4 + message.len();
        Some(message)
    }
}
