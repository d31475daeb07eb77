//! Generated encounters: an agent and a connector behind any translators look for a direct path, and everything befalls
//! them that befalls hosts.
//!
//! Under test are the punchers and the selectors of two ends, over the network of the simulator. What holds them together is a
//! stand-in for a session (`end`). Any bytes make an encounter. After the script the weather clears, and within [`SETTLES`]
//! packets go directly exactly where a direct path exists (`theory`); then both leave, and
//! nothing is left: no timer, no mapping.

mod end;
mod relay;
mod script;
mod speech;
#[cfg(test)]
mod tests;
mod theory;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::nat::NatConfig;
use super::{Clock as _, HostId, LinkConfig, ManualClock, NatId, World};
use crate::failover::{PathKind, Route};
use crate::punch::Side;
use crate::rng::{Rng, Seed};
use crate::sim::link::{Chance, Loss};
use end::End;
use relay::Relay;
pub use script::{Cast, Event, Weather, read};
use speech::Speech;
use theory::path_exists;

/// Within this time of the last fault each pair has found the path that it can have: consent for one that looks alive may
/// take 30 s to be lost, a mapping as long to be forgotten, and the pause before a search 15 s.
pub const SETTLES: Duration = Duration::from_secs(100);

/// Where the relay is.
const RELAY: &str = "198.51.100.1:4433";

/// How an encounter ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether packets went directly in the end.
    pub direct: bool,
    /// Whether the theory says so; `None` where it depends on the order of packets.
    pub expected: Option<bool>,
    /// Packets that the two ends sent.
    pub sent: u32,
    /// Those that came through.
    pub arrived: u32,
    /// Datagrams on the network.
    pub datagrams: u64,
}

/// The encounter with this number: for long runs, where the number is all there is to keep.
///
/// # Panics
/// If anything happens that must not.
pub fn meet_numbered(number: u64) -> Outcome {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let mut bytes = [0; 160];
    Rng::new(&Seed(seed)).fill(&mut bytes);
    let len = 40 + bytes.last().map_or(0, |last| usize::from(*last) % 120);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    meet(bytes.get(..len).unwrap_or(&bytes))
}

/// The encounter of these bytes.
///
/// # Panics
/// If anything happens that must not.
pub fn meet(bytes: &[u8]) -> Outcome {
    let (cast, events) = read(bytes);
    let mut encounter = Encounter::new(&cast);
    encounter.world.run_for(Duration::from_secs(2));
    for event in &events {
        encounter.happen(*event);
        encounter.judge();
    }
    encounter.clear();
    encounter.settle();
    let outcome = encounter.outcome();
    encounter.leave();
    outcome
}

/// Whether two such ends can have a direct path; `None` if it depends on the order of packets.
fn expectation(cast: &Cast, layout: &Layout) -> Option<bool> {
    let mut all = cast.shared.iter().chain(cast.own.iter().flatten());
    if all.any(|nat| nat.poisoned) {
        return None;
    }
    Some(path_exists(layout, address(RELAY), ManualClock::new().now()))
}

/// Who is where.
struct Layout {
    /// Translators and their outer addresses, those outside before those inside.
    nats: Vec<(NatConfig, IpAddr)>,
    /// Those that both are behind, and those of each end, from the outside inwards.
    shared: Vec<usize>,
    own: [Vec<usize>; 2],
    hosts: [SocketAddr; 2],
}

impl Layout {
    fn new(cast: &Cast) -> Self {
        let mut nats: Vec<(NatConfig, IpAddr)> = Vec::new();
        let mut put = |config: &NatConfig, outer: [u8; 4]| {
            nats.push((*config, outer.into()));
            nats.len() - 1
        };
        let outers = [[203, 0, 113, 1], [100, 64, 9, 1]];
        let shared: Vec<usize> = cast
            .shared
            .iter()
            .zip(outers)
            .map(|(nat, outer)| put(nat, outer))
            .collect();
        let own = [0_u8, 1].map(|end| {
            let outermost = if cast.shared.is_empty() {
                [203, 0, 113, 10 + end]
            } else {
                [100, 64, 1, 10 + end]
            };
            let outers = [outermost, [100, 65 + end, 0, 1]];
            let nats = cast.own[usize::from(end)].iter().zip(outers);
            nats.map(|(nat, outer)| put(nat, outer)).collect::<Vec<usize>>()
        });
        let hosts = [0_u8, 1].map(|end| {
            let host = match (own[usize::from(end)].is_empty(), shared.is_empty()) {
                (true, true) => [203, 0, 113, 100 + end],
                (true, false) => [100, 64, 2, 100 + end],
                // Homes are all alike.
                (false, _) => [192, 168, 1, 2 + end],
            };
            // So are ports: translators have to choose.
            SocketAddr::from((host, 50_000))
        });
        Self {
            nats,
            shared,
            own,
            hosts,
        }
    }

    /// The translator outside of one.
    fn outside(&self, nat: usize) -> Option<usize> {
        let rows = [0, 1].map(|end| self.outwards(end));
        let mut pairs = rows.iter().flat_map(|row| row.windows(2));
        let pair = pairs.find(|pair| pair[0] == nat)?;
        Some(pair[1])
    }

    /// The translators that packets of an end pass, from the inside outwards.
    fn outwards(&self, end: usize) -> Vec<usize> {
        let own = self.own[end].iter().rev();
        own.chain(self.shared.iter().rev()).copied().collect()
    }
}

struct Encounter {
    world: World,
    relay: HostId<Relay>,
    ends: [HostId<End>; 2],
    nats: Vec<NatId>,
    cast: Cast,
    expected: Option<bool>,
}

impl Encounter {
    fn new(cast: &Cast) -> Self {
        let mut world = World::with_clock(ManualClock::new(), cast.seed);
        world.be_brief();
        let speech = Speech::default();
        let relay = world.add("relay", RELAY, Relay::new(address(RELAY), speech.clone()));
        let layout = Layout::new(cast);
        let mut nats: Vec<NatId> = Vec::new();
        for (index, (config, outer)) in layout.nats.iter().enumerate() {
            let name = format!("nat {index}");
            let outside = layout
                .outside(index)
                .and_then(|outside| nats.get(outside).copied());
            nats.push(match outside {
                Some(outside) => world.add_nat_behind(outside, &name, *config, &outer.to_string()),
                None => world.add_nat(&name, *config, &outer.to_string()),
            });
        }
        let ends = [(0, Side::Agent, "agent"), (1, Side::Connector, "connector")].map(|(end, side, name)| {
            let local = layout.hosts[end];
            let rng = Rng::new(&world.draw_seed());
            let host = End::new(side, local, address(RELAY), speech.clone(), rng, world.now());
            let innermost = layout
                .outwards(end)
                .first()
                .and_then(|nat| nats.get(*nat).copied());
            match innermost {
                Some(nat) => world.add_behind(nat, name, &local.to_string(), host),
                None => world.add(name, &local.to_string(), host),
            }
        });
        let mut encounter = Self {
            world,
            relay,
            ends,
            nats,
            cast: cast.clone(),
            expected: expectation(cast, &layout),
        };
        encounter.clear();
        encounter
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass(time) => self.world.run_for(time),
            Event::Talk { end, count, gap } => {
                let end = self.ends[usize::from(end)];
                self.world.with(end, |end, now| {
                    if count > 0 {
                        end.talk(u32::from(count), gap, now);
                    }
                });
            }
            Event::Direct { from, weather } => self.set_direct(usize::from(from), weather),
            Event::Relayed { end, weather } => self.set_relayed(usize::from(end), weather),
            Event::Relay { up: true } => self.world.bring_up(self.relay),
            Event::Relay { up: false } => self.world.take_down(self.relay),
            Event::Flush { nat } => {
                if let Some(nat) = self.nats.get(usize::from(nat) % self.nats.len().max(1)) {
                    self.world.flush(*nat);
                }
            }
            Event::Sleep { end, span } => {
                let end = self.ends[usize::from(end)];
                self.world.take_down(end);
                self.world.run_for(span);
                self.world.bring_up(end);
            }
        }
    }

    fn set_direct(&mut self, from: usize, weather: Weather) {
        let link = link(self.cast.delays[2], weather);
        let from = self.ends[from];
        // Behind one translator, the simulator takes the first host there for the one that is meant.
        for to in self.ends {
            self.world.set_one_way(from, to, link);
        }
    }

    fn set_relayed(&mut self, end: usize, weather: Weather) {
        let link = link(self.cast.delays[end], weather);
        self.world.set_link(self.ends[end], self.relay, link);
    }

    /// All is well again.
    fn clear(&mut self) {
        for end in [0, 1] {
            self.set_direct(end, Weather::Fair);
            self.set_relayed(end, Weather::Fair);
        }
        self.world.bring_up(self.relay);
    }

    /// What must hold at all times.
    fn judge(&self) {
        let possible = self.expected != Some(false);
        for (end, other) in [(0, 1), (1, 0)] {
            let (end, other) = (&self.world[self.ends[end]], &self.world[self.ends[other]]);
            assert!(
                possible || !end.has_direct(),
                "a direct path where none can be: {:?}",
                self.cast
            );
            assert!(
                end.arrived().last().is_none_or(|last| *last < other.sent()),
                "a packet that nobody sent"
            );
        }
    }

    /// Whether both ends use the path that is to be expected.
    fn is_settled(&self) -> bool {
        let expected = self.expected;
        self.ends.iter().all(|end| {
            let end = &self.world[*end];
            let relayed = end.selector.route() == Route::One(PathKind::Relayed);
            match expected {
                Some(true) => end.is_direct(),
                Some(false) => relayed,
                None => relayed || end.is_direct(),
            }
        })
    }

    fn settle(&mut self) {
        let expected = self.expected;
        // The relay learns where the ends are, however it was before.
        self.world.run_for(Duration::from_secs(4));
        // And each end where the other is.
        self.chat(8, Duration::from_millis(250));
        let begun = self.world.elapsed();
        while !self.is_settled() {
            assert!(
                self.world.elapsed() - begun < SETTLES,
                "not as expected ({expected:?}) within {SETTLES:?}: {:?} {:#?}",
                self.cast,
                self.ends.map(|end| self.world[end].describe())
            );
            self.chat(4, Duration::from_millis(250));
            self.judge();
        }
        // And it stays, and carries everything.
        for _ in 0..2 {
            let before = self.ends.map(|end| self.world[end].sent());
            self.chat(12, Duration::from_millis(20));
            self.world.run_for(Duration::from_secs(1));
            let steady = self.is_settled();
            assert!(
                steady || expected.is_none(),
                "it does not stay so: {:?}",
                self.cast
            );
            for (end, other) in [(0, 1), (1, 0)] {
                let sent = before[end]..self.world[self.ends[end]].sent();
                let arrived = self.world[self.ends[other]].arrived();
                let lost = sent.clone().filter(|number| !arrived.contains(number)).count();
                assert!(
                    lost == 0 || expected.is_none(),
                    "{lost} of {sent:?} are lost in peace: {:?}",
                    self.cast
                );
            }
        }
    }

    /// Both ends send packets.
    fn chat(&mut self, count: u32, gap: Duration) {
        for end in self.ends {
            self.world.with(end, |end, now| end.talk(count, gap, now));
        }
        self.world.run_for(gap * count);
    }

    fn outcome(&self) -> Outcome {
        let ends = self.ends.map(|end| &self.world[end]);
        Outcome {
            direct: ends.iter().all(|end| end.is_direct()),
            expected: self.expected,
            sent: ends.iter().map(|end| end.sent()).sum(),
            arrived: ends.iter().map(|end| end.arrived().len() as u32).sum(),
            datagrams: self.world.stats().sent,
        }
    }

    fn leave(mut self) {
        for end in self.ends {
            self.world.with(end, |end, now| {
                end.leave(now);
                assert_eq!(end.selector.poll_timeout(), None, "a timer runs for nobody");
                assert_eq!(end.selector.route(), Route::Nowhere);
            });
        }
        // What is under way arrives, and is answered by the relay at most.
        self.world.run_for(Duration::from_secs(1));
        let before = self.world.stats().sent;
        // Longer than any mapping lives.
        self.world.run_for(Duration::from_secs(121));
        assert_eq!(self.world.stats().sent, before, "nobody speaks any more");
        for nat in std::mem::take(&mut self.nats) {
            assert_eq!(self.world.mappings(nat), 0);
        }
    }
}

fn link(delay: Duration, weather: Weather) -> LinkConfig {
    let loss = match weather {
        Weather::Fair => Loss::None,
        Weather::Bursts => Loss::Bursts {
            begin: Chance::percent(3),
            end: Chance::percent(20),
            good: Chance::millionths(2000),
            bad: Chance::percent(85),
        },
        Weather::Dead => Loss::Uniform(Chance::ALWAYS),
    };
    LinkConfig {
        loss,
        ..LinkConfig::new(delay)
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
