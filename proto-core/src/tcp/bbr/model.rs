//! The path as its acknowledgements show it: the greatest rate of delivery, the least round trip, and how much more is
//! acknowledged at once than the rate explains (§4.2 and §5.5 of the draft).

use super::super::rtt::{Micros, SECOND};
use super::Ack;

/// How long the least round trip is believed.
const MEMORY: Micros = 10 * SECOND;

/// Half of the rounds for which an excess of acknowledgements is remembered.
const HALF: u64 = 5;

/// A round trip within an eighth, and a millisecond, of the least one has seen no queue.
const QUEUE: Micros = 1000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Model {
    /// The greatest rates of the last cycle of probing and of this one.
    rates: [u64; 2],
    /// The least round trip of ten seconds, and when it was seen.
    least: Option<(Micros, Micros)>,
    /// The least one since the last rest, and when it was seen.
    recent: Option<(Micros, Micros)>,
    /// The least one of this round, and of the last.
    in_round: [Option<Micros>; 2],
    /// The round is over when something sent after this is delivered.
    round_end: u64,
    rounds: u64,
    /// The excess of acknowledgements: since when it is counted, bytes since then, and the greatest of two times five rounds.
    since: Micros,
    counted: u64,
    excess: [u64; 2],
    excess_from: u64,
}

impl Model {
    /// Takes an acknowledgement; whether it begins a round.
    pub(super) fn on_delivered(&mut self, ack: &Ack, window: u64, full: bool) -> bool {
        let round = ack.sample.prior >= self.round_end;
        if round {
            self.round_end = ack.delivered;
            self.rounds += 1;
            self.in_round = [None, self.in_round[0]];
        }
        let rate = ack.sample.rate;
        if rate >= self.bandwidth() || !ack.sample.app_limited {
            self.rates[1] = self.rates[1].max(rate);
        }
        self.count_excess(ack, window, full);
        round
    }

    fn count_excess(&mut self, ack: &Ack, window: u64, full: bool) {
        let span = if full { HALF } else { 1 };
        if self.rounds - self.excess_from >= span {
            self.excess = [self.excess[1], 0];
            self.excess_from = self.rounds;
        }
        let elapsed = u128::from(ack.now.saturating_sub(self.since));
        let expected = elapsed * u128::from(self.bandwidth()) / u128::from(SECOND);
        let mut expected = u64::try_from(expected).unwrap_or(u64::MAX);
        if self.counted <= expected {
            (self.since, self.counted, expected) = (ack.now, 0, 0);
        }
        self.counted += ack.bytes;
        let excess = self.counted.saturating_sub(expected).min(window);
        self.excess[1] = self.excess[1].max(excess);
    }

    /// The greatest rate of two cycles.
    pub(super) fn bandwidth(&self) -> u64 {
        self.rates[0].max(self.rates[1])
    }

    /// A cycle of probing is over, and with it what the one before the last has found.
    pub(super) fn advance_bandwidth(&mut self) {
        if self.rates[1] > 0 {
            self.rates = [self.rates[1], 0];
        }
    }

    /// What a path of a bandwidth holds in its least round trip, once there was one.
    pub(super) fn product(&self, bandwidth: u64) -> Option<u64> {
        let (least, _) = self.least?;
        let product = u128::from(bandwidth) * u128::from(least) / u128::from(SECOND);
        Some(u64::try_from(product).unwrap_or(u64::MAX))
    }

    pub(super) fn extra_acked(&self) -> u64 {
        self.excess[0].max(self.excess[1])
    }

    /// A round begins with what is sent now.
    pub(super) fn begin_round(&mut self, delivered: u64) {
        self.round_end = delivered;
    }

    /// Takes a round trip; whether it is time for a rest in which the least one shows.
    pub(super) fn on_round_trip(&mut self, sample: Option<Micros>, now: Micros) -> bool {
        let (recent, due) = match self.recent {
            None => (None, false),
            Some((recent, at)) => (Some(recent), now > at + super::REST_EACH),
        };
        let Some(sample) = sample.map(|sample| sample.max(1)) else {
            return due;
        };
        let place = &mut self.in_round[0];
        *place = Some(place.map_or(sample, |least| least.min(sample)));
        if due || recent.is_none_or(|recent| sample <= recent) {
            self.recent = Some((sample, now));
        }
        if let Some((recent, at)) = self.recent {
            let old = self.least.is_some_and(|(_, seen)| now > seen + MEMORY);
            if old || self.least.is_none_or(|(least, _)| recent <= least) {
                self.least = Some((recent, at));
            }
        }
        due
    }

    /// Little was under way for long enough.
    pub(super) fn rested(&mut self, now: Micros) {
        if let Some((_, at)) = &mut self.recent {
            *at = now;
        }
    }

    /// Whether the round trips of the last whole round have seen no queue.
    pub(super) fn is_queue_empty(&self) -> bool {
        match (self.in_round[1], self.least) {
            (Some(seen), Some((least, _))) => seen <= least + least / 8 + QUEUE,
            _ => false,
        }
    }

    /// The owner had nothing to send: acknowledgements are counted from now.
    pub(super) fn restart(&mut self, now: Micros) {
        (self.since, self.counted) = (now, 0);
    }
}
