//! The agent's sessions: which service goes through which, and how they begin and end.
//!
//! A service gets its session when the first packet for it comes: a channel is asked for, a connection opened in it, and when the
//! connector at its other end has shown a certificate that names the service, the packets that waited go out. Services of one
//! connector share a session. Where a connector speaks v1 only, packets go wrapped as they always did; where it speaks v2 they
//! never do, so that nobody on the way can read them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Agent;
use crate::config::SessionConfig;
use crate::failover::PathKind;
use crate::id::{ConnId, ServiceIndex};
use crate::link::LinkNews;
use crate::machine::SendError;
use crate::messages::MessageStream;
use crate::punch::Side;
use crate::quic::identity::{Authority as _, Capacity, Identity, SanAuthority};
use crate::quic::{CloseReason, Datagram, DatagramError, MAX_RAW_LEN, Provider, Via};
use crate::rng::Rng;
use crate::routing::packet;
use crate::session::table::Table;
use crate::session::{
    CODE_NOT_AUTHORISED, CODE_OVER, CODE_REPLACED, Session, SessionNews, SessionStats, Surroundings,
};
use crate::wire::check::claimed_session;
use crate::wire::control::{Refusal, SessionMessage};

/// Packets of one service that wait for its session. A session is there after some three round trips; whoever sends more in
/// that time sends what its congestion control would not.
const EARLY: usize = 64;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the handshake in a channel may take before it is tried again inside the control connection: bare frames do not pass
/// everywhere that QUIC does.
const HANDSHAKE_BARE: Duration = Duration::from_secs(1);

/// How long it may take at all.
const HANDSHAKE: Duration = Duration::from_secs(6);

/// The pause before a service is asked for again that was refused for a reason that may pass, unless the refusal says.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How packets reach a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody has asked.
    Unknown,
    /// A channel was asked for.
    Asked { since: Instant },
    /// Through this session, or one that is being opened.
    Through(usize),
    /// Wrapped, through an intermediate that reads them: the connector speaks v1.
    Wrapped { until: Option<Instant> },
    /// Not at all, for a while.
    Refused { reason: Refusal, until: Option<Instant> },
}

/// What the agent keeps of a session.
#[derive(Debug)]
struct Entry {
    /// The number of our end of the channel.
    channel: Option<u32>,
    services: BTreeSet<ServiceIndex>,
    /// What the connector has shown, once it has.
    identity: Option<Identity>,
    begun: Instant,
    /// When a session that has lost its channel asks for another.
    ask_at: Option<Instant>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The first connection is being opened.
    Opening {
        id: ConnId,
        until: Instant,
        inside: bool,
    },
    Live(Box<Session>),
}

impl Entry {
    fn session(&self) -> Option<&Session> {
        match &self.stage {
            Stage::Live(session) => Some(session),
            Stage::Opening { .. } => None,
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Live(session) => Some(session),
            Stage::Opening { .. } => None,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening { until, .. } => Some(*until),
            Stage::Live(session) => [session.poll_timeout(), self.ask_at].into_iter().flatten().min(),
        }
    }
}

/// Where a service stands with its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServicePath {
    /// Nothing was sent to it yet, or it is not reachable.
    #[default]
    None,
    /// A session is being opened.
    Opening,
    /// Through an intermediate that reads the packets: the connector speaks v1.
    Wrapped,
    /// Through a channel of the intermediate, which cannot read the packets.
    Relayed,
    /// Straight to this address.
    Direct(SocketAddr),
}

/// All sessions of an agent.
#[derive(Debug)]
pub(super) struct Sessions {
    /// What a connector has to show; `None` if this agent has no part in sessions.
    authority: Option<SanAuthority>,
    table: Table<Entry>,
    channels: BTreeMap<u32, usize>,
    /// Which service a channel was asked for.
    requests: BTreeMap<u32, ServiceIndex>,
    /// Channels whose connections are saying goodbye, and until when.
    farewells: VecDeque<(Instant, u32)>,
    ways: Vec<Way>,
    early: Vec<VecDeque<(Instant, Datagram)>>,
    around: Surroundings,
    /// The session that took a packet last.
    last: Option<usize>,
    /// Counters of sessions that are over.
    retired: SessionStats,
}

impl Sessions {
    pub(super) fn new(config: Option<SessionConfig>, local: SocketAddr, services: usize, rng: Rng) -> Self {
        Self {
            authority: config.map(|config| config.trust),
            table: Table::new(rng),
            channels: BTreeMap::new(),
            requests: BTreeMap::new(),
            farewells: VecDeque::new(),
            ways: vec![Way::Unknown; services],
            early: (0..services).map(|_| VecDeque::new()).collect(),
            around: Surroundings {
                local,
                hosts: Vec::new(),
                observed: None,
                direct: config.is_some_and(|config| config.direct),
            },
            last: None,
            retired: SessionStats::default(),
        }
    }

    pub(super) fn stats(&self) -> SessionStats {
        let live = self.table.iter().filter_map(|(_, entry)| entry.session());
        live.fold(self.retired, |sum, session| sum.plus(session.stats()))
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let farewell = self.farewells.front().map(|(at, _)| *at);
        [self.table.earliest(), farewell].into_iter().flatten().min()
    }

    fn way(&self, service: ServiceIndex) -> Way {
        self.ways
            .get(usize::from(service.0))
            .copied()
            .unwrap_or(Way::Unknown)
    }

    fn set_way(&mut self, service: ServiceIndex, way: Way) {
        if let Some(place) = self.ways.get_mut(usize::from(service.0)) {
            *place = way;
        }
    }

    /// The live session that packets of a service go through.
    fn live(&self, service: ServiceIndex) -> Option<&Session> {
        match self.way(service) {
            Way::Through(at) => self.table.get(at)?.session(),
            Way::Unknown | Way::Asked { .. } | Way::Wrapped { .. } | Way::Refused { .. } => None,
        }
    }
}

impl<Q: Provider> Agent<Q> {
    /// Tells the addresses of this host's interfaces, those of the tunnel left out. A peer on the same network finds it by them.
    pub fn set_interfaces(&mut self, interfaces: &[crate::punch::Interface]) {
        let port = self.sessions.around.local.port();
        let routes = &self.routes;
        let hosts =
            crate::punch::host_candidates(interfaces, port, |address| routes.service(address).is_some());
        if self.sessions.around.hosts == hosts {
            return;
        }
        self.sessions.around.hosts = hosts;
        self.tell_candidates();
    }

    fn tell_candidates(&mut self) {
        let now = self.pool.now();
        for at in self.sessions.table.indices() {
            let around = &self.sessions.around;
            if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
                session.tell_candidates(&mut self.pool, around, now);
            }
            self.drive(at, now);
        }
    }

    /// How packets reach a service now.
    pub(super) fn service_path(&self, service: ServiceIndex) -> ServicePath {
        match self.sessions.way(service) {
            Way::Unknown | Way::Refused { .. } if self.link.is_v2() => ServicePath::None,
            Way::Unknown if self.link.is_registered(service) => ServicePath::Wrapped,
            Way::Unknown | Way::Refused { .. } => ServicePath::None,
            Way::Asked { .. } => ServicePath::Opening,
            Way::Wrapped { .. } => ServicePath::Wrapped,
            Way::Through(_) => match self.sessions.live(service) {
                None => ServicePath::Opening,
                Some(session) => match (session.path(), session.direct_remote()) {
                    (Some(PathKind::Direct), Some(remote)) => ServicePath::Direct(remote),
                    (Some(PathKind::Relayed | PathKind::Direct), _) => ServicePath::Relayed,
                    (None, _) => ServicePath::None,
                },
            },
        }
    }

    /// The session of a service, for status pages.
    pub(super) fn service_session(&self, service: ServiceIndex) -> Option<&Session> {
        self.sessions.live(service)
    }

    /// Whether packets of a service go through a session, not through the link.
    pub(super) fn uses_sessions(&self, service: ServiceIndex) -> bool {
        match self.sessions.way(service) {
            Way::Through(_) => true,
            Way::Wrapped { until } => until.is_some_and(|at| at <= self.pool.now()),
            Way::Unknown | Way::Asked { .. } | Way::Refused { .. } => {
                self.link.is_v2() && self.sessions.authority.is_some()
            }
        }
    }

    /// The largest packet to a service now; the guess for one without a session is what a session will carry.
    pub(super) fn session_mtu(&self, service: ServiceIndex) -> Option<usize> {
        if let Some(session) = self.sessions.live(service) {
            return session.max_packet_len(&self.pool);
        }
        self.guess(|id| self.pool.max_datagram_len(id))
    }

    /// What a session through the link's intermediate will carry.
    fn guess(&self, size: impl Fn(ConnId) -> Option<usize>) -> Option<usize> {
        size(self.link.connection()?)?.checked_sub(2 * crate::wire::channel::PREFIX_LEN)
    }

    /// The largest packet that all sessions carry, for whoever remembers it.
    pub(super) fn session_path_mtu(&self) -> Option<usize> {
        let guess = self.guess(|id| self.pool.path_datagram_len(id));
        let live = self.sessions.table.iter().filter_map(|(_, entry)| {
            let session = entry.session()?;
            session.path_packet_len(&self.pool)
        });
        live.chain(guess).min()
    }

    /// Whether the session that took a packet last takes another.
    pub(super) fn session_has_room(&self) -> bool {
        let last = self
            .sessions
            .last
            .and_then(|at| self.sessions.table.get(at)?.session());
        last.is_none_or(|session| session.path().is_none() || session.space(&self.pool) > 0)
    }

    /// The packets that every session takes now. The sessions of one host wait for each other, as its services did when they shared
    /// one connection.
    pub(super) fn session_space(&self) -> Option<usize> {
        let live = self
            .sessions
            .table
            .iter()
            .filter_map(|(_, entry)| entry.session());
        let usable = live.filter(|session| session.path().is_some());
        usable.map(|session| session.space(&self.pool)).min()
    }

    /// Whether packets wait in a session for their turn.
    pub(super) fn session_has_unsent(&self) -> bool {
        let mut live = self
            .sessions
            .table
            .iter()
            .filter_map(|(_, entry)| entry.session());
        live.any(|session| {
            session.path().is_some() && session.space(&self.pool) < crate::config::limits::SEND_QUEUE
        }) || self.sessions.early.iter().any(|early| !early.is_empty())
    }

    /// Sends a packet through the service's session, or lets it wait for one.
    pub(super) fn send_through(
        &mut self,
        service: ServiceIndex,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        match self.sessions.way(service) {
            Way::Through(at) => {
                let live = self.sessions.table.get_mut(at).and_then(Entry::session_mut);
                let Some(session) = live else {
                    return self.keep_early(service, packet, now);
                };
                let room = session.max_packet_len(&self.pool).ok_or(SendError::NotReady)?;
                if packet.len() > room {
                    let path = session.path_packet_len(&self.pool).unwrap_or(0);
                    // While the path is being measured nobody is told: a host would keep to it for minutes.
                    if packet.len() <= path {
                        return Err(SendError::NotReady);
                    }
                    self.answer_too_big(packet, path);
                    return Err(SendError::TooLarge);
                }
                self.sessions.last = Some(at);
                // The one allocation per packet of this side: the buffer that QUIC keeps until the packet is sent.
                let result = session.send(&mut self.pool, packet.to_vec().into(), now);
                if session.take_rearm() {
                    self.set_session_timer(at, now);
                }
                result.map_err(|error| match error {
                    DatagramError::TooLarge => SendError::TooLarge,
                    DatagramError::Full => SendError::Full,
                    DatagramError::NotReady => SendError::NotReady,
                })
            }
            Way::Asked { since, .. } if now.saturating_duration_since(since) < PATIENCE => {
                self.keep_early(service, packet, now)
            }
            Way::Refused { until: None, .. } => {
                // Never on this connection.
                Err(SendError::NotReady)
            }
            Way::Refused {
                reason,
                until: Some(until),
            } if now < until => {
                if reason == Refusal::NoConnector {
                    self.answer_unreachable(packet);
                }
                Err(SendError::NotReady)
            }
            Way::Unknown | Way::Asked { .. } | Way::Refused { .. } | Way::Wrapped { .. } => {
                self.ask_for_channel(service, now)?;
                self.keep_early(service, packet, now)
            }
        }
    }

    fn ask_for_channel(&mut self, service: ServiceIndex, now: Instant) -> Result<(), SendError> {
        if !self.link.is_registered(service) {
            return Err(SendError::NotReady);
        }
        let name = self
            .services
            .get(usize::from(service.0))
            .ok_or(SendError::NoRoute)?
            .id
            .clone();
        let request = self
            .link
            .open_channel(&mut self.pool, &name, now)
            .ok_or(SendError::NotReady)?;
        self.sessions.requests.insert(request, service);
        self.sessions.set_way(service, Way::Asked { since: now });
        Ok(())
    }

    fn keep_early(&mut self, service: ServiceIndex, packet: &[u8], now: Instant) -> Result<(), SendError> {
        let Some(early) = self.sessions.early.get_mut(usize::from(service.0)) else {
            return Err(SendError::NoRoute);
        };
        if early.len() >= EARLY {
            return Err(SendError::NotReady);
        }
        early.push_back((now, packet.to_vec().into()));
        Ok(())
    }

    fn send_early(&mut self, service: ServiceIndex, now: Instant) {
        let Some(early) = self.sessions.early.get_mut(usize::from(service.0)) else {
            return;
        };
        for (since, packet) in std::mem::take(early) {
            if now.saturating_duration_since(since) < PATIENCE {
                // The reasons are the same as for any other packet, and were counted when it was taken.
                let _ = self.send_again(service, &packet, now);
            } else {
                self.stats.not_ready += 1;
            }
        }
    }

    /// Sends what had waited, on whatever way was found.
    fn send_again(&mut self, service: ServiceIndex, packet: &[u8], now: Instant) -> Result<(), SendError> {
        if self.uses_sessions(service) {
            self.send_through(service, packet, now)
        } else {
            self.send_wrapped(service, packet, now)
        }
    }

    fn drop_early(&mut self, service: ServiceIndex) {
        if let Some(early) = self.sessions.early.get_mut(usize::from(service.0)) {
            self.stats.not_ready += early.len() as u64;
            early.clear();
        }
    }

    fn answer_unreachable(&mut self, original: &[u8]) {
        if let Some(answer) = packet::nobody_there(original) {
            self.queue_inbound(answer.into());
        }
    }

    /// Takes what the link has heard about channels.
    pub(super) fn take_link_news(&mut self, now: Instant) {
        while let Some(news) = self.link.poll_news() {
            match news {
                // Only connectors hear of v1 agents.
                LinkNews::Up | LinkNews::Signal(_) | LinkNews::OfferFrom { .. } => {}
                LinkNews::Down => self.on_link_down(now),
                LinkNews::Observed(address) => {
                    self.sessions.around.observed = Some(address);
                    self.tell_candidates();
                }
                LinkNews::ChannelOpened { request, channel, .. } => {
                    let service = request.and_then(|request| self.sessions.requests.remove(&request));
                    match service {
                        Some(service) => self.on_channel(service, channel, now),
                        // Nobody waits for it any more.
                        None => self.link.close_channel(&mut self.pool, channel, now),
                    }
                }
                LinkNews::ChannelRefused {
                    request,
                    reason,
                    retry,
                } => {
                    if let Some(service) = self.sessions.requests.remove(&request) {
                        self.on_channel_refused(service, reason, retry, now);
                    }
                }
                LinkNews::ChannelClosed { channel, .. } => self.on_channel_closed(channel, now),
            }
        }
    }

    fn on_link_down(&mut self, now: Instant) {
        self.sessions.around.observed = None;
        self.sessions.requests.clear();
        for (_, channel) in std::mem::take(&mut self.sessions.farewells) {
            self.pool.remove_carrier(channel);
        }
        for channel in std::mem::take(&mut self.sessions.channels).into_keys() {
            self.pool.remove_carrier(channel);
        }
        for index in 0..self.sessions.ways.len() {
            let service = ServiceIndex(index as u16);
            match self.sessions.way(service) {
                Way::Asked { .. } | Way::Refused { .. } | Way::Wrapped { .. } => {
                    self.sessions.set_way(service, Way::Unknown);
                    self.drop_early(service);
                }
                Way::Unknown | Way::Through(_) => {}
            }
        }
        for at in self.sessions.table.indices() {
            self.lose_channel(at, now);
        }
    }

    /// The channel of a session is gone: what travelled in it is over.
    fn lose_channel(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        entry.channel = None;
        match &mut entry.stage {
            Stage::Opening { id, .. } => {
                let id = *id;
                self.pool.discard(id);
                self.end(at, now);
            }
            Stage::Live(session) => {
                if let Some(id) = session.relayed() {
                    self.pool.discard(id);
                    session.on_closed(id, now);
                    self.sessions.table.disown(id);
                }
                self.drive(at, now);
            }
        }
    }

    fn on_channel(&mut self, service: ServiceIndex, channel: u32, now: Instant) {
        self.sessions.farewells.retain(|(_, known)| *known != channel);
        if let Some(at) = self.sessions.channels.get(&channel).copied() {
            // Another service of the same connector, as the intermediate says: its certificate has to say so too.
            if !self.is_connector_of(at, service) {
                self.refuse(service, Refusal::NotAuthorised, Some(now + 10 * ASK_AGAIN));
                return;
            }
            self.sessions.set_way(service, Way::Through(at));
            if let Some(entry) = self.sessions.table.get_mut(at) {
                entry.services.insert(service);
            }
            self.use_service(at, service, now);
            self.send_early(service, now);
            return;
        }
        let Some(path) = self.link.path() else { return };
        self.pool.set_carrier(channel, path, None);
        let Ok(id) = self.pool.connect_session(Via::Carrier(channel), now) else {
            self.pool.remove_carrier(channel);
            self.refuse(service, Refusal::AtCapacity, Some(now + ASK_AGAIN));
            return;
        };
        let at = self.sessions.table.insert(Entry {
            channel: Some(channel),
            services: BTreeSet::from([service]),
            identity: None,
            begun: now,
            ask_at: None,
            stage: Stage::Opening {
                id,
                until: now + HANDSHAKE_BARE,
                inside: false,
            },
        });
        self.sessions.table.own(id, at);
        self.sessions.table.set_timer(at, Some(now + HANDSHAKE_BARE));
        self.sessions.channels.insert(channel, at);
        // A session that has lost its channel carries the service until this one has shown what it is.
        if self.sessions.live(service).is_none() {
            self.sessions.set_way(service, Way::Through(at));
        }
    }

    /// Whether the connector of a session may publish a service. One that has not shown anything yet is asked when it does.
    fn is_connector_of(&self, at: usize, service: ServiceIndex) -> bool {
        let Some(entry) = self.sessions.table.get(at) else {
            return false;
        };
        match &entry.stage {
            Stage::Opening { .. } => true,
            Stage::Live(_) => self.may_publish(entry.identity.as_ref(), service),
        }
    }

    /// Whether a certificate names a service as its connector's.
    fn may_publish(&self, identity: Option<&Identity>, service: ServiceIndex) -> bool {
        let known = self.services.get(usize::from(service.0));
        let authority = self.sessions.authority;
        known
            .zip(authority)
            .is_some_and(|(service, authority)| authority.permits(identity, Capacity::Connector, &service.id))
    }

    fn on_channel_refused(
        &mut self,
        service: ServiceIndex,
        reason: Refusal,
        retry: Option<Duration>,
        now: Instant,
    ) {
        let until = retry.map(|retry| now + retry);
        if self.sessions.live(service).is_some() {
            // It goes on without a channel, and asks again.
            return;
        }
        if reason == Refusal::PeerIsV1 {
            self.sessions.set_way(service, Way::Wrapped { until });
            self.send_early(service, now);
            return;
        }
        self.refuse(service, reason, until);
    }

    fn refuse(&mut self, service: ServiceIndex, reason: Refusal, until: Option<Instant>) {
        self.sessions.set_way(service, Way::Refused { reason, until });
        if reason == Refusal::NoConnector {
            let early = self.sessions.early.get_mut(usize::from(service.0));
            for (_, packet) in early.map(std::mem::take).into_iter().flatten() {
                self.stats.not_ready += 1;
                self.answer_unreachable(&packet);
            }
        }
        self.drop_early(service);
    }

    fn on_channel_closed(&mut self, channel: u32, now: Instant) {
        self.pool.remove_carrier(channel);
        if let Some(at) = self.sessions.channels.remove(&channel) {
            self.lose_channel(at, now);
        }
    }

    /// A connection that is not the link's is established. `false` if it is none of a session.
    pub(super) fn on_session_established(&mut self, id: ConnId, now: Instant) {
        let Some(at) = self.sessions.table.owner(id) else {
            return;
        };
        let identity = self
            .pool
            .peer_certificate(id)
            .and_then(Identity::from_certificate);
        let attempted = self
            .sessions
            .table
            .get(at)
            .and_then(Entry::session)
            .and_then(|session| session.attempted(id));
        if let Some(remote) = attempted {
            let same = |session: &&mut Session| {
                identity
                    .as_ref()
                    .is_some_and(|peer| peer.fingerprint() == session.fingerprint())
            };
            let session = self.sessions.table.get_mut(at).and_then(Entry::session_mut);
            match session.filter(same) {
                Some(session) => session.attach_direct(&mut self.pool, id, remote, now),
                None => self
                    .pool
                    .close(id, CODE_NOT_AUTHORISED, b"another certificate", now),
            }
            self.drive(at, now);
            return;
        }
        self.begin_session(at, id, identity.as_ref(), now);
    }

    /// The first connection, or one that takes the place of a lost one: the connector has to show that the services are its own.
    fn begin_session(&mut self, at: usize, id: ConnId, identity: Option<&Identity>, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let (services, begun, channel) = (entry.services.clone(), entry.begun, entry.channel);
        let refused: Vec<ServiceIndex> = services
            .iter()
            .copied()
            .filter(|service| !self.may_publish(identity, *service))
            .collect();
        for service in &refused {
            if let Some(entry) = self.sessions.table.get_mut(at) {
                entry.services.remove(service);
            }
            self.refuse(*service, Refusal::NotAuthorised, Some(now + 10 * ASK_AGAIN));
        }
        let fingerprint = identity.map_or(crate::quic::identity::Fingerprint([0; 32]), Identity::fingerprint);
        if refused.len() == services.len() {
            self.pool.close(
                id,
                CODE_NOT_AUTHORISED,
                b"the certificate names no such service",
                now,
            );
            self.end(at, now);
            return;
        }
        // A session that lost its relayed connection goes on with this one.
        let bereft = self.sessions.table.iter().find(|(_, entry)| {
            let session = entry.session();
            session.is_some_and(|session| session.fingerprint() == fingerprint && !session.has_relayed())
        });
        let stream = MessageStream::new(0);
        let at = if let Some((old, _)) = bereft {
            let moved = self.sessions.table.remove(at, None);
            if let (Some(moved), Some(entry)) = (moved, self.sessions.table.get_mut(old)) {
                entry.channel = channel;
                entry.ask_at = None;
                entry.services.extend(moved.services);
            }
            if let Some(channel) = channel {
                self.sessions.channels.insert(channel, old);
            }
            old
        } else {
            let number = self.sessions.table.fresh_number();
            let rng = self.sessions.table.fork_rng();
            let session = Session::new(Side::Agent, number, fingerprint, rng, begun, now);
            self.sessions.table.number(number, at);
            if let Some(entry) = self.sessions.table.get_mut(at) {
                entry.stage = Stage::Live(Box::new(session));
            }
            at
        };
        self.sessions.table.own(id, at);
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        entry.identity = identity.cloned();
        let services = entry.services.clone();
        if let Some(session) = entry.session_mut() {
            session.attach_relayed(&mut self.pool, id, stream, now);
        }
        for service in services {
            self.sessions.set_way(service, Way::Through(at));
            self.use_service(at, service, now);
            self.send_early(service, now);
        }
        self.drive(at, now);
    }

    /// Names a service, and the addresses by which this host knows it, to the connector.
    fn use_service(&mut self, at: usize, service: ServiceIndex, now: Instant) {
        let Some(known) = self.services.get(usize::from(service.0)) else {
            return;
        };
        let message = SessionMessage::UseService {
            service: known.id.as_str().to_owned(),
            addresses: known.addresses.clone(),
        };
        if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
            session.say(&mut self.pool, &message, now);
        }
    }

    /// Something came for a connection of a session.
    pub(super) fn on_session_readable(&mut self, id: ConnId, now: Instant) {
        let Some(at) = self.sessions.table.owner(id) else {
            self.pool.discard_streams(id);
            return;
        };
        let mut packets = std::mem::take(&mut self.arrived);
        let around = &self.sessions.around;
        if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
            session.on_readable(&mut self.pool, id, around, now, &mut |packet| {
                packets.push(packet)
            });
        }
        for packet in packets.drain(..) {
            self.take_in(packet);
        }
        self.arrived = packets;
        self.drive(at, now);
    }

    pub(super) fn on_session_closed(&mut self, id: ConnId, reason: &CloseReason, now: Instant) {
        let Some(at) = self.sessions.table.owner(id) else {
            return;
        };
        self.sessions.table.disown(id);
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        match &mut entry.stage {
            Stage::Opening { .. } => self.end(at, now),
            Stage::Live(session) => {
                let was_relayed = session.relayed() == Some(id);
                session.on_closed(id, now);
                // The peer has ended the session, not a path.
                let over = matches!(reason, CloseReason::Peer { application: true, code, .. } if *code != CODE_REPLACED);
                if over && was_relayed {
                    session.close(&mut self.pool, CODE_OVER, b"over", now);
                }
                self.drive(at, now);
            }
        }
    }

    /// Takes payloads beside QUIC: connectivity checks.
    pub(super) fn take_raw(&mut self, now: Instant) {
        let mut payload = [0; MAX_RAW_LEN];
        while let Some((len, path)) = self.pool.poll_raw(&mut payload) {
            let payload = payload.get(..len).unwrap_or_default();
            let at = claimed_session(payload)
                .ok()
                .and_then(|number| self.sessions.table.by_number(number));
            let session = at.and_then(|at| self.sessions.table.get_mut(at)?.session_mut());
            let genuine = session.is_some_and(|session| session.handle_check(payload, path, now));
            match at.filter(|_| genuine) {
                Some(at) => self.drive(at, now),
                None => self.sessions.retired.checks_refused += 1,
            }
        }
    }

    /// Lets sessions do what is due.
    pub(super) fn handle_session_timeouts(&mut self, now: Instant) {
        while let Some((_, channel)) = self.sessions.farewells.pop_front_if(|(at, _)| *at <= now) {
            self.pool.remove_carrier(channel);
            self.link.close_channel(&mut self.pool, channel, now);
        }
        while let Some(at) = self.sessions.table.pop_due(now) {
            let Some(entry) = self.sessions.table.get_mut(at) else {
                continue;
            };
            match entry.stage {
                Stage::Opening { id, until, inside } if until <= now => {
                    self.on_opening_late(at, id, inside, now);
                }
                Stage::Opening { .. } => self.set_session_timer(at, now),
                Stage::Live(_) => self.drive(at, now),
            }
        }
    }

    /// Nobody answers in the channel. Perhaps bare frames do not pass: once more, inside the control connection.
    fn on_opening_late(&mut self, at: usize, id: ConnId, inside: bool, now: Instant) {
        let channel = self.sessions.table.get(at).and_then(|entry| entry.channel);
        let (Some(channel), Some(path), Some(control)) = (channel, self.link.path(), self.link.connection())
        else {
            self.end(at, now);
            return;
        };
        if inside {
            self.pool.discard(id);
            self.end(at, now);
            return;
        }
        self.link.set_carriage(&mut self.pool, channel, true, now);
        self.pool.set_carrier(channel, path, Some(control));
        self.pool.ping(id);
        if let Some(entry) = self.sessions.table.get_mut(at) {
            entry.stage = Stage::Opening {
                id,
                until: now + HANDSHAKE,
                inside: true,
            };
        }
        self.sessions.table.set_timer(at, Some(now + HANDSHAKE));
    }

    /// After anything happened to a session: what is due is done, its news are taken, its timer is set; when it is over, it goes.
    fn drive(&mut self, at: usize, now: Instant) {
        let around = &self.sessions.around;
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let Some(session) = entry.session_mut() else {
            return;
        };
        session.handle_timeout(&mut self.pool, around, now);
        let opened = session.poll_opened();
        let has_news = session.has_news();
        let alive = session.is_alive();
        let wants_channel = !session.has_relayed();
        if let Some(id) = opened {
            self.sessions.table.own(id, at);
        }
        if has_news {
            self.take_session_news(at, now);
        }
        if !alive {
            self.end(at, now);
            return;
        }
        if wants_channel {
            self.reopen(at, now);
        }
        self.set_session_timer(at, now);
    }

    fn set_session_timer(&mut self, at: usize, now: Instant) {
        let due = self.sessions.table.get(at).and_then(Entry::poll_timeout);
        // Whatever is due now was done; what is due again at once waits for the next turn.
        let due = due.map(|due| due.max(now + Duration::from_micros(1)));
        self.sessions.table.set_timer(at, due);
    }

    fn take_session_news(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let services = entry.services.clone();
        let mut refused = Vec::new();
        while let Some(news) = entry.session_mut().and_then(Session::poll_news) {
            match news {
                SessionNews::Said(SessionMessage::ServiceRefused { service, reason }) => {
                    refused.push((service, reason));
                }
                SessionNews::Said(_) | SessionNews::Offered { .. } => {}
                SessionNews::Path { now: path, .. } => {
                    for service in &services {
                        self.link.tell_path(*service, path);
                    }
                }
            }
        }
        for (name, reason) in refused {
            let indexed = (0..).map(ServiceIndex).zip(&self.services);
            let mut named = indexed.filter(|(_, known)| known.id.as_str() == name);
            if let Some((service, _)) = named.next() {
                self.refuse(service, reason, Some(now + 10 * ASK_AGAIN));
            }
        }
    }

    /// A session that has only its direct connection left asks for a channel again, now and then.
    fn reopen(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        if entry.ask_at.is_some_and(|ask_at| now < ask_at) {
            return;
        }
        entry.ask_at = Some(now + ASK_AGAIN);
        let mut services = entry.services.iter().copied();
        let registered = services.find(|service| self.link.is_registered(*service));
        let name = registered.and_then(|service| {
            let known = self.services.get(usize::from(service.0))?;
            Some((service, known.id.clone()))
        });
        let Some((service, name)) = name else { return };
        if let Some(request) = self.link.open_channel(&mut self.pool, &name, now) {
            self.sessions.requests.insert(request, service);
        }
    }

    /// Takes the services of another configuration. Sessions go on with those that stay.
    pub(super) fn renumber_services(&mut self, before: &[crate::id::ServiceId], now: Instant) {
        let place = |old: usize| {
            let id = before.get(old)?;
            let new = self.services.iter().position(|service| service.id == *id)?;
            Some(ServiceIndex(new as u16))
        };
        let moved: Vec<Option<ServiceIndex>> = (0..before.len()).map(place).collect();
        let new_place = |service: ServiceIndex| moved.get(usize::from(service.0)).copied().flatten();
        let count = self.services.len();
        let ways = std::mem::replace(&mut self.sessions.ways, vec![Way::Unknown; count]);
        let early = std::mem::take(&mut self.sessions.early);
        self.sessions.early = (0..count).map(|_| VecDeque::new()).collect();
        for ((old, way), early) in (0..).map(ServiceIndex).zip(ways).zip(early) {
            let Some(new) = new_place(old) else { continue };
            self.sessions.set_way(new, way);
            if let Some(place) = self.sessions.early.get_mut(usize::from(new.0)) {
                *place = early;
            }
        }
        self.sessions.requests = std::mem::take(&mut self.sessions.requests)
            .into_iter()
            .filter_map(|(request, service)| Some((request, new_place(service)?)))
            .collect();
        for at in self.sessions.table.indices() {
            let Some(entry) = self.sessions.table.get_mut(at) else {
                continue;
            };
            let old = std::mem::take(&mut entry.services);
            entry.services = old.iter().copied().filter_map(new_place).collect();
            let (kept, is_live) = (entry.services.clone(), entry.session().is_some());
            let gone = old.iter().filter(|service| new_place(**service).is_none());
            let gone: Vec<String> = gone
                .filter_map(|service| before.get(usize::from(service.0)))
                .map(|id| id.as_str().to_owned())
                .collect();
            for service in gone {
                let message = SessionMessage::ReleaseService { service };
                if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
                    session.say(&mut self.pool, &message, now);
                }
            }
            // Their addresses may be others.
            for service in kept.iter().copied().filter(|_| is_live) {
                self.use_service(at, service, now);
            }
            if kept.is_empty() {
                if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
                    session.close(&mut self.pool, CODE_OVER, b"over", now);
                }
                self.end(at, now);
            }
        }
    }

    /// Says goodbye to every connector.
    pub(super) fn close_sessions(&mut self, now: Instant) {
        for at in self.sessions.table.indices() {
            if let Some(session) = self.sessions.table.get_mut(at).and_then(Entry::session_mut) {
                session.close(&mut self.pool, CODE_OVER, b"going away", now);
            }
            self.end(at, now);
        }
    }

    /// A session is over, or never came to be: its services have none, and may ask again.
    fn end(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get(at) else {
            return;
        };
        let number = entry.session().map(Session::number);
        let connections: Vec<ConnId> = match &entry.stage {
            Stage::Opening { id, .. } => vec![*id],
            Stage::Live(session) => session.connections().collect(),
        };
        for id in connections {
            self.sessions.table.disown(id);
        }
        let Some(mut entry) = self.sessions.table.remove(at, number) else {
            return;
        };
        if let Some(session) = entry.session_mut() {
            self.sessions.retired = self.sessions.retired.plus(session.stats());
        }
        if let Some(channel) = entry.channel {
            self.sessions.channels.remove(&channel);
            // Goodbyes of its connections may still have to travel in it; nothing else does.
            self.sessions.farewells.push_back((now + FAREWELL, channel));
        }
        for service in entry.services {
            if self.sessions.way(service) == Way::Through(at) {
                self.sessions.set_way(service, Way::Unknown);
                self.drop_early(service);
                self.link.tell_path(service, None);
            }
        }
        self.sessions.last.take_if(|last| *last == at);
    }
}

/// How long a channel stays open for the goodbyes of its connections.
const FAREWELL: Duration = Duration::from_millis(100);
