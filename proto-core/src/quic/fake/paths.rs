//! Where packets go, how much may be sent there before its owner has answered, and moves of the peer to a new address.

use std::time::{Duration, Instant};

use crate::machine::FourTuple;

/// How many times more than received is sent to an address that has not been validated (RFC 9000 §8.1).
const AMPLIFICATION: usize = 3;

/// A move of the peer that waits for its path response (RFC 9000 §9.3).
#[derive(Debug)]
struct Validation {
    data: [u8; 8],
    /// Where to go back to if no response comes.
    previous: FourTuple,
    until: Instant,
}

/// The active path and its validation.
#[derive(Debug)]
pub(super) struct Paths {
    active: FourTuple,
    /// Bytes that may still be sent to an unvalidated address; `None` once it is validated.
    budget: Option<usize>,
    validation: Option<Validation>,
    changed: Option<FourTuple>,
}

impl Paths {
    pub(super) fn new(active: FourTuple, validated: bool) -> Self {
        Self {
            active,
            budget: (!validated).then_some(0),
            validation: None,
            changed: None,
        }
    }

    pub(super) fn active(&self) -> FourTuple {
        self.active
    }

    pub(super) fn budget(&self) -> usize {
        self.budget.unwrap_or(usize::MAX)
    }

    pub(super) fn on_datagram(&mut self, path: FourTuple, bytes: usize) {
        if path == self.active
            && let Some(budget) = &mut self.budget
        {
            *budget = budget.saturating_add(AMPLIFICATION * bytes);
        }
    }

    pub(super) fn on_sent(&mut self, bytes: usize) {
        if let Some(budget) = &mut self.budget {
            *budget = budget.saturating_sub(bytes);
        }
    }

    /// The handshake has shown that the peer receives what we send to it.
    pub(super) fn on_address_proven(&mut self) {
        if self.validation.is_none() {
            self.budget = None;
        }
    }

    /// The newest packet came from `path`; returns whether a challenge with `data` has to go there.
    pub(super) fn on_newest_packet(
        &mut self,
        path: FourTuple,
        bytes: usize,
        data: [u8; 8],
        until: Instant,
    ) -> bool {
        if path == self.active {
            return false;
        }
        let previous = self
            .validation
            .as_ref()
            .map_or(self.active, |validation| validation.previous);
        self.active = path;
        if path == previous {
            self.validation = None;
            self.budget = None;
            return false;
        }
        self.budget = Some(AMPLIFICATION * bytes);
        self.validation = Some(Validation {
            data,
            previous,
            until,
        });
        true
    }

    /// Takes a path response; returns whether it has validated the active path.
    pub(super) fn on_response(&mut self, data: [u8; 8]) -> bool {
        if self
            .validation
            .as_ref()
            .is_none_or(|validation| validation.data != data)
        {
            return false;
        }
        self.validation = None;
        self.budget = None;
        self.changed = Some(self.active);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.validation.as_ref().map(|validation| validation.until)
    }

    /// Gives up a validation that nobody answered: back to the address before.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if let Some(validation) = self.validation.take_if(|validation| validation.until <= now) {
            self.active = validation.previous;
            self.budget = None;
        }
    }

    pub(super) fn poll_change(&mut self) -> Option<FourTuple> {
        self.changed.take()
    }
}

/// How long a validation may take (RFC 9000 §8.2.4).
pub(super) fn validation_time(pto: Duration) -> Duration {
    pto * 3
}
