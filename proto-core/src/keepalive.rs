//! Whether the other end of a connection is still there.
//!
//! A pure machine: it decides when to ask for a sign of life and when to stop waiting for one. What counts as a sign is
//! the number of authenticated packets received, which the caller reads from the connection only when asked: nothing
//! is done per packet but to note the first unanswered one.

use std::time::Instant;

use crate::config::timing::{KEEPALIVE, LISTENING, PATIENCE};

/// What the caller shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a PING.
    Ping,
    /// Nothing came back in time: give the connection up.
    GiveUp,
}

/// Watches one connection.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    ping_at: Instant,
    doubted: Option<Instant>,
    awaiting: Option<Awaiting>,
}

#[derive(Clone, Copy, Debug)]
struct Awaiting {
    since: Instant,
    /// Packets received when the wait began.
    received: u64,
}

impl Keepalive {
    /// Starts with a connection that has just been established.
    pub fn new(now: Instant) -> Self {
        Self {
            ping_at: now + KEEPALIVE,
            doubted: None,
            awaiting: None,
        }
    }

    /// Something was sent that will be acknowledged. `received` is only asked if no answer is being waited for.
    pub fn on_sent(&mut self, received: impl FnOnce() -> u64, now: Instant) {
        if self.awaiting.is_none() {
            self.awaiting = Some(Awaiting {
                since: now,
                received: received(),
            });
        }
        // The packet is the sign of life that a PING would be; after the last one, somebody should ask once more.
        self.ping_at = now + LISTENING;
    }

    /// A packet of the peer came. If nothing is sent meanwhile, a sign of life is asked for soon: an intermediate that
    /// has just been restarted cannot tell a client that is silent.
    pub fn on_heard(&mut self, now: Instant) {
        self.ping_at = self.ping_at.min(now + LISTENING);
    }

    /// There is reason to doubt that the peer is there: it is asked at once. Many reasons in a row are one.
    pub fn doubt(&mut self, now: Instant) {
        if self
            .doubted
            .is_none_or(|at| now.saturating_duration_since(at) >= LISTENING)
        {
            self.doubted = Some(now);
            self.ping_at = self.ping_at.min(now);
        }
    }

    /// When to call [`Keepalive::poll`].
    pub fn next(&self) -> Instant {
        match self.awaiting {
            Some(awaiting) => self.ping_at.min(awaiting.since + PATIENCE),
            None => self.ping_at,
        }
    }

    /// Decides what is due at `now`, given the packets received so far.
    pub fn poll(&mut self, received: u64, now: Instant) -> Option<Action> {
        if let Some(awaiting) = self.awaiting {
            if received > awaiting.received {
                self.awaiting = None;
            } else if now >= awaiting.since + PATIENCE {
                return Some(Action::GiveUp);
            }
        }
        if now < self.ping_at {
            return None;
        }
        self.on_sent(|| received, now);
        self.ping_at = now + KEEPALIVE;
        Some(Action::Ping)
    }
}

#[cfg(test)]
mod tests;
