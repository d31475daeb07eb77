//! The agent: IP packets of a host on one side, one connection to an intermediate on the other.
//!
//! It decides which service a packet belongs to (by destination address), wraps it for that service and sends it; and
//! it lets in only packets that come from a configured virtual address, whatever the intermediate delivers. Connection
//! and registration are the link's; the tunnel interface and its routes are the shell's. Where intermediate and connector speak
//! `ztna-v2`, packets go through a session that nobody on the way can read (`agent::sessions`).

mod sessions;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::limits::{MAX_UDP_PAYLOAD, SEND_QUEUE, TunnelLimits};
use crate::config::{AgentConfig, AgentService};
use crate::id::{ServiceId, ServiceIndex};
use crate::link::{Link, LinkEvent, LinkStats};
use crate::machine::{Deadline, Forward, Machine, Received, SendError, Transmit, Tunnel, Wake};
use crate::quic::{Admission, Datagram, DatagramError, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::rng::{Rng, Seed};
use crate::routing::packet;
use crate::routing::table::{RouteTable, endpoints};
use crate::session::SessionStats;
use crate::wire::datagram::{Role, routed_prefix};
pub use sessions::ServicePath;
use sessions::Sessions;

/// Counters of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Packets sent to services.
    pub sent: u64,
    /// Their bytes, without the wrapper.
    pub sent_bytes: u64,
    /// Packets handed to the host.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets from the host that are not IP.
    pub malformed: u64,
    /// Packets from the host that no service wants.
    pub no_route: u64,
    /// Packets dropped because the service was not registered at that moment, or because they were long and the path was
    /// being measured.
    pub not_ready: u64,
    /// Packets larger than the path carries, answered with ICMP.
    pub too_large: u64,
    /// Packets dropped because the send queue was full.
    pub queue_full: u64,
    /// Packets from the tunnel whose source is no virtual address.
    pub spoofed: u64,
    /// Packets from the tunnel dropped because the host did not take them.
    pub inbound_full: u64,
}

/// Where an agent stands, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Whether a connection to the intermediate is established.
    pub connected: bool,
    /// The address under which the intermediate sees this host.
    pub observed: Option<std::net::SocketAddr>,
    /// The largest UDP payload that the path to the intermediate carries; `None` while not connected.
    pub path_payload: Option<usize>,
    /// Each service.
    pub services: Vec<ServiceStatus>,
}

/// Where a service of an agent stands, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub id: ServiceId,
    /// Whether it is registered with the intermediate.
    pub registered: bool,
    /// How packets reach it.
    pub path: ServicePath,
    /// The round trip on that way, where it has a session.
    pub rtt: Option<Duration>,
    /// How long packets have taken that way.
    pub path_age: Option<Duration>,
    /// How long it took from the first packet until they went straight, if they ever did.
    pub time_to_direct: Option<Duration>,
    /// How long the search took that found the direct way: from the word that set its beginning to the connection.
    pub search_time: Option<Duration>,
}

#[derive(Debug)]
struct Service {
    id: ServiceId,
    /// The bytes before every packet of this service, where it goes wrapped.
    prefix: Box<[u8]>,
    /// Its virtual addresses.
    addresses: Vec<IpAddr>,
}

/// Connections of one session: two in use, and two being opened.
const SESSION_CONNECTIONS: usize = 4;

/// A later configuration may name this many services without meeting a limit.
const LEAST_SERVICES: usize = 64;

/// The services of a configuration, in its order.
fn services(configured: &[AgentService]) -> Vec<Service> {
    let services = configured.iter().map(|service| Service {
        id: service.id.clone(),
        prefix: routed_prefix(&service.id),
        addresses: service.virtual_addresses.clone(),
    });
    services.collect()
}

/// Which address leads to which of them.
fn routes(configured: &[AgentService], rng: &mut Rng) -> RouteTable {
    let routes = (0..)
        .map(ServiceIndex)
        .zip(configured)
        .flat_map(|(index, service)| {
            let addresses = service.virtual_addresses.iter();
            addresses.map(move |address| (*address, index))
        });
    RouteTable::new(routes, rng)
}

/// The agent's machine.
#[derive(Debug)]
pub struct Agent<Q: Provider> {
    pool: Pool<Q>,
    link: Link,
    services: Vec<Service>,
    routes: RouteTable,
    sessions: Sessions,
    /// Packets of one batch, on their way to the host.
    arrived: Vec<Datagram>,
    inbound: VecDeque<Datagram>,
    limits: TunnelLimits,
    rng: Rng,
    stats: AgentStats,
    shut_down: bool,
}

impl<Q: Provider> Agent<Q> {
    /// An agent that connects at once.
    pub fn new(config: AgentConfig, provider: Q, seed: &Seed, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let routes = routes(&config.services, &mut rng);
        let pool_config = PoolConfig {
            admission: Admission::Nobody,
            raw: config.sessions.is_some(),
            reset_key: None,
            // The connection in use and one that is still saying goodbye; of each session two, and two being opened.
            max_connections: 4 + SESSION_CONNECTIONS * config.services.len().max(LEAST_SERVICES),
            max_handshakes: 4 + SESSION_CONNECTIONS * config.services.len().max(LEAST_SERVICES),
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let services = services(&config.services);
        let ids = services.iter().map(|service| service.id.clone()).collect();
        let has_sessions = config.sessions.is_some();
        let sessions = Sessions::new(config.sessions, config.local, services.len(), rng.fork());
        let link = Link::new(
            Role::Agent,
            ids,
            config.intermediate,
            config.local,
            rng.fork(),
            now,
        )
        .with_channels(has_sessions);
        let pool = Pool::new(provider, pool_config, rng.fork(), now);
        Self {
            pool,
            link,
            services,
            routes,
            sessions,
            arrived: Vec::new(),
            inbound: VecDeque::new(),
            limits: config.limits,
            rng,
            stats: AgentStats::default(),
            shut_down: false,
        }
    }

    /// Counters of the agent itself.
    pub fn stats(&self) -> AgentStats {
        self.stats
    }

    /// Counters of its connection keeping.
    pub fn link_stats(&self) -> LinkStats {
        self.link.stats()
    }

    /// Counters of its QUIC pool.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Counters of its sessions.
    pub fn session_stats(&self) -> SessionStats {
        self.sessions.stats()
    }

    /// Its sessions, those that are being opened included.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Where it stands.
    pub fn status(&self) -> AgentStatus {
        let now = self.pool.now();
        let service = |(index, service): (ServiceIndex, &Service)| {
            let session = self.service_session(index);
            ServiceStatus {
                id: service.id.clone(),
                registered: self.link.is_registered(index),
                path: self.service_path(index),
                rtt: session.and_then(|session| session.rtt(&self.pool)),
                path_age: session.map(|session| now.saturating_duration_since(session.path_since())),
                time_to_direct: session.and_then(crate::session::Session::time_to_direct),
                search_time: session.and_then(crate::session::Session::search_time),
            }
        };
        AgentStatus {
            connected: self.link.connection().is_some(),
            observed: self.link.observed(),
            path_payload: self.link.connection().and_then(|id| self.pool.packet_size(id)),
            services: (0..).map(ServiceIndex).zip(&self.services).map(service).collect(),
        }
    }

    /// Replaces the addresses of the intermediate, after its name was resolved again.
    pub fn set_intermediate_addresses(&mut self, addresses: Vec<std::net::SocketAddr>) {
        let now = self.pool.now();
        self.link.set_addresses(addresses, now);
    }

    /// Takes the services and addresses of another configuration, over the same connection. Its other parts hold only at a
    /// start. A service that is not there any more gets no packet from here; v1 has no message that takes its registration
    /// back, so that goes with the connection.
    pub fn reconfigure(&mut self, config: &AgentConfig, now: Instant) {
        let now = now.max(self.pool.now());
        let before: Vec<ServiceId> = self.services.iter().map(|service| service.id.clone()).collect();
        self.routes = routes(&config.services, &mut self.rng);
        self.services = services(&config.services);
        self.renumber_services(&before, now);
        let ids: Vec<ServiceId> = self.services.iter().map(|service| service.id.clone()).collect();
        if ids != before {
            self.link.set_services(&mut self.pool, ids, now);
        }
    }

    /// The largest packet that fits to every service on the current path; `None` while not connected. While the path is being
    /// measured it is what is hoped for: an interface does not follow each step of that.
    pub fn path_mtu(&self) -> Option<usize> {
        let any = |wanted: bool| {
            let mut indices = (0..).map(ServiceIndex).take(self.services.len());
            indices.any(|index| self.uses_sessions(index) == wanted)
        };
        let sessions = any(true).then(|| self.session_path_mtu()).flatten();
        let wrapped = any(false).then(|| self.wrapped_path_mtu()).flatten();
        [sessions, wrapped].into_iter().flatten().min()
    }

    fn wrapped_path_mtu(&self) -> Option<usize> {
        let longest = self.services.iter().map(|service| service.prefix.len()).max()?;
        self.pool
            .path_datagram_len(self.link.connection()?)?
            .checked_sub(longest)
    }

    /// DATAGRAMs that find room at this moment; none while not connected.
    pub(crate) fn space(&self) -> usize {
        let link = self.link.connection().map(|id| self.pool.datagram_space(id));
        [link, self.session_space()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(0)
    }

    /// Whether packets wait for their turn on a connection: a close would leave them behind.
    pub(crate) fn has_unsent(&self) -> bool {
        let connection = self.link.connection();
        self.session_has_unsent() || connection.is_some_and(|id| self.pool.datagram_space(id) < SEND_QUEUE)
    }

    /// The largest packet to a service at this moment; `None` while it is not registered, or has no room.
    pub(crate) fn service_mtu(&self, service: ServiceIndex) -> Option<usize> {
        if self.uses_sessions(service) {
            let reachable = self.service_session(service).is_some() || self.link.is_registered(service);
            return self.session_mtu(service).filter(|_| reachable);
        }
        let id = self
            .link
            .connection()
            .filter(|_| self.link.is_registered(service))?;
        let prefix = self.services.get(usize::from(service.0))?.prefix.len();
        self.pool.max_datagram_len(id)?.checked_sub(prefix)
    }

    /// The next packet from a service, as [`Tunnel::poll_packet`] but without a copy.
    pub(crate) fn take_packet(&mut self) -> Option<Datagram> {
        let packet = self.inbound.pop_front()?;
        self.stats.received += 1;
        self.stats.received_bytes += packet.len() as u64;
        Some(packet)
    }

    fn process(&mut self, now: Instant) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) if self.link.any_connection() == Some(id) => {
                    self.link.on_established(&mut self.pool, now);
                }
                PoolEvent::Established(id) => self.on_session_established(id, now),
                PoolEvent::Readable(id) if self.link.any_connection() == Some(id) => {
                    self.on_link_readable(id, now);
                }
                PoolEvent::Readable(id) => self.on_session_readable(id, now),
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(id, reason) => {
                    if self.link.any_connection() == Some(id) {
                        self.link.on_closed(reason, now);
                    } else {
                        self.on_session_closed(id, &reason, now);
                    }
                }
            }
        }
        self.take_raw(now);
        self.take_link_news(now);
    }

    fn on_link_readable(&mut self, id: crate::id::ConnId, now: Instant) {
        if self.link.is_v2() {
            self.link.on_readable(&mut self.pool, id, now);
        } else {
            // Signalling of a v1 intermediate, in which an agent has no part yet.
            self.pool.discard_streams(id);
        }
        while let Some(datagram) = self.pool.poll_datagram(id) {
            if let Some(incoming) = self.link.on_datagram(&mut self.pool, datagram, now) {
                self.take_in(incoming.packet);
            }
        }
    }

    /// Lets a packet in if it comes from a service: nobody else has business with this host.
    fn take_in(&mut self, packet: Datagram) {
        let from_service =
            endpoints(&packet).is_some_and(|(source, _)| self.routes.service(source).is_some());
        if !from_service {
            self.stats.spoofed += 1;
            return;
        }
        self.queue_inbound(packet);
    }

    fn queue_inbound(&mut self, packet: Datagram) {
        if self.inbound.len() >= self.limits.inbound_packets {
            self.stats.inbound_full += 1;
            return;
        }
        self.inbound.push_back(packet);
    }

    fn route(&self, packet: &[u8]) -> Result<ServiceIndex, SendError> {
        let (_, destination) = endpoints(packet).ok_or(SendError::Malformed)?;
        self.routes.service(destination).ok_or(SendError::NoRoute)
    }

    fn try_send(&mut self, packet: &[u8], now: Instant) -> Result<(), SendError> {
        let service = self.route(packet)?;
        if self.uses_sessions(service) {
            self.send_through(service, packet, now)
        } else {
            self.send_wrapped(service, packet, now)
        }
    }

    fn send_wrapped(&mut self, service: ServiceIndex, packet: &[u8], now: Instant) -> Result<(), SendError> {
        let id = self
            .link
            .connection()
            .filter(|_| self.link.is_registered(service))
            .ok_or(SendError::NotReady)?;
        let Some(Service { prefix, .. }) = self.services.get(usize::from(service.0)) else {
            return Err(SendError::NoRoute);
        };
        let len = prefix.len() + packet.len();
        if len > self.pool.max_datagram_len(id).unwrap_or(0) {
            let room = self.pool.path_datagram_len(id).unwrap_or(0);
            // While the path is being measured nobody is told: a host would keep to it for minutes.
            if len <= room {
                return Err(SendError::NotReady);
            }
            let mtu = room.saturating_sub(prefix.len());
            self.answer_too_big(packet, mtu);
            return Err(SendError::TooLarge);
        }
        // The one allocation per packet of this side: the buffer that QUIC keeps until the packet is sent.
        let mut datagram = Vec::with_capacity(len);
        datagram.extend_from_slice(prefix);
        datagram.extend_from_slice(packet);
        self.link
            .send(&mut self.pool, datagram.into(), now)
            .map_err(|error| match error {
                DatagramError::TooLarge => SendError::TooLarge,
                DatagramError::Full => SendError::Full,
                DatagramError::NotReady => SendError::NotReady,
            })
    }

    fn answer_too_big(&mut self, original: &[u8], mtu: usize) {
        let mut answer = Vec::new();
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let due =
            packet::parse(original).is_ok_and(|parsed| packet::too_big(original, &parsed, mtu, &mut answer));
        if due {
            self.queue_inbound(answer.into());
        }
    }
}

impl<Q: Provider> Machine for Agent<Q> {
    type Event = LinkEvent;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.pool.handle_datagram(received, now);
        self.process(now);
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        self.process(now);
        let now = self.pool.now();
        self.link.handle_timeout(&mut self.pool, now);
        self.handle_session_timeouts(now);
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

    fn poll_event(&mut self) -> Option<LinkEvent> {
        self.link.poll_event()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if !self.inbound.is_empty() || self.link.has_events() {
            return Some(Deadline {
                at: self.pool.now(),
                wake: Wake::QueuedOutput,
            });
        }
        let sessions = self.sessions.poll_timeout().map(|at| Deadline {
            at,
            wake: Wake::Session,
        });
        let link = Deadline::earliest(self.link.poll_timeout(), sessions);
        Deadline::earliest(self.pool.poll_timeout(), link)
    }

    fn shut_down(&mut self, now: Instant) {
        self.shut_down = true;
        self.close_sessions(now);
        self.link.shut_down(&mut self.pool, now);
        self.process(now);
    }

    fn is_drained(&self) -> bool {
        self.shut_down && self.pool.is_drained()
    }
}

impl<Q: Provider> Tunnel for Agent<Q> {
    fn send_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), SendError> {
        let result = self.try_send(packet, now);
        let stats = &mut self.stats;
        match result {
            Ok(()) => {
                stats.sent += 1;
                stats.sent_bytes += packet.len() as u64;
            }
            Err(SendError::Malformed) => stats.malformed += 1,
            Err(SendError::NoRoute) => stats.no_route += 1,
            Err(SendError::NotReady) => stats.not_ready += 1,
            Err(SendError::TooLarge) => stats.too_large += 1,
            Err(SendError::Full) => stats.queue_full += 1,
        }
        result
    }

    fn can_send(&self) -> bool {
        // While there is no connection packets are dropped at once: a host that waits minutes for a retransmission is
        // worse off than one that is told nothing.
        let link = self.link.connection();
        self.session_has_room() && link.is_none_or(|id| self.pool.datagram_space(id) > 0)
    }

    fn poll_packet(&mut self, buf: &mut [u8]) -> Option<usize> {
        loop {
            let packet = self.inbound.pop_front()?;
            let Some(target) = buf.get_mut(..packet.len()) else {
                self.stats.inbound_full += 1;
                continue;
            };
            target.copy_from_slice(&packet);
            self.stats.received += 1;
            self.stats.received_bytes += packet.len() as u64;
            return Some(packet.len());
        }
    }

    fn path_mtu(&self) -> Option<usize> {
        Self::path_mtu(self)
    }
}
