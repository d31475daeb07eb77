//! Whether two ends can have a direct path: what one would find who tries every address from every address, for as long as it
//! takes, while nothing is lost and nothing is forgotten.
//!
//! It asks the translators themselves, so it holds for any number of them in a row, also where the formula for one on each side
//! ([`can_meet`](crate::sim::nat::can_meet)) says nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::Layout;
use crate::rng::{Rng, Seed};
use crate::sim::nat::Nat;

/// Rounds of trying: each may teach one more address.
const ROUNDS: usize = 6;

/// Addresses of the other end that are kept. Two ends whose every packet comes from elsewhere teach new ones without end.
const KNOWN: usize = 40;

struct Ground<'a> {
    layout: &'a Layout,
    nats: Vec<Nat>,
    now: Instant,
}

/// Whether a direct path exists.
pub(super) fn path_exists(layout: &Layout, relay: SocketAddr, now: Instant) -> bool {
    let mut rng = Rng::new(&Seed([9; 32]));
    let nats = layout.nats.iter();
    let mut ground = Ground {
        layout,
        nats: nats
            .map(|(config, outer)| Nat::new(*config, *outer, rng.fork()))
            .collect(),
        now,
    };
    let observed = [0, 1].map(|end| ground.seen_from_outside(end, relay));
    let mut known: [BTreeSet<SocketAddr>; 2] =
        [1, 0].map(|other: usize| BTreeSet::from([layout.hosts[other], observed[other]]));
    for _ in 0..ROUNDS {
        for (end, other) in [(0, 1), (1, 0)] {
            for target in known[end].clone() {
                if let Some(source) = ground.send(end, target)
                    && known[other].len() < KNOWN
                {
                    known[other].insert(source);
                }
            }
        }
    }
    known[0].clone().into_iter().any(|target| {
        let there = ground.send(0, target);
        there.is_some_and(|source| ground.send(1, source) == Some(target))
    })
}

impl Ground<'_> {
    fn seen_from_outside(&mut self, end: usize, relay: SocketAddr) -> SocketAddr {
        let mut source = self.layout.hosts[end];
        for nat in self.layout.outwards(end) {
            source = self.nats[nat].outbound(source, relay, self.now);
        }
        source
    }

    /// A packet from an end; the source that the other end sees, if it arrives there.
    fn send(&mut self, end: usize, to: SocketAddr) -> Option<SocketAddr> {
        let mut source = self.layout.hosts[end];
        let own = self.layout.own[end].len();
        for (passed, nat) in self.layout.outwards(end).into_iter().enumerate() {
            if passed >= own
                && let Some(arrived) = self.arrive(end, source, to)
            {
                return arrived.then_some(source);
            }
            source = self.nats[nat].outbound(source, to, self.now);
            if self.nats[nat].outer() == to.ip() {
                let hairpin = self.nats[nat].config().hairpin;
                return (hairpin && self.descend(end, nat, source, to)).then_some(source);
            }
        }
        self.arrive(end, source, to)?.then_some(source)
    }

    /// Looks an address up where the ways of both ends meet, or farther out. `None` if it means nothing there.
    fn arrive(&mut self, end: usize, source: SocketAddr, to: SocketAddr) -> Option<bool> {
        let other = 1 - end;
        if self.layout.own[other].is_empty() && self.layout.hosts[other] == to {
            return Some(true);
        }
        let first = *self.layout.own[other].first()?;
        (self.nats[first].outer() == to.ip()).then(|| self.descend(end, first, source, to))
    }

    /// A packet at the outer side of a translator; whether it comes to the other end.
    fn descend(&mut self, end: usize, mut nat: usize, source: SocketAddr, mut to: SocketAddr) -> bool {
        loop {
            let Some(inner) = self.nats[nat].inbound(source, to.port(), self.now) else {
                return false;
            };
            to = inner;
            if to == self.layout.hosts[1 - end] {
                // The inner addresses of the two differ, also where they are of the same kind.
                return true;
            }
            let inside = (0..self.nats.len()).find(|next| *next > nat && self.nats[*next].outer() == to.ip());
            match inside {
                Some(next) => nat = next,
                None => return false,
            }
        }
    }
}
