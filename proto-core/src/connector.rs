//! The connector: private services on one side, connections to an intermediate on the other, no open inbound port.
//!
//! In `ztna-v1` the intermediate strips the service's name before it forwards a packet, so a connector holds one
//! connection per service and knows the service by the connection: one process, one socket, many links. Packets go to
//! the netstack, which terminates TCP, UDP and ICMP; its packets go back on the link of their service. While a link
//! has no room the netstack keeps its bytes, and a backend that sends too fast is not read.
//!
//! A service whose backends are all down is withdrawn by closing its link, and published again by connecting it. The
//! configuration may change while everything runs: see [`Connector::reconfigure`].

mod published;
mod reconfigure;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::config::limits::{EVENT_QUEUE, MAX_UDP_PAYLOAD};
use crate::config::{ConnectorConfig, IntermediateEndpoint};
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::link::{Incoming, Link, LinkEvent, LinkStats};
use crate::machine::{Backends, Deadline, Forward, Machine, Received, Transmit, Wake};
use crate::netstack::{Netstack, NetstackStats};
use crate::quic::{Admission, DatagramError, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::rng::{Rng, Seed};
use crate::service::{BackendStatus, ServiceEvent};
use crate::timer::DeadlineIndex;
use published::Published;

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectorNews {
    /// What its link says.
    Link(LinkEvent),
    /// What its backends say.
    Backends(ServiceEvent),
}

/// Something that happened to one service of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorEvent {
    /// The service.
    pub service: ServiceIndex,
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

/// Every link registers one service: its only one.
const ONLY: ServiceIndex = ServiceIndex(0);

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
    /// When each link wants to be woken, by service.
    timers: DeadlineIndex,
    /// The service of each connection, by the connection's index.
    owners: Vec<Option<(ConnId, ServiceIndex)>>,
    netstack: Netstack,
    /// Services whose netstack may have packets, each once.
    active: VecDeque<ServiceIndex>,
    is_active: Vec<bool>,
    events: VecDeque<ConnectorEvent>,
    stats: ConnectorStats,
    shut_down: bool,
}

impl<Q: Provider> Connector<Q> {
    /// A connector that connects at once, once per service.
    pub fn new(config: ConnectorConfig, provider: Q, seed: &Seed, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let count = config.services.len();
        let links = 2 * count.max(MAX_SERVICES) + 2;
        let pool_config = PoolConfig {
            admission: Admission::Nobody,
            raw: false,
            reset_key: None,
            // One in use per service, and one that is still saying goodbye.
            max_connections: links,
            max_handshakes: links,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let pool = Pool::new(provider, pool_config, rng.fork(), now);
        let mut netstack = config.netstack();
        netstack.services.clear();
        let mut connector = Self {
            pool,
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
        connector
    }

    /// Counters of the connector itself.
    pub fn stats(&self) -> ConnectorStats {
        self.stats
    }

    /// Counters of its netstack.
    pub fn netstack_stats(&self) -> NetstackStats {
        self.netstack.stats()
    }

    /// Counters of its links, added up, those of services that were removed included.
    pub fn link_stats(&self) -> LinkStats {
        let links = self.services.iter().flatten();
        links.fold(self.retired, |sum, service| sum.plus(service.link.stats()))
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
                Some(ServiceStatus {
                    id: service.id.clone(),
                    registered: service.link.is_registered(ONLY),
                    available: self.netstack.services().is_available(index),
                    path_payload: service.link.connection().and_then(|id| self.pool.packet_size(id)),
                    backends: self.netstack.services().backends(index),
                })
            })
            .collect()
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
                PoolEvent::Established(id) => {
                    self.with_link(id, |link, pool| link.on_established(pool, now));
                    self.adopt_mtu(id);
                }
                PoolEvent::Readable(id) => self.read(id, now),
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(id, reason) => {
                    self.with_link(id, |link, _| link.on_closed(reason, now));
                    if let Some(owner) = self.owners.get_mut(id.index as usize) {
                        owner.take_if(|(owned, _)| *owned == id);
                    }
                }
            }
        }
        self.take_news(now);
        self.pump(now);
    }

    fn read(&mut self, id: ConnId, now: Instant) {
        let Some(service) = self.service_of(id) else {
            return;
        };
        while let Some(datagram) = self.pool.poll_datagram(id) {
            let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
                return;
            };
            match published.link.on_datagram(&mut self.pool, datagram, now) {
                Some(Incoming { packet, agent, .. }) => {
                    self.stats.received += 1;
                    match agent {
                        None => self.netstack.handle_packet(published.lane, packet, now),
                        Some((fingerprint, name)) => {
                            let agent = (fingerprint, &*name);
                            self.netstack
                                .handle_introduced(published.lane, agent, packet, now);
                        }
                    }
                }
                None => {}
            }
        }
        // Signalling of a v1 intermediate, which nobody reads yet.
        self.pool.discard_streams(id);
        // An acknowledgement may have made room for packets that waited.
        self.activate(service);
        self.settle(service);
    }

    /// Moves packets from the netstack to the links while those have room.
    fn pump(&mut self, now: Instant) {
        while let Some(lane) = self.netstack.poll_ready() {
            if let Some(service) = self.netstack.lane_service(lane) {
                self.activate(service);
            }
        }
        while let Some(service) = self.active.pop_front() {
            let index = usize::from(service.0);
            self.is_active[index] = false;
            self.pump_service(service, now);
            self.settle(service);
        }
    }

    fn pump_service(&mut self, service: ServiceIndex, now: Instant) {
        let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        let Published { link, lane, .. } = published;
        let Some(id) = link.connection() else { return };
        // Segments are cut for what can be sent now.
        if let Some(mtu) = self.pool.max_datagram_len(id) {
            self.netstack.set_mtu(*lane, mtu);
        }
        let mut room = self.pool.datagram_space(id);
        while room > 0 {
            let Some(packet) = self.netstack.poll_packet(*lane, now) else {
                return;
            };
            room -= 1;
            match link.send(&mut self.pool, packet, now) {
                Ok(()) => self.stats.sent += 1,
                Err(DatagramError::NotReady) => self.stats.not_ready += 1,
                Err(DatagramError::TooLarge) => self.stats.too_large += 1,
                Err(DatagramError::Full) => self.stats.queue_full += 1,
            }
        }
    }

    fn activate(&mut self, service: ServiceIndex) {
        let Some(active) = self.is_active.get_mut(usize::from(service.0)) else {
            return;
        };
        if !std::mem::replace(active, true) {
            self.active.push_back(service);
        }
    }

    fn adopt_mtu(&mut self, id: ConnId) {
        if let (Some(service), Some(mtu)) = (self.service_of(id), self.pool.max_datagram_len(id)) {
            if let Some(Some(published)) = self.services.get(usize::from(service.0)) {
                self.netstack.set_mtu(published.lane, mtu);
            }
            self.activate(service);
        }
    }

    fn service_of(&self, id: ConnId) -> Option<ServiceIndex> {
        let (owned, service) = (*self.owners.get(id.index as usize)?)?;
        (owned == id).then_some(service)
    }

    fn with_link(&mut self, id: ConnId, act: impl FnOnce(&mut Link, &mut Pool<Q>)) {
        let Some(service) = self.service_of(id) else {
            return;
        };
        let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        if published.link.any_connection() == Some(id) {
            act(&mut published.link, &mut self.pool);
        }
        self.settle(service);
    }

    /// One link has learnt that its connection is gone. All go to one intermediate, and the idle ones would not notice before
    /// their next keepalive: they ask at once.
    fn doubt_others(&mut self, lost: ServiceIndex, now: Instant) {
        for (index, published) in (0..).zip(&mut self.services) {
            if let Some(published) = published.as_mut().filter(|_| index != u32::from(lost.0)) {
                published.link.doubt(now);
                self.timers.set(index, published.poll_timeout());
            }
        }
    }

    /// After anything happened to a link: its events, its connection and its timer are brought up to date.
    fn settle(&mut self, service: ServiceIndex) {
        let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        let mut lost = false;
        while let Some(event) = published.link.poll_event() {
            lost |= matches!(event, LinkEvent::Disconnected(_));
            tell(
                &mut self.events,
                &mut self.stats,
                service,
                ConnectorNews::Link(event),
            );
        }
        if let Some(id) = published.link.any_connection() {
            let index = id.index as usize;
            if self.owners.len() <= index {
                self.owners.resize(index + 1, None);
            }
            self.owners[index] = Some((id, service));
        }
        self.timers.set(u32::from(service.0), published.poll_timeout());
        if lost {
            self.doubt_others(service, self.pool.now());
        }
    }

    /// Follows what the backends say: services are published and withdrawn.
    fn take_news(&mut self, now: Instant) {
        while let Some((service, event)) = self.netstack.services_mut().poll_event() {
            if let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) {
                match event {
                    ServiceEvent::Available if !self.shut_down => published.link.publish(now),
                    ServiceEvent::Withdrawn => published.link.withdraw(&mut self.pool, now),
                    ServiceEvent::Available
                    | ServiceEvent::BackendUp { .. }
                    | ServiceEvent::BackendDown { .. }
                    | ServiceEvent::NameUnknown { .. }
                    | ServiceEvent::NameKnown { .. }
                    | ServiceEvent::Denied { .. } => {}
                }
            }
            tell(
                &mut self.events,
                &mut self.stats,
                service,
                ConnectorNews::Backends(event),
            );
            self.settle(service);
        }
    }
}

fn tell(
    events: &mut VecDeque<ConnectorEvent>,
    stats: &mut ConnectorStats,
    service: ServiceIndex,
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
        while let Some(index) = self.timers.pop_due(now) {
            let service = ServiceIndex(index as u16);
            if let Some(Some(published)) = self.services.get_mut(index as usize) {
                published.link.handle_timeout(&mut self.pool, now);
            }
            self.leave(service, now);
            self.settle(service);
        }
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
            || !self.active.is_empty()
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
        Deadline::earliest(self.pool.poll_timeout(), Deadline::earliest(links, netstack))
    }

    fn shut_down(&mut self, now: Instant) {
        self.shut_down = true;
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
