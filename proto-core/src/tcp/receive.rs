//! A segment of the peer (RFC 9293 §3.10.7), strictly looked at (RFC 5961).

use std::time::Instant;

use super::reassembly::Arrival;
use super::rtt::{MILLISECOND, Micros, SECOND};
use super::segment::Segment;
use super::{Connection, State};

/// How long an acknowledgement may wait for company (RFC 9293 §3.8.6.3).
const DELAY: Micros = 40 * MILLISECOND;

/// Between two acknowledgements of segments that no honest peer sends in a row: two ends that find each other's segments
/// wrong must not keep each other busy.
const CHALLENGE: Micros = 200 * MILLISECOND;

/// How long a timestamp says anything about age (RFC 7323 §5.5).
const OUTDATED: Micros = 24 * 24 * 3600 * SECOND;

/// The least segment size that a peer can ask for.
const LEAST_MSS: usize = 88;

impl Connection {
    /// Takes a segment of the peer. Its checksum was verified, and it belongs to this connection.
    pub fn receive(&mut self, segment: &Segment<'_>, now: Instant) {
        let now = self.advance(now);
        match self.state {
            State::Closed => {}
            State::SynSent => self.receive_in_syn_sent(segment, now),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.receive_synchronized(segment, now),
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn receive_in_syn_sent(&mut self, segment: &Segment<'_>, now: Micros) {
        let acknowledged = segment
            .acknowledgement()
            .map(|number| number.wrapping_sub(self.initial));
        if let Some(number) = segment.acknowledgement()
            && (acknowledged != Some(1) || self.next != 1)
        {
            // It belongs to an earlier connection of these ports.
            if !segment.is_rst() {
                self.refusal = Some(number);
            }
            return;
        }
        if segment.is_rst() {
            if acknowledged.is_some() {
                self.peer_reset = true;
                self.close();
            }
            return;
        }
        if !segment.is_syn() {
            return;
        }
        self.heard = now;
        self.take_syn(segment);
        if acknowledged.is_some() {
            self.acknowledge(1, 0, segment, now);
            self.establish();
            self.owe();
        } else {
            // Both have called each other (RFC 9293 figure 8): the SYN is sent again, with an acknowledgement.
            self.state = State::SynReceived;
            self.board.give_up_all();
            self.arm(now);
        }
    }

    /// Takes what the peer's SYN says.
    pub(super) fn take_syn(&mut self, syn: &Segment<'_>) {
        self.rx.begin(syn.sequence());
        let repr = &syn.repr;
        if let Some(mss) = repr.max_seg_size {
            self.peer_mss = usize::from(mss).max(LEAST_MSS);
        }
        match repr.window_scale {
            Some(scale) => self.peer_scale = Some(scale),
            None => self.rx.set_unscaled(),
        }
        self.sack = repr.sack_permitted;
        match (&mut self.timestamps, repr.timestamp) {
            (Some(timestamps), Some(theirs)) => {
                timestamps.recent = theirs.tsval;
                timestamps.recent_at = self.now;
            }
            (_, _) => self.timestamps = None,
        }
        self.edge = 1 + u64::from(repr.window_len);
        self.widest = u64::from(repr.window_len);
    }

    fn establish(&mut self) {
        self.state = State::Established;
        if self.finishing {
            self.state = State::FinWait1;
        }
    }

    fn receive_synchronized(&mut self, segment: &Segment<'_>, now: Micros) {
        let (start, len) = (self.rx.offset(segment.sequence()), segment.len());
        let Some(start) = start else {
            return self.challenge(segment, now);
        };
        let next = self.rx.next();
        let beyond = start > self.rx.promised().max(next);
        let ancient = next.saturating_sub(start) > 2 * self.rx.most() as u64;
        if segment.is_rst() {
            self.receive_reset(start, beyond, now);
            return;
        }
        if beyond || ancient || self.is_outdated(segment, now) {
            return self.challenge(segment, now);
        }
        if segment.is_syn() && !(self.state == State::SynReceived && start == 0) {
            return self.challenge(segment, now);
        }
        let Some(number) = segment.acknowledgement() else {
            if segment.is_syn() {
                // The peer has not heard our answer.
                self.board.give_up_all();
                self.arm(now);
            }
            return;
        };
        let distance = number.wrapping_sub(self.initial.wrapping_add(self.una as u32)) as i32;
        let Some(acknowledged) = self.una.checked_add_signed(i64::from(distance)) else {
            return self.challenge(segment, now);
        };
        if acknowledged > self.next && self.state == State::SynReceived {
            self.refusal = Some(number);
            return;
        }
        let too_old = self.una.saturating_sub(acknowledged) > self.widest.max(1 << 16);
        if acknowledged > self.next || too_old {
            return self.challenge(segment, now);
        }
        self.heard = now;
        if self.state == State::SynReceived && acknowledged >= 1 {
            self.establish();
        }
        if self.state == State::SynReceived {
            return;
        }
        self.take_timestamp(segment, start, now);
        // Also what is old acknowledges: two ends that both repeat themselves have to hear each other.
        self.acknowledge(acknowledged, start, segment, now);
        self.take_payload(segment, start, now);
        if len == 0 && start < next {
            // A question whether this end is there, or what its window is.
            self.challenge(segment, now);
        }
    }

    /// RFC 5961 §3.2: only a reset at the very next byte is believed.
    fn receive_reset(&mut self, start: u64, beyond: bool, now: Micros) {
        // Both have ended in order; a peer that remembers nothing of it takes nothing back (RFC 1337 §3).
        if self.state == State::TimeWait {
            return;
        }
        if start == self.rx.next() {
            self.peer_reset = true;
            self.rx.clear();
            self.close();
        } else if start > self.rx.next() && !beyond {
            self.challenge_at(now);
        }
    }

    /// Whether a segment is older than what has come (RFC 7323 §5.3).
    fn is_outdated(&self, segment: &Segment<'_>, now: Micros) -> bool {
        let (Some(timestamps), Some(theirs)) = (&self.timestamps, segment.repr.timestamp) else {
            return false;
        };
        let older = (theirs.tsval.wrapping_sub(timestamps.recent) as i32) < 0;
        older && now.saturating_sub(timestamps.recent_at) < OUTDATED
    }

    /// RFC 7323 §4.3: the timestamp to echo is that of the segment at the edge of what was acknowledged.
    fn take_timestamp(&mut self, segment: &Segment<'_>, start: u64, now: Micros) {
        let (Some(timestamps), Some(theirs)) = (&mut self.timestamps, segment.repr.timestamp) else {
            return;
        };
        if start <= self.acknowledged {
            timestamps.recent = theirs.tsval;
            timestamps.recent_at = now;
        }
        if segment.repr.payload.len() >= self.rx.full() && theirs.tsecr != 0 {
            let millis = self.timestamp(now).wrapping_sub(theirs.tsecr);
            if millis < 60_000 {
                self.rx.measured(u64::from(millis) * MILLISECOND);
            }
        }
    }

    /// The bytes of a segment, and the end behind them.
    fn take_payload(&mut self, segment: &Segment<'_>, start: u64, now: Micros) {
        let payload = segment.repr.payload;
        let finished = self.rx.is_finished();
        if !payload.is_empty() {
            self.moved = now;
            match self.rx.take(start, payload, self.timestamps.is_some(), now) {
                Arrival::InOrder => self.acknowledge_later(now),
                Arrival::Filling | Arrival::Ahead | Arrival::Duplicate => self.owe(),
                Arrival::Dropped => {
                    self.stats.dropped += 1;
                    self.owe();
                }
            }
            if !self.sack {
                self.rx.forget_duplicate();
            }
        }
        if segment.is_fin() {
            self.rx.set_end(start + payload.len() as u64);
            self.owe();
        }
        if !finished && self.rx.is_finished() {
            self.owe();
            self.state = match self.state {
                State::Established | State::SynReceived => State::CloseWait,
                State::FinWait1 => State::Closing,
                State::FinWait2 => State::TimeWait,
                State::CloseWait | State::Closing | State::LastAck => self.state,
                State::SynSent | State::TimeWait | State::Closed => self.state,
            };
        }
    }

    /// Every second full segment is acknowledged at once (RFC 9293 §3.8.6.3), and the first ones.
    fn acknowledge_later(&mut self, now: Micros) {
        let pending = self.rx.next() - self.acknowledged;
        if self.quick > 0 {
            self.quick -= 1;
            self.owe();
        } else if pending > self.rx.full() as u64 {
            self.owe();
        } else {
            self.delayed.get_or_insert(now + DELAY);
        }
    }

    /// An acknowledgement is due. A peer that does not understand selective ones counts them.
    pub(super) fn owe(&mut self) {
        self.owed = match self.sack {
            true => 1,
            false => self.owed.saturating_add(1),
        };
    }

    /// Answers a segment that is not what was expected with what is.
    fn challenge(&mut self, segment: &Segment<'_>, now: Micros) {
        if segment.repr.payload.is_empty() && !segment.is_fin() {
            self.challenge_at(now);
        } else {
            self.owe();
        }
    }

    fn challenge_at(&mut self, now: Micros) {
        if self
            .challenged
            .is_none_or(|last| now.saturating_sub(last) >= CHALLENGE)
        {
            self.challenged = Some(now);
            self.owe();
        }
    }
}
