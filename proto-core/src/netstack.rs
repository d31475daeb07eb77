//! The connector's network stack: IP packets of agents on one side, backend sockets on the other.
//!
//! It terminates TCP (each session a [`Connection`](crate::tcp::Connection) of its own), carries UDP (one backend flow per agent flow) and
//! answers ICMP echo, for several services at once. Answers carry the virtual address and port that the agent spoke
//! to. It knows neither QUIC nor sockets: packets for the tunnel are taken only while the tunnel has room, bytes for and
//! from backends only when the shell's sockets are ready, so that back-pressure reaches through in both directions.
//!
//! Packets come and go by lanes, each a way in and out of one service (`lane`), and are demultiplexed by (lane, 5-tuple);
//! nothing scans sessions. Fragments are put together first, and what is too long for the tunnel is cut, so that services
//! see and send datagrams of any size.

mod backends;
mod fragments;
mod icmp;
mod lane;
mod live;
mod output;
mod tcp;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::slab::Slab;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::expiring::Expiring;
use crate::expiring::grouped::Grouped;
use crate::expiring::list::{Linked, Links};
use crate::forward::is_internal;
use crate::id::{LaneId, ServiceIndex};
use crate::quic::Datagram;
use crate::rng::{Rng, SeededMap};
use crate::routing::packet::{self, FiveTuple, Fragment, Kind, Parsed, Unreachable};
use crate::routing::reassembly::{Reassembler, ReassemblyLimits};
use crate::service::access::Peer;
use crate::service::{Offer, Services, TargetId};
use crate::tcp::{Algorithm, Budget, Config, IsnSource};
use crate::timer::DeadlineIndex;
use icmp::Allowance;
use lane::{Holder, Lanes};
use output::BackendQueue;
use tcp::Session;

/// Silence after which a UDP flow is forgotten (RFC 4787 §4.3 asks for at least 2 minutes).
pub const UDP_IDLE: Duration = Duration::from_secs(300);

/// How long a backend may take to accept a TCP connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the first of several backends may take, before the next is tried.
pub const FIRST_TRY: Duration = Duration::from_secs(3);

/// Agents remembered for flows without a slot.
const KNOWN: usize = 1024;

/// A service of the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetstackService {
    /// How it is served.
    pub offer: Offer,
    /// Its virtual addresses; empty accepts any, because each agent has its own address for the service and the
    /// intermediate has already chosen it.
    pub virtual_addresses: Vec<IpAddr>,
}

/// Table sizes of a stack. An agent is an address, or a lane if that is one agent's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetstackLimits {
    /// TCP sessions.
    pub tcp_sessions: usize,
    /// TCP sessions of one agent that wait for their backend or for the end of their handshake.
    pub tcp_pending_per_source: usize,
    /// Bytes that one TCP session may buffer in each direction. Buffers begin with nothing and grow with the product of
    /// bandwidth and delay.
    pub tcp_buffer: usize,
    /// Bytes that all TCP sessions may buffer together; where they do, buffers stay as they are.
    pub tcp_memory: usize,
    /// What decides how fast TCP sessions send.
    pub congestion: Algorithm,
    /// UDP flows; each is a socket of the shell. Beyond it the agent with most of them gives up its oldest.
    pub udp_flows: usize,
    /// UDP flows of one agent; beyond it the oldest of its own gives way.
    pub udp_flows_per_source: usize,
    /// Fragments of agents that wait for the rest of their packet.
    pub reassembly: ReassemblyLimits,
    /// Packets that wait for one lane, TCP segments not counted: those are made when there is room.
    pub tunnel_queue: usize,
    /// Packets that wait for all lanes together; near it each may have half of what is left.
    pub tunnel_packets: usize,
    /// UDP payloads that wait for backend sockets.
    pub backend_queue: usize,
}

impl Default for NetstackLimits {
    fn default() -> Self {
        Self {
            tcp_sessions: 16_384,
            tcp_pending_per_source: 128,
            tcp_buffer: 4 << 20,
            tcp_memory: 256 << 20,
            congestion: Algorithm::default(),
            udp_flows: 4096,
            udp_flows_per_source: 1024,
            reassembly: ReassemblyLimits::default(),
            tunnel_queue: 2048,
            tunnel_packets: 65_536,
            backend_queue: 4096,
        }
    }
}

impl NetstackLimits {
    fn tcp_connection(&self) -> Config {
        Config {
            send_buffer: self.tcp_buffer,
            receive_buffer: self.tcp_buffer,
            congestion: self.congestion,
            ..Config::default()
        }
    }
}

/// The configuration of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetstackConfig {
    /// The services, by [`ServiceIndex`].
    pub services: Vec<NetstackService>,
    /// Table sizes.
    pub limits: NetstackLimits,
}

/// Counters of a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetstackStats {
    /// UDP payloads and TCP segments with payload taken from agents.
    pub forwarded_packets: u64,
    /// Payload bytes handed to backends.
    pub forwarded_bytes: u64,
    /// Payload bytes taken from backends.
    pub returned_bytes: u64,
    /// TCP sessions begun.
    pub tcp_sessions: u64,
    /// TCP sessions whose backend could not be reached or that broke.
    pub tcp_errors: u64,
    /// TCP segments sent again.
    pub tcp_retransmits: u64,
    /// TCP retransmission timeouts.
    pub tcp_timeouts: u64,
    /// TCP segments of agents for which there was no room, which their senders repeat.
    pub tcp_dropped: u64,
    /// TCP connections that found too many of their agent's unanswered; the agent asks again.
    pub tcp_backlog: u64,
    /// Bytes that the buffers of TCP sessions hold now.
    pub tcp_buffered: u64,
    /// UDP flows begun.
    pub udp_flows: u64,
    /// ICMP echo requests answered.
    pub echoes: u64,
    /// Packets that are not IP or contradict themselves.
    pub malformed: u64,
    /// Packets with a wrong checksum.
    pub bad_checksum: u64,
    /// Packets for addresses that are not the service's.
    pub wrong_address: u64,
    /// Fragments of packets that did not become whole: too late, too many, or contradicting each other.
    pub fragments: u64,
    /// Packets put together from fragments.
    pub reassembled: u64,
    /// Packets cut into fragments for the tunnel.
    pub fragmented: u64,
    /// Packets whose hop limit was used up on the way.
    pub hop_limit: u64,
    /// ICMP errors of agents about flows, taken to heart.
    pub icmp_errors: u64,
    /// ICMP errors not sent, because too many were (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
    pub icmp_limited: u64,
    /// Packets of protocols that are not carried, and new flows to ports where the service does not listen.
    pub unsupported: u64,
    /// New flows refused because no backend was well.
    pub no_backend: u64,
    /// Flows that were tried over with another backend.
    pub retried: u64,
    /// New flows refused because their agent is not on the service's list.
    pub denied: u64,
    /// Flows ended because their service was removed, or its list or the agent behind them changed.
    pub ended: u64,
    /// TCP connections refused because the table was full.
    pub tcp_full: u64,
    /// UDP flows that gave way to newer ones.
    pub udp_evicted: u64,
    /// Packets dropped because the tunnel's queue was full.
    pub tunnel_full: u64,
    /// UDP payloads dropped because the backend's queue was full.
    pub backend_full: u64,
    /// Answers of backends that do not fit the tunnel, not even in fragments.
    pub too_large: u64,
}

/// What a flow is, by its slot.
#[derive(Debug)]
enum Flow {
    Udp {
        lane: LaneId,
        tuple: FiveTuple,
        opened: bool,
    },
    Tcp(Box<Session>),
}

impl Flow {
    fn lane(&self) -> LaneId {
        match self {
            Self::Udp { lane, .. } => *lane,
            Self::Tcp(session) => session.lane(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    flow: Flow,
    /// The backend that counts this flow, until its socket is closed.
    target: Option<TargetId>,
    /// Whether it was tried over with another backend.
    retried: bool,
    /// The agent, if it is known.
    peer: Option<Arc<Peer>>,
    /// What a TCP backend is sent before the agent's bytes, as far as it is not sent yet.
    preamble: Vec<u8>,
    /// Its place among the flows of its lane.
    links: Links,
}

impl Linked for Slot {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The stack.
#[derive(Debug)]
pub struct Netstack {
    /// The virtual addresses of each service; empty accepts any.
    addresses: Vec<Vec<IpAddr>>,
    services: Services,
    /// The agent of the packet that is being handled, if that was introduced.
    arriving: Option<Arc<Peer>>,
    /// Agents of flows that have no slot: echo requests, and flows that are introduced before their first packet.
    known: Expiring<(LaneId, FiveTuple), Arc<Peer>>,
    lanes: Lanes,
    limits: NetstackLimits,
    slots: Slab<Slot>,
    generation: u32,
    tcp: SeededMap<(LaneId, FiveTuple), FlowId>,
    /// What the buffers of all sessions share.
    tcp_memory: Budget,
    /// Sessions of each agent that have not completed their handshake.
    tcp_pending: SeededMap<Holder, usize>,
    /// Sessions of which only the memory is left.
    lingering: Expiring<FlowId, ()>,
    udp: Grouped<Holder, (LaneId, FiveTuple), FlowId>,
    fragments: Reassembler<LaneId, Holder>,
    icmp: Allowance,
    /// Timers of TCP sessions, by slot.
    timers: DeadlineIndex,
    backend: BackendQueue,
    isn: IsnSource,
    rng: Rng,
    now: Instant,
    stats: NetstackStats,
}

impl Netstack {
    /// A stack without flows.
    pub fn new(config: NetstackConfig, mut rng: Rng, now: Instant) -> Self {
        let NetstackConfig { services, limits } = config;
        let count = services.len();
        let mut addresses = Vec::with_capacity(count);
        let mut machine = Services::new(rng.fork());
        for (index, service) in (0..).zip(services) {
            addresses.push(service.virtual_addresses);
            machine.install(ServiceIndex(index), service.offer, now);
        }
        Self {
            lanes: Lanes::new(limits.tunnel_queue, limits.tunnel_packets),
            backend: BackendQueue::new(limits.backend_queue),
            addresses,
            services: machine,
            arriving: None,
            known: Expiring::new(KNOWN, &mut rng),
            limits,
            slots: Slab::new(),
            generation: 0,
            tcp: rng.map(),
            tcp_memory: Budget::new(limits.tcp_memory),
            tcp_pending: rng.map(),
            lingering: Expiring::new(limits.tcp_sessions, &mut rng),
            udp: Grouped::new(limits.udp_flows, limits.udp_flows_per_source, &mut rng),
            fragments: Reassembler::new(limits.reassembly, &mut rng),
            icmp: Allowance::new(now),
            timers: DeadlineIndex::default(),
            isn: IsnSource::new(&mut rng, now),
            rng,
            now,
            stats: NetstackStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> NetstackStats {
        NetstackStats {
            tcp_buffered: self.tcp_memory.used() as u64,
            ..self.stats
        }
    }

    /// Flows of both kinds.
    pub fn flows(&self) -> usize {
        self.slots.len()
    }

    /// Tells the largest packet that a lane carries now.
    pub fn set_mtu(&mut self, lane: LaneId, mtu: usize) {
        self.lanes.set_mtu(lane, mtu);
    }

    /// Takes one packet that came in by a lane.
    pub fn handle_packet(&mut self, lane: LaneId, packet: Datagram, now: Instant) {
        self.advance(now);
        let Some(service) = self.lanes.service(lane) else {
            return;
        };
        let Some(addresses) = self.addresses.get(usize::from(service.0)) else {
            return;
        };
        let Ok(parsed) = packet::parse(&packet) else {
            self.stats.malformed += 1;
            return;
        };
        if !packet::verify_checksums(&parsed, &packet) {
            self.stats.bad_checksum += 1;
            return;
        }
        // An agent that knows a service by its name only has an internal address for it.
        let ours = addresses.is_empty()
            || addresses.contains(&parsed.flow.destination)
            || is_internal(parsed.flow.destination);
        if !ours {
            self.stats.wrong_address += 1;
            return;
        }
        if parsed.hop_limit == 0 {
            self.stats.hop_limit += 1;
            return;
        }
        if parsed.fragment != Fragment::No {
            self.on_fragment(lane, &parsed, &packet);
            return;
        }
        match parsed.kind {
            Kind::Udp => self.on_udp(lane, &parsed, packet),
            Kind::Tcp(flags) => self.on_tcp(lane, &parsed, flags, packet),
            Kind::EchoRequest if self.admits_echo((lane, service), &parsed, &packet) => {
                self.on_echo(lane, &parsed, &packet);
            }
            Kind::EchoRequest => {}
            Kind::IcmpError => self.on_icmp_error(lane, &parsed, &packet),
            Kind::EchoReply | Kind::Other => self.stats.unsupported += 1,
        }
    }

    /// The next packet that leaves by a lane. Call it only while there is room for it.
    pub fn poll_packet(&mut self, lane: LaneId, now: Instant) -> Option<Datagram> {
        self.advance(now);
        // Ready packets and sessions take turns, so that neither can starve the other.
        let packets_first = self.lanes.turn(lane);
        if packets_first && let Some(packet) = self.lanes.pop(lane) {
            return Some(packet);
        }
        while let Some(flow) = self.lanes.next_session(lane) {
            let ended = self.flow(flow).is_none();
            if let Some(segment) = self.tcp_segment(flow) {
                return Some(segment);
            }
            self.lanes.session_done(lane, ended);
        }
        let packet = self.lanes.pop(lane);
        if packet.is_none() {
            self.lanes.rest(lane);
        }
        packet
    }

    /// The next lane that has got packets since it was last named here.
    pub fn poll_ready(&mut self) -> Option<LaneId> {
        self.lanes.poll_ready()
    }

    /// Whether [`Netstack::poll_ready`] or [`Netstack::poll_backend`] has something.
    pub fn has_output(&self) -> bool {
        self.lanes.has_ready() || self.backend.has_requests() || self.services.has_requests()
    }

    /// When [`Netstack::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.earliest(),
            self.udp.next_expiry(UDP_IDLE),
            self.fragments.poll_timeout(),
            self.services.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(index) = self.timers.pop_due(self.now) {
            self.on_tcp_timer(index);
        }
        while let Some((_, flow)) = self.udp.pop_expired(self.now, UDP_IDLE) {
            self.forget(flow);
            self.backend.close(flow);
        }
        self.expire_fragments();
        self.services.handle_timeout(self.now);
    }

    /// The next request to the shell.
    pub fn poll_backend(&mut self) -> Option<ToBackend<'_>> {
        if self.backend.has_requests() {
            return self.backend.poll();
        }
        self.services.poll_ask().map(ToBackend::Ask)
    }

    /// Takes a report of the shell.
    pub fn handle_backend(&mut self, from: FromBackend<'_>, now: Instant) {
        self.advance(now);
        match from {
            FromBackend::Opened { flow } => match self.flow(flow) {
                Some(Flow::Udp { .. }) => self.on_udp_opened(flow),
                Some(Flow::Tcp(_)) => self.on_tcp_opened(flow),
                None => {}
            },
            FromBackend::Refused { flow, reason } => match self.flow(flow) {
                Some(Flow::Udp { .. }) => self.on_udp_refused(flow, reason),
                Some(Flow::Tcp(_)) => self.on_tcp_refused(flow, reason),
                None => {}
            },
            FromBackend::Datagram { flow, payload } => self.on_udp_answer(flow, payload),
            FromBackend::Unreachable { flow, why } => self.on_udp_unreachable(flow, why),
            FromBackend::HalfClosed { flow } => self.on_tcp_finished(flow),
            FromBackend::Reset { flow } => self.on_tcp_broken(flow),
            FromBackend::Answer(answer) => self.services.handle_answer(answer, self.now),
        }
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn flow(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.generation == id.generation).then_some(&mut slot.flow)
    }

    /// Removes the slot of a flow; its key is the caller's to remove.
    fn forget(&mut self, id: FlowId) -> Option<Flow> {
        self.flow(id)?;
        self.timers.set(id.index, None);
        self.release(id);
        let index = id.index as usize;
        let lane = self.slots.get(index)?.flow.lane();
        self.lanes.end_flow(lane, &mut self.slots, index);
        Some(self.slots.remove(index).flow)
    }

    fn queue(&mut self, lane: LaneId, packet: Vec<u8>) {
        let Some(mtu) = self.lanes.mtu(lane) else { return };
        if packet.len() > mtu {
            self.queue_fragments(lane, &packet, mtu);
        } else if !self.lanes.push(lane, packet.into()) {
            self.stats.tunnel_full += 1;
        }
    }

    fn answer_unreachable(&mut self, lane: LaneId, parsed: &Parsed, original: &[u8], why: Unreachable) {
        let mut answer = Vec::new();
        if packet::unreachable(original, parsed, why, &mut answer) {
            self.queue_error(lane, answer);
        }
    }

    fn answer_reset(&mut self, lane: LaneId, parsed: &Parsed, original: &[u8]) {
        let mut answer = Vec::new();
        if packet::tcp_reset(original, parsed, &mut answer) {
            self.queue(lane, answer);
        }
    }
}

#[cfg(test)]
mod tests;
