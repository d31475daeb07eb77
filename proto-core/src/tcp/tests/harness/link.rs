//! One direction of the network.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::rng::{Rng, Seed};

/// What happens to packets.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Weather {
    pub(in super::super) delay: Duration,
    /// Bytes per second; `None` is without limit.
    pub(in super::super) rate: Option<u64>,
    /// Bytes that wait for the rate, at most.
    pub(in super::super) queue: u64,
    /// Whether a full queue holds the sender back, as a tunnel does, instead of dropping.
    pub(in super::super) holds_back: bool,
    /// Chances in a thousand.
    pub(in super::super) loss: u64,
    pub(in super::super) repeat: u64,
    pub(in super::super) reorder: u64,
    /// How late a packet out of order is.
    pub(in super::super) late: Duration,
    /// A lost packet takes so many with it.
    pub(in super::super) burst: u64,
    pub(in super::super) seed: u8,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            rate: None,
            queue: 1 << 20,
            holds_back: false,
            loss: 0,
            repeat: 0,
            reorder: 0,
            late: Duration::from_millis(2),
            burst: 1,
            seed: 0,
        }
    }
}

pub(in super::super) struct Link {
    pub(in super::super) weather: Weather,
    rng: Rng,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
    free_at: Option<Instant>,
    to_lose: u64,
    pub(in super::super) broken: bool,
    pub(in super::super) largest: usize,
    pub(in super::super) carried: u64,
    pub(in super::super) lost: u64,
    /// The packets given to it, in order, if they are of interest.
    pub(in super::super) log: Option<Vec<Vec<u8>>>,
    /// Which packets, counted from 0, are lost for certain.
    pub(in super::super) victims: Vec<u64>,
}

impl Link {
    pub(super) fn new(weather: Weather, side: u8) -> Self {
        let mut seed = [weather.seed; 32];
        seed[0] = side;
        Self {
            weather,
            rng: Rng::new(&Seed(seed)),
            under_way: BTreeMap::new(),
            count: 0,
            free_at: None,
            to_lose: 0,
            broken: false,
            largest: 0,
            carried: 0,
            lost: 0,
            log: None,
            victims: Vec::new(),
        }
    }

    fn backlog(&self, now: Instant) -> u64 {
        let (Some(rate), Some(free_at)) = (self.weather.rate, self.free_at) else {
            return 0;
        };
        let wait = free_at.saturating_duration_since(now);
        (wait.as_secs_f64() * rate as f64) as u64
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        !self.weather.holds_back || self.backlog(now) < self.weather.queue
    }

    pub(super) fn send(&mut self, packet: Vec<u8>, now: Instant) {
        let index = self.count;
        self.count += 1;
        if let Some(log) = &mut self.log {
            log.push(packet.clone());
        }
        self.largest = self.largest.max(packet.len());
        let weather = self.weather;
        let full = weather.rate.is_some() && self.backlog(now) > weather.queue;
        let mut happens = |chance| self.rng.below(1000) < chance;
        if self.to_lose == 0 && happens(weather.loss) {
            self.to_lose = weather.burst;
        }
        if self.broken || self.to_lose > 0 || full || self.victims.contains(&index) {
            self.to_lose = self.to_lose.saturating_sub(1);
            self.lost += 1;
            return;
        }
        let copies = 1 + u64::from(happens(weather.repeat));
        let late = if happens(weather.reorder) {
            weather.late
        } else {
            Duration::ZERO
        };
        self.carried += packet.len() as u64;
        let mut at = now;
        if let Some(rate) = weather.rate {
            let begin = self.free_at.map_or(now, |free_at| free_at.max(now));
            at = begin + Duration::from_secs_f64(packet.len() as f64 / rate as f64);
            self.free_at = Some(at);
        }
        for copy in 0..copies {
            let key = (at + weather.delay + late, 2 * self.count + copy);
            self.under_way.insert(key, packet.clone());
        }
    }

    pub(super) fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let entry = self.under_way.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        let room = self
            .free_at
            .filter(|_| !self.has_room(now))
            .map(|free_at| free_at.max(now + Duration::from_micros(100)));
        arrival.into_iter().chain(room).min()
    }
}
