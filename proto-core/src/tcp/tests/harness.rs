//! A network of two ends, each ours or a smoltcp socket, with an application above each and a link in each direction.

mod end;
mod link;
mod shared;
mod smol;

use std::time::{Duration, Instant};

pub(super) use end::{Application, End, Ours};
pub(super) use link::{Link, Weather};
pub(super) use shared::Shared;
pub(super) use smol::Smol;

use crate::routing::packet::{FiveTuple, TCP};
use crate::tcp::{Budget, Config};
use crate::test_origin::origin;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MILLI: Duration = Duration::from_millis(1);

/// Bytes that differ everywhere, so that lost, repeated or swapped ones are noticed.
pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|at| ((at + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// The flow from the first end to the second.
pub(super) fn flow(v6: bool) -> FiveTuple {
    let (source, destination) = if v6 {
        ("fd00::1", "fd00::2")
    } else {
        ("10.9.0.1", "10.100.0.1")
    };
    FiveTuple {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: TCP,
        source_port: 40_000,
        destination_port: 80,
    }
}

/// Which kinds of ends call and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    Ours,
    SmolCalls,
    SmolAnswers,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) begun: Instant,
    pub(super) ends: [End; 2],
    /// From the first end, and from the second.
    pub(super) links: [Link; 2],
    pub(super) budget: Budget,
    pub(super) mtu: usize,
}

impl Net {
    pub(super) fn new(
        pairing: Pairing,
        config: Config,
        weather: Weather,
        applications: [Application; 2],
    ) -> Self {
        Self::with(pairing, config, weather, applications, flow(false))
    }

    pub(super) fn with(
        pairing: Pairing,
        config: Config,
        weather: Weather,
        applications: [Application; 2],
        flow: FiveTuple,
    ) -> Self {
        let budget = Budget::new(64 << 20);
        Self::build(pairing, config, weather, applications, flow, budget)
    }

    /// Two ends of ours that share so many bytes of buffers.
    pub(super) fn with_budget(bytes: usize, weather: Weather, applications: [Application; 2]) -> Self {
        let (config, budget) = (Config::default(), Budget::new(bytes));
        Self::build(Pairing::Ours, config, weather, applications, flow(false), budget)
    }

    fn build(
        pairing: Pairing,
        config: Config,
        weather: Weather,
        [first, second]: [Application; 2],
        flow: FiveTuple,
        budget: Budget,
    ) -> Self {
        let now = origin();
        let mtu = 1280;
        let ours = |application, calls: bool| {
            let flow = if calls { flow } else { flow.reversed() };
            End::Ours(Box::new(Ours::new(
                flow,
                calls,
                config,
                &budget,
                application,
                now,
            )))
        };
        let smol = |application, calls: bool| {
            let flow = if calls { flow } else { flow.reversed() };
            End::Smol(Box::new(Smol::new(flow, calls, mtu, application)))
        };
        let ends = match pairing {
            Pairing::Ours => [ours(first, true), ours(second, false)],
            Pairing::SmolCalls => [smol(first, true), ours(second, false)],
            Pairing::SmolAnswers => [ours(first, true), smol(second, false)],
        };
        Self {
            now,
            begun: now,
            ends,
            links: [Link::new(weather, 1), Link::new(weather, 2)],
            budget,
            mtu,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.begun
    }

    /// Does everything that is due now.
    fn settle(&mut self) {
        let now = self.now;
        for _ in 0..10_000 {
            let mut busy = false;
            for side in 0..2 {
                while let Some(packet) = self.links[1 - side].arrived(now) {
                    busy = true;
                    self.ends[side].receive(packet, now, self.begun);
                }
                self.ends[side].work(now, self.begun);
                while self.links[side].has_room(now)
                    && let Some(packet) = self.ends[side].send(self.mtu, now, self.begun)
                {
                    busy = true;
                    self.links[side].send(packet, now);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the ends never come to rest");
    }

    fn next(&mut self) -> Option<Instant> {
        let (now, begun) = (self.now, self.begun);
        let ends = self.ends.iter_mut().filter_map(|end| end.next(now, begun));
        let ends: Vec<Instant> = ends.collect();
        let links = self.links.iter().filter_map(|link| link.next(now));
        links.chain(ends).min()
    }

    /// Runs until something holds; whether it did within `limit` of virtual time.
    pub(super) fn try_run(&mut self, limit: Duration, mut until: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if until(self) {
                return true;
            }
            match self.next() {
                Some(next) if next < end => self.now = next.max(self.now),
                Some(_) | None => {
                    self.now = end;
                    return false;
                }
            }
        }
    }

    pub(super) fn run(&mut self, limit: Duration, until: impl FnMut(&mut Self) -> bool) {
        let done = self.try_run(limit, until);
        assert!(done, "nothing came of it: {:?}", self.ends);
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.try_run(time, |_| false);
        self.settle();
    }

    /// Runs until both ends are closed, and checks that everything came to the other side, and nothing is left.
    pub(super) fn finish(&mut self, limit: Duration) {
        self.run(limit, |net| net.ends.iter_mut().all(End::is_closed));
        for side in 0..2 {
            let sent = &self.ends[side].application().sent;
            let received = &self.ends[1 - side].application().received;
            assert_eq!(sent.len(), received.len(), "from side {side}");
            assert!(sent == received, "from side {side}");
        }
        self.assert_nothing_left();
    }

    pub(super) fn assert_nothing_left(&mut self) {
        self.pass(2 * SECOND);
        for end in &self.ends {
            if let End::Ours(ours) = end {
                assert_eq!(ours.connection.as_ref().map_or(0, |it| it.memory()), 0);
                assert_eq!(ours.connection.as_ref().and_then(|it| it.poll_timeout()), None);
            }
        }
        assert_eq!(self.budget.used(), 0);
    }

    /// An application gives up.
    pub(super) fn abort(&mut self, side: usize) {
        if let Some(connection) = &mut self.ours(side).connection {
            connection.abort();
        }
        self.settle();
    }

    pub(super) fn ours(&mut self, side: usize) -> &mut Ours {
        match &mut self.ends[side] {
            End::Ours(ours) => ours,
            End::Smol(_) => panic!("the other kind"),
        }
    }
}
