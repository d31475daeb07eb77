//! Where simulated time comes from.
//!
//! Machines get `now` as a parameter, so a plain value will do for them. A QUIC implementation that reads the process's
//! clock takes part through a clock of its own, which moves that one instead.

use std::sync::OnceLock;
use std::time::Instant;

/// Time that moves only when told to.
pub trait Clock {
    /// The current time.
    fn now(&self) -> Instant;

    /// Moves to `at`; a time already passed changes nothing.
    fn advance_to(&mut self, at: Instant);
}

/// A clock that is just a value.
#[derive(Clone, Copy, Debug)]
pub struct ManualClock {
    now: Instant,
}

impl ManualClock {
    /// A clock that starts at an instant without meaning, the same for all clocks of a process.
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock; nothing depends on it"
    )]
    pub fn new() -> Self {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Self {
            now: *ORIGIN.get_or_init(Instant::now),
        }
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.now
    }

    fn advance_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }
}
