//! How long a round trip takes, and how long to wait for one (RFC 6298).

/// Microseconds since a connection began.
pub(super) type Micros = u64;

pub(super) const MILLISECOND: Micros = 1000;
pub(super) const SECOND: Micros = 1_000_000;

/// The retransmission timeout before anything was measured (RFC 6298 §2.1).
const INITIAL: Micros = SECOND;

/// What the timeout leaves above the smoothed round trip at least: as Linux does, because peers delay acknowledgements.
pub(super) const MARGIN: Micros = 200 * MILLISECOND;

/// The longest timeout, backed off.
const LONGEST: Micros = 60 * SECOND;

/// Doublings at most; [`LONGEST`] is reached before.
const MOST_DOUBLINGS: u32 = 16;

/// How long the least round trip is remembered, at least.
const MEMORY: Micros = 60 * SECOND;

/// The estimator of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    /// 0 before the first sample.
    smoothed: Micros,
    variation: Micros,
    doublings: u32,
    /// The least of the present and of the previous period, and when the present one began.
    least: Option<Micros>,
    least_before: Option<Micros>,
    since: Micros,
}

impl Rtt {
    /// Takes a sample (RFC 6298 §2.2 and §2.3).
    pub(super) fn sample(&mut self, sample: Micros, now: Micros) {
        let sample = sample.max(1);
        if now.saturating_sub(self.since) > MEMORY {
            self.least_before = self.least.take();
            self.since = now;
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        if self.smoothed == 0 {
            self.smoothed = sample;
            self.variation = sample / 2;
        } else {
            let distance = self.smoothed.abs_diff(sample);
            self.variation = (3 * self.variation + distance) / 4;
            self.smoothed = ((7 * self.smoothed + sample) / 8).max(1);
        }
    }

    /// The smoothed round trip, once there was a sample.
    pub(super) fn smoothed(&self) -> Option<Micros> {
        (self.smoothed > 0).then_some(self.smoothed)
    }

    /// The least round trip of the last while.
    pub(super) fn least(&self) -> Option<Micros> {
        match (self.least, self.least_before) {
            (Some(now), Some(before)) => Some(now.min(before)),
            (now, before) => now.or(before),
        }
    }

    /// The retransmission timeout.
    pub(super) fn timeout(&self) -> Micros {
        let base = match self.smoothed {
            0 => INITIAL,
            smoothed => smoothed + (4 * self.variation).max(MARGIN),
        };
        (base << self.doublings.min(MOST_DOUBLINGS)).min(LONGEST)
    }

    /// The timeout has passed in vain.
    pub(super) fn back_off(&mut self) {
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
    }

    /// Whether a timeout passed in vain since the peer acknowledged something new.
    pub(super) fn has_backed_off(&self) -> bool {
        self.doublings > 0
    }

    /// The peer acknowledged something new.
    pub(super) fn relax(&mut self) {
        self.doublings = 0;
    }
}

#[cfg(test)]
mod tests;
