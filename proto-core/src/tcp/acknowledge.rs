//! What an acknowledgement tells the sender: what was delivered, what is lost, how much more may go.

use super::bbr::Ack;
use super::congestion::Congestion;
use super::cubic::Acked;
use super::delivery::Sample;
use super::recovery::{Cause, Episode};
use super::rtt::{MILLISECOND, Micros};
use super::scoreboard::Delivered;
use super::segment::Segment;
use super::{Connection, State};

/// Repeated acknowledgements that mean a loss to a sender without selective ones (RFC 5681 §3.2).
const DUPLICATES: u8 = 3;

impl Connection {
    /// Takes the acknowledgement of a segment that begins at `start`; everything before `acknowledged` has come to the
    /// peer, and it is known to be neither too old nor of what was never sent.
    pub(super) fn acknowledge(&mut self, acknowledged: u64, start: u64, segment: &Segment<'_>, now: Micros) {
        let before = self.una;
        let advanced = acknowledged > before;
        let repeats = !advanced && segment.len() == 0 && !self.board.is_empty();
        let moved = self.take_window(acknowledged, start, segment);
        let mut delivered = Delivered::default();
        if advanced {
            self.board.acknowledge(acknowledged, &mut delivered);
            let front = self.written - self.ring.len() as u64;
            let data = acknowledged.min(self.written).saturating_sub(front);
            self.ring.consume(data as usize);
            self.una = acknowledged;
            self.rtt.relax();
            self.since = now;
            self.moved = now;
            self.duplicates = 0;
        }
        let twice = self.sack && self.take_blocks(segment, acknowledged, &mut delivered);
        if !self.sack && repeats && !moved {
            self.duplicates = self.duplicates.saturating_add(1);
        }
        if advanced || delivered.bytes > 0 || twice || repeats {
            self.judge_delivery(&delivered, before, twice, segment, now);
            self.arm(now);
        } else if moved {
            self.arm(now);
        }
        if self.next > self.written && self.una == self.next {
            self.on_end_acknowledged();
        }
    }

    /// The peer has got this end's end.
    fn on_end_acknowledged(&mut self) {
        match self.state {
            State::FinWait1 => self.state = State::FinWait2,
            State::Closing => self.state = State::TimeWait,
            State::LastAck => self.close(),
            State::SynSent | State::SynReceived | State::Established | State::CloseWait => {}
            State::FinWait2 | State::TimeWait | State::Closed => {}
        }
    }

    /// Takes the window of a segment unless a newer one was heard (RFC 9293 §3.10.7.4); whether it changed.
    fn take_window(&mut self, acknowledged: u64, start: u64, segment: &Segment<'_>) -> bool {
        let from = (start, acknowledged);
        if from < self.edge_from && acknowledged <= self.una {
            return false;
        }
        let scale = self.peer_scale.filter(|_| !segment.is_syn()).unwrap_or(0);
        let window = u64::from(segment.repr.window_len) << scale;
        self.edge_from = from;
        self.widest = self.widest.max(window);
        let edge = acknowledged + window;
        std::mem::replace(&mut self.edge, edge) != edge
    }

    /// Takes the blocks of an acknowledgement; whether it reports something that came twice (RFC 2883 §4).
    fn take_blocks(&mut self, segment: &Segment<'_>, acknowledged: u64, delivered: &mut Delivered) -> bool {
        let ranges = &segment.repr.sack_ranges;
        if ranges[0].is_none() {
            return false;
        }
        let base = self.initial.wrapping_add(self.una as u32);
        let place = |number: u32| {
            let distance = number.wrapping_sub(base) as i32;
            self.una.checked_add_signed(i64::from(distance))
        };
        let mut blocks = ranges.map(|range| {
            let (start, end) = range?;
            let (start, end) = (place(start)?, place(end)?);
            (start < end && end <= self.next).then_some((start, end))
        });
        let twice = match blocks {
            [Some(first), second, _] => {
                first.1 <= acknowledged
                    || second.is_some_and(|second| second.0 <= first.0 && first.1 <= second.1)
            }
            [None, ..] => false,
        };
        for block in &mut blocks {
            *block = block.filter(|block| block.0 > acknowledged);
        }
        self.board.sack(&blocks, delivered);
        twice
    }

    /// Draws the conclusions.
    fn judge_delivery(
        &mut self,
        delivered: &Delivered,
        before: u64,
        twice: bool,
        segment: &Segment<'_>,
        now: Micros,
    ) {
        // What was behind a hole may have waited for what was sent again (Karn's algorithm).
        let once = delivered.once.filter(|_| delivered.again.is_none());
        let sample = once.map(|(at, _)| now.saturating_sub(at));
        if let Some(sample) = sample {
            if self.rtt.smoothed().is_none() {
                self.rx.measured(sample);
            }
            self.rtt.sample(sample, now);
        }
        let echo = self
            .timestamps
            .and(segment.repr.timestamp)
            .map(|theirs| theirs.tsecr);
        let echoes_older = |connection: &Self, at: Micros| {
            echo.is_some_and(|echo| (echo.wrapping_sub(connection.timestamp(at)) as i32) < 0)
        };
        let rtt = self.rtt;
        let mut rack = self.rack;
        rack.on_delivered(delivered, &rtt, now, |at| echoes_older(self, at));
        self.rack = rack;
        let repeated = self.probe.and_then(|probe| probe.again);
        if twice && repeated.is_none() {
            self.rack.on_duplicate(self.una, self.next);
        }
        let probe_was_late = twice || repeated.is_some_and(|at| echoes_older(self, at));
        self.judge_probe(probe_was_late, before);
        let first = self.episode.as_ref().and_then(|episode| episode.first);
        // A retransmission of an episode before this one says nothing about this one.
        let of_this = first.filter(|first| delivered.again.is_some_and(|(at, _)| at >= *first));
        if self.una > before && of_this.is_some_and(|at| echoes_older(self, at)) {
            self.undo();
        }
        let rate = match delivered.once.max(delivered.again) {
            Some((at, _)) => {
                let newest = (at, delivered.stamp);
                self.delivery
                    .on_delivered(delivered.bytes, newest, self.rtt.least(), now)
            }
            None => Sample::default(),
        };
        // What is lost beyond what the last episode was about is another one's.
        self.end_episode();
        let lost = self.detect_loss(now);
        match &mut self.congestion {
            Congestion::Cubic(_) => self.adjust_window(delivered, sample, before, !lost, now),
            Congestion::Bbr(bbr) => {
                if delivered.bytes > 0 {
                    bbr.on_delivered(Ack {
                        bytes: delivered.bytes,
                        sample: rate,
                        round_trip: sample,
                        smoothed: self.rtt.smoothed(),
                        pipe: self.board.pipe(),
                        delivered: self.delivery.delivered(),
                        lost: self.delivery.lost(),
                        limited: before < self.limited_until,
                        now,
                    });
                    if bbr.is_resting() {
                        self.delivery.on_app_limited(self.board.pipe());
                    }
                }
            }
        }
    }

    /// What the tail loss probe has shown (RFC 8985 §7.4.2).
    fn judge_probe(&mut self, was_late: bool, before: u64) {
        let Some(probe) = self.probe.filter(|probe| self.una >= probe.end) else {
            return;
        };
        self.probe = None;
        if probe.again.is_some() && !was_late && self.episode.is_none() {
            // The probe itself has repaired a loss.
            self.congestion.on_repaired(self.next - before);
        }
    }

    /// The reduction was for nothing: what was repeated had come (RFC 3522, RFC 4015).
    fn undo(&mut self) {
        let Some(episode) = self.episode.take() else {
            return;
        };
        if episode.cause == Cause::Hole {
            self.rack.on_undone();
        }
        self.congestion.undo(&episode.saved);
        self.board.take_back();
        self.stats.undone += 1;
    }

    /// Gives up what is lost, and begins a recovery if there is none.
    pub(super) fn detect_loss(&mut self, now: Micros) -> bool {
        let flight = self.board.pipe();
        let window = self
            .rack
            .window(&self.rtt, self.episode.is_some(), self.board.sacked());
        let rack = self.rack;
        let mut saved = None;
        let (mut lost, wait) = self.board.judge(
            |at, end| rack.judge(at, end, window, now),
            |sent| {
                saved.get_or_insert(self.congestion);
                self.delivery.on_lost(sent.len());
                self.congestion.on_lost(sent, &self.delivery, now);
            },
        );
        if !self.sack {
            let hole = self
                .episode
                .as_ref()
                .filter(|episode| episode.cause == Cause::Hole);
            let partial = self.duplicates == 0 && hole.is_some_and(|episode| self.una < episode.point);
            let hole = hole.is_some();
            if (self.duplicates == DUPLICATES && !hole) || partial {
                lost |= self.board.give_up_first();
            }
        }
        self.reorder_at = wait;
        if lost && self.episode.is_none() {
            let episode = Episode::new(Cause::Hole, self.next, flight, saved.unwrap_or(self.congestion));
            self.episode = Some(Box::new(episode));
            self.congestion.on_hole(flight.max(self.next - self.una));
        }
        lost
    }

    /// The window of CUBIC after an acknowledgement, in a recovery by proportion.
    pub(super) fn adjust_window(
        &mut self,
        delivered: &Delivered,
        sample: Option<Micros>,
        before: u64,
        safe: bool,
        now: Micros,
    ) {
        let Congestion::Cubic(cubic) = &mut self.congestion else {
            return;
        };
        let acked = Acked {
            bytes: delivered.bytes,
            sample,
            smoothed: self.rtt.smoothed().unwrap_or(100 * MILLISECOND),
            una: self.una,
            next: self.next,
            now,
        };
        let threshold = cubic.threshold();
        let Some(episode) = &mut self.episode else {
            // A window that is not used does not grow (RFC 9438 §5.8); in slow start half of it is enough.
            let flight = self.board.pipe() + delivered.bytes;
            let used = before < self.limited_until && cubic.window() <= 2 * flight;
            if delivered.bytes > 0 && used {
                cubic.on_acked(acked);
            }
            return;
        };
        match episode.cause {
            Cause::Hole => {
                let (pipe, mss) = (self.board.pipe(), cubic.mss());
                let safe = safe && self.una > before;
                let window = episode.window(delivered.bytes, pipe, threshold, mss, safe);
                cubic.set_window(window);
            }
            Cause::Timeout if delivered.bytes > 0 => cubic.on_acked(acked),
            Cause::Timeout => {}
        }
    }

    /// Everything that was under way when a recovery began is acknowledged.
    fn end_episode(&mut self) {
        let Some(episode) = self.episode.take_if(|episode| self.una >= episode.point) else {
            return;
        };
        if episode.cause == Cause::Hole {
            self.rack.on_recovered();
        }
        self.congestion.on_recovered(episode.cause);
    }
}
