//! A world around one netstack, in virtual time: an agent's host with a TCP of its own (a second smoltcp), a link that
//! loses, reorders and repeats, and a shell whose backends are scripted.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::backend::{FlowId, FromBackend, Refusal, ToBackend};
use crate::config::Protocol;
use crate::id::ServiceIndex;
use crate::netstack::{Netstack, NetstackConfig, NetstackLimits, NetstackService};
use crate::rng::{Rng, Seed};
use crate::test_origin::origin;

pub(super) const SERVICE: ServiceIndex = ServiceIndex(0);
pub(super) const MTU: usize = 1280;

/// Bytes that differ everywhere, so that lost, repeated or swapped ones are noticed.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// One direction of the path between agent and netstack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Chances in a thousand.
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) reorder: u64,
}

pub(super) struct Path {
    weather: Weather,
    rng: Rng,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    sent: u64,
    pub(super) broken: bool,
}

impl Path {
    fn new(weather: Weather, seed: u8) -> Self {
        Self {
            weather,
            rng: Rng::new(&Seed([seed; 32])),
            under_way: BTreeMap::new(),
            sent: 0,
            broken: false,
        }
    }

    fn send(&mut self, packet: Vec<u8>, now: Instant) {
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

    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let entry = self.under_way.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }
}

#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Ticks) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Ticks) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// One connection of an application on the agent's host.
pub(super) struct Call {
    handle: SocketHandle,
    pub(super) to_send: VecDeque<u8>,
    /// Close the sending half once everything is handed over.
    pub(super) then_close: bool,
    pub(super) received: Vec<u8>,
}

/// The agent's host.
pub(super) struct Host {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    pub(super) calls: Vec<Call>,
    pub(super) largest: usize,
}

impl Host {
    fn new() -> Self {
        let mut wire = Wire::default();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Ticks::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::v4(10, 9, 0, 1), 0))
                .unwrap();
            addresses
                .push(IpCidr::new(IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1), 0))
                .unwrap();
        });
        interface
            .routes_mut()
            .add_default_ipv4_route([10, 9, 0, 254].into())
            .unwrap();
        interface
            .routes_mut()
            .add_default_ipv6_route([0xfd00, 0, 0, 0, 0, 0, 0, 2].into())
            .unwrap();
        Self {
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            calls: Vec::new(),
            largest: 0,
        }
    }

    pub(super) fn socket(&mut self, call: usize) -> &mut Socket<'static> {
        self.sockets.get_mut(self.calls[call].handle)
    }

    pub(super) fn state(&mut self, call: usize) -> State {
        self.socket(call).state()
    }

    /// Moves bytes between the applications and their sockets.
    fn work(&mut self) {
        for call in &mut self.calls {
            let socket = self.sockets.get_mut::<Socket<'_>>(call.handle);
            while socket.can_recv() {
                let received = &mut call.received;
                let _ = socket.recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
            }
            while socket.can_send() && !call.to_send.is_empty() {
                let sent = socket.send_slice(call.to_send.make_contiguous()).unwrap();
                call.to_send.drain(..sent);
            }
            if socket.may_send() && call.then_close && call.to_send.is_empty() {
                socket.close();
            }
        }
    }
}

/// What a backend does.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// Sends back what it gets, and ends when the agent has ended.
    Echo,
    /// Sends this and ends, whatever it gets.
    Serve(Vec<u8>),
    /// Takes everything; when the agent has ended, sends this and ends.
    Reply(Vec<u8>),
    /// Takes everything and never sends.
    Sink,
    /// Takes so many bytes each 10 ms, then as [`Script::Sink`].
    Slow(usize),
    /// Is not there.
    Refuse(Refusal),
    /// Does not even refuse.
    Mute,
}

/// One backend connection.
pub(super) struct Backend {
    pub(super) flow: FlowId,
    script: Script,
    pub(super) received: Vec<u8>,
    to_send: VecDeque<u8>,
    readable: bool,
    room: bool,
    pub(super) ended: bool,
    finished: bool,
    pub(super) closed: bool,
    pub(super) reset: bool,
    next: Option<Instant>,
    pub(super) filled: usize,
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
            backend: "192.0.2.9:7".parse().unwrap(),
            protocol: Protocol::Both,
            virtual_addresses: Vec::new(),
        };
        let config = NetstackConfig {
            services: vec![service],
            limits,
            mtu: MTU,
        };
        let now = origin();
        Self {
            now,
            start: now,
            stack: Netstack::new(config, Rng::new(&Seed([4; 32])), now),
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
        let buffer = || SocketBuffer::new(vec![0; 128 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket
            .connect(self.host.interface.context(), (to, 80), port)
            .unwrap();
        let handle = self.host.sockets.add(socket);
        let call = Call {
            handle,
            to_send: to_send.into(),
            then_close,
            received: Vec::new(),
        };
        self.host.calls.push(call);
        self.host.calls.len() - 1
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
        let host = self.host.interface.poll_at(ticks, &self.host.sockets).map(|at| {
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
                self.stack.handle_packet(SERVICE, packet.into(), now);
            }
            while let Some(packet) = self.down.arrived(now) {
                busy = true;
                self.host.wire.incoming.push_back(packet);
            }
            let ticks = self.ticks();
            self.host.work();
            self.host
                .interface
                .poll(ticks, &mut self.host.wire, &mut self.host.sockets);
            self.host.work();
            self.host
                .interface
                .poll(ticks, &mut self.host.wire, &mut self.host.sockets);
            while let Some(packet) = self.host.wire.outgoing.pop_front() {
                busy = true;
                self.up.send(packet, now);
            }
            busy |= self.work_backends();
            while self.stack.poll_ready().is_some() {}
            while self.tunnel_open
                && let Some(packet) = self.stack.poll_packet(SERVICE, now)
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
                ToBackend::Datagram { .. } => {}
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

impl Backend {
    fn new(flow: FlowId, script: Script) -> Self {
        let to_send = match &script {
            Script::Serve(bytes) => bytes.clone().into(),
            Script::Echo
            | Script::Reply(_)
            | Script::Sink
            | Script::Slow(_)
            | Script::Refuse(_)
            | Script::Mute => VecDeque::new(),
        };
        Self {
            flow,
            script,
            received: Vec::new(),
            to_send,
            readable: false,
            room: true,
            ended: false,
            finished: false,
            closed: false,
            reset: false,
            next: None,
            filled: 0,
        }
    }

    /// The agent has sent its last byte.
    fn end(&mut self) {
        assert!(
            !self.ended && !self.closed && !self.reset,
            "an end comes once, and first"
        );
        self.ended = true;
        if let Script::Reply(bytes) = &self.script {
            self.to_send.extend(bytes);
        }
    }

    fn is_open(&self) -> bool {
        !self.closed && !self.reset && !matches!(self.script, Script::Refuse(_) | Script::Mute)
    }

    fn work(&mut self, stack: &mut Netstack, now: Instant) -> bool {
        if !self.is_open() {
            return false;
        }
        let mut busy = false;
        let budget = match self.script {
            Script::Slow(_) if self.next.is_some_and(|next| next > now) => 0,
            Script::Slow(bytes) => bytes,
            Script::Echo | Script::Serve(_) | Script::Reply(_) | Script::Sink => usize::MAX,
            Script::Refuse(_) | Script::Mute => 0,
        };
        if self.readable && budget > 0 {
            self.next = None;
            let mut left = budget;
            loop {
                let (received, to_send) = (&mut self.received, &mut self.to_send);
                let echo = matches!(self.script, Script::Echo);
                let taken = stack.drain_stream(self.flow, now, &mut |bytes| {
                    let bytes = &bytes[..bytes.len().min(left)];
                    received.extend_from_slice(bytes);
                    if echo {
                        to_send.extend(bytes);
                    }
                    bytes.len()
                });
                busy |= taken > 0;
                left -= taken;
                if taken == 0 {
                    self.readable = left == 0;
                    break;
                }
            }
            if matches!(self.script, Script::Slow(_)) {
                self.readable = true;
                self.next = (!self.ended).then(|| now + Duration::from_millis(10));
            }
        }
        while self.room && !self.to_send.is_empty() {
            let to_send = &mut self.to_send;
            let filled = stack.fill_stream(self.flow, now, &mut |room| {
                let count = room.len().min(to_send.len());
                for (place, byte) in room.iter_mut().zip(to_send.drain(..count)) {
                    *place = byte;
                }
                count
            });
            self.room = filled.is_some();
            self.filled += filled.unwrap_or(0);
            busy |= self.room;
        }
        let over = match self.script {
            Script::Serve(_) => self.to_send.is_empty(),
            Script::Echo | Script::Reply(_) | Script::Sink | Script::Slow(_) => {
                self.ended && self.to_send.is_empty()
            }
            Script::Refuse(_) | Script::Mute => false,
        };
        if over && !self.finished {
            self.finished = true;
            busy = true;
            stack.handle_backend(FromBackend::HalfClosed { flow: self.flow }, now);
        }
        busy
    }
}
