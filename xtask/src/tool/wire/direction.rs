//! One direction of a wire: when each packet arrives, if it does. No clock and no I/O here, so that tests can be exact.
//!
//! The dice of a direction depend on the seed and the number of the packet only: two runs with one seed lose the same
//! packets of their sequences, however fast they go.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;
use std::time::{Duration, Instant};

use super::conditions::Conditions;

/// Packets on the way at most: 20 ms at 10 Gbit/s or two minutes at 1 Mbit/s.
const ON_THE_WAY: usize = 20_000;

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Came in.
    pub(crate) packets: u64,
    /// Went out at the other end.
    pub(crate) delivered: u64,
    /// Lost by the dice.
    pub(crate) lost: u64,
    /// Lost because the bottleneck's queue was full.
    pub(crate) queue_full: u64,
    /// Overtaken by design.
    pub(crate) reordered: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            delivered,
            lost,
            queue_full,
            reordered,
        } = self;
        write!(
            f,
            "packets {packets} delivered {delivered} lost {lost} queue_full {queue_full} reordered {reordered}"
        )
    }
}

/// A packet on its way; the earliest is the greatest, for the heap.
#[derive(Debug)]
struct Travelling {
    due: Instant,
    number: u64,
    packet: Vec<u8>,
}

impl Travelling {
    fn key(&self) -> Reverse<(Instant, u64)> {
        Reverse((self.due, self.number))
    }
}

impl PartialEq for Travelling {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Travelling {}

impl PartialOrd for Travelling {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Travelling {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Direction {
    conditions: Conditions,
    dice: Dice,
    /// In the middle of a burst of losses.
    losing: bool,
    /// When the bottleneck has sent everything it was given.
    free_at: Option<Instant>,
    /// When the latest packet that was not overtaken arrives.
    last_due: Option<Instant>,
    travelling: BinaryHeap<Travelling>,
    account: Account,
}

impl Direction {
    /// With `conditions`; `which` tells the two directions' dice apart.
    pub(super) fn new(conditions: &Conditions, which: u64) -> Self {
        Self {
            conditions: *conditions,
            dice: Dice(conditions.seed.wrapping_mul(2).wrapping_add(which)),
            losing: false,
            free_at: None,
            last_due: None,
            travelling: BinaryHeap::new(),
            account: Account::default(),
        }
    }

    /// What became of the packets so far.
    pub(super) fn account(&self) -> Account {
        self.account
    }

    /// A packet comes in.
    pub(super) fn take(&mut self, packet: &[u8], now: Instant) {
        self.account.packets += 1;
        // Rolled for every packet, whatever happens to it, so that packet n meets the same fate in every run.
        let (lost, late, jitter) = (self.loses(), self.dice.percent(), self.dice.unit());
        let Some(sent) = self.through_bottleneck(packet.len(), now) else {
            self.account.queue_full += 1;
            return;
        };
        if lost {
            self.account.lost += 1;
            return;
        }
        let mut due = sent + self.conditions.delay + self.conditions.jitter.mul_f64(jitter);
        if let Some(last) = self.last_due {
            due = due.max(last);
        }
        if late < self.conditions.reorder {
            self.account.reordered += 1;
            due += self.conditions.lag;
        } else {
            self.last_due = Some(due);
        }
        self.travelling.push(Travelling {
            due,
            number: self.account.packets,
            packet: packet.to_vec(),
        });
    }

    /// When the next packet arrives.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.travelling.peek().map(|first| first.due)
    }

    /// The next packet that has arrived by now.
    pub(super) fn release(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        self.account.delivered += 1;
        self.travelling.pop().map(|first| first.packet)
    }

    /// When a packet has left the bottleneck; `None` if it finds no room before it.
    fn through_bottleneck(&mut self, length: usize, now: Instant) -> Option<Instant> {
        if self.travelling.len() >= ON_THE_WAY {
            return None;
        }
        if self.conditions.rate <= 0.0 {
            return Some(now);
        }
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        if start - now > self.conditions.queue {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "packets are short")]
        let bits = length as f64 * 8.0;
        let sent = start + Duration::from_secs_f64(bits / (self.conditions.rate * 1e6));
        self.free_at = Some(sent);
        Some(sent)
    }

    /// Gilbert's model: good and bad phases, of which the bad ones last `burst` packets on average.
    fn loses(&mut self) -> bool {
        let Conditions { loss, burst, .. } = self.conditions;
        let rolled = self.dice.percent();
        if burst <= 1.0 {
            return rolled < loss;
        }
        self.losing = if self.losing {
            rolled >= 100.0 / burst
        } else {
            rolled < 100.0 / burst * loss / (100.0 - loss).max(1e-9)
        };
        self.losing
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    /// From 0 up to, but not including, 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let unit = (x >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    fn percent(&mut self) -> f64 {
        self.unit() * 100.0
    }
}

#[cfg(test)]
mod tests;
