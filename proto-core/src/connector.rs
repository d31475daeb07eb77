//! The connector: private services on one side, connections to an intermediate on the other, no open inbound port.
//!
//! One connection carries all services if the intermediate speaks `ztna-v2`, otherwise each has one (`uplink`). Packets go to
//! the netstack, which terminates TCP, UDP and ICMP; its packets go back on the link of their service. While a link
//! has no room the netstack keeps its bytes, and a backend that sends too fast is not read (`traffic`).
//!
//! A service whose backends are all down is withdrawn, and registered again when one is well. The configuration may change
//! while everything runs: see [`Connector::reconfigure`].

mod guests;
mod published;
mod reconfigure;
mod sessions;
mod traffic;
mod uplink;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::config::limits::{EVENT_QUEUE, MAX_UDP_PAYLOAD};
use crate::config::{ConnectorConfig, IntermediateEndpoint};
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::link::{Link, LinkEvent, LinkStats};
use crate::machine::{Backends, Deadline, Forward, Machine, Received, Transmit, Wake};
use crate::netstack::{Netstack, NetstackStats};
use crate::quic::{Admission, MAX_RAW_LEN, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::rng::{Rng, Seed};
use crate::service::{BackendStatus, ServiceEvent};
use crate::timer::DeadlineIndex;
use crate::wire::datagram::Role;
use guests::Guests;
use published::Published;
use sessions::Sessions;
pub use sessions::{MAX_SESSIONS, SessionCounts};
use uplink::{Owner, Uplink};

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectorNews {
    /// What its link says.
    Link(LinkEvent),
    /// What its backends say.
    Backends(ServiceEvent),
}

/// Something that happened to a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorEvent {
    /// The service; `None` for what concerns the connection of all services.
    pub service: Option<ServiceIndex>,
    /// What happened.
    pub event: ConnectorNews,
}

/// Counters of a connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectorStats {
    /// Packets from agents.
    pub received: u64,
    /// Packets to agents.
    pub sent: u64,
    /// Packets to agents dropped because the link was gone.
    pub not_ready: u64,
    /// Packets to agents larger than the link carries.
    pub too_large: u64,
    /// Packets to agents dropped because the send queue was full.
    pub queue_full: u64,
    /// Payloads beside QUIC that are nothing to this connector.
    pub beside: u64,
    /// Packets of sessions for addresses that their agent has named no service for.
    pub stray: u64,
    /// Agents that were refused a session: not invited, without a certificate, or too many.
    pub sessions_refused: u64,
    /// Events that the program did not take.
    pub events_dropped: u64,
}

/// Where one service of a connector stands, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub id: ServiceId,
    /// Whether the intermediate holds its registration.
    pub registered: bool,
    /// Whether a backend is well: otherwise the service is withdrawn.
    pub available: bool,
    /// The largest UDP payload that the path to the intermediate carries; `None` while not connected.
    pub path_payload: Option<usize>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// Services of a connector; room is kept for those that a later configuration adds.
pub const MAX_SERVICES: usize = 1024;

/// The connector's machine.
#[derive(Debug)]
pub struct Connector<Q: Provider> {
    pool: Pool<Q>,
    /// By index; a service that was removed leaves a gap until another takes it.
    services: Vec<Option<Published>>,
    /// What every link is made of.
    endpoint: IntermediateEndpoint,
    local: SocketAddr,
    rng: Rng,
    /// Counters of links that are gone.
    retired: LinkStats,
    /// The connections to the intermediate.
    uplink: Uplink,
    /// When each link wants to be woken.
    timers: DeadlineIndex,
    /// Whose each connection is, by the connection's index.
    owners: Vec<Option<(ConnId, Owner)>>,
    netstack: Netstack,
    sessions: Sessions,
    guests: Guests,
    /// Services whose netstack may have packets, each once.
    active: VecDeque<ServiceIndex>,
    is_active: Vec<bool>,
    events: VecDeque<ConnectorEvent>,
    stats: ConnectorStats,
    shut_down: bool,
}

impl<Q: Provider> Connector<Q> {
    /// A connector that connects at once.
    pub fn new(config: ConnectorConfig, provider: Q, seed: &Seed, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let count = config.services.len();
        let links = 2 * count.max(MAX_SERVICES) + 4;
        let pool_config = PoolConfig {
            admission: if config.sessions.is_some() {
                Admission::Invited
            } else {
                Admission::Nobody
            },
            raw: config.sessions.is_some(),
            reset_key: None,
            // One in use per service and one for all, and as many that are still saying goodbye; of each session two, and
            // two being opened.
            max_connections: links + 4 * MAX_SESSIONS,
            max_handshakes: links + MAX_SESSIONS,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let pool = Pool::new(provider, pool_config, rng.fork(), now);
        let mut netstack = config.netstack();
        netstack.services.clear();
        let shared = Link::new(
            Role::Connector,
            Vec::new(),
            config.intermediate.clone(),
            config.local,
            rng.fork(),
            now,
        )
        .with_channels(config.sessions.is_some());
        let mut connector = Self {
            sessions: Sessions::new(config.sessions, config.local, rng.fork()),
            guests: Guests::new(rng.fork()),
            pool,
            uplink: Uplink::new(shared),
            services: Vec::new(),
            endpoint: config.intermediate,
            local: config.local,
            retired: LinkStats::default(),
            timers: DeadlineIndex::default(),
            owners: Vec::new(),
            netstack: Netstack::new(netstack, rng.fork(), now),
            rng,
            active: VecDeque::new(),
            is_active: Vec::new(),
            events: VecDeque::new(),
            stats: ConnectorStats::default(),
            shut_down: false,
        };
        for service in config.services {
            connector.publish(service, now);
        }
        connector.take_news(now);
        connector.settle_shared();
        connector
    }

    /// Counters of the connector itself.
    pub fn stats(&self) -> ConnectorStats {
        let v1 = self.v1_stats();
        ConnectorStats {
            beside: v1.unnamed + v1.malformed,
            ..self.stats
        }
    }

    /// Counters of its netstack.
    pub fn netstack_stats(&self) -> NetstackStats {
        self.netstack.stats()
    }

    /// Counters of its links, added up, those of services that were removed included.
    pub fn link_stats(&self) -> LinkStats {
        let links = self.services.iter().flatten();
        let shared = self.retired.plus(self.uplink.link.stats());
        links.fold(shared, |sum, service| sum.plus(service.link.stats()))
    }

    /// Counters of its QUIC pool.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Where each service stands; one that was removed is not there any more.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let indexed = (0..).zip(&self.services);
        indexed
            .filter_map(|(index, service)| {
                let service = service.as_ref().filter(|service| !service.is_leaving())?;
                let index = ServiceIndex(index);
                let connection = self.link_of(index).and_then(Link::connection);
                Some(ServiceStatus {
                    id: service.id.clone(),
                    registered: self.is_registered(index),
                    available: self.netstack.services().is_available(index),
                    path_payload: connection.and_then(|id| self.pool.packet_size(id)),
                    backends: self.netstack.services().backends(index),
                })
            })
            .collect()
    }

    /// Whether a connection to the intermediate stands.
    pub fn is_connected(&self) -> bool {
        let own = self.services.iter().flatten().map(|service| &service.link);
        own.chain([&self.uplink.link])
            .any(|link| link.connection().is_some())
    }

    /// The name of a service, also of one that is just being removed.
    pub fn service_id(&self, service: ServiceIndex) -> Option<&ServiceId> {
        let service = self.services.get(usize::from(service.0))?.as_ref();
        service.map(|service| &service.id)
    }

    /// Replaces the addresses of the intermediate, after its name was resolved again.
    pub fn set_intermediate_addresses(&mut self, addresses: &[SocketAddr]) {
        let now = self.pool.now();
        if !addresses.is_empty() {
            self.endpoint.addresses = addresses.to_vec();
        }
        self.uplink.link.set_addresses(addresses.to_vec(), now);
        self.settle_shared();
        for index in 0..self.services.len() {
            if let Some(Some(service)) = self.services.get_mut(index) {
                service.link.set_addresses(addresses.to_vec(), now);
            }
            self.settle(ServiceIndex(index as u16));
        }
    }

    fn process(&mut self, now: Instant) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) if self.owner_of(id).is_some() => self.on_established(id, now),
                PoolEvent::Established(id) => self.on_session_established(id, now),
                PoolEvent::Readable(id) => self.read(id, now),
                PoolEvent::PathChanged(id, path) => {
                    self.on_session_moved(id, path.remote, now);
                    self.on_guest_moved(id, path, now);
                }
                PoolEvent::Closed(id, reason) => {
                    self.on_session_closed(id, &reason, now);
                    self.on_guest_closed(id, now);
                    self.with_link(id, |link, _| link.on_closed(reason, now));
                    if let Some(owner) = self.owners.get_mut(id.index as usize) {
                        owner.take_if(|(owned, _)| *owned == id);
                    }
                }
            }
        }
        self.take_raw(now);
        self.take_news(now);
        self.pump(now);
    }

    /// Takes payloads beside QUIC: connectivity checks, and what v1 agents have instead.
    fn take_raw(&mut self, now: Instant) {
        let mut payload = [0; MAX_RAW_LEN];
        while let Some((len, path)) = self.pool.poll_raw(&mut payload) {
            let payload = payload.get(..len).unwrap_or_default();
            if !self.take_check(payload, path, now) {
                self.on_v1_message(payload, path, now);
            }
        }
    }

    /// Follows what the backends say: services are published and withdrawn.
    fn take_news(&mut self, now: Instant) {
        let mut others = false;
        while let Some((service, event)) = self.netstack.services_mut().poll_event() {
            match event {
                ServiceEvent::Available | ServiceEvent::Withdrawn if self.uplink.is_shared() => others = true,
                ServiceEvent::Available | ServiceEvent::Withdrawn => self.set_single(service, now),
                ServiceEvent::BackendUp { .. }
                | ServiceEvent::BackendDown { .. }
                | ServiceEvent::NameUnknown { .. }
                | ServiceEvent::NameKnown { .. }
                | ServiceEvent::Denied { .. } => {}
            }
            let event = ConnectorNews::Backends(event);
            tell(&mut self.events, &mut self.stats, Some(service), event);
        }
        if others {
            self.offer(now);
        }
    }
}

fn tell(
    events: &mut VecDeque<ConnectorEvent>,
    stats: &mut ConnectorStats,
    service: Option<ServiceIndex>,
    event: ConnectorNews,
) {
    if events.len() >= EVENT_QUEUE {
        events.pop_front();
        stats.events_dropped += 1;
    }
    events.push_back(ConnectorEvent { service, event });
}

impl<Q: Provider> Machine for Connector<Q> {
    type Event = ConnectorEvent;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.pool.handle_datagram(received, now);
        self.process(now);
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        let now = self.pool.now();
        self.process(now);
        while let Some(timer) = self.timers.pop_due(now) {
            self.on_link_timer(timer, now);
        }
        self.handle_session_timeouts(now);
        self.handle_guest_timeouts(now);
        self.netstack.handle_timeout(now);
        self.process(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        if self
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= now && deadline.wake != Wake::QueuedOutput)
        {
            self.handle_timeout(now);
        }
        self.process(now);
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

    fn poll_event(&mut self) -> Option<ConnectorEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if !self.events.is_empty()
            || self.has_turn()
            || self.sessions.has_turn()
            || self.guests.has_turn()
            || self.netstack.has_output()
            || self.netstack.services().has_events()
        {
            return Some(Deadline {
                at: self.pool.now(),
                wake: Wake::QueuedOutput,
            });
        }
        let links = self.timers.earliest().map(|at| Deadline {
            at,
            wake: Wake::Keepalive,
        });
        let netstack = self.netstack.poll_timeout().map(|at| Deadline {
            at,
            wake: Wake::Netstack,
        });
        let sessions = [self.sessions.poll_timeout(), self.guests.poll_timeout()];
        let sessions = sessions.into_iter().flatten().min().map(|at| Deadline {
            at,
            wake: Wake::Session,
        });
        let rest = Deadline::earliest(Deadline::earliest(links, netstack), sessions);
        Deadline::earliest(self.pool.poll_timeout(), rest)
    }

    fn shut_down(&mut self, now: Instant) {
        self.shut_down = true;
        self.close_sessions(now);
        self.close_guests(None, now);
        self.uplink.link.shut_down(&mut self.pool, now);
        self.settle_shared();
        for index in 0..self.services.len() {
            if let Some(Some(published)) = self.services.get_mut(index) {
                published.link.shut_down(&mut self.pool, now);
            }
            self.settle(ServiceIndex(index as u16));
        }
        self.process(now);
    }

    fn is_drained(&self) -> bool {
        self.shut_down && self.pool.is_drained()
    }
}

impl<Q: Provider> Backends for Connector<Q> {
    fn poll_backend(&mut self) -> Option<ToBackend<'_>> {
        self.netstack.poll_backend()
    }

    fn handle_backend(&mut self, from: FromBackend<'_>, now: Instant) {
        self.netstack.handle_backend(from, now);
    }

    fn drain_stream(&mut self, flow: FlowId, now: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.netstack.drain_stream(flow, now, take)
    }

    fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.netstack.fill_stream(flow, now, fill)
    }
}
