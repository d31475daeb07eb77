//! What an address that was named may have: how many answers, and how long ones.

use std::time::{Duration, Instant};

/// One answer in this time, on average; an agent asks every address a few times a second at most.
const PER_ANSWER: Duration = Duration::from_millis(50);

/// Answers that may follow one another at once.
const BURST: u32 = 20;

/// What came in counts for answers up to this.
const CREDIT: usize = 1024;

#[derive(Debug)]
pub(super) struct Named {
    /// Meetings that named it.
    pub(super) meetings: usize,
    /// Bytes that came in and have not been answered yet.
    credit: usize,
    /// When the bucket of answers is full again.
    full_at: Instant,
}

impl Named {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            meetings: 0,
            credit: 0,
            full_at: now,
        }
    }

    pub(super) fn on_received(&mut self, len: usize) {
        self.credit = (self.credit + len).min(CREDIT);
    }

    /// The full answer if it is no longer than what has come in, else the short one, else none.
    pub(super) fn choose(&mut self, full: Vec<u8>, short: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let answer = if full.len() <= self.credit { full } else { short };
        let full_at = self.full_at.max(now) + PER_ANSWER;
        let allowed = full_at.saturating_duration_since(now) <= PER_ANSWER * BURST;
        if !allowed || answer.len() > self.credit {
            return None;
        }
        self.credit -= answer.len();
        self.full_at = full_at;
        Some(answer)
    }
}
