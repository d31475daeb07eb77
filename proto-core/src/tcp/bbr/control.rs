//! What follows from the model: the rate, and how much may be under way (§5.6 of the draft).

use super::super::rtt::SECOND;
use super::{Ack, Bbr, INITIAL_SEGMENTS, Phase};

/// Gains in percent: of the pacing rate, and of the window over the product of bandwidth and delay.
pub(super) const STARTUP_PACE: u64 = 277;
const DRAIN_PACE: u64 = 50;
const WINDOW: u64 = 200;
const UP_WINDOW: u64 = 225;
const REST_WINDOW: u64 = 50;

/// The rate is this much below what the path delivers, so that queues go.
pub(super) const MARGIN: u64 = 99;

impl Bbr {
    /// A share of the product of bandwidth and delay, with room for what goes at once.
    pub(super) fn inflight(&self, bandwidth: u64, percent: u64) -> u64 {
        let Some(product) = self.model.product(bandwidth) else {
            return INITIAL_SEGMENTS * self.mss;
        };
        self.with_quanta(product.saturating_mul(percent) / 100)
    }

    pub(super) fn with_quanta(&self, inflight: u64) -> u64 {
        let probe = if self.phase == Phase::Up { 2 * self.mss } else { 0 };
        let quanta = 3 * self.pace().quantum;
        inflight.max(quanta).max(self.least_window()) + probe
    }

    /// What a probe that failed is measured by.
    pub(super) fn target(&self) -> u64 {
        let product = self.model.product(self.bandwidth());
        product.unwrap_or(self.window).min(self.window)
    }

    pub(super) fn rest_window(&self) -> u64 {
        let product = self.model.product(self.bandwidth());
        let window = product.map_or(INITIAL_SEGMENTS * self.mss, |product| product * REST_WINDOW / 100);
        window.max(self.least_window())
    }

    pub(super) fn set_rate(&mut self, ack: &Ack) {
        let gain = match self.phase {
            Phase::Startup => STARTUP_PACE,
            Phase::Drain => DRAIN_PACE,
            Phase::Down => 90,
            Phase::Cruise | Phase::Refill | Phase::Rest => 100,
            Phase::Up => 125,
        };
        if let Some(smoothed) = ack.smoothed {
            self.least_rate = (2 * self.mss).saturating_mul(SECOND) / smoothed.max(1);
        }
        let bandwidth = self.bandwidth();
        if bandwidth == 0 {
            return;
        }
        let rate = bandwidth.saturating_mul(gain * MARGIN) / 10_000;
        if self.full.reached || rate > self.rate {
            self.rate = rate;
        }
    }

    pub(super) fn set_window(&mut self, ack: &Ack) {
        let gain = if self.phase == Phase::Up {
            UP_WINDOW
        } else {
            WINDOW
        };
        let most = self.inflight(self.bandwidth(), gain) + self.model.extra_acked();
        let grown = self.window + ack.bytes;
        if self.full.reached {
            self.window = grown.min(most);
        } else if self.window < most || ack.delivered < INITIAL_SEGMENTS * self.mss {
            self.window = grown;
        }
        let cap = match self.phase {
            Phase::Cruise | Phase::Rest => self.bounds.with_headroom(self.mss),
            Phase::Down | Phase::Refill | Phase::Up => self.bounds.long,
            Phase::Startup | Phase::Drain => u64::MAX,
        };
        self.window = self.window.min(cap.min(self.bounds.short));
        if self.phase == Phase::Rest {
            self.window = self.window.min(self.rest_window());
        }
        self.window = self.window.max(self.least_window());
    }
}
