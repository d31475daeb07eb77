//! Connections that share a bottleneck: each sends in the same direction.

use std::time::{Duration, Instant};

use super::{Application, Link, Ours, Weather, flow, pattern};
use crate::routing::packet;
use crate::tcp::{Algorithm, Budget, Config};
use crate::test_origin::origin;

/// More than any of them sends.
const LEN: usize = 200_000_000;

const FIRST_PORT: u16 = 40_000;

pub(in super::super) struct Shared {
    pub(in super::super) now: Instant,
    /// A sender and a receiver each.
    pairs: Vec<[Ours; 2]>,
    pub(in super::super) links: [Link; 2],
    budget: Budget,
}

impl Shared {
    pub(in super::super) fn new(weather: Weather) -> Self {
        let back = Weather {
            rate: None,
            loss: 0,
            ..weather
        };
        Self {
            now: origin(),
            pairs: Vec::new(),
            links: [Link::new(weather, 1), Link::new(back, 2)],
            budget: Budget::new(256 << 20),
        }
    }

    /// One more begins.
    pub(in super::super) fn begin(&mut self, congestion: Algorithm) {
        let config = Config {
            congestion,
            ..Config::default()
        };
        let mut flow = flow(false);
        flow.source_port = FIRST_PORT + u16::try_from(self.pairs.len()).unwrap();
        let sends = Application::sends(pattern(LEN, 1));
        let (budget, now) = (&self.budget, self.now);
        self.pairs.push([
            Ours::new(flow, true, config, budget, sends, now),
            Ours::new(
                flow.reversed(),
                false,
                config,
                budget,
                Application::default(),
                now,
            ),
        ]);
    }

    /// Lets time pass; returns the bytes that each has delivered meanwhile.
    pub(in super::super) fn pass(&mut self, time: Duration) -> Vec<f64> {
        let came = |net: &Self| -> Vec<usize> {
            let received = net
                .pairs
                .iter()
                .map(|[_, receiver]| &receiver.application.received);
            received.map(Vec::len).collect()
        };
        let before = came(self);
        let end = self.now + time;
        loop {
            self.settle();
            match self.next() {
                Some(next) if next < end => self.now = next.max(self.now),
                Some(_) | None => break,
            }
        }
        self.now = end;
        came(self)
            .iter()
            .zip(before)
            .map(|(after, before)| (after - before) as f64)
            .collect()
    }

    fn settle(&mut self) {
        let now = self.now;
        for side in 0..2 {
            while let Some(bytes) = self.links[1 - side].arrived(now) {
                let flow = packet::parse(&bytes).unwrap().flow;
                // The service's port is the smaller one.
                let port = flow.source_port.max(flow.destination_port);
                self.pairs[usize::from(port - FIRST_PORT)][side].receive(&bytes, now);
            }
        }
        for pair in &mut self.pairs {
            for (end, link) in pair.iter_mut().zip(&mut self.links) {
                end.work(now);
                while let Some(packet) = end.connection.as_mut().and_then(|it| it.send(1280, now)) {
                    link.send(packet, now);
                }
                end.work(now);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let ends = self.pairs.iter().flatten();
        let ends = ends.filter_map(|end| end.connection.as_ref()?.poll_timeout());
        let links = self.links.iter().filter_map(|link| link.next(self.now));
        ends.chain(links).min()
    }
}
