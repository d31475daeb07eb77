//! What arrived: each packet once, by its sequence number.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::packet::Mark;

/// Senders told apart; packets of others are not counted.
const SENDERS: usize = 1_024;

/// Sequence numbers of one round that are told apart; later ones are not counted.
const SEQUENCES: u64 = 1 << 24;

#[derive(Debug, Default)]
struct Sender {
    round: u32,
    next: u64,
    seen: Vec<u64>,
}

/// Arrivals since the last look.
#[derive(Debug, Default)]
pub(super) struct Tally {
    senders: Vec<Sender>,
    arrived: u64,
    duplicates: u64,
    reordered: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Tally {
    /// Counts one packet; `false` if it was there before.
    pub(super) fn count(&mut self, mark: Mark, now: Instant) -> bool {
        let index = mark.sender as usize;
        if index >= SENDERS || mark.sequence >= SEQUENCES {
            return false;
        }
        if self.senders.len() <= index {
            self.senders.resize_with(index + 1, Sender::default);
        }
        let sender = &mut self.senders[index];
        if sender.round != mark.round {
            *sender = Sender {
                round: mark.round,
                ..Sender::default()
            };
        }
        let word = (mark.sequence / 64) as usize;
        if sender.seen.len() <= word {
            sender.seen.resize(word + 1, 0);
        }
        let bit = 1 << (mark.sequence % 64);
        if sender.seen[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        sender.seen[word] |= bit;
        self.reordered += u64::from(mark.sequence < sender.next);
        sender.next = sender.next.max(mark.sequence + 1);
        self.arrived += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
        true
    }

    /// The figures so far; starts anew.
    pub(super) fn take(&mut self) -> Value {
        let span = self
            .first
            .zip(self.last)
            .map_or(Duration::ZERO, |(first, last)| last - first);
        let value = json!({
            "arrived": self.arrived,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "span_s": span.as_secs_f64(),
        });
        let senders = std::mem::take(&mut self.senders);
        *self = Self {
            senders,
            ..Self::default()
        };
        value
    }
}

/// Round-trip times.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<u32>);

impl Times {
    /// Most samples that are kept.
    const MOST: usize = 4_000_000;

    pub(super) fn add(&mut self, time: Duration) {
        if self.0.len() < Self::MOST {
            self.0.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
        }
    }

    /// Quantiles in microseconds.
    pub(super) fn summary(&mut self) -> Value {
        self.0.sort_unstable();
        let at = |share: f64| {
            let index = (self.0.len() as f64 * share) as usize;
            self.0
                .get(index.min(self.0.len().saturating_sub(1)))
                .map(|nanos| f64::from(*nanos) / 1e3)
        };
        json!({ "samples": self.0.len(), "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "max_us": at(1.0) })
    }
}
