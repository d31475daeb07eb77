//! What losses say: how much may be under way for long, and for now (§5.5.7, §5.5.10 of the draft).
//!
//! Two things are freer than in the draft, both so that chance losses cost nothing. A loss lowers the bounds only where it is
//! too high; and "too high" is counted beyond what the path loses anyway, which shows while no more is sent than it carries
//! and no queue is seen.

use super::super::delivery::Sample;
use super::{Ack, LOSS_PERCENT};

/// By what the bounds shrink, in tenths.
pub(super) const BETA: u64 = 7;

/// Acknowledgements of a round that report losses, from which on Startup takes them for its own.
pub(super) const STARTUP_EVENTS: u32 = 6;

/// The most that is taken for a path's own loss, in thousandths.
const MOST_AMBIENT: u64 = 100;

/// Rounds over which it is averaged.
const ROUNDS: u64 = 8;

/// Headroom for others, in percent.
const HEADROOM: u64 = 15;

/// Where the acknowledgements of the last probe are (§5.3.3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Feedback {
    #[default]
    Refilling,
    Starting,
    Coming,
    Stopping,
}

/// A round in which something was lost, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) events: u32,
}

/// What the path loses although too little is under way for a queue, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ambient {
    /// In thousandths of a thousandth, for the average.
    share: u64,
}

impl Ambient {
    pub(super) fn observe(&mut self, round: Round) {
        let all = round.delivered + round.lost;
        if all == 0 {
            return;
        }
        let share = (round.lost * 1_000_000 / all).min(1000 * MOST_AMBIENT);
        self.share = (self.share * (ROUNDS - 1) + share) / ROUNDS;
    }

    /// Millionths of a flight that may be lost. What is lost by chance varies: twice its average is no surprise.
    fn limit(&self) -> u64 {
        10_000 * LOSS_PERCENT + 2 * self.share
    }

    pub(super) fn is_too_high(&self, lost: u64, of: u64) -> bool {
        lost.saturating_mul(1_000_000) > of.saturating_mul(self.limit())
    }

    /// How much of a flight had been sent when the losses in it became too many.
    pub(super) fn flight_at_limit(&self, sample: Sample, len: u64) -> u64 {
        let before = sample.in_flight.saturating_sub(len);
        let lost = sample.lost.saturating_sub(len);
        let may = before.saturating_mul(self.limit()) / 1_000_000;
        let prefix = may.saturating_sub(lost).saturating_mul(1_000_000) / (1_000_000 - self.limit());
        before + prefix
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) ambient: Ambient,
    /// Bytes under way that the path bears, and what is left for others to come in.
    pub(super) long: u64,
    /// Bounds until the next probe.
    pub(super) short: u64,
    pub(super) bandwidth: u64,
    /// Losses are those of a probe.
    pub(super) probing: bool,
    feedback: Feedback,
    /// The greatest rate and flight of the present round of losses.
    latest: (u64, u64),
    round_end: u64,
    /// What was delivered and lost when it began, and acknowledgements in it that reported losses.
    from: (u64, u64),
    events: u32,
    counted: u64,
    /// A round has just ended.
    ended: bool,
    /// The growth of `long` while it is probed: delivered bytes for a segment more, those counted, and rounds.
    each: u64,
    acked: u64,
    doublings: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ambient: Ambient::default(),
            long: u64::MAX,
            short: u64::MAX,
            bandwidth: u64::MAX,
            probing: false,
            feedback: Feedback::default(),
            latest: (0, 0),
            round_end: 0,
            from: (0, 0),
            events: 0,
            counted: 0,
            ended: false,
            each: u64::MAX,
            acked: 0,
            doublings: 0,
        }
    }
}

impl Bounds {
    pub(super) fn on_delivered(&mut self, ack: &Ack) {
        let (rate, flight) = self.latest;
        self.latest = (rate.max(ack.sample.rate), flight.max(ack.sample.delivered));
        if ack.lost > self.counted {
            self.counted = ack.lost;
            self.events += 1;
        }
    }

    /// Whether, and with what losses, a round ends.
    pub(super) fn end_round(&mut self, ack: &Ack) -> Option<Round> {
        self.ended = ack.sample.prior >= self.round_end;
        if !self.ended {
            return None;
        }
        let round = Round {
            delivered: ack.delivered.saturating_sub(self.from.0),
            lost: ack.lost.saturating_sub(self.from.1),
            events: self.events,
        };
        self.round_end = ack.delivered;
        self.from = (ack.delivered, ack.lost);
        self.counted = ack.lost;
        self.events = 0;
        Some(round)
    }

    /// After everything else: the next round is measured anew.
    pub(super) fn advance(&mut self, ack: &Ack) {
        if self.ended {
            self.latest = (ack.sample.rate, ack.sample.delivered);
        }
    }

    pub(super) fn inflight_latest(&self) -> u64 {
        self.latest.1
    }

    /// Too much was lost while the path was not probed: somebody else has come.
    pub(super) fn lower(&mut self, bandwidth: u64, window: u64) {
        let (rate, flight) = self.latest;
        let shrink = |bound: u64, now: u64| {
            let bound = if bound == u64::MAX { now } else { bound };
            bound / 10 * BETA
        };
        self.bandwidth = shrink(self.bandwidth, bandwidth).max(rate);
        self.short = shrink(self.short, window).max(flight);
    }

    /// Whether a cycle of probing has been answered.
    pub(super) fn on_round(&mut self, round: bool, counts: bool) -> bool {
        match self.feedback {
            Feedback::Starting if round => self.feedback = Feedback::Coming,
            Feedback::Stopping if round => {
                self.feedback = Feedback::Refilling;
                self.probing = false;
                return counts;
            }
            Feedback::Refilling | Feedback::Starting | Feedback::Coming | Feedback::Stopping => {}
        }
        false
    }

    pub(super) fn refill(&mut self) {
        self.feedback = Feedback::Refilling;
        (self.acked, self.doublings) = (0, 0);
    }

    pub(super) fn start(&mut self, mss: u64, window: u64) {
        self.probing = true;
        self.feedback = Feedback::Starting;
        self.steepen(mss, window);
    }

    pub(super) fn stop(&mut self) {
        self.each = u64::MAX;
        self.feedback = Feedback::Stopping;
    }

    /// A flight came through.
    pub(super) fn raise(&mut self, in_flight: u64) {
        if self.long != u64::MAX {
            self.long = self.long.max(in_flight);
        }
    }

    fn steepen(&mut self, mss: u64, window: u64) {
        let growth = mss << self.doublings;
        self.doublings = (self.doublings + 1).min(30);
        self.each = (window.saturating_mul(mss) / growth.max(1)).max(mss);
    }

    /// Probing goes well: a segment more in the first round, two in the second, and so on.
    pub(super) fn grow(&mut self, acked: u64, mss: u64, window: u64, round: bool) {
        if self.long == u64::MAX {
            return;
        }
        self.acked += acked;
        if self.acked >= self.each {
            let more = self.acked / self.each;
            self.acked -= more * self.each;
            self.long = self.long.saturating_add(more * mss);
        }
        if round {
            self.steepen(mss, window);
        }
    }

    /// What may be under way while nothing is probed.
    pub(super) fn with_headroom(&self, mss: u64) -> u64 {
        if self.long == u64::MAX {
            return u64::MAX;
        }
        let headroom = (self.long / 100 * HEADROOM).max(mss);
        self.long
            .saturating_sub(headroom)
            .max(super::LEAST_SEGMENTS * mss)
    }

    pub(super) fn forget_short(&mut self) {
        (self.short, self.bandwidth) = (u64::MAX, u64::MAX);
    }

    pub(super) fn forget_latest(&mut self) {
        self.latest = (0, 0);
    }

    /// The losses since then were none.
    pub(super) fn undo(&mut self, before: &Self) {
        self.long = self.long.max(before.long);
        self.short = self.short.max(before.short);
        self.bandwidth = self.bandwidth.max(before.bandwidth);
    }
}
