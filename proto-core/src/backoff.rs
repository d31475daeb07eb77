//! How long to wait before trying again: doubling, capped, jittered.
//!
//! It decides the delay only. The caller decides what a failure is, and calls [`Backoff::reset`] only after real
//! success (registered, not merely connected): a peer that accepts and then drops us must not be hammered.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::rng::Rng;

/// The state of one retried thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at `initial` and never waits longer than `cap`; an `initial` above `cap` is taken as `cap`.
    pub fn new(initial: Duration, cap: Duration) -> Self {
        let initial = initial.min(cap);
        Self {
            initial,
            cap,
            ceiling: initial,
        }
    }

    /// The delay before the next attempt, called once per failure.
    ///
    /// Uniform between half the ceiling and the ceiling, which doubles with every call. Half is kept as a floor so that
    /// a lucky draw never retries at once; the other half spreads clients that all lost the same peer at one instant.
    pub fn next_delay(&mut self, rng: &mut Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.cap);
        rng.duration_between(ceiling / 2, ceiling)
    }

    /// Forgets all failures. To be called after success only.
    pub fn reset(&mut self) {
        self.ceiling = self.initial;
    }
}
