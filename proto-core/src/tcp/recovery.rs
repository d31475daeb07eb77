//! What a loss changes until everything that was under way then is acknowledged.

use super::congestion::Congestion;
use super::rtt::Micros;

/// What began an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Segments were delivered behind a hole: the window shrinks in proportion (RFC 6937).
    Hole,
    /// Nothing was heard: slow start from one segment.
    Timeout,
}

/// A recovery, or what follows a timeout.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) cause: Cause,
    /// It is over when everything before this is acknowledged.
    pub(super) point: u64,
    /// Proportional rate reduction: what was under way when it began, what was delivered and what was sent since.
    flight: u64,
    delivered: u64,
    out: u64,
    /// The controller before the reduction, in case it was for nothing.
    pub(super) saved: Congestion,
    /// When the first segment was sent again.
    pub(super) first: Option<Micros>,
}

impl Episode {
    pub(super) fn new(cause: Cause, point: u64, flight: u64, saved: Congestion) -> Self {
        Self {
            cause,
            point,
            flight: flight.max(1),
            delivered: 0,
            out: 0,
            saved,
            first: None,
        }
    }

    /// The window after an acknowledgement (RFC 6937 §3.1, with the safe bound of RFC 9937).
    pub(super) fn window(&mut self, delivered: u64, pipe: u64, threshold: u64, mss: u64, safe: bool) -> u64 {
        self.delivered += delivered;
        let mut more = if pipe > threshold {
            let share = u128::from(self.delivered) * u128::from(threshold);
            let share = share.div_ceil(u128::from(self.flight)) as u64;
            share.saturating_sub(self.out)
        } else {
            let bound = self.delivered.saturating_sub(self.out).max(delivered);
            let bound = bound + if safe { mss } else { 0 };
            bound.min(threshold - pipe)
        };
        if self.out == 0 {
            // The first retransmission does not wait.
            more = more.max(mss);
        }
        pipe + more
    }

    /// Bytes were sent.
    pub(super) fn on_sent(&mut self, bytes: u64, again: bool, now: Micros) {
        self.out += bytes;
        if again {
            self.first.get_or_insert(now);
        }
    }
}

/// A tail loss probe that was sent (RFC 8985 §7.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The end of what was under way with it.
    pub(super) end: u64,
    /// When a segment was repeated; `None` if it was new data.
    pub(super) again: Option<Micros>,
}

#[cfg(test)]
mod tests;
