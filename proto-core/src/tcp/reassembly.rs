//! What has come from the peer: put in order, acknowledged selectively, and how much more may come.
//!
//! Bytes are written to their place in the ring at once, also ahead of a hole, so that what the owner drains lies in one
//! piece. The window follows what the owner takes in a round trip (dynamic right-sizing): it begins small, doubles while
//! the owner keeps up, and no promise is taken back.

use super::ring::{Budget, Ring};
use super::rtt::{MILLISECOND, Micros, SECOND};

/// The first window. Ten segments come first, and it grows with the sender's.
const FIRST_WINDOW: usize = 64 * 1024;

/// Pieces held ahead of a hole: a queue that overflows while the sender's window doubles loses every second segment.
const MOST_PIECES: usize = 1024;

/// Blocks that one acknowledgement reports beside a timestamp.
pub(super) const BLOCKS: usize = 3;

/// What became of a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// They continue what was there.
    InOrder,
    /// They continue it, and fill a hole at least in part.
    Filling,
    /// They wait behind a hole.
    Ahead,
    /// They were there already.
    Duplicate,
    /// There is no room for them.
    Dropped,
}

/// The receiving half of a connection. Offsets count from the peer's SYN, which is 0.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// The peer's initial sequence number.
    initial: u32,
    /// The next byte wanted.
    next: u64,
    ring: Ring,
    /// What is held ahead, in order, disjoint and not touching.
    pieces: Vec<(u64, u64)>,
    /// A byte of each of the pieces that grew last, latest first (RFC 2018 §4).
    recent: [Option<u64>; BLOCKS],
    /// What came twice, to be reported once (RFC 2883).
    duplicate: Option<(u64, u64)>,
    /// Where the peer's stream ends.
    end: Option<u64>,
    /// The first byte that the peer was not promised room for.
    promised: u64,
    window: usize,
    most: usize,
    scale: u8,
    /// The payload of a full segment, as seen.
    full: usize,
    /// Dynamic right-sizing: bytes taken since when, and the round trip.
    taken: usize,
    since: Micros,
    rtt: Micros,
    mark: Option<(u64, Micros)>,
}

impl Reassembly {
    /// A receiver that will hold `most` bytes at most.
    pub(super) fn new(most: usize, budget: Budget) -> Self {
        let scale = (0..14)
            .find(|scale| usize::from(u16::MAX) << scale >= most)
            .unwrap_or(14);
        Self {
            initial: 0,
            next: 0,
            ring: Ring::new(budget),
            pieces: Vec::new(),
            recent: [None; BLOCKS],
            duplicate: None,
            end: None,
            promised: 0,
            window: FIRST_WINDOW.min(most),
            most,
            scale,
            full: 536,
            taken: 0,
            since: 0,
            rtt: SECOND,
            mark: None,
        }
    }

    /// The shift that the SYN offers.
    pub(super) fn scale(&self) -> u8 {
        self.scale
    }

    /// The peer does not shift windows.
    pub(super) fn set_unscaled(&mut self) {
        self.scale = 0;
        self.most = self.most.min(usize::from(u16::MAX));
        self.window = self.window.min(self.most);
    }

    /// The peer's SYN came.
    pub(super) fn begin(&mut self, initial: u32) {
        self.initial = initial;
        self.next = 1;
        self.promised = 1;
    }

    /// The place of a sequence number near the next one wanted; `None` if it lies before the SYN.
    pub(super) fn offset(&self, number: u32) -> Option<u64> {
        let distance = number.wrapping_sub(self.number(self.next)) as i32;
        self.next.checked_add_signed(i64::from(distance))
    }

    fn number(&self, offset: u64) -> u32 {
        self.initial.wrapping_add(offset as u32)
    }

    /// The number to acknowledge.
    pub(super) fn acknowledgement(&self) -> u32 {
        self.number(self.next)
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn promised(&self) -> u64 {
        self.promised
    }

    pub(super) fn full(&self) -> usize {
        self.full
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether everything up to the peer's end has come.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.next > end)
    }

    /// Whether something is held ahead of a hole.
    pub(super) fn has_hole(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Bytes that the owner may take.
    pub(super) fn readable(&self) -> &[u8] {
        self.ring.front()
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// The owner took bytes.
    pub(super) fn consume(&mut self, count: usize, now: Micros) {
        self.ring.consume(count);
        self.taken += count;
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= self.rtt {
            // The owner keeps up with so much in a round trip. The sender's window may double in the next one, and this
            // one arrives half of that later; memory is only taken by what really waits.
            let wanted = self.taken.saturating_mul(4) + 16 * self.full;
            if elapsed < 4 * self.rtt && wanted > self.window {
                self.window = wanted.min(self.most);
            }
            self.taken = 0;
            self.since = now;
        }
    }

    /// A round trip, as the timestamps show it.
    pub(super) fn measured(&mut self, sample: Micros) {
        let sample = sample.max(MILLISECOND);
        self.rtt = if self.rtt == SECOND {
            sample
        } else {
            (7 * self.rtt + sample) / 8
        };
        self.mark = None;
    }

    /// Without timestamps: a window's worth of bytes takes a round trip at least.
    fn measure(&mut self, now: Micros) {
        match self.mark {
            Some((mark, _)) if self.next < mark => return,
            Some((_, since)) => self.rtt = self.rtt.min(now.saturating_sub(since).max(MILLISECOND)),
            None => {}
        }
        self.mark = Some((self.promised.max(self.next + 1), now));
    }

    /// The peer's stream ends at `end`.
    pub(super) fn set_end(&mut self, end: u64) {
        let held = self.pieces.last().map_or(self.next, |piece| piece.1);
        if self.end.is_none() && end >= held {
            self.end = Some(end);
        }
        self.pass_end();
    }

    fn pass_end(&mut self) {
        if self.end == Some(self.next) {
            self.next += 1;
        }
    }

    /// Takes a segment's bytes.
    pub(super) fn take(&mut self, start: u64, payload: &[u8], timed: bool, now: Micros) -> Arrival {
        let end = start + payload.len() as u64;
        if end <= self.next {
            self.duplicate = Some((start, end));
            return Arrival::Duplicate;
        }
        let limit = self.end.map_or(self.promised, |end| end.min(self.promised));
        let from = start.max(self.next);
        let ahead = (from - self.next) as usize + self.ring.len();
        let wanted = end.min(limit).saturating_sub(from) as usize;
        if wanted > 0 && !self.ring.reserve(ahead + wanted) && from > self.next {
            return Arrival::Dropped;
        }
        let count = wanted.min(self.ring.capacity().saturating_sub(ahead));
        let skip = (from - start) as usize;
        let Some(bytes) = payload.get(skip..skip + count).filter(|bytes| !bytes.is_empty()) else {
            return Arrival::Dropped;
        };
        let to = from + count as u64;
        if from > self.next {
            return self.take_ahead(from, to, ahead, bytes);
        }
        self.ring.write(ahead, bytes);
        self.full = self.full.max(payload.len().min(usize::from(u16::MAX)));
        let touched = self.pieces.partition_point(|piece| piece.0 <= to);
        let reached = self.pieces[..touched].last().map_or(to, |piece| piece.1.max(to));
        let filling = self.has_hole();
        self.pieces.drain(..touched);
        self.ring.extend((reached - self.next) as usize);
        self.next = reached;
        if skip > 0 {
            self.duplicate = Some((start, from));
        }
        if !timed {
            self.measure(now);
        }
        self.pass_end();
        if filling {
            Arrival::Filling
        } else {
            Arrival::InOrder
        }
    }

    fn take_ahead(&mut self, from: u64, to: u64, ahead: usize, bytes: &[u8]) -> Arrival {
        let first = self.pieces.partition_point(|piece| piece.1 < from);
        let behind = self.pieces.partition_point(|piece| piece.0 <= to);
        let (mut start, mut end) = (from, to);
        match self.pieces.get(first..behind) {
            Some([]) | None if self.pieces.len() >= MOST_PIECES => return Arrival::Dropped,
            Some([]) | None => self.pieces.insert(first, (from, to)),
            Some(touched @ [piece, ..]) => {
                if piece.0 <= from && to <= piece.1 {
                    self.duplicate = Some((from, to));
                    return Arrival::Duplicate;
                }
                start = piece.0.min(from);
                end = touched.last().map_or(to, |piece| piece.1.max(to));
                self.pieces[first] = (start, end);
                self.pieces.drain(first + 1..behind);
            }
        }
        self.ring.write(ahead, bytes);
        let mut recent = [Some(from), None, None];
        let others = self.recent.iter().flatten();
        let others = others.filter(|at| **at < start || **at >= end);
        for (place, other) in recent.iter_mut().skip(1).zip(others) {
            *place = Some(*other);
        }
        self.recent = recent;
        Arrival::Ahead
    }

    /// The blocks to report: a duplicate first and once, then the pieces that grew last.
    pub(super) fn blocks(&mut self) -> [Option<(u32, u32)>; BLOCKS] {
        let mut blocks = [None; BLOCKS];
        let duplicate = self.duplicate.take();
        if duplicate.is_none() && self.pieces.is_empty() {
            return blocks;
        }
        let pieces = self.recent.iter().flatten().filter_map(|at| {
            let index = self.pieces.partition_point(|piece| piece.1 <= *at);
            self.pieces.get(index).filter(|piece| piece.0 <= *at).copied()
        });
        // The peer's end takes a place as well, and came with the bytes before it.
        let pieces = pieces.map(|(start, end)| (start, end + u64::from(self.end == Some(end))));
        for (place, (start, end)) in blocks.iter_mut().zip(duplicate.into_iter().chain(pieces)) {
            *place = Some((self.number(start), self.number(end)));
        }
        blocks
    }

    /// Whether [`Reassembly::blocks`] has something to report.
    pub(super) fn has_blocks(&self) -> bool {
        self.duplicate.is_some() || self.has_hole()
    }

    /// The peer does not understand blocks.
    pub(super) fn forget_duplicate(&mut self) {
        self.duplicate = None;
    }

    /// How far the window would reach now.
    fn reach(&self) -> u64 {
        let window = self.window.min(self.ring.allowed());
        self.next + window.saturating_sub(self.ring.len()) as u64
    }

    /// The window to announce. It opens by whole segments, or half of what there is (RFC 9293 §3.8.6.2.2).
    pub(super) fn announce(&mut self) -> u16 {
        let reach = self.reach();
        let step = self.full.min(self.window / 2) as u64;
        if reach >= self.promised + step {
            self.promised = reach;
        }
        u16::try_from(self.promised.saturating_sub(self.next) >> self.scale).unwrap_or(u16::MAX)
    }

    /// The window of a SYN, which is not shifted.
    pub(super) fn announce_first(&mut self) -> u16 {
        let window = u16::try_from(self.window).unwrap_or(u16::MAX);
        self.promised = self.promised.max(self.next + u64::from(window));
        window
    }

    /// Whether the window has opened so far that the peer should hear of it without being asked.
    pub(super) fn has_opened(&self) -> bool {
        let left = self.promised.saturating_sub(self.next);
        let reach = self.reach().saturating_sub(self.next);
        let step = (2 * self.full).min(self.window / 2) as u64;
        reach >= 2 * left && reach >= left + step
    }

    /// The connection rests: memory that is not in use goes back, and the window begins anew.
    pub(super) fn shrink(&mut self) {
        self.ring.shrink(self.ring.len() + self.ahead());
        if self.pieces.is_empty() {
            self.pieces = Vec::new();
            if self.ring.len() == 0 {
                self.window = FIRST_WINDOW.min(self.most);
            }
        }
    }

    /// Whether [`Reassembly::shrink`] would free something.
    pub(super) fn has_slack(&self) -> bool {
        let idle = self.pieces.is_empty() && self.pieces.capacity() > 0;
        idle || self.ring.has_slack(self.ring.len() + self.ahead())
    }

    /// How far the ring is written ahead of a hole.
    fn ahead(&self) -> usize {
        self.pieces
            .last()
            .map_or(0, |piece| (piece.1 - self.next) as usize)
    }

    /// Drops everything held.
    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.pieces = Vec::new();
    }
}
