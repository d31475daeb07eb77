//! An end that is a smoltcp socket: another implementation, to prove that ours speaks the protocol.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::HardwareAddress;

use super::end::Application;
use crate::routing::packet::FiveTuple;

struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    mtu: usize,
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
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A smoltcp socket with a stack of its own.
pub(in super::super) struct Smol {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(in super::super) application: Application,
    was_open: bool,
}

fn ticks(elapsed: Duration) -> Ticks {
    Ticks::from_micros(i64::try_from(elapsed.as_micros()).unwrap())
}

impl Smol {
    pub(super) fn new(flow: FiveTuple, calls: bool, mtu: usize, application: Application) -> Self {
        let mut wire = Wire {
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut wire, Ticks::ZERO);
        interface.set_any_ip(true);
        let buffer = || SocketBuffer::new(vec![0; 256 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        if calls {
            let remote = (flow.destination, flow.destination_port);
            let local = (flow.source, flow.source_port);
            socket.connect(interface.context(), remote, local).unwrap();
        } else {
            socket.listen((flow.source, flow.source_port)).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            interface,
            wire,
            sockets,
            handle,
            application,
            was_open: false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(in super::super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    pub(super) fn receive(&mut self, packet: Vec<u8>, elapsed: Duration) {
        self.wire.incoming.push_back(packet);
        self.poll(elapsed);
    }

    fn poll(&mut self, elapsed: Duration) {
        self.interface
            .poll(ticks(elapsed), &mut self.wire, &mut self.sockets);
    }

    pub(super) fn work(&mut self, now: Instant, elapsed: Duration) {
        self.poll(elapsed);
        let can_recv = self.socket().can_recv();
        let mut budget = if can_recv { self.application.budget(now) } else { 0 };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let application = &mut self.application;
        while socket.can_recv() && budget > 0 {
            let received = &mut application.received;
            let taken = socket.recv(|bytes| {
                let bytes = &bytes[..bytes.len().min(budget)];
                received.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            budget -= taken.unwrap();
        }
        self.was_open |= socket.may_send();
        application.peer_ended |= self.was_open && !socket.may_recv();
        while socket.can_send() && application.written < application.sent.len() {
            let rest = &application.sent[application.written..];
            application.written += socket.send_slice(rest).unwrap();
        }
        if self.was_open && socket.may_send() && application.wants_to_close() {
            socket.close();
        }
        self.poll(elapsed);
    }

    pub(super) fn send(&mut self, elapsed: Duration) -> Option<Vec<u8>> {
        if self.wire.outgoing.is_empty() {
            self.poll(elapsed);
        }
        self.wire.outgoing.pop_front()
    }

    pub(super) fn next(&mut self, elapsed: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(ticks(elapsed), &self.sockets)?;
        Some(Duration::from_micros(u64::try_from(at.total_micros()).unwrap()))
    }

    pub(super) fn is_closed(&mut self) -> bool {
        let done = matches!(self.state(), State::Closed | State::TimeWait);
        self.was_open && done && !self.socket().can_recv()
    }
}
