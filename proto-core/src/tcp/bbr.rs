//! How much may be under way, and how fast it goes: BBR (draft-ietf-ccwg-bbr, version 3).
//!
//! BBR keeps a model of the path, the greatest rate at which it delivers and the least round trip, and sends at that rate
//! with about twice their product under way. A loss says nothing by itself: only where more than [`LOSS_PERCENT`] of a
//! flight is lost, beyond what the path loses anyway ([`Ambient`]), is too much under way.
//!
//! Here are the phases in which the model is probed; the model itself is [`model`]'s, its bounds are [`bounds`]'s, and what
//! follows for rate and window is [`control`]'s.
//!
//! [`Ambient`]: bounds::Ambient

mod bounds;
mod control;
mod model;

use super::delivery::Sample;
use super::pacer::Pace;
use super::rtt::{MILLISECOND, Micros, SECOND};
use bounds::Bounds;
use control::{MARGIN, STARTUP_PACE};
use model::Model;

/// The share of a flight whose loss means that it was too large.
const LOSS_PERCENT: u64 = 2;

/// The initial window (RFC 6928), and the least one.
const INITIAL_SEGMENTS: u64 = 10;
const LEAST_SEGMENTS: u64 = 4;

/// How often, and for how long, little is under way so that the least round trip shows.
const REST_EACH: Micros = 5 * SECOND;
const REST: Micros = 200 * MILLISECOND;

/// The longest time between two probes for bandwidth, in which Reno would have had its turn, in round trips.
const RENO_ROUNDS: u64 = 63;

/// Growth of a round in which the path is not full yet, in percent, and rounds without it in which it is.
const GROWTH: u64 = 125;
const FLAT_ROUNDS: u8 = 3;

/// What the sender does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The rate doubles each round, until the path is full.
    Startup,
    /// What Startup has queued is let go.
    Drain,
    /// Less than the path carries is sent, until no queue is left.
    Down,
    /// As much as the path carries is sent.
    Cruise,
    /// The pipe is filled before it is probed, so that losses are those of the probe.
    Refill,
    /// More is sent, to see whether the path carries it.
    Up,
    /// Little is under way, to see the least round trip.
    Rest,
}

/// What the sender knows when bytes were delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    /// Newly delivered bytes.
    pub(super) bytes: u64,
    pub(super) sample: Sample,
    /// The round trip measured by this acknowledgement.
    pub(super) round_trip: Option<Micros>,
    pub(super) smoothed: Option<Micros>,
    /// Bytes under way now.
    pub(super) pipe: u64,
    /// Bytes delivered, and given up, in all.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// The window is what held the sender back.
    pub(super) limited: bool,
    pub(super) now: Micros,
}

/// The congestion controller of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bbr {
    mss: u64,
    window: u64,
    /// The window before a timeout or a rest.
    saved: u64,
    rate: u64,
    /// The least rate worth pacing: below, the window is what limits.
    least_rate: u64,
    phase: Phase,
    model: Model,
    bounds: Bounds,
    full: Full,
    /// When the phase of probing began, when it is to end, and rounds in it.
    cycle: Micros,
    patience: Micros,
    rounds: u64,
    rest_until: Option<Micros>,
    rest_round: bool,
    /// The owner had nothing under way when it sent.
    restarted: bool,
    random: u32,
}

/// Whether the path is full: whether more was sent and no more was delivered.
#[derive(Clone, Copy, Debug, Default)]
struct Full {
    rate: u64,
    rounds: u8,
    now: bool,
    reached: bool,
}

impl Bbr {
    pub(super) fn new(mss: u64, smoothed: Option<Micros>, seed: u32) -> Self {
        let window = INITIAL_SEGMENTS * mss;
        let first = window.saturating_mul(SECOND) / smoothed.unwrap_or(MILLISECOND).max(1);
        Self {
            mss,
            window,
            saved: window,
            rate: first.saturating_mul(STARTUP_PACE) / 100,
            least_rate: 0,
            phase: Phase::Startup,
            model: Model::default(),
            bounds: Bounds::default(),
            full: Full::default(),
            cycle: 0,
            patience: 0,
            rounds: 0,
            rest_until: None,
            rest_round: false,
            restarted: false,
            random: seed | 1,
        }
    }

    /// The segment size has changed. The window stays: it counts bytes.
    pub(super) fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
    }

    /// The congestion window.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// The rate at which to send.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.rate.max(self.least_rate), self.mss)
    }

    fn least_window(&self) -> u64 {
        LEAST_SEGMENTS * self.mss
    }

    /// The bandwidth that the phase works with.
    fn bandwidth(&self) -> u64 {
        self.model.bandwidth().min(self.bounds.bandwidth)
    }

    fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Startup | Phase::Refill | Phase::Up)
    }

    fn is_cycling(&self) -> bool {
        matches!(
            self.phase,
            Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up
        )
    }

    /// Bytes were delivered.
    pub(super) fn on_delivered(&mut self, ack: Ack) {
        let round = self.model.on_delivered(&ack, self.window, self.full.reached);
        self.rounds += u64::from(round);
        self.bounds.on_delivered(&ack);
        self.judge_round(&ack);
        self.judge_full(&ack, round);
        self.judge_start(&ack);
        if self.full.reached {
            self.probe(&ack, round);
        }
        self.judge_round_trip(&ack, round);
        self.bounds.advance(&ack);
        self.set_rate(&ack);
        self.set_window(&ack);
    }

    /// At the end of a round of losses, draws what follows from it.
    fn judge_round(&mut self, ack: &Ack) {
        let Some(round) = self.bounds.end_round(ack) else {
            return;
        };
        let calm = matches!(self.phase, Phase::Cruise | Phase::Down);
        if calm && self.model.is_queue_empty() {
            self.bounds.ambient.observe(round);
        }
        if !self
            .bounds
            .ambient
            .is_too_high(round.lost, round.lost + round.delivered)
        {
            return;
        }
        if !self.is_probing() {
            let (bandwidth, window) = (self.model.bandwidth(), self.window);
            self.bounds.lower(bandwidth, window);
        }
        if self.phase == Phase::Startup && round.events >= bounds::STARTUP_EVENTS {
            self.full.reached = true;
            let product = self.model.product(self.model.bandwidth()).unwrap_or(0);
            self.bounds.long = product.max(self.bounds.inflight_latest());
        }
    }

    /// Whether more was sent and no more was delivered (§5.3.1.2).
    fn judge_full(&mut self, ack: &Ack, round: bool) {
        if self.full.now || !round || ack.sample.app_limited {
            return;
        }
        if ack.sample.rate.saturating_mul(100) >= self.full.rate.saturating_mul(GROWTH) {
            self.full.start_over(ack.sample.rate);
            return;
        }
        self.full.rounds += 1;
        self.full.now = self.full.rounds >= FLAT_ROUNDS;
        self.full.reached |= self.full.now;
    }

    fn judge_start(&mut self, ack: &Ack) {
        if self.phase == Phase::Startup && self.full.reached {
            self.phase = Phase::Drain;
        }
        if self.phase == Phase::Drain && ack.pipe <= self.inflight(self.model.bandwidth(), 100) {
            self.go_down(ack);
        }
    }

    /// The cycle of probing for bandwidth (§5.3.3).
    fn probe(&mut self, ack: &Ack, round: bool) {
        let advance = self
            .bounds
            .on_round(round, self.is_cycling() && !ack.sample.app_limited);
        if advance {
            self.model.advance_bandwidth();
        }
        self.judge_flight(ack, round);
        match self.phase {
            Phase::Startup | Phase::Drain | Phase::Rest => {}
            Phase::Down if self.is_time_to_probe(ack) => self.refill(ack),
            Phase::Down => {
                let little = ack.pipe <= self.bounds.with_headroom(self.mss);
                if little && ack.pipe <= self.inflight(self.model.bandwidth(), 100) {
                    self.phase = Phase::Cruise;
                }
            }
            Phase::Cruise if self.is_time_to_probe(ack) => self.refill(ack),
            Phase::Cruise => {}
            Phase::Refill if round => self.go_up(ack),
            Phase::Refill => {}
            Phase::Up if ack.limited && self.window >= self.bounds.long => {
                self.full.start_over(ack.sample.rate);
            }
            Phase::Up if self.full.now => self.go_down(ack),
            Phase::Up => {}
        }
    }

    /// What a flight that came through, or did not, says of how much may be under way.
    fn judge_flight(&mut self, ack: &Ack, round: bool) {
        if self
            .bounds
            .ambient
            .is_too_high(ack.sample.lost, ack.sample.in_flight)
        {
            self.on_too_much(ack.sample, ack.now, ack.delivered);
            return;
        }
        self.bounds.raise(ack.sample.in_flight);
        if self.phase == Phase::Up && ack.limited && self.window >= self.bounds.long {
            self.bounds.grow(ack.bytes, self.mss, self.window, round);
        }
    }

    /// A segment is lost: what was delivered and lost since it was sent.
    pub(super) fn on_lost(&mut self, len: u64, sample: Sample, delivered: u64, now: Micros) {
        if self.bounds.probing && self.bounds.ambient.is_too_high(sample.lost, sample.in_flight) {
            let in_flight = self.bounds.ambient.flight_at_limit(sample, len);
            self.on_too_much(Sample { in_flight, ..sample }, now, delivered);
        }
    }

    /// Too much was under way, for the first time since the last probe began.
    fn on_too_much(&mut self, sample: Sample, now: Micros, delivered: u64) {
        if !std::mem::take(&mut self.bounds.probing) {
            return;
        }
        if !sample.app_limited {
            self.bounds.long = sample.in_flight.max(self.target() * bounds::BETA / 10);
        }
        if self.phase == Phase::Up {
            self.begin_down(delivered, now);
        }
    }

    fn is_time_to_probe(&self, ack: &Ack) -> bool {
        let reno = (self.target() / self.mss.max(1)).clamp(1, RENO_ROUNDS);
        ack.now.saturating_sub(self.cycle) > self.patience || self.rounds >= reno
    }

    fn go_down(&mut self, ack: &Ack) {
        self.begin_down(ack.delivered, ack.now);
    }

    fn begin_down(&mut self, delivered: u64, now: Micros) {
        self.bounds.forget_latest();
        self.bounds.stop();
        self.cycle = now;
        let chance = u64::from(self.draw());
        self.rounds = chance & 1;
        self.patience = 2 * SECOND + (chance >> 1) % SECOND;
        self.model.begin_round(delivered);
        self.phase = Phase::Down;
    }

    fn refill(&mut self, ack: &Ack) {
        self.bounds.forget_short();
        self.bounds.refill();
        self.model.begin_round(ack.delivered);
        self.phase = Phase::Refill;
    }

    fn go_up(&mut self, ack: &Ack) {
        self.bounds.start(self.mss, self.window);
        self.model.begin_round(ack.delivered);
        self.full.start_over(ack.sample.rate);
        self.phase = Phase::Up;
    }

    /// The least round trip, and the rest in which it shows (§5.3.4).
    fn judge_round_trip(&mut self, ack: &Ack, round: bool) {
        let due = self.model.on_round_trip(ack.round_trip, ack.now);
        if self.phase != Phase::Rest && due && !self.restarted {
            self.saved = self.window;
            self.rest_until = None;
            self.bounds.stop();
            self.model.begin_round(ack.delivered);
            self.phase = Phase::Rest;
        }
        if self.phase == Phase::Rest {
            match self.rest_until {
                None if ack.pipe <= self.rest_window() => {
                    self.rest_until = Some(ack.now + REST);
                    self.rest_round = false;
                    self.model.begin_round(ack.delivered);
                }
                None => {}
                Some(until) => {
                    self.rest_round |= round;
                    if self.rest_round && ack.now > until {
                        self.end_rest(ack.delivered, ack.now);
                    }
                }
            }
        }
        self.restarted = false;
    }

    fn end_rest(&mut self, delivered: u64, now: Micros) {
        self.model.rested(now);
        self.window = self.window.max(self.saved);
        self.bounds.forget_short();
        if self.full.reached {
            self.begin_down(delivered, now);
            self.phase = Phase::Cruise;
        } else {
            self.phase = Phase::Startup;
        }
    }

    /// Whether nothing that is delivered now shows what the path carries.
    pub(super) fn is_resting(&self) -> bool {
        self.phase == Phase::Rest
    }

    /// A retransmission timeout: one segment shows whether anything comes through.
    pub(super) fn on_timeout(&mut self, again: bool) {
        if !again {
            self.saved = self.saved_window();
        }
        self.window = self.mss;
    }

    fn saved_window(&self) -> u64 {
        match self.phase {
            Phase::Rest => self.saved.max(self.window),
            Phase::Startup | Phase::Drain | Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up => {
                self.window
            }
        }
    }

    /// What a timeout began is over.
    pub(super) fn on_recovered(&mut self) {
        self.window = self.window.max(self.saved);
    }

    /// What was taken for lost was late.
    pub(super) fn undo(&mut self, before: &Self) {
        self.bounds.undo(&before.bounds);
        self.window = self.window.max(before.window);
    }

    /// Something is sent while nothing is under way, because the owner had nothing.
    pub(super) fn on_restart(&mut self, delivered: u64, now: Micros) {
        self.restarted = true;
        self.model.restart(now);
        match self.phase {
            Phase::Rest if self.rest_until.is_some_and(|until| now > until) => self.end_rest(delivered, now),
            Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up if self.bandwidth() > 0 => {
                self.rate = self.bandwidth().saturating_mul(MARGIN) / 100;
            }
            Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up => {}
            Phase::Startup | Phase::Drain | Phase::Rest => {}
        }
    }

    /// Flows that began together should not probe together (xorshift, seeded by the initial sequence number).
    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }

    #[cfg(test)]
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }
}

impl Full {
    fn start_over(&mut self, rate: u64) {
        (self.rate, self.rounds, self.now) = (rate, 0, false);
    }
}

#[cfg(test)]
mod tests;
