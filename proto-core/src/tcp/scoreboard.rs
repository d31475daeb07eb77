//! What was sent and not acknowledged: one record per segment, in the order of the stream (RFC 2018, RFC 6675 §3).
//!
//! Work per acknowledgement is bounded by what it says that is new. Blocks that were seen are not walked again, and the
//! two queues in which segments wait for a verdict (first transmissions by their place, retransmissions by their time)
//! are only looked at from the front.

use std::collections::VecDeque;
use std::ops::Range;

use super::delivery::Stamp;
use super::rtt::Micros;

/// Blocks of the last acknowledgement that are remembered as done.
const BLOCKS: usize = 4;

/// A segment that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) start: u64,
    pub(super) end: u64,
    /// When it was sent last.
    pub(super) at: Micros,
    pub(super) sacked: bool,
    /// Given up, and not yet sent again.
    pub(super) lost: bool,
    pub(super) retransmitted: bool,
    pub(super) stamp: Stamp,
}

impl Sent {
    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }

    fn is_under_way(&self) -> bool {
        !self.sacked && !self.lost
    }
}

/// What one acknowledgement delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    pub(super) bytes: u64,
    /// The newest of the segments that were sent once: when, and where it ended.
    pub(super) once: Option<(Micros, u64)>,
    /// The newest of those sent again.
    pub(super) again: Option<(Micros, u64)>,
    /// The first end of a segment, sent once, that was delivered behind a later one.
    pub(super) reordered: bool,
    /// What the newest of all remembers.
    pub(super) stamp: Stamp,
}

impl Delivered {
    fn add(&mut self, sent: &Sent, farthest: u64) {
        self.bytes += sent.len();
        let newest = self.once.max(self.again);
        if newest.is_none_or(|newest| newest <= (sent.at, sent.end)) {
            self.stamp = sent.stamp;
        }
        let place = if sent.retransmitted {
            &mut self.again
        } else {
            self.reordered |= sent.end < farthest;
            &mut self.once
        };
        *place = (*place).max(Some((sent.at, sent.end)));
    }
}

/// The segments under way.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    sent: VecDeque<Sent>,
    /// Starts of lost segments, in the order in which they are to be sent again.
    lost: VecDeque<u64>,
    /// Retransmissions by their time, with their start.
    again: VecDeque<(Micros, u64)>,
    /// Every first transmission before this has its verdict.
    judged: u64,
    /// Bytes under way: sent, neither delivered nor given up.
    pipe: u64,
    sacked: u32,
    /// The end of the last byte that the peer is known to have.
    farthest: u64,
    seen: [Option<(u64, u64)>; BLOCKS],
}

impl Scoreboard {
    /// Bytes under way (RFC 6675 §4).
    pub(super) fn pipe(&self) -> u64 {
        self.pipe
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Sent> {
        self.sent.front()
    }

    pub(super) fn last(&self) -> Option<&Sent> {
        self.sent.back()
    }

    /// Segments that the peer has out of order.
    pub(super) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Whether a segment waits to be sent again.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A segment is sent for the first time.
    pub(super) fn push(&mut self, range: Range<u64>, at: Micros, stamp: Stamp) {
        self.pipe += range.end - range.start;
        self.sent.push_back(Sent {
            start: range.start,
            end: range.end,
            at,
            sacked: false,
            lost: false,
            retransmitted: false,
            stamp,
        });
    }

    /// Enters a retransmission that is not the newest.
    fn enter_again(&mut self, at: Micros, start: u64) {
        let place = self.again.partition_point(|entry| *entry < (at, start));
        self.again.insert(place, (at, start));
    }

    fn index(&self, start: u64) -> Option<usize> {
        self.sent.binary_search_by_key(&start, |sent| sent.start).ok()
    }

    /// Everything before `una` was acknowledged.
    pub(super) fn acknowledge(&mut self, una: u64, delivered: &mut Delivered) {
        while let Some(sent) = self.sent.front_mut() {
            if sent.start >= una {
                break;
            }
            let mut done = *sent;
            if sent.end > una {
                // Half a segment: the peer's segments need not be ours.
                done.end = una;
                sent.start = una;
            }
            if done.is_under_way() {
                self.pipe -= done.len();
            }
            if done.end == sent.end {
                self.sacked -= u32::from(done.sacked);
                self.sent.pop_front();
            } else if done.lost {
                self.lost.push_front(una);
            } else if done.retransmitted && !done.sacked {
                self.enter_again(done.at, una);
            }
            if !done.sacked {
                delivered.add(&done, self.farthest);
            }
        }
        self.farthest = self.farthest.max(una);
        if self.sent.is_empty() {
            self.lost.clear();
            self.again.clear();
            self.seen = [None; BLOCKS];
        }
    }

    /// The peer has these blocks.
    pub(super) fn sack(&mut self, blocks: &[Option<(u64, u64)>], delivered: &mut Delivered) {
        let seen = self.seen;
        for &(start, end) in blocks.iter().flatten() {
            let mut from = start;
            while from < end {
                let mut seen = seen.iter().flatten();
                if let Some(known) = seen.clone().find(|known| known.0 <= from && from < known.1) {
                    from = known.1;
                    continue;
                }
                let until = seen
                    .by_ref()
                    .map(|known| known.0)
                    .filter(|known| *known > from)
                    .min();
                let until = until.map_or(end, |until| until.min(end));
                self.sack_part(from..until, start, end, delivered);
                from = until;
            }
        }
        self.seen = [None; BLOCKS];
        for (place, block) in self.seen.iter_mut().zip(blocks.iter().flatten()) {
            *place = Some(*block);
        }
    }

    /// Marks the segments that lie within a block and reach into a part of it.
    fn sack_part(&mut self, part: Range<u64>, start: u64, end: u64, delivered: &mut Delivered) {
        let farthest = self.farthest;
        let first = self.sent.partition_point(|sent| sent.end <= part.start);
        for sent in self.sent.range_mut(first..) {
            if sent.start >= part.end || sent.end > end {
                break;
            }
            if sent.start < start || sent.sacked {
                continue;
            }
            if sent.is_under_way() {
                self.pipe -= sent.len();
            }
            sent.sacked = true;
            sent.lost = false;
            self.sacked += 1;
            self.farthest = self.farthest.max(sent.end);
            delivered.add(sent, farthest);
        }
    }

    /// Gives up segments, from the front of both queues, for as long as `judge` says so; what it says instead of `Ok`
    /// is returned for the one that waits.
    ///
    /// `judge` is told when a segment was sent and where it ends, and `bury` of each that was given up. Verdicts come in the order of transmission.
    pub(super) fn judge<W: Ord>(
        &mut self,
        mut judge: impl FnMut(Micros, u64) -> Result<(), Option<W>>,
        mut bury: impl FnMut(&Sent),
    ) -> (bool, Option<W>) {
        let mut any = false;
        let mut wait = None;
        let mut index = self.sent.partition_point(|sent| sent.start < self.judged);
        while let Some(sent) = self.sent.get_mut(index) {
            if sent.is_under_way() && !sent.retransmitted {
                if let Err(until) = judge(sent.at, sent.end) {
                    wait = until;
                    break;
                }
                sent.lost = true;
                self.pipe -= sent.len();
                self.lost.push_back(sent.start);
                bury(sent);
                any = true;
            }
            self.judged = sent.end;
            index += 1;
        }
        while let Some(&(at, start)) = self.again.front() {
            let index = self.index(start);
            let current = index
                .and_then(|index| self.sent.get_mut(index))
                .filter(|sent| sent.is_under_way() && sent.at == at);
            if let Some(sent) = current {
                if let Err(until) = judge(at, sent.end) {
                    wait = match (wait, until) {
                        (Some(a), Some(b)) => Some(std::cmp::min::<W>(a, b)),
                        (a, b) => a.or(b),
                    };
                    break;
                }
                sent.lost = true;
                self.pipe -= sent.len();
                // It is what the peer waits for: it goes before what was lost for the first time.
                self.lost.push_front(start);
                bury(sent);
                any = true;
            }
            self.again.pop_front();
        }
        (any, wait)
    }

    /// Gives up the first segment, unless it was sent again; whether it did.
    pub(super) fn give_up_first(&mut self) -> bool {
        let first = self.sent.front_mut();
        let Some(sent) = first.filter(|sent| sent.is_under_way() && !sent.retransmitted) else {
            return false;
        };
        sent.lost = true;
        self.pipe -= sent.len();
        self.lost.push_front(sent.start);
        true
    }

    /// Gives up everything that is not delivered (RFC 6298 §5.4, RFC 8985 §6.3).
    pub(super) fn give_up_all(&mut self) {
        // The peer may have dropped what it had out of order (RFC 2018 §8): if it did, the first segment shows it.
        let reneged = self.sent.front().is_some_and(|sent| sent.sacked);
        self.lost.clear();
        self.again.clear();
        for sent in &mut self.sent {
            if reneged {
                sent.sacked = false;
            }
            if !sent.sacked {
                sent.lost = true;
                self.lost.push_back(sent.start);
            }
        }
        if reneged {
            self.sacked = 0;
            self.seen = [None; BLOCKS];
        }
        self.pipe = 0;
        self.judged = self.sent.back().map_or(self.judged, |sent| sent.end);
    }

    /// What was given up was not lost after all.
    pub(super) fn take_back(&mut self) {
        self.lost.clear();
        for sent in &mut self.sent {
            if std::mem::replace(&mut sent.lost, false) {
                self.pipe += sent.len();
                if sent.retransmitted {
                    self.again.push_back((sent.at, sent.start));
                }
            }
        }
        self.again.make_contiguous().sort_unstable();
        self.judged = self.sent.front().map_or(self.judged, |sent| sent.start);
    }

    /// The next segment to be sent again, cut to `most` bytes.
    pub(super) fn next_lost(&mut self, most: u64) -> Option<Range<u64>> {
        while let Some(&start) = self.lost.front() {
            if let Some(index) = self.index(start)
                && let Some(sent) = self.sent.get_mut(index)
                && sent.lost
            {
                if sent.len() > most {
                    self.cut(index, most);
                }
                return self.sent.get(index).map(|sent| sent.start..sent.end);
            }
            self.lost.pop_front();
        }
        None
    }

    /// The last segment, cut so that at most its last `most` bytes are left: what a tail loss probe repeats.
    pub(super) fn tail(&mut self, most: u64) -> Option<Range<u64>> {
        let last = *self.sent.back().filter(|last| last.is_under_way())?;
        if last.len() > most {
            self.cut(self.sent.len() - 1, last.len() - most);
        }
        self.sent.back().map(|sent| sent.start..sent.end)
    }

    /// Makes two records of one.
    fn cut(&mut self, index: usize, at: u64) {
        let Some(sent) = self.sent.get_mut(index) else {
            return;
        };
        let mut rest = *sent;
        sent.end = sent.start + at;
        rest.start = sent.end;
        self.sacked += u32::from(rest.sacked);
        self.sent.insert(index + 1, rest);
        if rest.lost {
            // Right behind the one in front, which is the one being cut.
            let first = self.lost.pop_front();
            self.lost.push_front(rest.start);
            if let Some(first) = first {
                self.lost.push_front(first);
            }
        } else if rest.retransmitted && !rest.sacked {
            self.enter_again(rest.at, rest.start);
        }
    }

    /// A segment is sent again.
    pub(super) fn sent_again(&mut self, start: u64, now: Micros, stamp: Stamp) {
        let Some(index) = self.index(start) else { return };
        let Some(sent) = self.sent.get_mut(index) else {
            return;
        };
        if self.lost.front() == Some(&start) {
            self.lost.pop_front();
        }
        if sent.lost {
            self.pipe += sent.len();
        }
        sent.lost = false;
        sent.retransmitted = true;
        sent.at = now;
        sent.stamp = stamp;
        self.again.push_back((now, start));
    }

    /// Whether [`Scoreboard::shrink`] would free something.
    pub(super) fn has_slack(&self) -> bool {
        self.sent.is_empty() && self.sent.capacity() > 0
    }

    /// Gives memory back once nothing is under way.
    pub(super) fn shrink(&mut self) {
        if self.sent.is_empty() {
            *self = Self {
                judged: self.judged,
                farthest: self.farthest,
                ..Self::default()
            };
        }
    }
}
