//! The path of one DATAGRAM through the intermediate.

use std::time::Instant;

use super::Intermediate;
use crate::id::ConnId;
use crate::quic::{Datagram, DatagramError, Provider};
use crate::registration::{Route, Unroutable};
use crate::routing::packet::{self, Fragment, Kind, Unreachable};
use crate::wire::Malformed;
use crate::wire::datagram::{FromClient, Role, introduction as write_introduction, parse_from_client};

/// How much of a packet is sent ahead of it to say whose it is: an IP header with options or extensions, and the ports.
const HEAD: usize = 128;

/// A packet that every connection carries, whatever its path: QUIC works on no path below 1,200 bytes (RFC 9000 §14), of
/// which headers and connection ids take some 60.
const ALWAYS_FITS: usize = 1100;

/// What the DATAGRAMs of one connection have in common that are read in a row. Most have the way of the one before; nothing
/// of it outlives the row, in which nobody comes or goes.
#[derive(Debug, Default)]
pub(super) struct Row {
    route: Option<Route>,
    /// A receiver, and what its path carries.
    room: Option<(ConnId, usize)>,
    /// The connector that packets went to last.
    connector: Option<ConnId>,
}

impl<Q: Provider> Intermediate<Q> {
    pub(super) fn on_readable(&mut self, id: ConnId, now: Instant) {
        let mut row = Row::default();
        while let Some(datagram) = self.pool.poll_datagram(id) {
            self.on_datagram(id, datagram, &mut row, now);
        }
        // An agent that sends more than its connector takes is slowed down before its packets are dropped, not after.
        if let Some(connector) = row.connector {
            self.pool.acknowledge_behind(id, connector);
        }
        self.stats.dropped.stream_bytes += self.pool.discard_streams(id) as u64;
    }

    fn on_datagram(&mut self, id: ConnId, mut datagram: Datagram, row: &mut Row, now: Instant) {
        let received = datagram.len() as u64;
        let connector = match parse_from_client(&datagram) {
            Ok(FromClient::Register {
                role,
                service,
                introduce,
            }) => {
                let service = service.to_vec();
                if introduce {
                    self.ask_who(id);
                }
                *row = Row::default();
                self.register(id, role, &service);
                return;
            }
            Ok(FromClient::Routed { service, packet_at }) => {
                let connector = self.registry.route_again(id, service, &mut row.route);
                datagram.advance(packet_at);
                connector
            }
            Ok(FromClient::Packet) => match self.registry.role(id) {
                Some(Role::Connector) => {
                    self.reply(id, datagram, received, row, now);
                    return;
                }
                Some(Role::Agent) => self.registry.route_implicit(id),
                None => Err(Unroutable::NotRegistered),
            },
            Err(Malformed::NotAnIpPacket) => {
                self.stats.dropped.not_ip += 1;
                return;
            }
            Err(
                Malformed::Empty | Malformed::Truncated | Malformed::UnknownType(_) | Malformed::InvalidValue,
            ) => {
                self.stats.dropped.malformed += 1;
                return;
            }
        };
        match connector {
            Ok(connector) => {
                if self.flows.outbound(id, connector, &mut datagram, now).is_err() {
                    self.stats.dropped.flow_refused += 1;
                    return;
                }
                if self.flows.wants_introduction(now) {
                    datagram = self.introduce(id, connector, datagram);
                }
                row.connector = Some(connector);
                self.relay(id, connector, datagram, received, row, now);
            }
            Err(Unroutable::NoConnector) => {
                self.stats.dropped.no_connector += 1;
                self.answer_unreachable(id, &datagram);
            }
            Err(Unroutable::NotRegistered) => self.stats.dropped.not_registered += 1,
            Err(Unroutable::Ambiguous) => self.stats.dropped.ambiguous += 1,
        }
    }

    /// Tells a connector that asked who sends this packet: around it, or ahead of it if that does not fit.
    fn introduce(&mut self, agent: ConnId, connector: ConnId, packet: Datagram) -> Datagram {
        if !self.session(connector).is_some_and(|session| session.asks_who) {
            return packet;
        }
        let Some(Some(session)) = self.sessions.get_mut(agent.index as usize) else {
            return packet;
        };
        let Some(identity) = session.identity.as_ref().filter(|_| session.id == agent) else {
            return packet;
        };
        let introduction = session
            .introduction
            .get_or_insert_with(|| write_introduction(&identity.fingerprint().0, identity.name()));
        let room = self.pool.max_datagram_len(connector).unwrap_or(0);
        let fits = introduction.len() + packet.len() <= room;
        // Enough to know the flow by: the headers, and eight bytes of the transport.
        let head = if fits {
            packet.len()
        } else {
            packet.len().min(HEAD)
        };
        let mut message = Vec::with_capacity(introduction.len() + head);
        message.extend_from_slice(introduction);
        message.extend(packet.iter().take(head));
        self.stats.introductions += 1;
        if fits {
            return message.into();
        }
        // Lost with a full queue: the next packet of a flow without an answer is introduced, too.
        let _ = self.pool.send_datagram(connector, message.into());
        packet
    }

    /// A connector's packet goes to the agent whose packet opened the flow, and to nobody else.
    fn reply(
        &mut self,
        connector: ConnId,
        mut datagram: Datagram,
        received: u64,
        row: &mut Row,
        now: Instant,
    ) {
        let Some(agent) = self.flows.inbound(connector, &mut datagram, now) else {
            self.stats.dropped.no_flow += 1;
            return;
        };
        self.relay(connector, agent, datagram, received, row, now);
    }

    fn relay(
        &mut self,
        from: ConnId,
        to: ConnId,
        datagram: Datagram,
        received: u64,
        row: &mut Row,
        now: Instant,
    ) {
        // Only a packet that some path could refuse is worth the question.
        if datagram.len() > ALWAYS_FITS {
            let room = match row.room {
                Some((known, room)) if known == to => room,
                Some(_) | None => self.pool.path_datagram_len(to).unwrap_or(usize::MAX),
            };
            row.room = Some((to, room));
            if datagram.len() > room {
                return self.relay_oversized(from, to, &datagram, room, now);
            }
        }
        match self.pool.send_datagram(to, datagram) {
            Ok(()) => {
                self.stats.relayed += 1;
                self.stats.relayed_bytes += received;
            }
            Err(DatagramError::Full) => self.stats.dropped.queue_full += 1,
            Err(DatagramError::TooLarge) => self.stats.dropped.too_large += 1,
            Err(DatagramError::NotReady) => self.stats.dropped.receiver_gone += 1,
        }
    }

    /// A packet that the second half of its way does not carry: its sender is told the size that fits, or it is cut where its
    /// sender allows that (RFC 791 §2.3; IPv6 routers never cut).
    fn relay_oversized(&mut self, from: ConnId, to: ConnId, datagram: &[u8], room: usize, now: Instant) {
        self.stats.dropped.too_large += 1;
        let Ok(parsed) = packet::parse(datagram) else {
            return;
        };
        let mut answer = Vec::new();
        let mtu = u16::try_from(room).unwrap_or(u16::MAX);
        if packet::too_big(datagram, &parsed, mtu, &mut answer) {
            // It quotes the packet as its receiver would have seen it; the sender may know the flow by other addresses.
            let known = match self.registry.role(from) {
                Some(Role::Agent) => self.flows.inbound(to, &mut answer, now) == Some(from),
                Some(Role::Connector) => self.flows.outbound(to, from, &mut answer, now).is_ok(),
                None => false,
            };
            if known {
                let _ = self.pool.send_datagram(from, answer.into());
            }
        } else if parsed.flow.source.is_ipv4() && parsed.fragment == Fragment::No {
            let id = self.fragment_id;
            self.fragment_id = id.wrapping_add(1);
            let pool = &mut self.pool;
            packet::split(&datagram[..parsed.len], room, id, &mut |fragment| {
                let _ = pool.send_datagram(to, fragment.into());
            });
        }
    }

    /// Nobody publishes the service: the agent's host learns it at once instead of waiting for a timeout.
    fn answer_unreachable(&mut self, agent: ConnId, original: &[u8]) {
        let Ok(parsed) = packet::parse(original) else {
            return;
        };
        // A UDP socket hears only of ports; TCP and ping hear of hosts.
        let why = if parsed.kind == Kind::Udp {
            Unreachable::Port
        } else {
            Unreachable::Host
        };
        let mut answer = Vec::new();
        if packet::unreachable(original, &parsed, why, &mut answer) {
            let _ = self.pool.send_datagram(agent, answer.into());
        }
    }
}
