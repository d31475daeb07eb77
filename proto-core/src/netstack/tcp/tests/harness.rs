//! A world around one netstack, in virtual time: an agent's host with a TCP of its own (a second smoltcp), a link that
//! loses, reorders and repeats, and a shell whose backends are scripted.

mod backend;
mod host;
mod path;

use std::time::{Duration, Instant};

use smoltcp::time::Instant as Ticks;
use smoltcp::wire::IpAddress;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::config::Protocol;
use crate::id::{LaneId, ServiceIndex};
use crate::netstack::{Netstack, NetstackConfig, NetstackLimits, NetstackService};
use crate::rng::{Rng, Seed};
use crate::service::Offer;
use crate::test_origin::origin;
use backend::Backend;
pub(super) use backend::Script;
use host::Host;
use path::Path;
pub(super) use path::Weather;

/// The first lane that a stack opens.
pub(super) const LANE: LaneId = LaneId {
    index: 0,
    generation: 1,
};
pub(super) const MTU: usize = 1280;

/// Bytes that differ everywhere, so that lost, repeated or swapped ones are noticed.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) stack: Netstack,
    pub(super) host: Host,
    pub(super) up: Path,
    pub(super) down: Path,
    /// Whether the tunnel takes packets.
    pub(super) tunnel_open: bool,
    pub(super) script: Script,
    pub(super) backends: Vec<Backend>,
}

impl World {
    pub(super) fn new(script: Script, weather: Weather) -> Self {
        Self::with_limits(script, weather, NetstackLimits::default())
    }

    pub(super) fn with_limits(script: Script, weather: Weather, limits: NetstackLimits) -> Self {
        let service = NetstackService {
            offer: Offer::single("192.0.2.9:7".parse().unwrap(), Protocol::Both),
            virtual_addresses: Vec::new(),
        };
        let config = NetstackConfig {
            services: vec![service],
            limits,
        };
        let now = origin();
        let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
        assert_eq!(stack.open_lane(ServiceIndex(0), None, MTU), LANE);
        Self {
            now,
            start: now,
            stack,
            host: Host::new(),
            up: Path::new(weather, 1),
            down: Path::new(weather, 2),
            tunnel_open: true,
            script,
            backends: Vec::new(),
        }
    }

    /// A connection from a port of the agent's host to the service.
    pub(super) fn call(&mut self, port: u16, to_send: Vec<u8>, then_close: bool) -> usize {
        self.call_to(IpAddress::v4(10, 100, 0, 1), port, to_send, then_close)
    }

    pub(super) fn call_to(&mut self, to: IpAddress, port: u16, to_send: Vec<u8>, then_close: bool) -> usize {
        self.host.call(to, port, to_send, then_close)
    }

    fn ticks(&self) -> Ticks {
        Ticks::from_micros(i64::try_from((self.now - self.start).as_micros()).unwrap())
    }

    /// Runs until something holds; panics if that takes longer than `limit` of virtual time.
    pub(super) fn run(&mut self, limit: Duration, mut until: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        loop {
            self.settle();
            if until(self) {
                return;
            }
            let next = self.next().unwrap_or(end).max(self.now);
            assert!(next < end, "nothing came of it: {:?}", self.stack.stats());
            self.now = next;
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            match self.next() {
                Some(next) if next < end => self.now = next,
                Some(_) | None => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn next(&mut self) -> Option<Instant> {
        let ticks = self.ticks();
        let host = self.host.poll_at(ticks).map(|at| {
            let at = self.start + Duration::from_micros(u64::try_from(at.total_micros()).unwrap());
            at.max(self.now + Duration::from_millis(1))
        });
        let backends = self.backends.iter().filter_map(|backend| backend.next).min();
        [
            self.up.next(),
            self.down.next(),
            host,
            self.stack.poll_timeout(),
            backends,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does everything that is due now.
    fn settle(&mut self) {
        let now = self.now;
        self.stack.handle_timeout(now);
        loop {
            let mut busy = false;
            while let Some(packet) = self.up.arrived(now) {
                busy = true;
                self.stack.handle_packet(LANE, packet.into(), now);
            }
            while let Some(packet) = self.down.arrived(now) {
                busy = true;
                self.host.receive(packet);
            }
            let ticks = self.ticks();
            self.host.act(ticks);
            while let Some(packet) = self.host.sent() {
                busy = true;
                self.up.send(packet, now);
            }
            busy |= self.work_backends();
            while self.stack.poll_ready().is_some() {}
            while self.tunnel_open
                && let Some(packet) = self.stack.poll_packet(LANE, now)
            {
                busy = true;
                self.host.largest = self.host.largest.max(packet.len());
                self.down.send(packet.to_vec(), now);
            }
            if !busy && !self.stack.has_output() {
                break;
            }
        }
        if let Some(at) = self.stack.poll_timeout() {
            assert!(
                at > now,
                "a drained stack asks for no wake-up at the same instant"
            );
        }
    }

    fn work_backends(&mut self) -> bool {
        let now = self.now;
        let mut busy = false;
        let mut reports = Vec::new();
        while let Some(request) = self.stack.poll_backend() {
            busy = true;
            match request {
                ToBackend::Open { flow, .. } => {
                    match self.script {
                        Script::Refuse(reason) => reports.push(FromBackend::Refused { flow, reason }),
                        Script::Mute => {}
                        Script::Echo
                        | Script::Serve(_)
                        | Script::Reply(_)
                        | Script::Sink
                        | Script::Slow(_) => {
                            reports.push(FromBackend::Opened { flow });
                        }
                    }
                    self.backends.push(Backend::new(flow, self.script.clone()));
                }
                ToBackend::Datagram { .. } | ToBackend::Ask(_) => {}
                ToBackend::Readable { flow } => find(&mut self.backends, flow).readable = true,
                ToBackend::Resume { flow } => find(&mut self.backends, flow).room = true,
                ToBackend::HalfClose { flow } => find(&mut self.backends, flow).end(),
                ToBackend::Close { flow } => find(&mut self.backends, flow).closed = true,
                ToBackend::Reset { flow } => find(&mut self.backends, flow).reset = true,
            }
        }
        for report in reports {
            self.stack.handle_backend(report, now);
        }
        for backend in &mut self.backends {
            busy |= backend.work(&mut self.stack, now);
        }
        busy
    }

    /// Gives a backend another script.
    pub(super) fn script_backend(&mut self, index: usize, script: Script) {
        self.backends[index].next = None;
        self.backends[index].script = script;
    }

    /// Ends a backend's sending half.
    pub(super) fn finish_backend(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        backend.finished = true;
        self.stack
            .handle_backend(FromBackend::HalfClosed { flow: backend.flow }, self.now);
    }

    /// Resets one backend connection from its side.
    pub(super) fn break_backend(&mut self, index: usize) {
        let flow = self.backends[index].flow;
        self.backends[index].closed = true;
        self.stack.handle_backend(FromBackend::Reset { flow }, self.now);
    }

    /// Everything is over, on both sides and in between.
    pub(super) fn assert_empty(&mut self) {
        self.run(Duration::from_secs(1000), |world| world.stack.flows() == 0);
        assert_eq!(self.stack.poll_timeout(), None);
        assert!(!self.stack.has_output());
        assert!(
            self.stack.tcp.is_empty() && self.stack.tcp_pending.is_empty() && self.stack.lingering.is_empty()
        );
        assert!(self.stack.timers.is_empty());
        for backend in &self.backends {
            assert!(backend.closed || backend.reset || matches!(backend.script, Script::Refuse(_)));
        }
    }
}

fn find(backends: &mut [Backend], flow: FlowId) -> &mut Backend {
    backends.iter_mut().find(|backend| backend.flow == flow).unwrap()
}
