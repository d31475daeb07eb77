//! The connector's sessions: which agents may use which service, and whose packets are whose.
//!
//! An agent comes through a channel of the intermediate, which has let it open one; that proves nothing here. What it may do is
//! decided by its certificate, for each service that it names, and by the service's own list. Each service of a session has a lane of
//! its own through the netstack: what comes on it is that agent's, and what leaves it goes to that agent, whatever addresses other
//! agents use. Packets find their lane by the address that the agent said it uses for the service.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Connector;
use super::guests::SHARED_LINK;
use crate::config::SessionConfig;
use crate::failover::PathKind;
use crate::id::{ConnId, LaneId, ServiceId, ServiceIndex};
use crate::link::LinkNews;
use crate::messages::MessageStream;
use crate::punch::{Interface, Side, host_candidates};
use crate::quic::identity::{Authority as _, Capacity, Identity, SanAuthority};
use crate::quic::{ALPN_SESSION, CloseReason, Datagram, DatagramError, Origin, Provider};
use crate::rng::{Rng, SeededMap};
use crate::routing::table::endpoints;
use crate::session::table::Table;
use crate::session::{
    CODE_IDLE, CODE_NOT_AUTHORISED, CODE_OVER, CODE_PROTOCOL, CODE_REPLACED, Session, SessionNews,
    SessionStats, Surroundings,
};
use crate::v1peer::INVITATION;
use crate::wire::check::claimed_session;
use crate::wire::control::{Refusal, SessionMessage};

/// Sessions of a connector at one time; one beyond is refused.
pub const MAX_SESSIONS: usize = 10_000;

/// Channels at one time: one for each session, and those whose agent has not come yet.
const MAX_CHANNELS: usize = MAX_SESSIONS + 1_000;

/// Services that one session uses, and addresses of each.
const SERVICES: usize = 256;
const ADDRESSES: usize = 64;

/// A session in which nothing goes on for so long is closed; the agent opens another with its next packet.
const IDLE: Duration = Duration::from_secs(120);

/// Between two looks whether anything goes on.
const LOOK: Duration = Duration::from_secs(30);

/// An agent that has said nothing for so long after its handshake has nothing to say.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Packets of a session that came before it said what they are for, at most: streams and DATAGRAMs overtake each other.
const EARLY: usize = 64;

/// How long after its beginning a session's packets may come early.
const EARLY_TIME: Duration = Duration::from_secs(2);

/// Packets of one lane before it is another's turn.
const TURN: usize = 32;

/// What the connector keeps of a session.
#[derive(Debug)]
struct Entry {
    session: Session,
    identity: Identity,
    /// The number of our end of the channel.
    channel: Option<u32>,
    lanes: BTreeMap<ServiceIndex, LaneId>,
    routes: BTreeMap<IpAddr, LaneId>,
    /// Packets for addresses that the agent has not named yet.
    early: Vec<Datagram>,
    early_until: Instant,
    /// Lanes that may have packets, and wait for room.
    waiting: VecDeque<LaneId>,
    /// Since when nothing goes on.
    idle_since: Instant,
    look_at: Instant,
}

impl Entry {
    fn poll_timeout(&self) -> Option<Instant> {
        [self.session.poll_timeout(), Some(self.look_at)]
            .into_iter()
            .flatten()
            .min()
    }
}

/// All sessions of a connector.
#[derive(Debug)]
pub(super) struct Sessions {
    /// What an agent has to show; `None` if this connector has no part in sessions.
    authority: Option<SanAuthority>,
    table: Table<Entry>,
    /// Channels, and the session that each carries.
    channels: BTreeMap<u32, Option<usize>>,
    lanes: SeededMap<LaneId, usize>,
    /// Lanes that may have packets, and room for them.
    active: VecDeque<LaneId>,
    around: Surroundings,
    arrived: Vec<Datagram>,
    /// Counters of sessions that are over.
    retired: SessionStats,
}

impl Sessions {
    pub(super) fn new(config: Option<SessionConfig>, local: SocketAddr, mut rng: Rng) -> Self {
        Self {
            authority: config.map(|config| config.trust),
            lanes: rng.map(),
            table: Table::new(rng),
            channels: BTreeMap::new(),
            active: VecDeque::new(),
            around: Surroundings {
                local,
                hosts: Vec::new(),
                observed: None,
                direct: config.is_some_and(|config| config.direct),
            },
            arrived: Vec::new(),
            retired: SessionStats::default(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.table.earliest()
    }

    pub(super) fn has_turn(&self) -> bool {
        !self.active.is_empty()
    }

    pub(super) fn owns(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    pub(super) fn activate(&mut self, lane: LaneId) {
        self.active.push_back(lane);
    }
}

/// How many sessions there are, by the way that their packets take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Through a channel.
    pub relayed: usize,
    /// Straight.
    pub direct: usize,
}

impl<Q: Provider> Connector<Q> {
    /// Counters of its sessions.
    pub fn session_stats(&self) -> SessionStats {
        let live = self.sessions.table.iter();
        live.fold(self.sessions.retired, |sum, (_, entry)| {
            sum.plus(entry.session.stats())
        })
    }

    /// Its sessions now.
    pub fn sessions(&self) -> SessionCounts {
        let mut counts = SessionCounts::default();
        for (_, entry) in self.sessions.table.iter() {
            match entry.session.path() {
                Some(PathKind::Direct) => counts.direct += 1,
                Some(PathKind::Relayed) => counts.relayed += 1,
                None => {}
            }
        }
        counts
    }

    /// Tells the addresses of this host's interfaces. A peer on the same network finds it by them.
    pub fn set_interfaces(&mut self, interfaces: &[Interface]) {
        let port = self.sessions.around.local.port();
        let hosts = if self.takes_direct() {
            host_candidates(interfaces, port, |_| false)
        } else {
            Vec::new()
        };
        if self.sessions.around.hosts != hosts {
            self.sessions.around.hosts = hosts;
            self.tell_candidates();
        }
    }

    fn tell_candidates(&mut self) {
        let now = self.pool.now();
        for at in self.sessions.table.indices() {
            if let Some(entry) = self.sessions.table.get_mut(at) {
                entry
                    .session
                    .tell_candidates(&mut self.pool, &self.sessions.around, now);
            }
            self.drive(at, now);
        }
    }

    /// Whether agents may come directly, of whatever version.
    pub(super) fn takes_direct(&self) -> bool {
        self.sessions.authority.is_some() && self.sessions.around.direct
    }

    /// What is known of this host's addresses, as the intermediate of a link sees it.
    pub(super) fn surroundings(&self, link: u32) -> Surroundings {
        let mut around = self.sessions.around.clone();
        let service = link.checked_sub(SHARED_LINK + 1).map(usize::try_from);
        if let Some(Ok(service)) = service
            && let Some(Some(published)) = self.services.get(service)
        {
            around.observed = around.observed.or(published.link.observed());
        }
        around
    }

    /// Takes what the shared link has heard about channels.
    pub(super) fn take_link_news(&mut self) {
        let now = self.pool.now();
        while let Some(news) = self.uplink.link.poll_news() {
            match news {
                LinkNews::Up | LinkNews::ChannelRefused { .. } => {}
                LinkNews::Signal(_) | LinkNews::OfferFrom { .. } => self.on_signal(SHARED_LINK, news, now),
                LinkNews::Down => {
                    self.on_signal(SHARED_LINK, LinkNews::Down, now);
                    self.sessions.around.observed = None;
                    for channel in std::mem::take(&mut self.sessions.channels).into_keys() {
                        self.pool.remove_carrier(channel);
                    }
                    for at in self.sessions.table.indices() {
                        self.lose_channel(at, now);
                    }
                }
                LinkNews::Observed(address) => {
                    self.sessions.around.observed = self.takes_direct().then_some(address);
                    self.tell_candidates();
                }
                LinkNews::ChannelOpened { channel, .. } => self.on_channel(channel, now),
                LinkNews::ChannelClosed { channel, .. } => {
                    self.pool.remove_carrier(channel);
                    if let Some(Some(at)) = self.sessions.channels.remove(&channel) {
                        self.lose_channel(at, now);
                    }
                }
            }
        }
    }

    fn on_channel(&mut self, channel: u32, now: Instant) {
        if self.sessions.channels.contains_key(&channel) {
            // One more service of the same agent.
            return;
        }
        let path = self.uplink.link.path();
        let takes = self.sessions.authority.is_some() && self.sessions.channels.len() < MAX_CHANNELS;
        match path.filter(|_| takes) {
            Some(path) => {
                self.sessions.channels.insert(channel, None);
                self.pool.set_carrier(channel, path, None);
            }
            None => self.uplink.link.close_channel(&mut self.pool, channel, now),
        }
    }

    /// The channel of a session is gone: what travelled in it is over.
    fn lose_channel(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        entry.channel = None;
        if let Some(id) = entry.session.relayed() {
            self.pool.discard(id);
            entry.session.on_closed(id, now);
            self.sessions.table.disown(id);
        }
        self.drive(at, now);
    }

    /// An agent's connection is established: its first, or the one straight to here.
    pub(super) fn on_session_established(&mut self, id: ConnId, now: Instant) {
        let identity = self
            .pool
            .peer_certificate(id)
            .and_then(Identity::from_certificate);
        let origin = self.pool.origin(id);
        if origin == Origin::Invited(INVITATION) {
            return self.on_guest(id, identity.as_ref(), now);
        }
        // Whom v1 is enough for has to be let in as such.
        if self.pool.alpn(id) != ALPN_SESSION {
            return self.refuse(id, now);
        }
        match (origin, identity) {
            (Origin::Carrier(channel), Some(identity)) => self.begin_session(id, channel, identity, now),
            (Origin::Invited(number), Some(identity)) => self.on_direct(id, number, &identity, now),
            (Origin::Carrier(_) | Origin::Invited(_) | Origin::Plain, _) => self.refuse(id, now),
        }
    }

    fn refuse(&mut self, id: ConnId, now: Instant) {
        self.stats.sessions_refused += 1;
        self.pool.close(id, CODE_NOT_AUTHORISED, b"not invited", now);
    }

    fn begin_session(&mut self, id: ConnId, channel: u32, identity: Identity, now: Instant) {
        let known = self.sessions.channels.contains_key(&channel);
        if self.sessions.table.len() >= MAX_SESSIONS || !known {
            self.refuse(id, now);
            return;
        }
        let number = self.sessions.table.fresh_number();
        let rng = self.sessions.table.fork_rng();
        let session = Session::new(Side::Connector, number, identity.fingerprint(), rng, now, now);
        let at = self.sessions.table.insert(Entry {
            session,
            identity,
            channel: Some(channel),
            lanes: BTreeMap::new(),
            routes: BTreeMap::new(),
            early: Vec::new(),
            early_until: now + EARLY_TIME,
            waiting: VecDeque::new(),
            idle_since: now,
            look_at: now + FIRST_WORD,
        });
        self.sessions.table.number(number, at);
        self.sessions.table.own(id, at);
        self.take_over_channel(channel, at, now);
        if let Some(entry) = self.sessions.table.get_mut(at) {
            entry
                .session
                .attach_relayed(&mut self.pool, id, MessageStream::new(0), now);
        }
        self.drive(at, now);
    }

    /// A channel carries this session from now on. Another that it carried has been left by its agent.
    fn take_over_channel(&mut self, channel: u32, at: usize, now: Instant) {
        let before = self.sessions.channels.insert(channel, Some(at)).flatten();
        if let Some(old) = before.filter(|old| *old != at) {
            self.lose_channel(old, now);
        }
    }

    fn on_direct(&mut self, id: ConnId, number: u32, identity: &Identity, now: Instant) {
        let at = self.sessions.table.by_number(number);
        let entry = at.and_then(|at| self.sessions.table.get_mut(at));
        let entry = entry.filter(|entry| entry.session.fingerprint() == identity.fingerprint());
        let (Some(at), Some(entry), Some(remote)) = (at, entry, self.pool.peer_address(id)) else {
            self.refuse(id, now);
            return;
        };
        entry.session.attach_direct(&mut self.pool, id, remote, now);
        self.sessions.table.own(id, at);
        self.drive(at, now);
    }

    /// Something came for a connection of a session.
    pub(super) fn read_session(&mut self, id: ConnId, now: Instant) {
        let Some(at) = self.sessions.table.owner(id) else {
            self.pool.discard_streams(id);
            return;
        };
        let mut packets = std::mem::take(&mut self.sessions.arrived);
        if let Some(entry) = self.sessions.table.get_mut(at) {
            let around = &self.sessions.around;
            entry
                .session
                .on_readable(&mut self.pool, id, around, now, &mut |packet| {
                    packets.push(packet)
                });
        }
        // What is said of services comes before the packets for them.
        self.drive(at, now);
        for packet in packets.drain(..) {
            self.take_packet(at, packet, now);
        }
        self.sessions.arrived = packets;
        self.wake_lanes(at);
    }

    fn take_packet(&mut self, at: usize, packet: Datagram, now: Instant) {
        let lane = endpoints(&packet).and_then(|(_, destination)| {
            let entry = self.sessions.table.get(at)?;
            entry.routes.get(&destination).copied()
        });
        match lane {
            Some(lane) => {
                self.stats.received += 1;
                self.netstack.handle_packet(lane, packet, now);
            }
            None => self.keep_early(at, packet, now),
        }
    }

    /// The word that names the service of a packet may still be on its way.
    fn keep_early(&mut self, at: usize, packet: Datagram, now: Instant) {
        let young = |entry: &&mut Entry| now < entry.early_until && entry.early.len() < EARLY;
        match self.sessions.table.get_mut(at).filter(young) {
            Some(entry) => entry.early.push(packet),
            None => self.stats.stray += 1,
        }
    }

    /// The agent has named a service: perhaps what came before was for that.
    fn take_early(&mut self, at: usize, now: Instant) {
        let early = self
            .sessions
            .table
            .get_mut(at)
            .map(|entry| std::mem::take(&mut entry.early));
        for packet in early.into_iter().flatten() {
            self.take_packet(at, packet, now);
        }
    }

    /// An acknowledgement may have made room for packets that waited.
    fn wake_lanes(&mut self, at: usize) {
        if let Some(entry) = self
            .sessions
            .table
            .get_mut(at)
            .filter(|entry| !entry.waiting.is_empty())
            && entry.session.space(&self.pool) > 0
        {
            self.sessions.active.append(&mut entry.waiting);
        }
    }

    /// An agent is at another address, as QUIC has proved.
    pub(super) fn on_session_moved(&mut self, id: ConnId, remote: SocketAddr, now: Instant) {
        let at = self.sessions.table.owner(id);
        if let Some(entry) = at.and_then(|at| self.sessions.table.get_mut(at)) {
            entry.session.on_moved(id, remote, now);
        }
    }

    pub(super) fn on_session_closed(&mut self, id: ConnId, reason: &CloseReason, now: Instant) {
        let Some(at) = self.sessions.table.owner(id) else {
            return;
        };
        self.sessions.table.disown(id);
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let was_relayed = entry.session.relayed() == Some(id);
        entry.session.on_closed(id, now);
        // The agent has ended the session, not a path.
        let over =
            matches!(reason, CloseReason::Peer { application: true, code, .. } if *code != CODE_REPLACED);
        if over && was_relayed {
            entry.session.close(&mut self.pool, CODE_OVER, b"over", now);
        }
        self.drive(at, now);
    }

    /// A payload beside QUIC came. `false` if it is no check of a session.
    pub(super) fn take_check(
        &mut self,
        payload: &[u8],
        path: crate::machine::FourTuple,
        now: Instant,
    ) -> bool {
        let Ok(number) = claimed_session(payload) else {
            return false;
        };
        let at = self
            .sessions
            .table
            .by_number(number)
            .filter(|_| self.takes_direct());
        let entry = at.and_then(|at| self.sessions.table.get_mut(at));
        let genuine = entry.is_some_and(|entry| entry.session.handle_check(payload, path, now));
        match at.filter(|_| genuine) {
            Some(at) => self.drive(at, now),
            None => self.sessions.retired.checks_refused += 1,
        }
        true
    }

    /// Lets sessions do what is due.
    pub(super) fn handle_session_timeouts(&mut self, now: Instant) {
        while let Some(at) = self.sessions.table.pop_due(now) {
            self.look_after(at, now);
            self.drive(at, now);
            self.wake_lanes(at);
        }
    }

    /// Closes a session in which nothing goes on.
    fn look_after(&mut self, at: usize, now: Instant) {
        let Some(entry) = self
            .sessions
            .table
            .get_mut(at)
            .filter(|entry| entry.look_at <= now)
        else {
            return;
        };
        entry.look_at = now + LOOK;
        let netstack = &self.netstack;
        let busy = entry.lanes.values().any(|lane| netstack.lane_flows(*lane) > 0);
        if busy {
            entry.idle_since = now;
        }
        let idle = now.saturating_duration_since(entry.idle_since);
        if entry.lanes.is_empty() {
            let why: &[u8] = b"no service";
            entry.session.close(&mut self.pool, CODE_PROTOCOL, why, now);
        } else if idle >= IDLE {
            entry.session.close(&mut self.pool, CODE_IDLE, b"idle", now);
        }
    }

    /// After anything happened to a session: what is due is done, its news are taken, its timer is set; when it is over, it goes.
    fn drive(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        entry
            .session
            .handle_timeout(&mut self.pool, &self.sessions.around, now);
        if entry.session.has_news() {
            self.take_session_news(at, now);
        }
        let Some(entry) = self.sessions.table.get(at) else {
            return;
        };
        if !entry.session.is_alive() {
            self.end(at, now);
            return;
        }
        // Whatever is due now was done; what is due again at once waits for the next turn.
        let due = entry
            .poll_timeout()
            .map(|due| due.max(now + Duration::from_micros(1)));
        self.sessions.table.set_timer(at, due);
    }

    fn take_session_news(&mut self, at: usize, now: Instant) {
        let mut target = at;
        while let Some(news) = self
            .sessions
            .table
            .get_mut(at)
            .and_then(|entry| entry.session.poll_news())
        {
            match news {
                SessionNews::Offered { session, key } => {
                    target = self.place_offer(at, session, &key, now);
                    if let Some(entry) = self.sessions.table.get_mut(target) {
                        let around = &self.sessions.around;
                        entry
                            .session
                            .accept_offer(&mut self.pool, session, key, around, now);
                    }
                }
                SessionNews::Said(SessionMessage::UseService { service, addresses }) => {
                    self.use_service(target, &service, &addresses, now);
                }
                SessionNews::Said(SessionMessage::ReleaseService { service }) => {
                    if let Some(index) = self.service_named(&service) {
                        self.close_session_lane(target, index, now);
                    }
                }
                SessionNews::Said(_) | SessionNews::Path { .. } => {}
            }
        }
        if target != at {
            self.drive(target, now);
        }
    }

    /// The session that an offer is for: one that has lost its relayed connection goes on with the new one.
    fn place_offer(&mut self, at: usize, number: u32, key: &[u8; 32], now: Instant) -> usize {
        let Some(entry) = self.sessions.table.get(at) else {
            return at;
        };
        let fingerprint = entry.session.fingerprint();
        let old = self.sessions.table.iter().find(|(index, entry)| {
            let session = &entry.session;
            *index != at && session.fingerprint() == fingerprint && session.is_named(number, key)
        });
        let Some((old, _)) = old else { return at };
        let channel = entry.channel;
        let moved = self
            .sessions
            .table
            .get_mut(at)
            .and_then(|entry| entry.session.detach_relayed());
        if let Some(entry) = self.sessions.table.get_mut(at) {
            entry.channel = None;
        }
        if let (Some((id, stream)), Some(entry)) = (moved, self.sessions.table.get_mut(old)) {
            entry.channel = channel;
            entry.session.attach_relayed(&mut self.pool, id, stream, now);
            self.sessions.table.own(id, old);
        }
        if let Some(channel) = channel {
            self.sessions.channels.insert(channel, Some(old));
        }
        old
    }

    pub(super) fn service_named(&self, name: &str) -> Option<ServiceIndex> {
        let named = |(_, published): &(ServiceIndex, &Option<super::Published>)| {
            let published = published.as_ref().filter(|published| !published.is_leaving());
            published.is_some_and(|published| published.id.as_str() == name)
        };
        let mut indexed = (0..).map(ServiceIndex).zip(&self.services);
        indexed.find(named).map(|(index, _)| index)
    }

    /// The agent wants to use a service, and says under which addresses it knows it.
    fn use_service(&mut self, at: usize, name: &str, addresses: &[IpAddr], now: Instant) {
        let granted = self.grant(at, name, addresses, now);
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let service = name.to_owned();
        let answer = match granted {
            Ok(()) => SessionMessage::ServiceAccepted { service },
            Err(reason) => SessionMessage::ServiceRefused { service, reason },
        };
        entry.session.say(&mut self.pool, &answer, now);
        self.take_early(at, now);
    }

    fn grant(&mut self, at: usize, name: &str, addresses: &[IpAddr], now: Instant) -> Result<(), Refusal> {
        let index = self.service_named(name).ok_or(Refusal::NoConnector)?;
        let id = ServiceId::parse(name.as_bytes()).map_err(|_| Refusal::InvalidId)?;
        let authority = self.sessions.authority.ok_or(Refusal::NotAuthorised)?;
        let entry = self.sessions.table.get_mut(at).ok_or(Refusal::Unknown)?;
        let agent = (entry.identity.fingerprint(), entry.identity.name());
        if !authority.permits(Some(&entry.identity), Capacity::Agent, &id)
            || !self.netstack.admits(index, agent, now)
        {
            return Err(Refusal::NotAuthorised);
        }
        if addresses.len() > ADDRESSES || entry.lanes.len() >= SERVICES {
            return Err(Refusal::AtCapacity);
        }
        let lane = match entry.lanes.get(&index) {
            Some(lane) => *lane,
            None => {
                let mtu = entry.session.max_packet_len(&self.pool).unwrap_or(1280);
                let lane = self.netstack.open_lane(index, Some(agent), mtu);
                entry.lanes.insert(index, lane);
                self.sessions.lanes.insert(lane, at);
                lane
            }
        };
        entry.routes.retain(|_, known| *known != lane);
        for address in addresses {
            entry.routes.insert(*address, lane);
        }
        entry.idle_since = now;
        Ok(())
    }

    fn close_session_lane(&mut self, at: usize, service: ServiceIndex, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        if let Some(lane) = entry.lanes.remove(&service) {
            entry.routes.retain(|_, known| *known != lane);
            entry.waiting.retain(|known| *known != lane);
            self.sessions.lanes.remove(&lane);
            self.sessions.active.retain(|known| *known != lane);
            self.netstack.close_lane(lane, now);
        }
    }

    /// A service was removed from the configuration: its agents are told, and their flows end.
    pub(super) fn end_service(&mut self, service: ServiceIndex, name: &ServiceId, now: Instant) {
        self.close_guests(Some(service), now);
        for at in self.sessions.table.indices() {
            let used = self
                .sessions
                .table
                .get_mut(at)
                .filter(|entry| entry.lanes.contains_key(&service));
            let Some(entry) = used else { continue };
            let message = SessionMessage::ServiceRefused {
                service: name.as_str().to_owned(),
                reason: Refusal::NoConnector,
            };
            entry.session.say(&mut self.pool, &message, now);
            self.close_session_lane(at, service, now);
            self.drive(at, now);
        }
    }

    /// Moves packets from the netstack to the sessions while those have room.
    pub(super) fn pump_sessions(&mut self, now: Instant) {
        while let Some(lane) = self.sessions.active.pop_front() {
            let Some(at) = self.sessions.lanes.get(&lane).copied() else {
                continue;
            };
            let Some(entry) = self.sessions.table.get_mut(at) else {
                continue;
            };
            if let Some(longest) = entry.session.max_packet_len(&self.pool) {
                // Segments are cut for what can be sent now.
                self.netstack.set_mtu(lane, longest);
            }
            let room = entry.session.space(&self.pool).min(TURN);
            let mut left = room;
            while left > 0
                && let Some(packet) = self.netstack.poll_packet(lane, now)
            {
                left -= 1;
                match entry.session.send(&mut self.pool, packet, now) {
                    Ok(()) => self.stats.sent += 1,
                    Err(DatagramError::NotReady) => self.stats.not_ready += 1,
                    Err(DatagramError::TooLarge) => self.stats.too_large += 1,
                    Err(DatagramError::Full) => self.stats.queue_full += 1,
                }
            }
            if room == 0 {
                entry.waiting.push_back(lane);
            } else if left == 0 {
                self.sessions.active.push_back(lane);
            }
            if entry.session.take_rearm() {
                let due = entry.poll_timeout();
                self.sessions
                    .table
                    .set_timer(at, due.map(|due| due.max(now + Duration::from_micros(1))));
            }
        }
    }

    /// A session is over: its flows end.
    fn end(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.sessions.table.get_mut(at) else {
            return;
        };
        let number = entry.session.number();
        entry.session.close(&mut self.pool, CODE_OVER, b"over", now);
        let connections: Vec<ConnId> = entry.session.connections().collect();
        let services: Vec<ServiceIndex> = entry.lanes.keys().copied().collect();
        let (channel, stats) = (entry.channel, entry.session.stats());
        for service in services {
            self.close_session_lane(at, service, now);
        }
        for id in connections {
            self.sessions.table.disown(id);
        }
        self.sessions.retired = self.sessions.retired.plus(stats);
        if let Some(carried) = channel.and_then(|channel| self.sessions.channels.get_mut(&channel)) {
            // The channel stays: its agent closes it, or comes back in it.
            carried.take_if(|carried| *carried == at);
        }
        self.sessions.table.remove(at, Some(number));
    }

    /// Says goodbye to every agent.
    pub(super) fn close_sessions(&mut self, now: Instant) {
        for at in self.sessions.table.indices() {
            self.end(at, now);
        }
    }
}
