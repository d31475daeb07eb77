//! The connector: private services on one side, connections to an intermediate on the other, no open inbound port.
//!
//! In `ztna-v1` the intermediate strips the service's name before it forwards a packet, so a connector holds one
//! connection per service and knows the service by the connection: one process, one socket, many links. Packets go to
//! the netstack, which terminates TCP, UDP and ICMP; its packets go back on the link of their service. While a link
//! has no room the netstack keeps its bytes, and a backend that sends too fast is not read.

use std::collections::VecDeque;
use std::time::Instant;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::config::ConnectorConfig;
use crate::config::limits::{EVENT_QUEUE, MAX_UDP_PAYLOAD};
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::link::{Link, LinkEvent, LinkStats};
use crate::machine::{Backends, Deadline, Forward, Machine, Received, Transmit, Wake};
use crate::netstack::{Netstack, NetstackStats};
use crate::quic::{DatagramError, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::rng::{Rng, Seed};
use crate::timer::DeadlineIndex;
use crate::wire::datagram::Role;

/// Something that happened to one service of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorEvent {
    /// The service.
    pub service: ServiceIndex,
    /// What its link says.
    pub event: LinkEvent,
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
}

/// Every link registers one service: its only one.
const ONLY: ServiceIndex = ServiceIndex(0);

/// The connector's machine.
#[derive(Debug)]
pub struct Connector<Q: Provider> {
    pool: Pool<Q>,
    services: Vec<ServiceId>,
    links: Vec<Link>,
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
        let pool_config = PoolConfig {
            accept: false,
            retry: false,
            reset_key: None,
            // One in use per service, and one that is still saying goodbye.
            max_connections: 2 * count + 2,
            max_handshakes: 2 * count + 2,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let services: Vec<ServiceId> = config.services.iter().map(|service| service.id.clone()).collect();
        let links: Vec<Link> = services
            .iter()
            .map(|id| {
                let endpoint = config.intermediate.clone();
                Link::new(
                    Role::Connector,
                    vec![id.clone()],
                    endpoint,
                    config.local,
                    rng.fork(),
                    now,
                )
            })
            .collect();
        let netstack = Netstack::new(config.netstack(), rng.fork(), now);
        let mut connector = Self {
            pool: Pool::new(provider, pool_config, rng.fork(), now),
            services,
            links,
            timers: DeadlineIndex::default(),
            owners: Vec::new(),
            netstack,
            active: VecDeque::new(),
            is_active: vec![false; count],
            events: VecDeque::new(),
            stats: ConnectorStats::default(),
            shut_down: false,
        };
        (0..count).for_each(|index| connector.settle(ServiceIndex(index as u16)));
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

    /// Counters of its links, added up.
    pub fn link_stats(&self) -> LinkStats {
        self.links.iter().fold(LinkStats::default(), |sum, link| {
            let stats = link.stats();
            LinkStats {
                reconnections: sum.reconnections + stats.reconnections,
                connections: sum.connections + stats.connections,
                malformed: sum.malformed + stats.malformed,
                events_dropped: sum.events_dropped + stats.events_dropped,
            }
        })
    }

    /// Counters of its QUIC pool.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Where each service stands.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let pairs = self.services.iter().zip(&self.links);
        pairs
            .map(|(id, link)| ServiceStatus {
                id: id.clone(),
                registered: link.is_registered(ONLY),
            })
            .collect()
    }

    /// Replaces the addresses of the intermediate, after its name was resolved again.
    pub fn set_intermediate_addresses(&mut self, addresses: &[std::net::SocketAddr]) {
        let now = self.pool.now();
        for index in 0..self.links.len() {
            self.links[index].set_addresses(addresses.to_vec(), now);
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
        self.pump(now);
    }

    fn read(&mut self, id: ConnId, now: Instant) {
        let Some(service) = self.service_of(id) else {
            return;
        };
        while let Some(datagram) = self.pool.poll_datagram(id) {
            let Some(link) = self.links.get_mut(usize::from(service.0)) else {
                return;
            };
            if let Some(packet) = link.on_datagram(&mut self.pool, datagram, now) {
                self.stats.received += 1;
                self.netstack.handle_packet(service, packet, now);
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
        while let Some(service) = self.netstack.poll_ready() {
            self.activate(service);
        }
        while let Some(service) = self.active.pop_front() {
            let index = usize::from(service.0);
            self.is_active[index] = false;
            self.pump_service(service, now);
            self.settle(service);
        }
    }

    fn pump_service(&mut self, service: ServiceIndex, now: Instant) {
        let Some(link) = self.links.get_mut(usize::from(service.0)) else {
            return;
        };
        let Some(id) = link.connection() else { return };
        let mut room = self.pool.datagram_space(id);
        while room > 0 {
            let Some(packet) = self.netstack.poll_packet(service, now) else {
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
            self.netstack.set_mtu(service, mtu);
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
        let Some(link) = self.links.get_mut(usize::from(service.0)) else {
            return;
        };
        if link.any_connection() == Some(id) {
            act(link, &mut self.pool);
        }
        self.settle(service);
    }

    /// After anything happened to a link: its events, its connection and its timer are brought up to date.
    fn settle(&mut self, service: ServiceIndex) {
        let Some(link) = self.links.get_mut(usize::from(service.0)) else {
            return;
        };
        while let Some(event) = link.poll_event() {
            if self.events.len() >= EVENT_QUEUE {
                self.events.pop_front();
                self.stats.events_dropped += 1;
            }
            self.events.push_back(ConnectorEvent { service, event });
        }
        if let Some(id) = link.any_connection() {
            let index = id.index as usize;
            if self.owners.len() <= index {
                self.owners.resize(index + 1, None);
            }
            self.owners[index] = Some((id, service));
        }
        self.timers.set(
            u32::from(service.0),
            link.poll_timeout().map(|deadline| deadline.at),
        );
    }
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
            if let Some(link) = self.links.get_mut(index as usize) {
                link.handle_timeout(&mut self.pool, now);
            }
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
        if !self.events.is_empty() || !self.active.is_empty() || self.netstack.has_output() {
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
        for index in 0..self.links.len() {
            self.links[index].shut_down(&mut self.pool, now);
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
