//! Messages over a stream of a connection, both ways.
//!
//! [`MessageStream`] puts frames together out of what arrives, and keeps what the stream does not take yet, up to a limit:
//! flow control lets a peer that does not read hold us up, and nothing may pile up for it. What a message means, and what
//! follows when one does not fit any more, is its owner's business.

use std::collections::VecDeque;

use crate::id::ConnId;
use crate::quic::{Pool, Provider};
use crate::wire::framing::Frames;

/// Most bytes that wait for a stream to take them: four frames of the largest size, or very many of the usual one. What a
/// peer has left unread by then it does not mean to read.
pub const MAX_WAITING: usize = 256 * 1024;

/// What is read at once.
const CHUNK: usize = 2048;

/// Which stream a side writes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    /// Always this one, and it listens to no other.
    Fixed(u64),
    /// Stream 1 until the other side has opened stream 0; it listens to both.
    Answering,
    /// Stream 0; it listens to both.
    Asking,
}

/// Both directions of one conversation in frames.
#[derive(Debug)]
pub struct MessageStream {
    voice: Voice,
    /// Whether the peer has written on stream 0.
    first_is_open: bool,
    /// One reassembly buffer per stream: their frames are not each other's continuation.
    frames: [Frames; 2],
    waiting: VecDeque<u8>,
    /// The stream on which a frame is half written: its rest has to follow there.
    begun: Option<u64>,
}

impl MessageStream {
    /// Messages on this stream alone; what arrives on another is dropped.
    pub fn new(stream: u64) -> Self {
        Self::with(Voice::Fixed(stream))
    }

    /// The signalling of v1, a client's end: it writes on stream 0 and is answered on either.
    pub fn v1_client() -> Self {
        Self::with(Voice::Asking)
    }

    /// The signalling of v1, a server's end: it answers on stream 0 if the client has opened that, else on stream 1.
    pub fn v1_server() -> Self {
        Self::with(Voice::Answering)
    }

    fn with(voice: Voice) -> Self {
        Self {
            voice,
            first_is_open: false,
            frames: [Frames::new(), Frames::new()],
            waiting: VecDeque::new(),
            begun: None,
        }
    }

    /// Takes a message as its `write` has made it. `false` if there was none, or if the peer has left too much unread: the
    /// conversation has a hole then, and its owner ends it. [`MessageStream::flush`] sends it.
    pub fn send(&mut self, frame: Option<Vec<u8>>) -> bool {
        let Some(frame) = frame.filter(|frame| self.waiting.len() + frame.len() <= MAX_WAITING) else {
            return false;
        };
        self.waiting.extend(frame);
        true
    }

    /// Hands over as much as the stream takes; the rest waits for the next call.
    pub fn flush<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId) {
        let stream = self.begun.unwrap_or(match self.voice {
            Voice::Fixed(stream) => stream,
            Voice::Asking => 0,
            Voice::Answering => u64::from(!self.first_is_open),
        });
        while !self.waiting.is_empty() {
            let taken = pool.send_stream(id, stream, self.waiting.as_slices().0);
            if taken == 0 {
                return;
            }
            self.begun = Some(stream);
            self.waiting.drain(..taken);
        }
        self.begun = None;
        if self.waiting.capacity() > CHUNK {
            self.waiting = VecDeque::new();
        }
    }

    /// Reads what has arrived and gives every complete frame's payload to `take`.
    pub fn read<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId, take: &mut dyn FnMut(&[u8])) {
        let mut chunk = [0; CHUNK];
        while let Some((stream, len)) = pool.read_stream(id, &mut chunk) {
            self.first_is_open |= stream == 0;
            let listens = match self.voice {
                Voice::Fixed(own) => own == stream,
                Voice::Asking | Voice::Answering => true,
            };
            let frames = usize::try_from(stream).ok();
            let frames = frames.and_then(|index| self.frames.get_mut(index));
            let Some(frames) = frames.filter(|_| listens) else {
                continue;
            };
            let mut bytes = &chunk[..len];
            while let Some(payload) = frames.read(&mut bytes) {
                take(payload);
            }
        }
    }

    /// How many bytes wait to be sent.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many frames were longer than frames may be, and skipped.
    pub fn skipped(&self) -> u64 {
        self.frames.iter().map(Frames::skipped).sum()
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests;
