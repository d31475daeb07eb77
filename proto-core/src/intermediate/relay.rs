//! The path of one DATAGRAM through the intermediate.

use std::time::Instant;

use super::Intermediate;
use crate::id::{ConnId, ServiceId};
use crate::quic::{Datagram, Provider};
use crate::registration::{Route, Unroutable};
use crate::routing::packet::{self, Fragment};
use crate::wire::Malformed;
use crate::wire::channel::CHANNEL;
use crate::wire::datagram::{
    FromClient, Role, introduction as write_introduction, parse_from_client, routed_prefix,
};

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

/// A packet as a client sent it.
#[derive(Debug)]
struct Sent {
    from: ConnId,
    packet: Datagram,
    /// Bytes that stood before it and named the service; none if it came bare.
    stripped: usize,
    /// Bytes of the message as it was received.
    received: u64,
}

/// The way of one packet.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: ConnId,
    to: ConnId,
    /// Bytes before the packet that the receiver gets with it: the service, for connectors of v2.
    kept: usize,
    /// Bytes before the message that an answer to its sender begins with.
    back: usize,
    /// Bytes of the message as it was received.
    received: u64,
    /// Whether it goes to the agent of a session, whatever flows there are.
    in_session: bool,
}

impl Sent {
    /// The packet behind so many bytes of a DATAGRAM.
    fn behind(stripped: usize, from: ConnId, mut packet: Datagram) -> Self {
        let received = packet.len() as u64;
        packet.advance(stripped);
        Self {
            from,
            packet,
            stripped,
            received,
        }
    }
}

impl<Q: Provider> Intermediate<Q> {
    pub(super) fn on_readable(&mut self, id: ConnId, now: Instant) {
        let speaks_v2 = self.speaks_v2(id);
        if speaks_v2 {
            self.read_control(id, now);
        }
        let mut row = Row::default();
        while let Some(datagram) = self.pool.poll_datagram(id) {
            if speaks_v2 {
                self.on_datagram_of_v2(id, datagram, &mut row, now);
            } else {
                self.on_datagram(id, datagram, &mut row, now);
            }
        }
        // An agent that sends more than its connector takes is slowed down before its packets are dropped, not after.
        if let Some(connector) = row.connector {
            self.pool.acknowledge_behind(id, connector);
        }
        if !speaks_v2 {
            self.read_signals(id, now);
        }
    }

    /// A client of v2 has its own messages for everything but packets, and says with each for which service it is.
    fn on_datagram_of_v2(&mut self, id: ConnId, datagram: Datagram, row: &mut Row, now: Instant) {
        if datagram.first() == Some(&CHANNEL) {
            self.on_frame(id, datagram, now);
            return;
        }
        let role = self
            .session(id)
            .and_then(|session| session.control.as_ref()?.role);
        match (parse_from_client(&datagram), role) {
            (Ok(FromClient::Routed { service, packet_at }), Some(Role::Agent)) => {
                let connector = self.registry.route_again(id, service, &mut row.route);
                self.ask_connector(Sent::behind(packet_at, id, datagram), connector, row, now);
            }
            (Ok(FromClient::Routed { service, packet_at }), Some(Role::Connector)) => {
                if !self.registry.publishes_again(id, service, &mut row.route) {
                    self.stats.dropped.not_registered += 1;
                    return;
                }
                self.reply(Sent::behind(packet_at, id, datagram), row, now);
            }
            (Ok(FromClient::InSession { session, packet_at }), Some(Role::Connector)) => {
                self.reply_in_session(session, Sent::behind(packet_at, id, datagram), row, now);
            }
            (Ok(FromClient::Routed { .. } | FromClient::InSession { .. }), _) => {
                self.stats.dropped.not_registered += 1
            }
            (Ok(FromClient::Packet), _) => self.stats.dropped.ambiguous += 1,
            (Ok(FromClient::Register { .. }), _) => self.stats.dropped.malformed += 1,
            (Err(malformed), _) => self.count_malformed(malformed),
        }
    }

    fn on_datagram(&mut self, id: ConnId, datagram: Datagram, row: &mut Row, now: Instant) {
        match parse_from_client(&datagram) {
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
            }
            Ok(FromClient::Routed { service, packet_at }) => {
                let connector = self.registry.route_again(id, service, &mut row.route);
                self.ask_connector(Sent::behind(packet_at, id, datagram), connector, row, now);
            }
            Ok(FromClient::Packet) => match self.registry.role(id) {
                Some(Role::Connector) => self.reply(Sent::behind(0, id, datagram), row, now),
                Some(Role::Agent) => {
                    let connector = self.registry.route_implicit(id);
                    self.ask_connector(Sent::behind(0, id, datagram), connector, row, now);
                }
                None => self.stats.dropped.not_registered += 1,
            },
            // A connector of v1 is told apart from its others by its connection, and knows no sessions.
            Ok(FromClient::InSession { .. }) => self.stats.dropped.malformed += 1,
            Err(malformed) => self.count_malformed(malformed),
        }
    }

    fn count_malformed(&mut self, malformed: Malformed) {
        match malformed {
            Malformed::NotAnIpPacket => self.stats.dropped.not_ip += 1,
            Malformed::Empty | Malformed::Truncated | Malformed::UnknownType(_) | Malformed::InvalidValue => {
                self.stats.dropped.malformed += 1;
            }
        }
    }

    /// An agent's packet goes to the connector of its service.
    fn ask_connector(
        &mut self,
        sent: Sent,
        connector: Result<ConnId, Unroutable>,
        row: &mut Row,
        now: Instant,
    ) {
        let Sent {
            from,
            mut packet,
            stripped,
            received,
        } = sent;
        let to = match connector {
            Ok(connector) => connector,
            Err(why) => return self.unroutable(from, why, &packet),
        };
        if self.flows.outbound(from, to, &mut packet, now).is_err() {
            self.stats.dropped.flow_refused += 1;
            return;
        }
        let (mut message, mut kept) = (packet, 0);
        if self.speaks_v2(to) {
            (message, kept) = self.wrap(from, message, stripped);
        }
        if self.flows.wants_introduction(now) {
            message = self.introduce(from, to, message, &mut kept);
        }
        row.connector = Some(to);
        let way = Way {
            from,
            to,
            kept,
            back: 0,
            received,
            in_session: false,
        };
        self.relay(way, message, row, now);
    }

    fn unroutable(&mut self, agent: ConnId, why: Unroutable, packet: &[u8]) {
        match why {
            Unroutable::NoConnector => {
                self.stats.dropped.no_connector += 1;
                self.answer_unreachable(agent, packet);
            }
            Unroutable::NotRegistered => self.stats.dropped.not_registered += 1,
            Unroutable::Ambiguous => self.stats.dropped.ambiguous += 1,
        }
    }

    /// Puts the service before a packet again, for a connector that has one connection for all of its services; also
    /// returns where the packet begins. It still stands there, except for an agent of v1 that has only one and never names it.
    fn wrap(&self, agent: ConnId, mut packet: Datagram, stripped: usize) -> (Datagram, usize) {
        if stripped > 0 {
            packet.retreat(stripped);
            return (packet, stripped);
        }
        let service = self
            .registry
            .only_service(agent)
            .and_then(|name| ServiceId::parse(name).ok());
        let Some(service) = service else {
            return (packet, 0);
        };
        let prefix = routed_prefix(&service);
        ([&prefix, &*packet].concat().into(), prefix.len())
    }

    /// Tells a connector that asked who sends this packet: around it, or ahead of it if that does not fit. The packet begins
    /// behind `kept` bytes of the message.
    fn introduce(
        &mut self,
        agent: ConnId,
        connector: ConnId,
        message: Datagram,
        kept: &mut usize,
    ) -> Datagram {
        if !self.session(connector).is_some_and(|session| session.asks_who) {
            return message;
        }
        let Some(Some(session)) = self.sessions.get_mut(agent.index as usize) else {
            return message;
        };
        let Some(identity) = session.identity.as_ref().filter(|_| session.id == agent) else {
            return message;
        };
        let introduction = session
            .introduction
            .get_or_insert_with(|| write_introduction(&identity.fingerprint().0, identity.name()));
        let room = self.pool.max_datagram_len(connector).unwrap_or(0);
        let fits = introduction.len() + message.len() <= room;
        // Enough to know the flow by: the headers, and eight bytes of the transport.
        let head = if fits {
            message.len()
        } else {
            message.len().min(*kept + HEAD)
        };
        let mut introduced = Vec::with_capacity(introduction.len() + head);
        introduced.extend_from_slice(introduction);
        introduced.extend(message.iter().take(head));
        self.stats.introductions += 1;
        if fits {
            *kept += introduction.len();
            return introduced.into();
        }
        // Lost with a full queue: the next packet of a flow without an answer is introduced, too.
        let _ = self.pool.send_datagram(connector, introduced.into());
        message
    }

    /// A connector's packet goes to the agent whose packet opened the flow, and to nobody else. A connector of v2 put the
    /// service before it, and `row` holds its route; the agent must still use that service.
    fn reply(&mut self, sent: Sent, row: &mut Row, now: Instant) {
        let Sent {
            from,
            mut packet,
            stripped,
            received,
        } = sent;
        let Some(agent) = self.flows.inbound(from, &mut packet, now) else {
            self.stats.dropped.no_flow += 1;
            return;
        };
        if stripped > 0
            && !row
                .route
                .is_some_and(|route| self.registry.is_used_by(agent, route))
        {
            self.stats.dropped.not_registered += 1;
            return;
        }
        let way = Way {
            from,
            to: agent,
            kept: 0,
            back: stripped,
            received,
            in_session: false,
        };
        self.relay(way, packet, row, now);
    }

    /// A connector's packet for a v1 agent that reaches it directly: the agent takes none on that path. It goes to the agent of
    /// the session, whatever flows there are.
    fn reply_in_session(&mut self, session: u64, sent: Sent, row: &mut Row, now: Instant) {
        let Sent {
            from,
            packet,
            stripped,
            received,
        } = sent;
        let Some(agent) = self.signals.sessions.agent_of(from, session) else {
            self.stats.dropped.no_flow += 1;
            return;
        };
        let way = Way {
            from,
            to: agent,
            kept: 0,
            back: stripped,
            received,
            in_session: true,
        };
        self.relay(way, packet, row, now);
    }

    fn relay(&mut self, way: Way, message: Datagram, row: &mut Row, now: Instant) {
        // Only a packet that some path could refuse is worth the question.
        if message.len() > ALWAYS_FITS {
            let room = match row.room {
                Some((known, room)) if known == way.to => room,
                Some(_) | None => self.pool.path_datagram_len(way.to).unwrap_or(usize::MAX),
            };
            row.room = Some((way.to, room));
            if message.len() > room {
                return self.relay_oversized(way, &message, room, now);
            }
        }
        let sent = self.pool.send_datagram(way.to, message);
        if sent.is_ok() {
            self.stats.relayed += 1;
            self.stats.relayed_bytes += way.received;
        }
        self.stats.dropped.count_unsent(sent);
    }

    /// A packet that the second half of its way does not carry: its sender is told the size that fits, or it is cut where its
    /// sender allows that (RFC 791 §2.3; IPv6 routers never cut).
    fn relay_oversized(&mut self, way: Way, message: &Datagram, room: usize, now: Instant) {
        self.stats.dropped.too_large += 1;
        let Way {
            from, to, kept, back, ..
        } = way;
        let (prefix, packet) = message.split_at(kept.min(message.len()));
        let room = room.saturating_sub(kept);
        let Ok(parsed) = packet::parse(packet) else {
            return;
        };
        let mut answer = Vec::new();
        let mtu = u16::try_from(room).unwrap_or(u16::MAX);
        if packet::too_big(packet, &parsed, mtu, &mut answer) {
            // It quotes the packet as its receiver would have seen it; the sender may know the flow by other addresses.
            let known = match self.registry.role(from) {
                // What goes to the agent of a session is in no flow, and nothing of it was changed.
                Some(Role::Connector) if way.in_session => true,
                Some(Role::Agent) => self.flows.inbound(to, &mut answer, now) == Some(from),
                Some(Role::Connector) => self.flows.outbound(to, from, &mut answer, now).is_ok(),
                None => false,
            };
            if known {
                let answer = [message.before(back), &answer].concat();
                let _ = self.pool.send_datagram(from, answer.into());
            }
        } else if parsed.flow.source.is_ipv4() && parsed.fragment == Fragment::No {
            let id = self.fragment_id;
            self.fragment_id = id.wrapping_add(1);
            let pool = &mut self.pool;
            packet::split(&packet[..parsed.len], room, id, &mut |fragment| {
                let _ = pool.send_datagram(to, [prefix, &fragment].concat().into());
            });
        }
    }

    /// Nobody publishes the service: the agent's host learns it at once instead of waiting for a timeout.
    fn answer_unreachable(&mut self, agent: ConnId, original: &[u8]) {
        if let Some(answer) = packet::nobody_there(original) {
            let _ = self.pool.send_datagram(agent, answer.into());
        }
    }
}
