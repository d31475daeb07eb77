//! Every local stream and flow, and what waits to leave for the tunnel.
//!
//! Decides whose turn it is to send: datagrams and streams alternate, streams take turns among themselves, and those of
//! a service that is not registered wait.

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::names::Directory;
use super::output::LocalQueue;
use super::streams::{Stream, Turns};
use super::udp::UdpFlow;
use super::{
    ForwardConfig, ForwardEvent, ForwardLimits, ForwardStats, Listens, REGISTRATION_PATIENCE, UDP_IDLE,
};
use crate::backend::FlowId;
use crate::config::limits::EVENT_QUEUE;
use crate::expiring::Expiring;
use crate::id::ServiceIndex;
use crate::link::LinkEvent;
use crate::local::{FromLocal, ToLocal};
use crate::rng::{Rng, SeededMap};
use crate::routing::packet::split;
use crate::routing::reassembly::{Reassembler, ReassemblyLimits};
use crate::tcp::{Budget, IsnSource};
use crate::timer::DeadlineIndex;

/// Where our ports begin, and how many there are: the dynamic ports (RFC 6335 §6).
const PORTS: (u16, u16) = (49_152, 16_384);

/// What is known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    Pending,
    Registered,
    /// The intermediate refused it, for this certificate.
    Denied,
}

#[derive(Debug)]
pub(super) struct Slot {
    generation: u32,
    pub(super) stream: Stream,
}

/// A datagram on its way to a service.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) until: Instant,
    pub(super) service: ServiceIndex,
    pub(super) packet: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Stack {
    pub(super) directory: Directory,
    pub(super) listeners: Vec<Listens>,
    pub(super) limits: ForwardLimits,
    pub(super) registrations: Vec<Registration>,
    pub(super) slots: Slab<Slot>,
    generation: u32,
    /// Streams by our port.
    pub(super) tcp: SeededMap<u16, FlowId>,
    /// Who connects next, by service.
    pub(super) turns: Vec<Turns>,
    /// Deadlines of streams, by slot.
    pub(super) timers: DeadlineIndex,
    /// Streams that may have a segment to send, each once; also some that are gone.
    sending: VecDeque<FlowId>,
    /// Packets that are no stream's, with the service each is for.
    packets: VecDeque<(ServiceIndex, Vec<u8>)>,
    packets_next: bool,
    /// What is left of a packet that was too large for one piece.
    fragments: VecDeque<Vec<u8>>,
    /// Fragments of services, until their packet is whole.
    pub(super) partial: Reassembler<()>,
    /// Datagrams that wait for their service to be registered, oldest first.
    pub(super) early: VecDeque<Early>,
    /// UDP flows by who speaks to whom, and by our port.
    pub(super) udp: Expiring<UdpFlow, u16>,
    pub(super) udp_ports: SeededMap<u16, UdpFlow>,
    pub(super) requests: LocalQueue,
    events: VecDeque<ForwardEvent>,
    pub(super) rng: Rng,
    /// Draws initial sequence numbers.
    pub(super) isn: IsnSource,
    /// What the buffers of all connections may hold.
    pub(super) budget: Budget,
    pub(super) now: Instant,
    pub(super) stats: ForwardStats,
    pub(super) closing: bool,
}

impl Stack {
    pub(super) fn new(config: &ForwardConfig, mut rng: Rng, now: Instant) -> Self {
        let limits = config.limits;
        let directory = Directory::new(&config.agent.services, &config.addresses, &mut rng);
        Self {
            registrations: vec![Registration::Pending; directory.len()],
            listeners: config.listeners.clone(),
            limits,
            slots: Slab::new(),
            generation: 0,
            tcp: rng.map(),
            turns: (0..directory.len()).map(|_| Turns::default()).collect(),
            directory,
            timers: DeadlineIndex::default(),
            sending: VecDeque::new(),
            packets: VecDeque::new(),
            packets_next: false,
            fragments: VecDeque::new(),
            partial: Reassembler::new(ReassemblyLimits::default(), &mut rng),
            early: VecDeque::new(),
            udp: Expiring::new(limits.udp_flows.min(usize::from(PORTS.1) / 2), &mut rng),
            udp_ports: rng.map(),
            requests: LocalQueue::new(limits.datagrams),
            events: VecDeque::new(),
            isn: IsnSource::new(&mut rng, now),
            budget: Budget::new(limits.buffers),
            rng,
            now,
            stats: ForwardStats::default(),
            closing: false,
        }
    }

    pub(super) fn stats(&self) -> ForwardStats {
        self.stats
    }

    pub(super) fn streams(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn udp_flows(&self) -> usize {
        self.udp.len()
    }

    /// The bytes that the buffers of all connections hold.
    pub(super) fn buffered(&self) -> usize {
        self.budget.used()
    }

    /// Whether every stream has come to its end. A scan, for the orderly end only.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(|(_, slot)| slot.stream.is_lingering())
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    pub(super) fn registration(&self, service: ServiceIndex) -> Registration {
        let known = self.registrations.get(usize::from(service.0)).copied();
        known.unwrap_or(Registration::Denied)
    }

    /// What the link says about services.
    pub(super) fn on_link(&mut self, event: &LinkEvent, now: Instant) {
        self.advance(now);
        match event {
            LinkEvent::Registered(service) => {
                self.note(*service, Registration::Registered);
                self.on_registered(*service);
            }
            LinkEvent::Denied(service, _) => {
                self.note(*service, Registration::Denied);
                self.on_denied(*service);
            }
            LinkEvent::Disconnected(_) | LinkEvent::Unreachable { .. } => {
                self.registrations.fill(Registration::Pending);
            }
            LinkEvent::Connected { .. } | LinkEvent::Observed(_) | LinkEvent::Path(..) => {}
        }
    }

    fn note(&mut self, service: ServiceIndex, registration: Registration) {
        if let Some(known) = self.registrations.get_mut(usize::from(service.0)) {
            *known = registration;
        }
    }

    fn on_registered(&mut self, service: ServiceIndex) {
        let early = std::mem::take(&mut self.early);
        let (now_due, still): (VecDeque<_>, VecDeque<_>) =
            early.into_iter().partition(|early| early.service == service);
        self.early = still;
        for Early { packet, .. } in now_due {
            self.push_packet(service, packet);
        }
        for id in self.streams_of(service) {
            self.on_stream_registered(id);
        }
    }

    fn on_denied(&mut self, service: ServiceIndex) {
        for id in self.streams_of(service) {
            self.on_stream_denied(id);
        }
    }

    fn streams_of(&self, service: ServiceIndex) -> Vec<FlowId> {
        self.streams_where(|stream| stream.service() == Some(service))
    }

    /// A scan: only for when a registration changes, and for the end.
    pub(super) fn streams_where(&self, which: impl Fn(&Stream) -> bool) -> Vec<FlowId> {
        let found = self.slots.iter().filter(|(_, slot)| which(&slot.stream));
        let id = |(index, slot): (usize, &Slot)| FlowId {
            index: index as u32,
            generation: slot.generation,
        };
        found.map(id).collect()
    }

    /// Queues a packet that is no stream's; `false` if there is no room.
    pub(super) fn push_packet(&mut self, service: ServiceIndex, packet: Vec<u8>) -> bool {
        if self.packets.len() >= self.limits.datagrams {
            return false;
        }
        self.packets.push_back((service, packet));
        true
    }

    /// Enters a stream among those that may send.
    pub(super) fn enter(&mut self, id: FlowId) {
        if let Some(stream) = self.stream(id)
            && !std::mem::replace(&mut stream.entered, true)
        {
            self.sending.push_back(id);
        }
    }

    /// While the tunnel is blocked streams may come and go without their turn ever coming.
    pub(super) fn is_crowded(&self) -> bool {
        self.sending.len() >= 4 * self.limits.streams
    }

    pub(super) fn has_packets(&self) -> bool {
        !self.packets.is_empty() || !self.sending.is_empty() || !self.fragments.is_empty()
    }

    /// The next packet for the tunnel; `mtu` is that of a service, `None` while it is not registered.
    pub(super) fn poll_packet(
        &mut self,
        mtu: &dyn Fn(ServiceIndex) -> Option<usize>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.advance(now);
        self.packets_next = !self.packets_next;
        if self.packets_next
            && let Some(packet) = self.pop_packet(mtu)
        {
            return Some(packet);
        }
        while let Some(id) = self.sending.pop_front() {
            if let Some(segment) = self.stream_segment(id, mtu) {
                self.sending.push_back(id);
                return Some(segment);
            }
        }
        self.pop_packet(mtu)
    }

    fn pop_packet(&mut self, mtu: &dyn Fn(ServiceIndex) -> Option<usize>) -> Option<Vec<u8>> {
        if let Some(fragment) = self.fragments.pop_front() {
            return Some(fragment);
        }
        loop {
            let (service, packet) = self.packets.pop_front()?;
            match mtu(service) {
                None => self.stats.datagrams_early += 1,
                Some(mtu) if packet.len() > mtu => {
                    let id = self.rng.next_u64() as u32;
                    let fragments = &mut self.fragments;
                    if !split(&packet, mtu, id, &mut |fragment| fragments.push_back(fragment)) {
                        self.stats.datagrams_too_large += 1;
                    }
                    if let Some(first) = self.fragments.pop_front() {
                        return Some(first);
                    }
                }
                Some(_) => return Some(packet),
            }
        }
    }

    pub(super) fn stream(&mut self, id: FlowId) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.generation == id.generation).then_some(&mut slot.stream)
    }

    pub(super) fn insert(&mut self, stream: Stream) -> FlowId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.slots.insert(Slot { generation, stream }) as u32;
        FlowId { index, generation }
    }

    /// Removes a stream with its port and timer.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<Stream> {
        self.not_opening(id);
        self.stream(id)?;
        self.timers.set(id.index, None);
        let stream = self.slots.remove(id.index as usize).stream;
        if let Some(port) = stream.port() {
            self.tcp.remove(&port);
        }
        Some(stream)
    }

    /// A free port for a table, at random: neighbours tell nothing about each other (RFC 6056 §3.3.1).
    pub(super) fn free_port<V>(rng: &mut Rng, used: &SeededMap<u16, V>) -> Option<u16> {
        let (first, count) = PORTS;
        let start = rng.below(u64::from(count)) as u16;
        (0..count)
            .map(|step| first + (start.wrapping_add(step)) % count)
            .find(|port| !used.contains_key(port))
    }

    pub(super) fn tell(&mut self, event: ForwardEvent) {
        if self.events.len() < EVENT_QUEUE {
            self.events.push_back(event);
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<ForwardEvent> {
        self.events.pop_front()
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty() || !self.events.is_empty()
    }

    pub(super) fn poll_local(&mut self) -> Option<ToLocal<'_>> {
        self.requests.poll()
    }

    pub(super) fn handle_local(&mut self, from: FromLocal<'_>, now: Instant) {
        self.advance(now);
        match from {
            FromLocal::HalfClosed { flow } => self.on_local_finished(flow),
            FromLocal::Reset { flow } => self.on_local_broken(flow),
            FromLocal::Relaying { flow, at } => self.on_relaying(flow, at),
            FromLocal::Datagram { to, from, payload } => self.on_local_datagram(to, from, payload),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let early = self.early.front().map(|early| early.until);
        [
            self.timers.earliest(),
            self.udp.next_expiry(UDP_IDLE),
            self.partial.poll_timeout(),
            early,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(index) = self.timers.pop_due(self.now) {
            if let Some(slot) = self.slots.get(index as usize) {
                let generation = slot.generation;
                self.on_stream_timer(FlowId { index, generation });
            }
        }
        while let Some((_, port)) = self.udp.pop_expired(self.now, UDP_IDLE) {
            self.udp_ports.remove(&port);
        }
        while self.partial.pop_expired(self.now).is_some() {}
        while self.early.pop_front_if(|early| early.until <= now).is_some() {
            self.stats.datagrams_early += 1;
        }
    }

    /// Keeps a datagram for a moment.
    pub(super) fn hold(&mut self, service: ServiceIndex, packet: Vec<u8>) {
        if self.early.len() >= self.limits.early_datagrams {
            self.early.pop_front();
            self.stats.datagrams_early += 1;
        }
        self.early.push_back(Early {
            until: self.now + REGISTRATION_PATIENCE,
            service,
            packet,
        });
    }
}
