//! Frames that came inside a control connection and leave as bare UDP payloads.
//!
//! The exception, for clients whose network lets no bare frame out: so each frame stays in the buffer it was decrypted in, and is
//! copied once, into a batch.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use crate::config::limits::FRAME_QUEUE;
use crate::machine::{Ecn, FourTuple, Transmit};
use crate::quic::Datagram;

/// Most frames in one batch: what Linux takes in one call with UDP_SEGMENT.
const MAX_SEGMENTS: usize = 64;

/// Most bytes in one batch: the largest UDP payload over IPv4.
const MAX_BATCH: usize = 65_507;

/// Frames that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<(FourTuple, Datagram)>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes a frame; `false` if there is no room, and it is dropped.
    pub(super) fn push(&mut self, path: FourTuple, frame: Datagram) -> bool {
        let room = self.frames.len() < FRAME_QUEUE;
        if room {
            self.frames.push_back((path, frame));
        }
        room
    }

    /// Writes the next frames of one path into `buf`, all of one size but the last. A frame that does not fit is dropped: no
    /// buffer is that small.
    pub(super) fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (path, first, mut len) = loop {
            let (path, frame) = self.frames.pop_front()?;
            if let Some(len) = put(buf, 0, &frame) {
                break (path, frame.len(), len);
            }
        };
        let end = buf.len().min(MAX_BATCH).min(first.saturating_mul(MAX_SEGMENTS));
        let mut last = first;
        while last == first
            && let Some((to, frame)) = self.frames.front()
            && *to == path
            && frame.len() <= first
            && len + frame.len() <= end
        {
            last = frame.len();
            let Some(written) = put(buf, len, frame) else {
                break;
            };
            len = written;
            self.frames.pop_front();
        }
        Some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len,
            segment_size: NonZeroUsize::new(first).filter(|_| len > first),
        })
    }
}

/// Writes bytes at a place; where they end.
fn put(buf: &mut [u8], at: usize, bytes: &[u8]) -> Option<usize> {
    let end = at + bytes.len();
    buf.get_mut(at..end)?.copy_from_slice(bytes);
    Some(end)
}

#[cfg(test)]
mod tests;
