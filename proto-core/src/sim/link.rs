//! One direction between two hosts: how long a datagram takes, and whether it arrives.
//!
//! A link decides about single datagrams. Who is at which address is the world's business, and NATs will stand between the
//! two.

use std::time::{Duration, Instant};

use crate::rng::Rng;

/// IPv4 and UDP headers: what a datagram has on the link beyond its payload.
const HEADERS: usize = 28;

/// A probability in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many in a hundred.
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 10_000)
    }

    /// So many in a million.
    pub const fn millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    fn strikes(self, rng: &mut Rng) -> bool {
        self.0 > 0 && rng.below(1_000_000) < u64::from(self.0)
    }
}

/// How datagrams get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each by itself.
    Uniform(Chance),
    /// In bursts (Gilbert and Elliott): good and bad times follow each other, with losses of their own.
    Bursts {
        /// Turning bad, per datagram in good times.
        begin: Chance,
        /// Turning good, per datagram in bad times.
        end: Chance,
        /// Loss in good times.
        good: Chance,
        /// Loss in bad times.
        bad: Chance,
    },
}

/// The properties of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The least time a datagram takes.
    pub delay: Duration,
    /// Added at random, up to this; datagrams stay in order.
    pub jitter: Duration,
    /// How datagrams get lost.
    pub loss: Loss,
    /// How many arrive twice.
    pub duplicates: Chance,
    /// How many are held back, and are overtaken.
    pub reordered: Chance,
    /// How long those are held back, at most.
    pub reordering: Duration,
    /// Bytes per second; `None` is unlimited.
    pub rate: Option<u64>,
    /// How many bytes wait for the rate at most; more are dropped.
    pub queue: usize,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
}

impl LinkConfig {
    /// A perfect link that takes `delay`.
    pub const fn new(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: Loss::None,
            duplicates: Chance::NEVER,
            reordered: Chance::NEVER,
            reordering: Duration::ZERO,
            rate: None,
            queue: 256 * 1024,
            mtu: 1500,
        }
    }

    /// The same with uniform loss.
    #[must_use]
    pub const fn with_loss(mut self, percent: u32) -> Self {
        self.loss = Loss::Uniform(Chance::percent(percent));
        self
    }

    /// The same with up to this much more delay.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// The same with some datagrams overtaken by others.
    #[must_use]
    pub const fn with_reordering(mut self, percent: u32, by: Duration) -> Self {
        self.reordered = Chance::percent(percent);
        self.reordering = by;
        self
    }

    /// The same with some datagrams arriving twice.
    #[must_use]
    pub const fn with_duplicates(mut self, percent: u32) -> Self {
        self.duplicates = Chance::percent(percent);
        self
    }

    /// The same with a rate in bytes per second.
    #[must_use]
    pub const fn with_rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self::new(Duration::from_millis(10))
    }
}

/// One direction at work.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    /// Nothing passes.
    pub(super) cut: bool,
    bad: bool,
    /// When the last byte accepted so far will have left.
    busy_until: Option<Instant>,
    /// When the last datagram in order arrives.
    last_arrival: Option<Instant>,
}

/// When a datagram arrives: once or twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrivals {
    pub(super) first: Instant,
    pub(super) second: Option<Instant>,
}

impl Link {
    pub(super) fn new(config: LinkConfig) -> Self {
        Self {
            config,
            cut: false,
            bad: false,
            busy_until: None,
            last_arrival: None,
        }
    }

    /// Takes a datagram of `len` bytes of payload.
    ///
    /// # Errors
    /// Says why it does not arrive.
    pub(super) fn carry(
        &mut self,
        len: usize,
        rng: &mut Rng,
        now: Instant,
    ) -> Result<Arrivals, &'static str> {
        if self.cut {
            return Err("the link is cut");
        }
        if len + HEADERS > self.config.mtu {
            return Err("larger than the link's MTU");
        }
        if self.loses(rng) {
            return Err("lost");
        }
        let left = self.transmit(len + HEADERS, now)?;
        let straight = left + self.config.delay + rng.duration_between(Duration::ZERO, self.config.jitter);
        let first = if self.config.reordered.strikes(rng) {
            straight + rng.duration_between(Duration::ZERO, self.config.reordering)
        } else {
            let first = self.last_arrival.map_or(straight, |last| last.max(straight));
            self.last_arrival = Some(first);
            first
        };
        let again = self.config.duplicates.strikes(rng);
        let second = again.then(|| first + rng.duration_between(Duration::ZERO, self.config.delay));
        Ok(Arrivals { first, second })
    }

    fn loses(&mut self, rng: &mut Rng) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Uniform(chance) => chance.strikes(rng),
            Loss::Bursts {
                begin,
                end,
                good,
                bad,
            } => {
                let turn = if self.bad { end } else { begin };
                self.bad ^= turn.strikes(rng);
                if self.bad {
                    bad.strikes(rng)
                } else {
                    good.strikes(rng)
                }
            }
        }
    }

    /// When the last byte has left; a queue longer than configured drops.
    fn transmit(&mut self, bytes: usize, now: Instant) -> Result<Instant, &'static str> {
        let Some(rate) = self.config.rate.filter(|&rate| rate > 0) else {
            return Ok(now);
        };
        let start = self.busy_until.map_or(now, |until| until.max(now));
        let time = |bytes: usize| Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate);
        if start - now > time(self.config.queue) {
            return Err("the link's queue is full");
        }
        let left = start + time(bytes);
        self.busy_until = Some(left);
        Ok(left)
    }
}
