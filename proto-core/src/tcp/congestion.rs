//! The seam between a connection and what decides how much it may have under way.

use super::bbr::Bbr;
use super::cubic::Cubic;
use super::delivery::Delivery;
use super::pacer::Pace;
use super::recovery::Cause;
use super::rtt::Micros;
use super::scoreboard::Sent;

/// A congestion control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 9438: a loss means that the path is full.
    Cubic,
    /// draft-ietf-ccwg-bbr: the path is measured, and losses by chance cost nothing.
    #[default]
    Bbr,
}

/// The controller of one connection.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the larger one is the rule, and a box would be an allocation for each connection"
)]
pub(super) enum Congestion {
    Cubic(Cubic),
    Bbr(Bbr),
}

impl Congestion {
    /// The seed makes connections differ that begin together.
    pub(super) fn new(algorithm: Algorithm, mss: u64, smoothed: Option<Micros>, seed: u32) -> Self {
        match algorithm {
            Algorithm::Cubic => Self::Cubic(Cubic::new(mss)),
            Algorithm::Bbr => Self::Bbr(Bbr::new(mss, smoothed, seed)),
        }
    }

    pub(super) fn set_mss(&mut self, mss: u64) {
        match self {
            Self::Cubic(cubic) => cubic.set_mss(mss),
            Self::Bbr(bbr) => bbr.set_mss(mss),
        }
    }

    /// How much may be under way.
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::Cubic(cubic) => cubic.window(),
            Self::Bbr(bbr) => bbr.window(),
        }
    }

    /// The rate at which to send, if there is one.
    pub(super) fn pace(&self) -> Option<Pace> {
        match self {
            Self::Cubic(_) => None,
            Self::Bbr(bbr) => Some(bbr.pace()),
        }
    }

    /// A window half of which is used may grow.
    pub(super) fn in_slow_start(&self) -> bool {
        match self {
            Self::Cubic(cubic) => cubic.in_slow_start(),
            Self::Bbr(_) => false,
        }
    }

    /// A recovery begins, with so much sent and not acknowledged.
    pub(super) fn on_hole(&mut self, flight: u64) {
        match self {
            Self::Cubic(cubic) => cubic.on_loss(flight),
            Self::Bbr(_) => {}
        }
    }

    /// A tail loss probe has repaired a loss.
    pub(super) fn on_repaired(&mut self, flight: u64) {
        match self {
            Self::Cubic(cubic) => {
                cubic.on_loss(flight);
                cubic.set_window(cubic.threshold());
            }
            Self::Bbr(_) => {}
        }
    }

    /// A retransmission timeout, the first of its episode or another one.
    pub(super) fn on_timeout(&mut self, flight: u64, again: bool) {
        match self {
            Self::Cubic(cubic) if again => cubic.set_window(0),
            Self::Cubic(cubic) => cubic.on_timeout(flight),
            Self::Bbr(bbr) => bbr.on_timeout(again),
        }
    }

    /// Everything that was under way when a recovery began is acknowledged.
    pub(super) fn on_recovered(&mut self, cause: Cause) {
        match (self, cause) {
            (Self::Cubic(cubic), Cause::Hole) => cubic.set_window(cubic.threshold()),
            (Self::Cubic(_), Cause::Timeout) | (Self::Bbr(_), Cause::Hole) => {}
            (Self::Bbr(bbr), Cause::Timeout) => bbr.on_recovered(),
        }
    }

    /// Nothing was sent for longer than a timeout.
    pub(super) fn on_idle(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.on_idle(),
            // The model is still what is known best, and its rate bounds the first burst.
            Self::Bbr(_) => {}
        }
    }

    /// Something is sent while nothing is under way, because the owner had nothing.
    pub(super) fn on_restart(&mut self, delivered: u64, now: Micros) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => bbr.on_restart(delivered, now),
        }
    }

    /// A segment is lost.
    pub(super) fn on_lost(&mut self, lost: &Sent, delivery: &Delivery, now: Micros) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => {
                let sample = delivery.since(&lost.stamp);
                bbr.on_lost(lost.len(), sample, delivery.delivered(), now);
            }
        }
    }

    /// The losses since then were none.
    pub(super) fn undo(&mut self, before: &Self) {
        match (self, before) {
            (Self::Cubic(cubic), Self::Cubic(saved)) => {
                let window = cubic.window().max(saved.window());
                *cubic = *saved;
                cubic.set_window(window);
            }
            (Self::Bbr(bbr), Self::Bbr(saved)) => bbr.undo(saved),
            // A connection keeps its kind.
            (Self::Cubic(_), Self::Bbr(_)) | (Self::Bbr(_), Self::Cubic(_)) => {}
        }
    }
}
