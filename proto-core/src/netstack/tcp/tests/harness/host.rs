//! The agent's host: a TCP of its own, and applications that send, receive and close.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::MTU;

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
pub(in super::super) struct Call {
    handle: SocketHandle,
    pub(in super::super) to_send: VecDeque<u8>,
    /// Close the sending half once everything is handed over.
    pub(in super::super) then_close: bool,
    pub(in super::super) received: Vec<u8>,
}

/// The agent's host.
pub(in super::super) struct Host {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    pub(in super::super) calls: Vec<Call>,
    pub(in super::super) largest: usize,
}

impl Host {
    pub(super) fn new() -> Self {
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

    pub(in super::super) fn socket(&mut self, call: usize) -> &mut Socket<'static> {
        self.sockets.get_mut(self.calls[call].handle)
    }

    pub(in super::super) fn state(&mut self, call: usize) -> State {
        self.socket(call).state()
    }

    /// Opens a connection.
    pub(super) fn call(&mut self, to: IpAddress, port: u16, to_send: Vec<u8>, then_close: bool) -> usize {
        let buffer = || SocketBuffer::new(vec![0; 128 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.connect(self.interface.context(), (to, 80), port).unwrap();
        let handle = self.sockets.add(socket);
        let call = Call {
            handle,
            to_send: to_send.into(),
            then_close,
            received: Vec::new(),
        };
        self.calls.push(call);
        self.calls.len() - 1
    }

    /// A packet arrives.
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.wire.incoming.push_back(packet);
    }

    /// The next packet that the host sends.
    pub(super) fn sent(&mut self) -> Option<Vec<u8>> {
        self.wire.outgoing.pop_front()
    }

    /// When the host wants to act.
    pub(super) fn poll_at(&mut self, now: Ticks) -> Option<Ticks> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// Does everything that is due.
    pub(super) fn act(&mut self, now: Ticks) {
        for _ in 0..2 {
            self.work();
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
        }
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
