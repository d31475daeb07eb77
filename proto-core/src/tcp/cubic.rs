//! How much may be under way: CUBIC (RFC 9438) with HyStart++ (RFC 9406).
//!
//! Windows are bytes. Acknowledged bytes are counted, not acknowledgements, so that one that covers many segments counts
//! for all of them.

use super::rtt::{MILLISECOND, Micros};

/// Multiplicative decrease and the aggressiveness of the cubic term (RFC 9438 §4.6 and §5).
const BETA: f64 = 0.7;
const C: f64 = 0.4;

/// The additive increase that is as aggressive as Reno's (RFC 9438 §4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The initial window (RFC 6928).
const INITIAL_SEGMENTS: u64 = 10;

/// HyStart++ (RFC 9406 §4.3).
const SAMPLES: u32 = 8;
const LEAST_RISE: Micros = 4 * MILLISECOND;
const MOST_RISE: Micros = 16 * MILLISECOND;
const CONSERVATIVE_DIVISOR: u64 = 4;
const CONSERVATIVE_ROUNDS: u32 = 5;

/// What is known when bytes were acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Newly delivered bytes.
    pub(super) bytes: u64,
    /// The round trip measured by this acknowledgement.
    pub(super) sample: Option<Micros>,
    /// The smoothed round trip.
    pub(super) smoothed: Micros,
    /// The first byte not acknowledged.
    pub(super) una: u64,
    /// The first byte not sent.
    pub(super) next: u64,
    pub(super) now: Micros,
}

/// The congestion controller of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cubic {
    mss: u64,
    window: u64,
    threshold: u64,
    /// The window before the last reduction, in segments, and the time to be back there, in seconds.
    w_max: f64,
    k: f64,
    /// When the present growth began.
    epoch: Option<Micros>,
    /// What Reno would have, in segments, and the window at the last reduction.
    w_est: f64,
    prior: f64,
    /// Bytes that did not make a whole step yet.
    rest: f64,
    start: HyStart,
}

/// Rounds of slow start and their least round trips.
#[derive(Clone, Copy, Debug, Default)]
struct HyStart {
    end: u64,
    least: Option<Micros>,
    least_before: Option<Micros>,
    samples: u32,
    /// Rounds of conservative slow start, and the round trip that began it.
    conservative: Option<(u32, Micros)>,
}

impl Cubic {
    pub(super) fn new(mss: u64) -> Self {
        Self {
            mss,
            window: INITIAL_SEGMENTS * mss,
            threshold: u64::MAX,
            w_max: 0.0,
            k: 0.0,
            epoch: None,
            w_est: 0.0,
            prior: 0.0,
            rest: 0.0,
            start: HyStart::default(),
        }
    }

    /// The segment size has changed. The window stays: it counts bytes.
    pub(super) fn set_mss(&mut self, mss: u64) {
        if self.mss != mss {
            let ratio = self.mss as f64 / mss as f64;
            (self.w_max, self.w_est, self.prior) =
                (self.w_max * ratio, self.w_est * ratio, self.prior * ratio);
            self.mss = mss;
            self.window = self.window.max(2 * mss);
        }
    }

    /// The congestion window.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn mss(&self) -> u64 {
        self.mss
    }

    /// The slow-start threshold.
    pub(super) fn threshold(&self) -> u64 {
        self.threshold
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Bytes were delivered while the window was what held the sender back.
    pub(super) fn on_acked(&mut self, acked: Acked) {
        if self.in_slow_start() {
            self.slow_start(acked);
        } else {
            self.avoid(acked);
        }
    }

    /// HyStart++ watches round trips also while the window does not limit.
    fn slow_start(&mut self, acked: Acked) {
        self.window += match self.start.conservative {
            None => acked.bytes,
            Some(_) => acked.bytes / CONSERVATIVE_DIVISOR,
        };
        if self.start.watch(acked) {
            self.threshold = self.window;
        }
    }

    fn avoid(&mut self, acked: Acked) {
        let mss = self.mss as f64;
        let window = self.window as f64 / mss;
        let acked_segments = acked.bytes as f64 / mss;
        let epoch = *self.epoch.get_or_insert_with(|| {
            // Slow start has ended without loss: growth begins on the plateau (RFC 9438 §4.2).
            if self.w_max < window {
                (self.w_max, self.k) = (window, 0.0);
            } else {
                self.k = ((self.w_max - window) / C).cbrt();
            }
            self.w_est = window;
            acked.now
        });
        let elapsed = (acked.now.saturating_sub(epoch)) as f64 / 1e6;
        let at = |time: f64| C * (time - self.k).powi(3) + self.w_max;
        let alpha = if self.w_est >= self.prior { 1.0 } else { ALPHA };
        self.w_est += alpha * acked_segments / window;
        let wanted = if at(elapsed) < self.w_est {
            self.w_est - window
        } else {
            let target = at(elapsed + acked.smoothed as f64 / 1e6).clamp(window, 1.5 * window);
            (target - window) / window * acked_segments
        };
        self.rest += wanted.max(0.0) * mss;
        let whole = self.rest.floor();
        self.rest -= whole;
        self.window += whole as u64;
    }

    /// A segment was lost while so many bytes were sent and not acknowledged (RFC 9438 §4.6 and §4.7). The window itself
    /// is left to the recovery.
    pub(super) fn on_loss(&mut self, flight: u64) {
        // A window that was not used says nothing about the path.
        self.window = self.window.min(flight.max(2 * self.mss));
        let window = self.window as f64 / self.mss as f64;
        self.w_max = if window < self.w_max {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        self.prior = window;
        self.threshold = ((self.window as f64 * BETA) as u64).max(2 * self.mss);
        let reduced = self.threshold as f64 / self.mss as f64;
        self.k = ((self.w_max - reduced).max(0.0) / C).cbrt();
        self.w_est = reduced;
        self.epoch = None;
        self.rest = 0.0;
    }

    /// The recovery says how much may be under way.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window.max(self.mss);
    }

    /// A retransmission timeout (RFC 9438 §4.8).
    pub(super) fn on_timeout(&mut self, flight: u64) {
        self.on_loss(flight);
        self.window = self.mss;
        self.start = HyStart::default();
    }

    /// The connection rested for longer than a timeout: what the path carries is not known any more (RFC 5681 §4.1).
    pub(super) fn on_idle(&mut self) {
        let initial = INITIAL_SEGMENTS * self.mss;
        if self.window > initial {
            self.threshold = self.threshold.max(self.window / 4 * 3);
            self.window = initial;
        }
        self.epoch = None;
        self.start = HyStart::default();
    }
}

impl HyStart {
    /// Whether slow start ends.
    fn watch(&mut self, acked: Acked) -> bool {
        if acked.una >= self.end {
            self.end = acked.next;
            self.least_before = self.least.take();
            self.samples = 0;
            if let Some((rounds, _)) = &mut self.conservative {
                *rounds += 1;
                if *rounds >= CONSERVATIVE_ROUNDS {
                    return true;
                }
            }
        }
        let Some(sample) = acked.sample else { return false };
        self.samples += 1;
        let least = self.least.map_or(sample, |least| least.min(sample));
        self.least = Some(least);
        let (SAMPLES.., Some(before)) = (self.samples, self.least_before) else {
            return false;
        };
        match self.conservative {
            // The delay has gone again: the rise was noise.
            Some((_, baseline)) if least < baseline => self.conservative = None,
            Some(_) => {}
            None if least >= before + (before / 8).clamp(LEAST_RISE, MOST_RISE) => {
                self.conservative = Some((0, least));
            }
            None => {}
        }
        false
    }
}

#[cfg(test)]
mod tests;
