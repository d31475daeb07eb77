//! A token bucket: so many bytes a second, with a burst of a tenth of that.

use std::time::Instant;

/// What one direction of a channel may still carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Bytes per second.
    rate: Option<u64>,
    /// Bytes that may be sent now.
    tokens: u64,
    filled: Instant,
}

/// A burst holds at least one batch of segmentation offload.
const LEAST_BURST: u64 = 65_535;

impl Bucket {
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self {
            rate,
            tokens: rate.map_or(0, burst),
            filled: now,
        }
    }

    /// Takes so many bytes, if they are there.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        let elapsed = now.saturating_duration_since(self.filled).as_micros();
        let earned = u64::try_from(elapsed * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(burst(rate));
            self.filled = now;
        }
        match self.tokens.checked_sub(bytes) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

fn burst(rate: u64) -> u64 {
    (rate / 10).max(LEAST_BURST)
}
