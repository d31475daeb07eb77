//! Two punchers and the translators between them, in virtual time.

mod candidates;
mod meeting;
mod rules;

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Family, Limits, PunchEvent, Puncher, Side, candidate_priority};
use crate::rng::{Rng, Seed};
use crate::sim::nat::{Nat, NatConfig};
use crate::test_origin;
use crate::wire::check::{Check, CheckKey, MAX_CHECK_LEN};
use crate::wire::control::{Candidate, CandidateKind};

static ORIGIN: LazyLock<Instant> = LazyLock::new(test_origin::origin);

fn origin() -> Instant {
    *ORIGIN
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn host(address: SocketAddr) -> Candidate {
    candidate(CandidateKind::Host, address)
}

fn candidate(kind: CandidateKind, address: SocketAddr) -> Candidate {
    Candidate {
        kind,
        address,
        priority: candidate_priority(kind, Family::of(address), 0),
        foundation: String::new(),
        related: None,
    }
}

/// One side: the machine, where it lives, and the translator in front of it.
struct End {
    puncher: Puncher,
    inner: SocketAddr,
    nat: Option<Nat>,
    /// What an observer saw before the search began.
    observed: SocketAddr,
    events: Vec<(Instant, PunchEvent)>,
    sent: Vec<(Instant, SocketAddr)>,
}

struct Flight {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Two ends, 10 ms apart if nothing else is said.
struct Lab {
    ends: [End; 2],
    delay: Duration,
    /// Lost, in a hundred.
    loss: u64,
    rng: Rng,
    now: Instant,
    order: u64,
    flights: Vec<Flight>,
    key: CheckKey,
    /// The network between the two is cut.
    cut: bool,
}

const OBSERVER: &str = "198.51.100.1:4433";

impl Lab {
    fn new(agent: Option<NatConfig>, connector: Option<NatConfig>, seed: u8) -> Self {
        let mut rng = Rng::new(&Seed([seed; 32]));
        let now = origin();
        let ends = [
            (Side::Agent, agent, "203.0.113.10", "192.168.1.2:50000"),
            (Side::Connector, connector, "203.0.113.20", "10.0.0.2:51000"),
        ];
        let ends = ends.map(|(side, config, outer, inner)| {
            let outer: IpAddr = outer.parse().unwrap();
            let mut inner: SocketAddr = inner.parse().unwrap();
            let mut nat = config.map(|config| Nat::new(config, outer, rng.fork()));
            if nat.is_none() {
                inner.set_ip(outer);
            }
            let observed = match &mut nat {
                Some(nat) => nat.outbound(inner, OBSERVER.parse().unwrap(), now),
                None => inner,
            };
            let mut puncher = Puncher::new(side, 7, Limits::default(), rng.fork());
            puncher.set_own(vec![inner, observed]);
            End {
                puncher,
                inner,
                nat,
                observed,
                events: Vec::new(),
                sent: Vec::new(),
            }
        });
        Self {
            ends,
            delay: ms(10),
            loss: 0,
            rng,
            now,
            order: 0,
            flights: Vec::new(),
            key: CheckKey::new(&[9; 32]),
            cut: false,
        }
    }

    /// Each side learns the other's host and observed address.
    fn introduce(&mut self) {
        for (side, other) in [(0, 1), (1, 0)] {
            let peer = &self.ends[other];
            let candidates = [
                host(peer.inner),
                candidate(CandidateKind::ServerReflexive, peer.observed),
            ];
            self.ends[side].puncher.add_candidates(&candidates, self.now);
        }
    }

    fn start(&mut self, agent_at: Duration, connector_at: Duration) {
        self.ends[0].puncher.start(self.now + agent_at);
        self.ends[1].puncher.start(self.now + connector_at);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.drain();
            let timers = self.ends.iter().filter_map(|end| end.puncher.poll_timeout());
            let next = timers.chain(self.flights.iter().map(|flight| flight.at)).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for end in &mut self.ends {
                end.puncher.handle_timeout(self.now);
            }
            self.arrive();
        }
    }

    fn drain(&mut self) {
        for side in 0..2 {
            loop {
                let end = &mut self.ends[side];
                let check = end.puncher.poll_check(self.now);
                while let Some(event) = end.puncher.poll_event() {
                    end.events.push((self.now, event));
                }
                let Some((to, check)) = check else {
                    break;
                };
                end.sent.push((self.now, to));
                let mut bytes = vec![0; MAX_CHECK_LEN];
                let len = check.write(&self.key, &mut bytes).unwrap();
                bytes.truncate(len);
                let from = match &mut end.nat {
                    Some(nat) => nat.outbound(end.inner, to, self.now),
                    None => end.inner,
                };
                let lost = self.cut || self.rng.below(100) < self.loss;
                if !lost {
                    self.order += 1;
                    self.flights.push(Flight {
                        at: self.now + self.delay,
                        order: self.order,
                        from,
                        to,
                        bytes,
                    });
                }
            }
            assert!(!self.ends[side].puncher.has_output(), "drained");
            let next = self.ends[side].puncher.poll_timeout();
            assert!(
                next.is_none_or(|at| at > self.now),
                "asks again after a drain: {:?}",
                self.ends[side].puncher
            );
        }
    }

    fn arrive(&mut self) {
        self.flights.sort_by_key(|flight| (flight.at, flight.order));
        while self.flights.first().is_some_and(|flight| flight.at <= self.now) {
            let flight = self.flights.remove(0);
            for end in &mut self.ends {
                let takes = match &mut end.nat {
                    Some(nat) if nat.outer() == flight.to.ip() => {
                        nat.inbound(flight.from, flight.to.port(), self.now).is_some()
                    }
                    Some(_) => false,
                    None => end.inner == flight.to,
                };
                if takes {
                    let check = Check::parse(&flight.bytes, &self.key).unwrap();
                    end.puncher.handle_check(&check, flight.from, self.now);
                }
            }
        }
    }

    /// Whether both sides took a path, and the same one.
    fn met(&self) -> bool {
        let paths = [0, 1].map(|side: usize| self.ends[side].puncher.nominated());
        let [Some(agents), Some(connectors)] = paths else {
            return false;
        };
        let outer = |side: usize, port: u16| {
            let end = &self.ends[side];
            SocketAddr::new(end.nat.as_ref().map_or(end.inner.ip(), Nat::outer), port)
        };
        assert_eq!(agents, outer(1, agents.port()));
        assert_eq!(connectors, outer(0, connectors.port()));
        true
    }

    fn when(&self, side: usize, wanted: impl Fn(&PunchEvent) -> bool) -> Option<Instant> {
        self.ends[side]
            .events
            .iter()
            .find(|(_, event)| wanted(event))
            .map(|(at, _)| *at)
    }
}
