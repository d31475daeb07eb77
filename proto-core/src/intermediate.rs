//! The intermediate: accepts clients, registers them, tells them their observed address, and relays `ztna-v1` packets.
//!
//! It decides who may register (asking an [`Authority`]), where each packet goes (the registry, by service), and to
//! whom each reply belongs (the flow table). A relayed packet moves from one connection to another as the buffer it
//! arrived in. It never forwards anything that is not an IP packet: control and data share one byte space, and a client
//! that could send control bytes through it could forge the intermediate's own messages.

mod relay;

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

use crate::config::IntermediateConfig;
use crate::config::limits::{EVENT_QUEUE, MAX_UDP_PAYLOAD};
use crate::id::ConnId;
use crate::link::CODE_GOODBYE;
use crate::machine::{Deadline, Forward, Machine, Received, Transmit, Wake};
use crate::quic::identity::{Authority, Capacity, Identity};
use crate::quic::{Admission, CloseReason, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::registration::{Owner, Registry, Verdict};
use crate::rng::{Rng, Seed};
use crate::routing::flow::{FlowStats, FlowTable};
use crate::wire::datagram::{NackStatus, Role, write_observed, write_refused, write_registered};

/// What the intermediate tells its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntermediateEvent {
    /// A client has authenticated.
    Connected {
        /// The connection.
        client: ConnId,
        /// Its address.
        address: SocketAddr,
    },
    /// A client holds a registration.
    Registered {
        /// The connection.
        client: ConnId,
        /// As agent or connector.
        role: Role,
        /// The service, as text.
        service: String,
    },
    /// A client was refused a registration.
    Refused {
        /// The connection.
        client: ConnId,
        /// As agent or connector.
        role: Role,
        /// The service, as text (invalid UTF-8 replaced).
        service: String,
        /// Why.
        status: NackStatus,
    },
    /// A client is gone, and with it its registrations and flows.
    Gone {
        /// The connection.
        client: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// Counters of an intermediate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntermediateStats {
    /// DATAGRAMs moved from one client to another.
    pub relayed: u64,
    /// Their bytes, as received.
    pub relayed_bytes: u64,
    /// Registrations accepted.
    pub registrations: u64,
    /// Registrations refused.
    pub registrations_refused: u64,
    /// Observed addresses sent.
    pub observed_sent: u64,
    /// Packets that told a connector who opens a flow.
    pub introductions: u64,
    /// DATAGRAMs dropped, by reason.
    pub dropped: Dropped,
}

/// DATAGRAMs that an intermediate dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Empty, truncated or of an unknown type.
    pub malformed: u64,
    /// A wrapped packet that is not IP: forged control at worst.
    pub not_ip: u64,
    /// The sender is not registered for the service.
    pub not_registered: u64,
    /// No connector has the service.
    pub no_connector: u64,
    /// A bare packet of an agent with several services.
    pub ambiguous: u64,
    /// A reply that no flow expects.
    pub no_flow: u64,
    /// A packet whose flow could not be told apart from another agent's, or that is a later fragment.
    pub flow_refused: u64,
    /// The receiver's queue was full.
    pub queue_full: u64,
    /// Larger than the receiver's path carries.
    pub too_large: u64,
    /// The receiver was closing.
    pub receiver_gone: u64,
    /// Stream bytes of v1 signalling, which nobody reads yet.
    pub stream_bytes: u64,
    /// Events that the program did not take.
    pub events: u64,
}

#[derive(Debug)]
struct Session {
    id: ConnId,
    identity: Option<Identity>,
    /// What stands before a packet that opens a flow of this agent, made when it is first needed.
    introduction: Option<Box<[u8]>>,
    /// Whether this connector asks who opens a flow.
    asks_who: bool,
}

/// The intermediate's machine.
#[derive(Debug)]
pub struct Intermediate<Q: Provider> {
    pool: Pool<Q>,
    registry: Registry,
    flows: FlowTable,
    authority: Box<dyn Authority + Send>,
    /// By the index of the connection.
    sessions: Vec<Option<Session>>,
    /// The identification of the next packet that is cut.
    fragment_id: u32,
    events: VecDeque<IntermediateEvent>,
    stats: IntermediateStats,
    shut_down: bool,
}

impl<Q: Provider> Intermediate<Q> {
    /// An intermediate without clients.
    pub fn new(
        config: &IntermediateConfig,
        provider: Q,
        authority: Box<dyn Authority + Send>,
        seed: &Seed,
        now: Instant,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let limits = config.limits;
        let pool_config = PoolConfig {
            admission: Admission::Anybody { retry: config.retry },
            raw: false,
            reset_key: config.reset_key,
            max_connections: limits.connections,
            max_handshakes: limits.handshakes,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        Self {
            registry: Registry::new(limits.registry(), &mut rng),
            flows: FlowTable::new(limits.flow_table(), &mut rng),
            pool: Pool::new(provider, pool_config, rng.fork(), now),
            authority,
            sessions: Vec::new(),
            fragment_id: 0,
            events: VecDeque::new(),
            stats: IntermediateStats::default(),
            shut_down: false,
        }
    }

    /// Counters.
    pub fn stats(&self) -> IntermediateStats {
        self.stats
    }

    /// Counters of the QUIC pool.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Connections, handshakes included.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    /// The largest UDP payload that each established connection's path carries.
    pub fn path_payloads(&self) -> impl Iterator<Item = usize> {
        self.pool.packet_sizes()
    }

    /// The registrations.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Flows in the table.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Counters of the flow table.
    pub fn flow_stats(&self) -> FlowStats {
        *self.flows.stats()
    }

    fn process(&mut self, now: Instant) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) => self.on_established(id),
                PoolEvent::PathChanged(id, path) => self.observe(id, path.remote),
                PoolEvent::Readable(id) => self.on_readable(id, now),
                PoolEvent::Closed(id, reason) => self.on_closed(id, reason),
            }
        }
    }

    fn on_established(&mut self, id: ConnId) {
        let identity = self
            .pool
            .peer_certificate(id)
            .and_then(Identity::from_certificate);
        let index = id.index as usize;
        if self.sessions.len() <= index {
            self.sessions.resize_with(index + 1, || None);
        }
        self.sessions[index] = Some(Session {
            id,
            identity,
            introduction: None,
            asks_who: false,
        });
        let Some(address) = self.pool.peer_address(id) else {
            return;
        };
        self.tell(IntermediateEvent::Connected { client: id, address });
        self.observe(id, address);
    }

    /// Tells a client where it is seen (QAD). v1 has no form for IPv6 addresses.
    fn observe(&mut self, id: ConnId, address: SocketAddr) {
        let Some(ip) = (match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        }) else {
            return;
        };
        let message = write_observed(SocketAddrV4::new(ip, address.port()));
        if self.pool.send_datagram(id, message.into()).is_ok() {
            self.stats.observed_sent += 1;
        }
    }

    fn on_closed(&mut self, id: ConnId, reason: CloseReason) {
        let known = self
            .sessions
            .get_mut(id.index as usize)
            .and_then(|slot| slot.take_if(|session| session.id == id));
        if known.is_none() {
            return;
        }
        self.registry.remove(id);
        self.flows.remove(id);
        self.tell(IntermediateEvent::Gone { client: id, reason });
    }

    fn session(&self, id: ConnId) -> Option<&Session> {
        self.sessions
            .get(id.index as usize)?
            .as_ref()
            .filter(|session| session.id == id)
    }

    /// A connector that asks is told who opens a flow; whether it may publish anything is another question.
    fn ask_who(&mut self, id: ConnId) {
        let session = self.sessions.get_mut(id.index as usize).and_then(Option::as_mut);
        if let Some(session) = session.filter(|session| session.id == id) {
            session.asks_who = true;
        }
    }

    fn register(&mut self, id: ConnId, role: Role, service: &[u8]) {
        let capacity = match role {
            Role::Agent => Capacity::Agent,
            Role::Connector => Capacity::Connector,
        };
        let identity = self.session(id).and_then(|session| session.identity.as_ref());
        let owner = identity.map(|identity| Owner(identity.fingerprint().0));
        let permitted = crate::id::ServiceId::parse(service)
            .is_ok_and(|service| self.authority.permits(identity, capacity, &service));
        let text = || String::from_utf8_lossy(service).into_owned();
        let answer = match self.registry.register(id, owner, role, service, permitted) {
            Verdict::Accepted { replaced } => {
                self.stats.registrations += 1;
                if let Some(old) = replaced {
                    let _ = self
                        .pool
                        .send_datagram(old, write_refused(NackStatus::Taken, service).into());
                }
                self.tell(IntermediateEvent::Registered {
                    client: id,
                    role,
                    service: text(),
                });
                write_registered(service)
            }
            Verdict::Refused(status) => {
                self.stats.registrations_refused += 1;
                self.tell(IntermediateEvent::Refused {
                    client: id,
                    role,
                    service: text(),
                    status,
                });
                write_refused(status, service)
            }
        };
        // Lost with a full queue: the client asks again.
        let _ = self.pool.send_datagram(id, answer.into());
    }

    fn tell(&mut self, event: IntermediateEvent) {
        if self.events.len() >= EVENT_QUEUE {
            self.events.pop_front();
            self.stats.dropped.events += 1;
        }
        self.events.push_back(event);
    }
}

impl<Q: Provider> Machine for Intermediate<Q> {
    type Event = IntermediateEvent;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.pool.handle_datagram(received, now);
        self.process(now);
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        self.process(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        if self
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= now && deadline.wake != Wake::QueuedOutput)
        {
            self.handle_timeout(now);
        }
        loop {
            if let Some(transmit) = self.pool.poll_transmit(buf, now) {
                return Some(transmit);
            }
            if !self.pool.has_events() {
                return None;
            }
            self.process(now);
        }
    }

    fn poll_event(&mut self) -> Option<IntermediateEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if !self.events.is_empty() {
            return Some(Deadline {
                at: self.pool.now(),
                wake: Wake::QueuedOutput,
            });
        }
        self.pool.poll_timeout()
    }

    fn shut_down(&mut self, now: Instant) {
        self.shut_down = true;
        self.pool.close_all(CODE_GOODBYE, b"shutting down", now);
        self.process(now);
    }

    fn is_drained(&self) -> bool {
        self.shut_down && self.pool.is_drained()
    }
}
