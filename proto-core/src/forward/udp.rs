//! UDP: one flow, with a port of its own, per local program, socket and destination; forgotten after silence.

use std::net::SocketAddr;

use super::socks::{datagram_header, split_datagram};
use super::stack::{Registration, Stack};
use super::{Listens, NotReached};
use crate::expiring::Inserted;
use crate::id::ServiceIndex;
use crate::local::{DatagramSocket, ListenerIndex};
use crate::quic::Datagram;
use crate::routing::packet::{self, FiveTuple, Parsed};

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UdpFlow {
    socket: DatagramSocket,
    program: SocketAddr,
    service: ServiceIndex,
    remote: SocketAddr,
}

impl Stack {
    /// A program has sent a datagram.
    pub(super) fn on_local_datagram(&mut self, socket: DatagramSocket, program: SocketAddr, payload: &[u8]) {
        match socket {
            DatagramSocket::Listener(listener) => self.on_listener_datagram(listener, program, payload),
            DatagramSocket::Relay(id) => {
                let peer = self.stream(id).filter(|stream| stream.is_relaying());
                let is_ours = peer.is_some_and(|stream| stream.peer.is_none_or(|ip| ip == program.ip()));
                let Some((host, port, payload)) = split_datagram(payload).filter(|_| is_ours) else {
                    self.stats.datagrams_malformed += 1;
                    return;
                };
                match self.directory.find(&host) {
                    Some((service, address)) => {
                        let flow = UdpFlow {
                            socket,
                            program,
                            service,
                            remote: SocketAddr::new(address, port),
                        };
                        self.send_datagram(flow, payload);
                    }
                    None => self.stats.datagrams_unroutable += 1,
                }
            }
        }
    }

    fn on_listener_datagram(&mut self, listener: ListenerIndex, program: SocketAddr, payload: &[u8]) {
        let Some(Listens::Datagram(service, port)) = self.listeners.get(usize::from(listener.0)).copied()
        else {
            return;
        };
        let Some(address) = self.directory.address(service) else {
            self.stats.datagrams_unroutable += 1;
            return;
        };
        let flow = UdpFlow {
            socket: DatagramSocket::Listener(listener),
            program,
            service,
            remote: SocketAddr::new(address, port),
        };
        self.send_datagram(flow, payload);
    }

    fn send_datagram(&mut self, flow: UdpFlow, payload: &[u8]) {
        let registration = self.registration(flow.service);
        let local = self.directory.local(flow.remote.ip());
        let (Some(local), true) = (
            local,
            registration != Registration::Denied && flow.remote.port() != 0,
        ) else {
            self.stats.datagrams_unroutable += 1;
            return;
        };
        let Some(port) = self.udp_port(flow) else {
            self.stats.datagrams_full += 1;
            return;
        };
        let mut packet = Vec::with_capacity(payload.len() + 48);
        if !packet::udp(SocketAddr::new(local, port), flow.remote, payload, &mut packet) {
            self.stats.datagrams_too_large += 1;
            return;
        }
        if registration == Registration::Pending {
            self.hold(flow.service, packet);
        } else if self.push_packet(flow.service, packet) {
            self.stats.datagrams_sent += 1;
        } else {
            self.stats.datagrams_full += 1;
        }
    }

    /// Our port of a flow, a new one if need be.
    fn udp_port(&mut self, flow: UdpFlow) -> Option<u16> {
        if let Some(port) = self.udp.touch(&flow, self.now) {
            return Some(*port);
        }
        let port = Self::free_port(&mut self.rng, &self.udp_ports)?;
        self.stats.udp_flows += 1;
        match self.udp.insert(flow, port, self.now) {
            Inserted::Added => {}
            Inserted::Replaced(old) | Inserted::Evicted(_, old) => {
                self.stats.udp_evicted += 1;
                self.udp_ports.remove(&old);
            }
        }
        self.udp_ports.insert(port, flow);
        Some(port)
    }

    /// A service has sent a datagram.
    pub(super) fn on_udp(&mut self, parsed: &Parsed, packet: Datagram) {
        let Some((port, flow)) = self.udp_flow(parsed.flow) else {
            self.stats.stray += 1;
            return;
        };
        let now = self.now;
        self.udp.touch(&flow, now);
        let mut payload = match flow.socket {
            DatagramSocket::Listener(_) => Vec::new(),
            DatagramSocket::Relay(id) => {
                if !self.stream(id).is_some_and(|stream| stream.is_relaying()) {
                    self.udp.remove(&flow);
                    self.udp_ports.remove(&port);
                    return;
                }
                datagram_header(flow.remote)
            }
        };
        payload.extend_from_slice(packet.get(parsed.payload.clone()).unwrap_or_default());
        if self.requests.datagram(flow.socket, flow.program, payload) {
            self.stats.datagrams_received += 1;
        } else {
            self.stats.datagrams_full += 1;
        }
    }

    /// The flow that a packet of a service belongs to: any sender but the one spoken to is a stranger.
    fn udp_flow(&self, tuple: FiveTuple) -> Option<(u16, UdpFlow)> {
        let source = SocketAddr::new(tuple.source, tuple.source_port);
        let port = tuple.destination_port;
        let flow = self.udp_ports.get(&port).filter(|flow| flow.remote == source)?;
        Some((port, *flow))
    }

    /// Programs cannot be told: a socket sends no ICMP.
    pub(super) fn on_udp_error(&mut self, tuple: FiveTuple, _: NotReached) {
        if self.udp_flow(tuple).is_some() {
            self.stats.datagrams_refused += 1;
        } else {
            self.stats.stray += 1;
        }
    }
}
