//! Streams 0 and 1: ordered, reliable and flow-limited both ways (RFC 9000 §2, §4.1).
//!
//! Both are bidirectional; either side may send on the one that it opens, and on the other once its peer has. Nothing ends
//! or resets them: the overlay never does. What frames for other streams carry is dropped and counted.

use std::collections::VecDeque;

use super::ranges::Ranges;

/// What a side may send on a stream before the other has read it, and what it keeps until that is acknowledged.
pub(super) const WINDOW: u64 = 64 * 1024;

/// How many streams there are.
const STREAMS: usize = 2;

/// Why a frame cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BeyondWindow;

/// What is on its way to the peer.
#[derive(Debug)]
struct Outgoing {
    /// Bytes from `base` on that are not acknowledged without a gap.
    bytes: VecDeque<u8>,
    base: u64,
    acked: Ranges,
    /// What is to go into packets, for the first time or again.
    pending: Ranges,
    /// Where the peer's room ends.
    limit: u64,
}

/// What came from the peer.
#[derive(Debug)]
struct Incoming {
    /// Bytes from `read` on, with gaps.
    bytes: VecDeque<u8>,
    read: u64,
    filled: Ranges,
    /// Where the room ends that the peer has been told of.
    limit: u64,
}

#[derive(Debug)]
struct Stream {
    open: bool,
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Stream {
    fn new() -> Self {
        Self {
            open: false,
            outgoing: Outgoing {
                bytes: VecDeque::new(),
                base: 0,
                acked: Ranges::new(usize::MAX),
                pending: Ranges::new(usize::MAX),
                limit: WINDOW,
            },
            incoming: Incoming {
                bytes: VecDeque::new(),
                read: 0,
                filled: Ranges::new(usize::MAX),
                limit: WINDOW,
            },
        }
    }
}

/// Both streams of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    streams: [Stream; STREAMS],
    /// Bytes of other streams, dropped.
    pub(super) discarded: u64,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            streams: std::array::from_fn(|_| Stream::new()),
            discarded: 0,
        }
    }

    fn stream(&mut self, stream: u64) -> Option<&mut Stream> {
        self.streams.get_mut(usize::try_from(stream).ok()?)
    }

    /// Queues bytes; how many were taken. `opens`: whether this side may open the stream.
    pub(super) fn write(&mut self, stream: u64, opens: bool, bytes: &[u8]) -> usize {
        let Some(stream) = self.stream(stream) else {
            return 0;
        };
        if bytes.is_empty() || !(stream.open || opens) {
            return 0;
        }
        stream.open = true;
        let outgoing = &mut stream.outgoing;
        let end = outgoing.base + outgoing.bytes.len() as u64;
        let room = outgoing.limit.min(outgoing.base + WINDOW).saturating_sub(end);
        let taken = bytes.len().min(room as usize);
        outgoing.bytes.extend(&bytes[..taken]);
        outgoing.pending.insert(end, end + taken as u64);
        taken
    }

    /// Whether bytes wait to go into packets.
    pub(super) fn wants_to_send(&self) -> bool {
        self.streams
            .iter()
            .any(|stream| !stream.outgoing.pending.is_empty())
    }

    /// Takes the next bytes to be sent: the stream, their offset and at most `room` of them.
    pub(super) fn next_chunk(&mut self, room: usize) -> Option<(u64, u64, Vec<u8>)> {
        let waiting = |stream: &Stream| !stream.outgoing.pending.is_empty();
        let index = self.streams.iter().position(waiting).filter(|_| room > 0)?;
        let outgoing = &mut self.streams[index].outgoing;
        let (start, end) = outgoing.pending.take_first(room as u64)?;
        let from = (start - outgoing.base) as usize;
        let bytes = outgoing.bytes.range(from..from + (end - start) as usize);
        Some((index as u64, start, bytes.copied().collect()))
    }

    /// Bytes were lost, or may have been: what of them is not acknowledged is to be sent again.
    pub(super) fn requeue(&mut self, stream: u64, start: u64, end: u64) {
        let Some(stream) = self.stream(stream) else { return };
        let outgoing = &mut stream.outgoing;
        if !outgoing.acked.contains(start) {
            outgoing.pending.insert(start.max(outgoing.base), end);
        }
    }

    /// The peer has these bytes.
    pub(super) fn on_acked(&mut self, stream: u64, start: u64, end: u64) {
        let Some(stream) = self.stream(stream) else { return };
        let outgoing = &mut stream.outgoing;
        outgoing.acked.insert(start, end);
        let done = outgoing.acked.prefix();
        let freed = done.saturating_sub(outgoing.base) as usize;
        outgoing.bytes.drain(..freed.min(outgoing.bytes.len()));
        outgoing.base = outgoing.base.max(done);
        outgoing.pending.remove_below(outgoing.base);
    }

    /// The peer has made room.
    pub(super) fn on_max_data(&mut self, stream: u64, limit: u64) {
        if let Some(stream) = self.stream(stream) {
            stream.outgoing.limit = stream.outgoing.limit.max(limit);
        }
    }

    /// Takes received bytes.
    pub(super) fn receive(&mut self, stream: u64, offset: u64, data: &[u8]) -> Result<(), BeyondWindow> {
        let Some(stream) = self.stream(stream) else {
            self.discarded += data.len() as u64;
            return Ok(());
        };
        let incoming = &mut stream.incoming;
        let end = offset.checked_add(data.len() as u64).ok_or(BeyondWindow)?;
        if end > incoming.limit {
            return Err(BeyondWindow);
        }
        stream.open = true;
        let known = incoming.read.saturating_sub(offset).min(data.len() as u64);
        let data = &data[known as usize..];
        let start = offset + known;
        if data.is_empty() {
            return Ok(());
        }
        let from = (start - incoming.read) as usize;
        let needed = from + data.len();
        if incoming.bytes.len() < needed {
            incoming.bytes.resize(needed, 0);
        }
        for (slot, byte) in incoming.bytes.range_mut(from..needed).zip(data) {
            *slot = *byte;
        }
        incoming.filled.insert(start, end);
        Ok(())
    }

    /// Moves out the next bytes of any stream, and tells of which; the last value says whether the peer is to be told of room.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Option<(u64, usize, bool)> {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let incoming = &mut stream.incoming;
            let ready = incoming.filled.prefix().saturating_sub(incoming.read);
            let len = out.len().min(ready as usize);
            if len == 0 {
                continue;
            }
            for (slot, byte) in out.iter_mut().zip(incoming.bytes.drain(..len)) {
                *slot = byte;
            }
            incoming.read += len as u64;
            let tell = incoming.limit - incoming.read < WINDOW / 2;
            if tell {
                incoming.limit = incoming.read + WINDOW;
            }
            return Some((index as u64, len, tell));
        }
        None
    }

    /// The room that the peer is to be told of.
    pub(super) fn limit(&self, stream: u64) -> u64 {
        let stream = usize::try_from(stream)
            .ok()
            .and_then(|index| self.streams.get(index));
        stream.map_or(0, |stream| stream.incoming.limit)
    }
}
