//! One direction of the path between an agent and the netstack: five milliseconds, and whatever the weather is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::rng::{Rng, Seed};

/// What happens to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Weather {
    /// Chances in a thousand.
    pub(in super::super) loss: u64,
    pub(in super::super) repeat: u64,
    pub(in super::super) reorder: u64,
}

/// One direction of the path.
pub(in super::super) struct Path {
    weather: Weather,
    rng: Rng,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    sent: u64,
    pub(in super::super) broken: bool,
}

impl Path {
    pub(super) fn new(weather: Weather, seed: u8) -> Self {
        Self {
            weather,
            rng: Rng::new(&Seed([seed; 32])),
            under_way: BTreeMap::new(),
            sent: 0,
            broken: false,
        }
    }

    pub(super) fn send(&mut self, packet: Vec<u8>, now: Instant) {
        let mut happens = |chance| self.rng.below(1000) < chance;
        if self.broken || happens(self.weather.loss) {
            return;
        }
        let copies = 1 + u64::from(happens(self.weather.repeat));
        let late = Duration::from_millis(if happens(self.weather.reorder) { 7 } else { 0 });
        for _ in 0..copies {
            self.sent += 1;
            let at = now + Duration::from_millis(5) + late;
            self.under_way.insert((at, self.sent), packet.clone());
        }
    }

    pub(super) fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let entry = self.under_way.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }
}
