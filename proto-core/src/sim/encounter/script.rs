//! Who lives where and what befalls them, read out of arbitrary bytes.

use std::time::Duration;

use crate::sim::nat::{Dependence, NatConfig, Ports};

/// Where the two ends live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Translators that both are behind, from the public network inwards; none or one, or two.
    pub shared: Vec<NatConfig>,
    /// Those of each end alone, from the shared ones inwards; up to two.
    pub own: [Vec<NatConfig>; 2],
    /// The delay of each end to the relay, and between the two.
    pub delays: [Duration; 3],
    /// The seed of everything random.
    pub seed: u64,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passes.
    Pass(Duration),
    /// An end sends packets, one every so often.
    Talk {
        /// Which end.
        end: u8,
        /// How many.
        count: u8,
        /// How far apart.
        gap: Duration,
    },
    /// From one end to the other nothing passes any more, or losses come in bursts, or all is well again.
    Direct {
        /// From which end.
        from: u8,
        /// What it is like.
        weather: Weather,
    },
    /// The same between an end and the relay, both ways.
    Relayed {
        /// Which end.
        end: u8,
        /// What it is like.
        weather: Weather,
    },
    /// The relay is gone, or back.
    Relay {
        /// Whether it is there.
        up: bool,
    },
    /// A translator forgets everything; they are numbered from the shared ones.
    Flush {
        /// Which one, modulo how many there are.
        nat: u8,
    },
    /// An end sleeps through this, and all of it reaches the end at once.
    Sleep {
        /// Which end.
        end: u8,
        /// How long.
        span: Duration,
    },
}

/// What a way is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing is lost.
    Fair,
    /// Losses in bursts.
    Bursts,
    /// Everything is lost.
    Dead,
}

/// Longer scripts are cut, so that no input runs for long.
const MAX_EVENTS: usize = 40;

/// Reads a cast and a script out of any bytes; past the end there are only zeros.
pub fn read(bytes: &[u8]) -> (Cast, Vec<Event>) {
    let mut source = Source(bytes);
    let seed = u64::from_le_bytes(std::array::from_fn(|_| source.u8()));
    let shared = source.below(8);
    let shared = (0..shared.saturating_sub(4).min(2))
        .map(|_| source.nat())
        .collect();
    let own = [(); 2].map(|()| {
        let count = [0, 1, 1, 1, 1, 1, 2, 2][usize::from(source.below(8))];
        (0..count).map(|_| source.nat()).collect()
    });
    let delays = [(); 3].map(|()| Duration::from_millis(1 + u64::from(source.below(120))));
    let cast = Cast {
        shared,
        own,
        delays,
        seed,
    };
    let mut script = Vec::new();
    while let (Some(kind), true) = (source.byte(), script.len() < MAX_EVENTS) {
        script.push(source.event(kind));
    }
    (cast, script)
}

struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn u8(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.u8() % bound
    }

    fn dependence(&mut self) -> Dependence {
        match self.below(8) {
            0..4 => Dependence::Endpoint,
            4 => Dependence::Address,
            _ => Dependence::AddressAndPort,
        }
    }

    /// A translator of any behaviour; the usual ones are drawn more often.
    fn nat(&mut self) -> NatConfig {
        let mut config = match self.below(4) {
            0..2 => {
                let all = NatConfig::ALL;
                all[usize::from(self.below(all.len() as u8))].1
            }
            _ => NatConfig {
                mapping: self.dependence(),
                filtering: self.dependence(),
                ports: [Ports::Preserved, Ports::Random, Ports::Sequential][usize::from(self.below(3))],
                ..NatConfig::LINUX
            },
        };
        if config.mapping != Dependence::Endpoint && config.ports == Ports::Preserved {
            // Once it has forgotten, the one port that it prefers goes to whoever comes first: two ends that cannot meet may.
            config.ports = Ports::Random;
        }
        config.lifetime = Duration::from_secs([10, 30, 120][usize::from(self.below(3))]);
        config.hairpin = self.below(2) == 1;
        // Each packet of a stranger counts in such a translator, so it is rare.
        config.poisoned = self.below(8) == 7;
        config
    }

    fn duration(&mut self) -> Duration {
        let amount = u64::from(self.u8());
        match self.below(8) {
            0..4 => Duration::from_millis(amount * 4),
            4..7 => Duration::from_millis(amount * 40),
            _ => Duration::from_millis(amount * 400),
        }
    }

    fn weather(&mut self) -> Weather {
        match self.below(4) {
            0..2 => Weather::Dead,
            2 => Weather::Bursts,
            _ => Weather::Fair,
        }
    }

    fn event(&mut self, kind: u8) -> Event {
        match kind {
            0..70 => Event::Pass(self.duration()),
            70..140 => Event::Talk {
                end: self.below(2),
                count: self.below(64),
                gap: Duration::from_millis(1 + u64::from(self.below(100))),
            },
            140..185 => Event::Direct {
                from: self.below(2),
                weather: self.weather(),
            },
            185..210 => Event::Relayed {
                end: self.below(2),
                weather: self.weather(),
            },
            210..225 => Event::Relay {
                up: self.below(2) == 1,
            },
            225..240 => Event::Flush { nat: self.u8() },
            240..=255 => Event::Sleep {
                end: self.below(2),
                span: Duration::from_secs([1, 5, 20, 45, 200, 4000][usize::from(self.below(6))]),
            },
        }
    }
}
