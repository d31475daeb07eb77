//! When the next segment may go: a rate is kept by sending a few segments at a time, and then none for a while.
//!
//! A whole quantum goes at once, so that packets for one peer stay together and no timer is needed for each. Where the
//! timer came late, what was missed meanwhile is made up for; where the sender had nothing to send, it is not.

use super::rtt::{MILLISECOND, Micros};

/// How much lateness of a timer is made up for.
const LATENESS: Nanos = 4 * 1_000_000;

/// A quantum: what is sent in a millisecond, but at most a super-packet and at least two segments.
const SPAN: Micros = MILLISECOND;
const MOST: u64 = 64 * 1024;
const LEAST_SEGMENTS: u64 = 2;

/// Nanoseconds since a connection began: a segment takes less than a microsecond on a fast path.
type Nanos = u64;

/// A rate, and how much of it goes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Bytes per second.
    pub(super) rate: u64,
    /// Bytes.
    pub(super) quantum: u64,
}

impl Pace {
    pub(super) fn new(rate: u64, mss: u64) -> Self {
        let rate = rate.max(1);
        let quantum = rate.saturating_mul(SPAN) / super::rtt::SECOND;
        Self {
            rate,
            quantum: quantum.min(MOST).max(LEAST_SEGMENTS * mss),
        }
    }

    fn time(&self, bytes: u64) -> Nanos {
        bytes.saturating_mul(1_000_000_000) / self.rate
    }
}

/// The pacing of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pacer {
    /// When everything that was sent has had its time.
    free: Nanos,
    /// A quantum is being sent.
    open: bool,
    /// A segment waited for its time.
    waiting: bool,
    /// The lateness that this quantum makes up for.
    allowance: Nanos,
}

impl Pacer {
    /// Whether a segment may be sent now; otherwise when, which is later than now.
    pub(super) fn ask(&mut self, pace: Pace, now: Micros) -> Result<(), Micros> {
        let now = now.saturating_mul(1000);
        if self.open && self.free >= now + pace.time(pace.quantum) {
            self.open = false;
        }
        if !self.open {
            if self.free > now {
                self.waiting = true;
                return Err(self.free.div_ceil(1000));
            }
            self.open = true;
            self.allowance = if self.waiting { LATENESS } else { 0 };
            self.waiting = false;
        }
        if self.free >= now {
            self.allowance = 0;
        }
        self.free = self.free.max(now.saturating_sub(self.allowance));
        Ok(())
    }

    /// The sender has nothing to send: nothing is missed.
    pub(super) fn rest(&mut self) {
        self.allowance = 0;
        self.waiting = false;
    }

    /// So much was sent.
    pub(super) fn on_sent(&mut self, bytes: u64, pace: Pace, now: Micros) {
        let now = now.saturating_mul(1000);
        self.free = self.free.max(now.saturating_sub(self.allowance)) + pace.time(bytes);
    }
}

#[cfg(test)]
mod tests;
