//! The intermediate: accepts clients, registers them, tells them their observed address, and relays `ztna-v1` packets.
//!
//! It decides who may register (asking an [`Authority`]), where each packet goes (the registry, by service), and to
//! whom each reply belongs (the flow table). A relayed packet moves from one connection to another as the buffer it
//! arrived in. It never forwards anything that is not an IP packet: control and data share one byte space, and a client
//! that could send control bytes through it could forge the intermediate's own messages.
//!
//! A client that agreed on `ztna-v2` speaks on a control stream (`control`), holds its registrations by lease
//! (`registering`), and may be given relay channels (`channels`), whose frames the intermediate forwards without a key. Packets of
//! v1 peers travel on the same connection, always with a service before them.

mod channels;
mod control;
mod outbox;
mod registering;
mod relay;
mod report;
mod session;
mod signalling;
mod signals;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Instant;

pub use report::{ChannelRefusals, ControlStats, Dropped, IntermediateEvent, IntermediateStats};

use crate::channel::{ChannelStats, ChannelTable};
use crate::config::IntermediateConfig;
use crate::config::limits::{EVENT_QUEUE, MAX_UDP_PAYLOAD};
use crate::id::ConnId;
use crate::link::CODE_GOODBYE;
use crate::machine::{Deadline, Forward, FourTuple, Machine, Received, Transmit, Wake, canonical};
use crate::quic::identity::{Authority, Identity};
use crate::quic::{ALPN_V2, Admission, CloseReason, Pool, PoolConfig, PoolEvent, PoolStats, Provider};
use crate::registration::Registry;
use crate::rng::{Rng, Seed};
use crate::routing::flow::{FlowStats, FlowTable};
use crate::timer::DeadlineIndex;
use crate::wire::control::ControlMessage;
use crate::wire::datagram::write_observed;
pub use signalling::{SESSION_LIFETIME, SignallingStats};

use outbox::Outbox;
use session::{Allowance, Control, Session};
use signals::Signals;

/// The intermediate's machine.
#[derive(Debug)]
pub struct Intermediate<Q: Provider> {
    pool: Pool<Q>,
    registry: Registry,
    flows: FlowTable,
    channels: ChannelTable,
    /// Frames that came inside control connections and leave bare.
    outbox: Outbox,
    authority: Box<dyn Authority + Send>,
    /// By the index of the connection.
    sessions: Vec<Option<Session>>,
    /// When the first lease of each client may have run out, by the index of the connection.
    leases: DeadlineIndex,
    /// The bounds of one client's control stream.
    allowance: Allowance,
    /// The identification of the next packet that is cut.
    fragment_id: u32,
    signals: Signals,
    events: VecDeque<IntermediateEvent>,
    stats: IntermediateStats,
    shut_down: bool,
    /// When clients that were told of the end are left.
    leaving: Option<Instant>,
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
            channels: ChannelTable::new(limits.channels, &mut rng),
            outbox: Outbox::default(),
            leases: DeadlineIndex::default(),
            allowance: Allowance::for_services(limits.services_per_connection),
            pool: Pool::new(provider, pool_config, rng.fork(), now),
            authority,
            sessions: Vec::new(),
            fragment_id: 0,
            signals: Signals::new(&mut rng),
            events: VecDeque::new(),
            stats: IntermediateStats::default(),
            shut_down: false,
            leaving: None,
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

    /// Relay channels that are open.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Counters of the relay channels.
    pub fn channel_stats(&self) -> ChannelStats {
        self.channels.stats()
    }

    fn process(&mut self, now: Instant) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) => self.on_established(id),
                PoolEvent::PathChanged(id, path) => self.on_moved(id, path),
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
        let control = (self.pool.alpn(id) == ALPN_V2)
            .then(|| Box::new(Control::new(self.allowance.of_a_new_client(self.pool.now()))));
        let speaks_v1 = control.is_none();
        self.sessions[index] = Some(Session {
            id,
            identity,
            introduction: None,
            asks_who: false,
            control,
        });
        let Some(path) = self.pool.path(id) else {
            return;
        };
        let address = path.remote;
        self.tell(IntermediateEvent::Connected { client: id, address });
        if speaks_v1 {
            self.observe(id, address);
        }
    }

    fn on_moved(&mut self, id: ConnId, path: FourTuple) {
        self.channels.set_path(id, path);
        self.observe(id, path.remote);
    }

    /// Tells a client where it is seen (QAD). v1 has no form for IPv6 addresses.
    fn observe(&mut self, id: ConnId, address: SocketAddr) {
        let address = canonical(address);
        let sent = match self.session(id).map(|session| session.control.as_deref()) {
            Some(Some(control)) => {
                control.role.is_some() && self.say(id, &ControlMessage::ObservedAddress { address })
            }
            Some(None) | None => {
                let IpAddr::V4(ip) = address.ip() else { return };
                let message = write_observed(SocketAddrV4::new(ip, address.port()));
                self.pool.send_datagram(id, message.into()).is_ok()
            }
        };
        self.stats.observed_sent += u64::from(sent);
    }

    fn on_closed(&mut self, id: ConnId, reason: CloseReason) {
        let known = self
            .sessions
            .get_mut(id.index as usize)
            .and_then(|slot| slot.take_if(|session| session.id == id));
        if known.is_none() {
            return;
        }
        self.leases.set(id.index, None);
        self.registry.remove(id);
        self.flows.remove(id);
        let closed = self.channels.remove_client(id);
        self.tell_closed(closed);
        self.forget_signals(id);
        self.tell(IntermediateEvent::Gone { client: id, reason });
    }

    fn session(&self, id: ConnId) -> Option<&Session> {
        self.sessions
            .get(id.index as usize)?
            .as_ref()
            .filter(|session| session.id == id)
    }

    fn session_mut(&mut self, id: ConnId) -> Option<&mut Session> {
        self.sessions
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|session| session.id == id)
    }

    /// Whether a client speaks v2.
    fn speaks_v2(&self, id: ConnId) -> bool {
        self.session(id).is_some_and(|session| session.control.is_some())
    }

    /// Time running backwards stands still: what was granted for a time ends by the same clock that QUIC goes by.
    fn clamped(&self, now: Instant) -> Instant {
        self.pool.now().max(now)
    }

    /// When something other than QUIC is wanted.
    fn own_timeout(&self) -> Option<Instant> {
        let timers = [
            self.leases.earliest(),
            self.channels.poll_timeout(),
            self.signals.sessions.poll_timeout(),
            self.leaving,
        ];
        timers.into_iter().flatten().min()
    }

    /// Ends what was granted for a time.
    fn expire(&mut self, now: Instant) {
        self.expire_leases(now);
        self.expire_signals(now);
        let closed = self.channels.handle_timeout(now);
        self.tell_closed(closed);
        if self.leaving.take_if(|at| *at <= now).is_some() {
            self.pool.close_all(CODE_GOODBYE, b"shutting down", now);
        }
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
        let now = self.clamped(now);
        let forward = self.sort(received, now);
        self.process(now);
        forward
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.clamped(now);
        self.pool.handle_timeout(now);
        self.process(now);
        self.expire(now);
        self.process(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        let now = self.clamped(now);
        loop {
            if self
                .poll_timeout()
                .is_some_and(|deadline| deadline.at <= now && deadline.wake != Wake::QueuedOutput)
            {
                self.handle_timeout(now);
            }
            let transmit = self.outbox.poll_transmit(buf);
            if let Some(transmit) = transmit.or_else(|| self.pool.poll_transmit(buf, now)) {
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
        if !self.events.is_empty() || !self.outbox.is_empty() {
            return Some(Deadline {
                at: self.pool.now(),
                wake: Wake::QueuedOutput,
            });
        }
        let own = self.own_timeout().map(|at| Deadline {
            at,
            wake: Wake::Expiry,
        });
        Deadline::earliest(self.pool.poll_timeout(), own)
    }

    /// Clients of v1 are told at once. Those of v2 hear of it a moment before, and may leave first.
    fn shut_down(&mut self, now: Instant) {
        let now = self.clamped(now);
        self.shut_down = true;
        if !self.announce_end(now) {
            self.pool.close_all(CODE_GOODBYE, b"shutting down", now);
        }
        self.process(now);
    }

    fn is_drained(&self) -> bool {
        self.shut_down && self.leaving.is_none() && self.outbox.is_empty() && self.pool.is_drained()
    }
}
