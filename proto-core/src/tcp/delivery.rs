//! How fast the path delivers: a sample of the rate by each acknowledgement (draft-ietf-ccwg-bbr §4.1).
//!
//! A segment is stamped when it is sent with what was delivered until then; its acknowledgement shows what came to the peer
//! meanwhile. The rate is that over the longer of the times in which it was sent and in which it was acknowledged, so that
//! acknowledgements that come in a heap do not look like a fast path.

use super::rtt::{Micros, SECOND};

/// What a segment remembers of the moment at which it was sent. Counters are cut to 32 bits, which is more than is ever
/// under way; times are ages at that moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    delivered: u32,
    lost: u32,
    /// Bytes under way, with this segment.
    in_flight: u32,
    delivered_ago: u32,
    /// How long before this segment the first of its flight was sent.
    first_ago: u32,
    app_limited: bool,
}

/// What an acknowledgement, or the loss of a segment, says of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes per second; 0 where nothing can be said.
    pub(super) rate: u64,
    /// Bytes delivered, and lost, since the segment was sent.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// What was delivered in all when it was sent.
    pub(super) prior: u64,
    /// Bytes that were under way when it was sent, with it.
    pub(super) in_flight: u64,
    /// The owner had too little to send to show what the path carries.
    pub(super) app_limited: bool,
}

/// The counters of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    delivered: u64,
    delivered_at: Micros,
    first_sent: Micros,
    lost: u64,
    /// Samples are of an owner with too little to send until so much is delivered.
    limited_until: u64,
}

impl Delivery {
    /// Bytes delivered in all.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes given up in all.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// A segment is sent, while so much else is under way.
    pub(super) fn stamp(&mut self, pipe: u64, len: u64, now: Micros) -> Stamp {
        if pipe == 0 {
            (self.first_sent, self.delivered_at) = (now, now);
        }
        let short = |long: u64| u32::try_from(long).unwrap_or(u32::MAX);
        Stamp {
            delivered: self.delivered as u32,
            lost: self.lost as u32,
            in_flight: short(pipe + len),
            delivered_ago: short(now.saturating_sub(self.delivered_at)),
            first_ago: short(now.saturating_sub(self.first_sent)),
            app_limited: self.limited_until > 0,
        }
    }

    /// The owner has nothing to send although more could be under way.
    pub(super) fn on_app_limited(&mut self, pipe: u64) {
        self.limited_until = (self.delivered + pipe).max(1);
    }

    /// Whether samples are of an owner with too little to send.
    pub(super) fn is_app_limited(&self) -> bool {
        self.limited_until > 0
    }

    /// Bytes are given up.
    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// What can be said of the path since a segment was sent, without a rate.
    pub(super) fn since(&self, stamp: &Stamp) -> Sample {
        let delivered = u64::from((self.delivered as u32).wrapping_sub(stamp.delivered));
        Sample {
            rate: 0,
            delivered,
            lost: u64::from((self.lost as u32).wrapping_sub(stamp.lost)),
            prior: self.delivered.saturating_sub(delivered),
            in_flight: u64::from(stamp.in_flight),
            app_limited: stamp.app_limited,
        }
    }

    /// Bytes were delivered, the newest of which were sent at a time; no sample is made of less than the least round trip.
    pub(super) fn on_delivered(
        &mut self,
        bytes: u64,
        (at, stamp): (Micros, Stamp),
        least: Option<Micros>,
        now: Micros,
    ) -> Sample {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.delivered > self.limited_until {
            self.limited_until = 0;
        }
        self.first_sent = at;
        let sending = u64::from(stamp.first_ago);
        let acknowledging = now.saturating_sub(at) + u64::from(stamp.delivered_ago);
        let interval = sending.max(acknowledging).max(1);
        let mut sample = self.since(&stamp);
        if least.is_none_or(|least| interval >= least) {
            sample.rate = sample.delivered.saturating_mul(SECOND) / interval;
        }
        sample
    }
}

#[cfg(test)]
mod tests;
