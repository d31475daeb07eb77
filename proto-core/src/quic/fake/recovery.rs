//! Round-trip times, the probe timeout and a congestion window (RFC 9002), one for the whole connection.

use std::time::{Duration, Instant};

use crate::config::limits::MAX_UDP_PAYLOAD;

/// The round-trip time assumed before any sample.
const INITIAL_RTT: Duration = Duration::from_millis(333);

/// The resolution of timers.
pub(super) const GRANULARITY: Duration = Duration::from_millis(1);

/// The probe timeout doubles at most this often.
const MAX_BACKOFF: u32 = 6;

/// The size that windows are counted in.
const PACKET: usize = MAX_UDP_PAYLOAD;

/// Estimates and the window.
#[derive(Debug)]
pub(super) struct Recovery {
    smoothed: Option<Duration>,
    variance: Duration,
    latest: Duration,
    pub(super) backoff: u32,
    window: usize,
    threshold: usize,
    in_flight: usize,
    /// Losses of packets sent before this belong to an episode already answered.
    recovery_from: Option<Instant>,
}

impl Recovery {
    pub(super) fn new() -> Self {
        Self {
            smoothed: None,
            variance: INITIAL_RTT / 2,
            latest: INITIAL_RTT,
            backoff: 0,
            window: 10 * PACKET,
            threshold: usize::MAX,
            in_flight: 0,
            recovery_from: None,
        }
    }

    pub(super) fn rtt(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL_RTT)
    }

    pub(super) fn on_rtt_sample(&mut self, sample: Duration) {
        self.latest = sample;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variance = sample / 2;
            return;
        };
        self.variance = (self.variance * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// The probe timeout without back-off (RFC 9002 §6.2.1).
    pub(super) fn pto(&self) -> Duration {
        self.rtt() + (self.variance * 4).max(GRANULARITY)
    }

    pub(super) fn backed_off_pto(&self) -> Duration {
        self.pto() * (1 << self.backoff.min(MAX_BACKOFF))
    }

    /// How long after a later packet was acknowledged an earlier one may still arrive (RFC 9002 §6.1.2).
    pub(super) fn loss_delay(&self) -> Duration {
        (self.rtt().max(self.latest) * 9 / 8).max(GRANULARITY)
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.window
    }

    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    pub(super) fn on_discarded(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    pub(super) fn on_acked(&mut self, bytes: usize) {
        let limited = self.in_flight + PACKET >= self.window;
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if !limited {
            return;
        }
        self.window += if self.window < self.threshold {
            bytes
        } else {
            PACKET * bytes / self.window
        };
    }

    pub(super) fn on_lost(&mut self, bytes: usize, last_sent: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if self.recovery_from.is_some_and(|from| last_sent <= from) {
            return;
        }
        self.recovery_from = Some(now);
        self.window = (self.window / 2).max(2 * PACKET);
        self.threshold = self.window;
    }
}
