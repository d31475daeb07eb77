//! An agent without a tunnel interface: local sockets on one side, one connection to an intermediate on the other.
//!
//! It decides which service a local connection or datagram is for (the listener says so, or a SOCKS request does), ends
//! TCP and UDP of the tunnel here, with addresses and ports of its own, and tells local programs faithfully what became
//! of their connection: refused, reset, half-closed. Connection, registration and the wrapping of packets are those of
//! [`Agent`]; local sockets are the shell's ([`crate::local`]).
//!
//! Names are looked up among the configured services and nowhere else, so no private name leaves this host.

mod conn;
mod names;
mod output;
mod packets;
mod socks;
mod stack;
mod streams;
mod udp;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::agent::{Agent, AgentStats, AgentStatus};
use crate::backend::FlowId;
use crate::config::AgentConfig;
use crate::config::limits::EVENT_QUEUE;
use crate::id::ServiceIndex;
use crate::link::{LinkEvent, LinkStats};
use crate::local::{FromLocal, ListenerIndex, ToLocal};
use crate::machine::{Deadline, Forward, Locals, Machine, Received, Transmit, Tunnel as _, Wake};
use crate::quic::{PoolStats, Provider};
use crate::rng::{Rng, Seed};
use crate::session::SessionStats;
use crate::tcp::Algorithm;

pub use names::{INTERNAL, internal_address, is_internal};
pub use socks::{Host, Negotiation, Reply, Request, Step, datagram_header, split_datagram};

use stack::Stack;

/// How long a local connection waits for its service to be registered: a program started together with this one finds
/// the service a moment later.
pub const REGISTRATION_PATIENCE: Duration = Duration::from_secs(5);

/// How long a service may take to accept a connection: longer than a connector waits for its backend.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a SOCKS program may take to say what it wants.
pub const NEGOTIATION_PATIENCE: Duration = Duration::from_secs(10);

/// Silence after which a UDP flow is forgotten (RFC 4787 REQ-5 asks for two minutes at least).
pub const UDP_IDLE: Duration = Duration::from_secs(150);

/// How long running streams may take to come to their end by themselves, unless something else is said.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long the orderly end waits for bytes of programs that have ended, and for resets of those that have not.
const ENDING: Duration = Duration::from_secs(1);

/// What local programs find at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    /// Every connection goes to this port of a service.
    Stream(ServiceIndex, u16),
    /// Every datagram goes to this port of a service.
    Datagram(ServiceIndex, u16),
    /// Programs say where they want to go, by SOCKS 5.
    Socks,
}

/// Table sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardLimits {
    /// Streams at one time; one beyond is refused.
    pub streams: usize,
    /// UDP flows at one time; the one idle longest gives way.
    pub udp_flows: usize,
    /// Datagrams that wait for local programs or for the tunnel; one beyond is dropped.
    pub datagrams: usize,
    /// Datagrams that wait for a service to be registered.
    pub early_datagrams: usize,
    /// Bytes that the buffers of all connections hold; beyond it each keeps the little that it needs to get on.
    pub buffers: usize,
    /// What decides how fast the TCP of streams goes.
    pub congestion: Algorithm,
}

impl Default for ForwardLimits {
    fn default() -> Self {
        Self {
            streams: 4096,
            udp_flows: 4096,
            datagrams: 1024,
            early_datagrams: 64,
            buffers: 256 << 20,
            congestion: Algorithm::default(),
        }
    }
}

/// The configuration of a [`Forwarder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Intermediate and services; each service has an address, if only an [`internal_address`].
    pub agent: AgentConfig,
    /// The addresses of this host in the tunnel, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What listens here, by [`ListenerIndex`].
    pub listeners: Vec<Listens>,
    /// Table sizes.
    pub limits: ForwardLimits,
    /// How long the orderly end waits for running streams to come to theirs; zero resets them at once.
    pub drain: Duration,
}

/// Why a local connection did not reach its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotReached {
    /// Nobody listens there, or the connector is at its limits.
    Refused,
    /// The service's host is not reachable.
    Unreachable,
    /// Nobody answered in time.
    TimedOut,
    /// There is no connection to the intermediate, or it did not register the service in time.
    NotRegistered,
    /// The certificate does not permit the service, a firewall forbids it, or no service has this name or address.
    NotAllowed,
    /// This process has no room for another connection.
    Full,
}

/// What the program around the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardEvent {
    /// Something happened between this host and the intermediate.
    Link(LinkEvent),
    /// A local connection did not reach its service.
    NotReached {
        /// Where it came in.
        listener: ListenerIndex,
        /// Where it was to go; `None` if that is no configured service.
        service: Option<ServiceIndex>,
        /// Why it did not.
        why: NotReached,
    },
    /// A stream that had reached its service is over.
    Ended {
        /// Where it came in.
        listener: ListenerIndex,
        /// Whether both directions came to their orderly end.
        orderly: bool,
    },
}

/// Counters of a [`Forwarder`], those of its [`Agent`] apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardStats {
    /// Local connections taken.
    pub streams: u64,
    /// Those that reached their service.
    pub established: u64,
    /// Those that did not: refused.
    pub refused: u64,
    /// … not reachable.
    pub unreachable: u64,
    /// … no answer in time.
    pub timed_out: u64,
    /// … the service was not registered in time.
    pub not_registered: u64,
    /// … not permitted, or no such service.
    pub not_allowed: u64,
    /// … no room here.
    pub streams_full: u64,
    /// Streams that broke after they were established.
    pub broken: u64,
    /// SOCKS connections that were no SOCKS 5, or fell silent.
    pub socks_malformed: u64,
    /// Stream bytes taken from local programs.
    pub bytes_sent: u64,
    /// Stream bytes handed to local programs.
    pub bytes_received: u64,
    /// UDP flows begun.
    pub udp_flows: u64,
    /// UDP flows that gave way to newer ones.
    pub udp_evicted: u64,
    /// Datagrams from local programs to services.
    pub datagrams_sent: u64,
    /// Datagrams from services to local programs.
    pub datagrams_received: u64,
    /// Datagrams about which a service's host said that nobody listens.
    pub datagrams_refused: u64,
    /// Datagrams dropped: no such service.
    pub datagrams_unroutable: u64,
    /// Datagrams dropped: larger than the tunnel carries.
    pub datagrams_too_large: u64,
    /// Datagrams dropped: too many wait.
    pub datagrams_full: u64,
    /// Datagrams dropped: the service was not registered in time.
    pub datagrams_early: u64,
    /// Datagrams of SOCKS programs that cannot be read, or come from another host.
    pub datagrams_malformed: u64,
    /// Packets from the tunnel that contradict themselves.
    pub malformed: u64,
    /// Packets from the tunnel with a wrong checksum.
    pub bad_checksum: u64,
    /// Fragments from the tunnel, put together where all of a packet come.
    pub fragments: u64,
    /// Packets from the tunnel that belong to nothing here.
    pub stray: u64,
    /// Events that were dropped because the program did not take them.
    pub events_dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// Nothing new is taken, and running streams go on, until then at most.
    Draining(Instant),
    /// The last bytes leave, until then at most.
    Leaving(Instant),
    /// The agent says goodbye.
    Goodbye,
}

/// The machine of an agent without a tunnel interface.
#[derive(Debug)]
pub struct Forwarder<Q: Provider> {
    agent: Agent<Q>,
    stack: Stack,
    events: VecDeque<ForwardEvent>,
    events_dropped: u64,
    end: End,
    drain: Duration,
    now: Instant,
}

impl<Q: Provider> Forwarder<Q> {
    /// A machine that connects at once.
    pub fn new(config: ForwardConfig, provider: Q, seed: &Seed, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let mut agent_seed = Seed([0; 32]);
        rng.fill(&mut agent_seed.0);
        let stack = Stack::new(&config, rng, now);
        Self {
            agent: Agent::new(config.agent, provider, &agent_seed, now),
            stack,
            events: VecDeque::new(),
            events_dropped: 0,
            end: End::NotYet,
            drain: config.drain,
            now,
        }
    }

    /// Counters.
    pub fn stats(&self) -> ForwardStats {
        ForwardStats {
            events_dropped: self.events_dropped,
            ..self.stack.stats()
        }
    }

    /// Counters of the agent inside.
    pub fn agent_stats(&self) -> AgentStats {
        self.agent.stats()
    }

    /// Counters of its connection keeping.
    pub fn link_stats(&self) -> LinkStats {
        self.agent.link_stats()
    }

    /// Counters of its sessions.
    pub fn session_stats(&self) -> SessionStats {
        self.agent.session_stats()
    }

    /// Tells the addresses of this host's interfaces: [`Agent::set_interfaces`].
    pub fn set_interfaces(&mut self, interfaces: &[crate::punch::Interface]) {
        self.agent.set_interfaces(interfaces);
    }

    /// Counters of its QUIC pool.
    pub fn pool_stats(&self) -> PoolStats {
        self.agent.pool_stats()
    }

    /// Where it stands.
    pub fn status(&self) -> AgentStatus {
        self.agent.status()
    }

    /// Streams at this moment.
    pub fn streams(&self) -> usize {
        self.stack.streams()
    }

    /// Bytes that the buffers of all connections hold at this moment.
    pub fn buffered(&self) -> usize {
        self.stack.buffered()
    }

    /// UDP flows at this moment.
    pub fn udp_flows(&self) -> usize {
        self.stack.udp_flows()
    }

    /// Replaces the addresses of the intermediate, after its name was resolved again.
    pub fn set_intermediate_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.agent.set_intermediate_addresses(addresses);
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// Moves packets between agent and stack, as far as both can.
    fn pump(&mut self, now: Instant) {
        let now = self.advance(now);
        while let Some(event) = self.agent.poll_event() {
            self.stack.on_link(&event, now);
            self.tell(ForwardEvent::Link(event));
        }
        while let Some(packet) = self.agent.take_packet() {
            self.stack.handle_packet(packet, now);
        }
        while self.agent.space() > 0 {
            let agent = &self.agent;
            let Some(packet) = self.stack.poll_packet(&|service| agent.service_mtu(service), now) else {
                break;
            };
            // The reasons are counted there; TCP repeats what did not pass.
            let _ = self.agent.send_packet(&packet, now);
        }
        while let Some(event) = self.stack.poll_event() {
            self.tell(event);
        }
        self.go_on_ending(now);
    }

    /// The next step of the orderly end, when it is time.
    fn go_on_ending(&mut self, now: Instant) {
        let (until, is_draining) = match self.end {
            End::NotYet | End::Goodbye => return,
            End::Draining(until) => (until, true),
            End::Leaving(until) => (until, false),
        };
        // The goodbye would overtake what waits: the last acknowledgement of a stream, or its reset.
        let is_over = self.stack.is_empty() && !self.agent.has_unsent();
        if is_over || (now >= until && !is_draining) {
            self.say_goodbye(now);
        } else if now >= until {
            self.stack.abort_running(now);
            self.end = End::Leaving(now + ENDING);
        }
    }

    fn say_goodbye(&mut self, now: Instant) {
        self.end = End::Goodbye;
        self.stack.abort_all(now);
        self.agent.shut_down(now);
    }

    fn tell(&mut self, event: ForwardEvent) {
        if self.events.len() >= EVENT_QUEUE {
            self.events.pop_front();
            self.events_dropped += 1;
        }
        self.events.push_back(event);
    }
}

impl<Q: Provider> Machine for Forwarder<Q> {
    type Event = ForwardEvent;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        let forward = self.agent.handle_datagram(received, now);
        self.pump(now);
        forward
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.agent.handle_timeout(now);
        self.stack.handle_timeout(now);
        self.pump(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        let now = self.advance(now);
        if self
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= now && deadline.wake != Wake::QueuedOutput)
        {
            self.handle_timeout(now);
        }
        self.pump(now);
        if let Some(transmit) = self.agent.poll_transmit(buf, now) {
            return Some(transmit);
        }
        // What was sent has made room.
        self.pump(now);
        self.agent.poll_transmit(buf, now)
    }

    fn poll_event(&mut self) -> Option<ForwardEvent> {
        if self.events.is_empty() {
            self.pump(self.now);
        }
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let queued = !self.events.is_empty()
            || self.stack.has_requests()
            || (self.stack.has_packets() && self.agent.space() > 0);
        if queued {
            return Some(Deadline {
                at: self.now,
                wake: Wake::QueuedOutput,
            });
        }
        let end = match self.end {
            End::Draining(until) | End::Leaving(until) => Some(until),
            End::NotYet | End::Goodbye => None,
        };
        let stack = [self.stack.poll_timeout(), end].into_iter().flatten().min();
        let stack = stack.map(|at| Deadline {
            at,
            wake: Wake::Netstack,
        });
        Deadline::earliest(self.agent.poll_timeout(), stack)
    }

    fn shut_down(&mut self, now: Instant) {
        let now = self.advance(now);
        if self.end != End::NotYet {
            return;
        }
        self.stack.close(now);
        self.end = End::Draining(now + self.drain);
        self.pump(now);
    }

    fn is_drained(&self) -> bool {
        self.end == End::Goodbye && self.agent.is_drained()
    }
}

impl<Q: Provider> Locals for Forwarder<Q> {
    fn accept(&mut self, listener: ListenerIndex, peer: Option<SocketAddr>, now: Instant) -> Option<FlowId> {
        let now = self.advance(now);
        self.stack.accept(listener, peer, now)
    }

    fn poll_local(&mut self) -> Option<ToLocal<'_>> {
        self.stack.poll_local()
    }

    fn handle_local(&mut self, from: FromLocal<'_>, now: Instant) {
        let now = self.advance(now);
        self.stack.handle_local(from, now);
    }

    fn drain_stream(&mut self, flow: FlowId, now: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let now = self.advance(now);
        self.stack.drain_stream(flow, now, take)
    }

    fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        let now = self.advance(now);
        self.stack.fill_stream(flow, now, fill)
    }
}
