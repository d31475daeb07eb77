//! A session: what an agent and a connector have between them.
//!
//! It is one connection through a channel of the intermediate ("relayed"), and, when a way was found, a second one straight
//! between the hosts ("direct"). A session decides on which of them a packet leaves ([`Selector`]), takes each packet once however
//! often it comes, searches for a direct way (`session::search`), and outlives either connection: a relayed one that is lost is
//! replaced while the direct one carries everything, and the other way round.
//!
//! Both roles use it. What differs (who opens connections, what services are) is the role's business: it opens and closes channels,
//! hands connections over when their peer has proved who it is, and reads what the peer says of services.

mod search;
pub(crate) use search::own_candidates;
pub(crate) mod table;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::failover::{Change, PathKind, Route, Selector};
use crate::id::ConnId;
use crate::keepalive::{Action, Keepalive};
use crate::messages::MessageStream;
use crate::punch::{Puncher, Side};
use crate::quic::identity::Fingerprint;
use crate::quic::{Datagram, DatagramError, Pool, Provider};
use crate::rng::Rng;
use crate::window::Once;
use crate::wire::channel::{PREFIX_LEN, parse_twice, twice_prefix};
use crate::wire::check::CheckKey;
use crate::wire::control::{Candidate, SessionMessage};
use search::Search;

/// The application error code of the orderly end of a session.
pub(crate) const CODE_OVER: u64 = 0;

/// … of a session that nobody uses; the agent opens another when it has a packet again.
pub(crate) const CODE_IDLE: u64 = 3;

/// … for a peer that may not be what it says it is.
pub(crate) const CODE_NOT_AUTHORISED: u64 = 4;

/// … for one of two connections that do the same.
pub(crate) const CODE_REPLACED: u64 = 5;

/// … for a peer that leaves messages unread, or says nothing that can be understood.
pub(crate) const CODE_PROTOCOL: u64 = 6;

/// A direct connection on which nothing was sent for so long is asked for a sign of life by the agent.
const DIRECT_KEEPALIVE: Duration = Duration::from_secs(10);

/// How long a connection that another took the place of still takes what is on its way.
const RETIRE: Duration = Duration::from_secs(1);

/// Words of the peer that wait for the role, at most; it takes them after every input.
const WORDS: usize = 1024;

/// What a session tells its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionNews {
    /// The peer says something about services.
    Said(SessionMessage),
    /// The agent says which session its relayed connection is for.
    Offered {
        /// The agent's number.
        session: u32,
        /// The secret of the session.
        key: [u8; 32],
    },
    /// Packets take another way than before.
    Path {
        /// The one they take now; `None` if there is none.
        now: Option<PathKind>,
        /// What happened.
        change: Change,
    },
}

/// Counters of sessions, added up by their role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Packets sent on relayed connections.
    pub relayed_sent: u64,
    /// Packets sent on direct connections.
    pub direct_sent: u64,
    /// Packets received on relayed connections.
    pub relayed_received: u64,
    /// Packets received on direct connections.
    pub direct_received: u64,
    /// Packets that came a second time.
    pub duplicates: u64,
    /// Connectivity checks that were forged, or of no session.
    pub checks_refused: u64,
    /// Direct connections established.
    pub direct_established: u64,
    /// Direct connections that were lost or given up.
    pub direct_lost: u64,
    /// Searches for a direct way that found none.
    pub searches_failed: u64,
    /// Words of the peer that could not be understood, or were out of place.
    pub malformed: u64,
}

impl SessionStats {
    /// The sum of two.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            relayed_sent: self.relayed_sent + other.relayed_sent,
            direct_sent: self.direct_sent + other.direct_sent,
            relayed_received: self.relayed_received + other.relayed_received,
            direct_received: self.direct_received + other.direct_received,
            duplicates: self.duplicates + other.duplicates,
            checks_refused: self.checks_refused + other.checks_refused,
            direct_established: self.direct_established + other.direct_established,
            direct_lost: self.direct_lost + other.direct_lost,
            searches_failed: self.searches_failed + other.searches_failed,
            malformed: self.malformed + other.malformed,
        }
    }
}

/// What a host knows of its own addresses.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The socket, as bound.
    pub(crate) local: SocketAddr,
    /// The addresses of its interfaces, best first.
    pub(crate) hosts: Vec<Candidate>,
    /// Where the intermediate sees it.
    pub(crate) observed: Option<SocketAddr>,
    /// Whether a way straight to the peer is wanted.
    pub(crate) direct: bool,
}

/// One connection of a session.
#[derive(Clone, Copy, Debug)]
struct Leg {
    id: ConnId,
    /// The peer's address; of a relayed connection, that of no host.
    remote: Option<SocketAddr>,
    acknowledged: u64,
}

/// One end of a session.
#[derive(Debug)]
pub(crate) struct Session {
    side: Side,
    /// By which the peer names this session in its checks.
    number: u32,
    /// By which it wants to hear of it in ours.
    peer_number: Option<u32>,
    secret: Option<[u8; 32]>,
    key: Option<CheckKey>,
    fingerprint: Fingerprint,
    relayed: Option<Leg>,
    direct: Option<Leg>,
    /// A direct connection that another took the place of, and until when what is on its way is still taken.
    retiring: Option<(ConnId, Instant)>,
    /// Of the relayed connection.
    stream: MessageStream,
    keepalive: Keepalive,
    direct_ping_at: Instant,
    /// When anything came on the direct connection last.
    direct_heard: Instant,
    selector: Selector,
    search: Search,
    puncher: Option<Puncher>,
    sequence: u32,
    once: Once,
    rng: Rng,
    news: VecDeque<SessionNews>,
    begun: Instant,
    /// How long it took until the first direct connection was established.
    time_to_direct: Option<Duration>,
    /// When the agent said when to begin, the last time; and how long it took from then until a direct connection.
    punch_at: Option<Instant>,
    search_time: Option<Duration>,
    /// When packets took a direct connection last, or left it.
    path_since: Instant,
    stats: SessionStats,
    /// The peer is not to be spoken to any more.
    broken: bool,
    /// A packet was sent that begins a wait for an acknowledgement: the timer may be earlier than before.
    rearm: bool,
}

impl Session {
    /// A session without connections. `number` is ours, not to be used by another session of this host; an agent draws the
    /// secret, a connector hears it.
    pub(crate) fn new(
        side: Side,
        number: u32,
        fingerprint: Fingerprint,
        mut rng: Rng,
        begun: Instant,
        now: Instant,
    ) -> Self {
        let secret = (side == Side::Agent).then(|| {
            let mut secret = [0; 32];
            rng.fill(&mut secret);
            secret
        });
        Self {
            side,
            number,
            peer_number: None,
            key: secret.as_ref().map(CheckKey::new),
            secret,
            fingerprint,
            relayed: None,
            direct: None,
            retiring: None,
            stream: MessageStream::new(0),
            keepalive: Keepalive::new(now),
            direct_ping_at: now,
            direct_heard: now,
            selector: Selector::new(),
            search: Search::default(),
            puncher: None,
            sequence: 0,
            once: Once::default(),
            rng,
            news: VecDeque::new(),
            begun,
            time_to_direct: None,
            punch_at: None,
            search_time: None,
            path_since: now,
            stats: SessionStats::default(),
            broken: false,
            rearm: false,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.stats
    }

    /// How long it took until the first direct connection was established, from the beginning.
    pub(crate) fn time_to_direct(&self) -> Option<Duration> {
        self.time_to_direct
    }

    /// How long the last search took that found a direct way: from the word that sets its beginning to the connection.
    pub(crate) fn search_time(&self) -> Option<Duration> {
        self.search_time
    }

    /// Whether this is the session that a peer means which names it so.
    pub(crate) fn is_named(&self, peer_number: u32, secret: &[u8; 32]) -> bool {
        // Every byte is compared, whatever the others say: the secret stays one.
        let differs = |own: &[u8; 32]| own.iter().zip(secret).fold(0, |sum, (a, b)| sum | (a ^ b));
        let same = |own: &[u8; 32]| differs(own) == 0;
        self.peer_number == Some(peer_number) && self.secret.as_ref().is_some_and(same)
    }

    /// Whether there is any connection left, or a word against one.
    pub(crate) fn is_alive(&self) -> bool {
        !self.broken && (self.relayed.is_some() || self.direct.is_some())
    }

    pub(crate) fn has_relayed(&self) -> bool {
        self.relayed.is_some()
    }

    pub(crate) fn relayed(&self) -> Option<ConnId> {
        self.relayed.map(|leg| leg.id)
    }

    /// The connections of this session, those that are still being opened included.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        let legs = [self.relayed, self.direct].into_iter().flatten();
        let legs = legs.map(|leg| leg.id);
        let retiring = self.retiring.map(|(id, _)| id);
        legs.chain(retiring).chain(self.search.attempts())
    }

    /// The way that packets take now; `None` if there is none.
    pub(crate) fn path(&self) -> Option<PathKind> {
        match self.selector.route() {
            Route::One(kind) => Some(kind),
            // The direct one is in doubt: the other carries for sure.
            Route::Both => Some(PathKind::Relayed),
            Route::Nowhere => None,
        }
    }

    /// Since when packets take that way.
    pub(crate) fn path_since(&self) -> Instant {
        self.path_since
    }

    /// The peer's address, while packets go straight there.
    pub(crate) fn direct_remote(&self) -> Option<SocketAddr> {
        self.direct?.remote
    }

    /// The round trip on the way in use.
    pub(crate) fn rtt<Q: Provider>(&self, pool: &Pool<Q>) -> Option<Duration> {
        let leg = match self.path()? {
            PathKind::Relayed => self.relayed?,
            PathKind::Direct => self.direct?,
        };
        Some(pool.connection_stats(leg.id)?.rtt)
    }

    /// Takes the connection through a channel, established with a peer that has this session's certificate, and its stream as far
    /// as it was read.
    pub(crate) fn attach_relayed<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        id: ConnId,
        stream: MessageStream,
        now: Instant,
    ) {
        if let Some(old) = self.relayed.take().filter(|old| old.id != id) {
            pool.close(old.id, CODE_REPLACED, b"replaced", now);
        }
        let stats = pool.connection_stats(id).unwrap_or_default();
        self.relayed = Some(Leg {
            id,
            remote: None,
            acknowledged: stats.acknowledged,
        });
        self.stream = stream;
        self.keepalive = Keepalive::new(now);
        self.selector.on_established(PathKind::Relayed, stats.rtt, now);
        if let (Side::Agent, Some(key)) = (self.side, self.secret) {
            let session = self.number;
            self.say(pool, &SessionMessage::PathOffer { session, key }, now);
        }
        self.follow_selector(now);
    }

    /// Gives the relayed connection up for another session, and its stream as far as it was read.
    pub(crate) fn detach_relayed(&mut self) -> Option<(ConnId, MessageStream)> {
        let leg = self.relayed.take()?;
        self.selector.on_closed(PathKind::Relayed);
        Some((leg.id, std::mem::replace(&mut self.stream, MessageStream::new(0))))
    }

    /// Takes a connection straight to the peer, established with this session's certificate.
    pub(crate) fn attach_direct<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        id: ConnId,
        remote: SocketAddr,
        now: Instant,
    ) {
        self.search.forget_attempt(id);
        if let Some(old) = self.direct.take().filter(|old| old.id != id) {
            self.selector.on_closed(PathKind::Direct);
            self.retire(pool, now);
            self.retiring = Some((old.id, now + RETIRE));
        }
        let stats = pool.connection_stats(id).unwrap_or_default();
        self.direct = Some(Leg {
            id,
            remote: Some(remote),
            acknowledged: stats.acknowledged,
        });
        self.direct_ping_at = now + DIRECT_KEEPALIVE;
        self.direct_heard = now;
        self.stats.direct_established += 1;
        self.time_to_direct
            .get_or_insert(now.saturating_duration_since(self.begun));
        if let Some(begun) = self.punch_at.take() {
            self.search_time = Some(now.saturating_duration_since(begun));
        }
        self.selector.on_established(PathKind::Direct, stats.rtt, now);
        self.on_direct_found();
        self.follow_selector(now);
    }

    /// Closes a connection that another took the place of.
    fn retire<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        if let Some((id, _)) = self.retiring.take() {
            pool.close(id, CODE_REPLACED, b"replaced", now);
        }
    }

    /// One of its connections is gone, or one that was being opened.
    pub(crate) fn on_closed(&mut self, id: ConnId, now: Instant) {
        self.retiring.take_if(|(retiring, _)| *retiring == id);
        if self.relayed.is_some_and(|leg| leg.id == id) {
            self.relayed = None;
            self.selector.on_closed(PathKind::Relayed);
        }
        if self.direct.is_some_and(|leg| leg.id == id) {
            self.lose_direct(now);
        }
        if self.search.forget_attempt(id) {
            self.on_attempt_failed(now);
        }
        self.follow_selector(now);
    }

    /// QUIC has proved that the peer of one of its connections is at another address.
    pub(crate) fn on_moved(&mut self, id: ConnId, remote: SocketAddr, now: Instant) {
        let Some(direct) = self.direct.as_mut().filter(|direct| direct.id == id) else {
            return;
        };
        if let (Some(before), Some(puncher)) = (direct.remote.replace(remote), &mut self.puncher) {
            puncher.on_moved(before, remote, now);
        }
    }

    fn lose_direct(&mut self, now: Instant) {
        if self.direct.take().is_some() {
            self.stats.direct_lost += 1;
            self.selector.on_closed(PathKind::Direct);
            self.on_direct_lost(now);
        }
    }

    /// Says something to the peer on the relayed connection's stream; lost if there is none.
    pub(crate) fn say<Q: Provider>(&mut self, pool: &mut Pool<Q>, message: &SessionMessage, now: Instant) {
        let Some(leg) = self.relayed else { return };
        if self.stream.send(message.write()) {
            self.stream.flush(pool, leg.id);
        } else {
            pool.close(leg.id, CODE_PROTOCOL, b"messages unread", now);
            self.broken = true;
        }
    }

    /// Something came for one of its connections: acknowledgements, words, packets. The packets are given to `take`.
    pub(crate) fn on_readable<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        id: ConnId,
        around: &Surroundings,
        now: Instant,
        take: &mut dyn FnMut(Datagram),
    ) {
        if self.retiring.is_some_and(|(retiring, _)| retiring == id) {
            pool.discard_streams(id);
            while let Some(datagram) = pool.poll_datagram(id) {
                if let Some(packet) = self.receive(PathKind::Direct, datagram, now) {
                    take(packet);
                }
            }
            return;
        }
        let relayed = self.relayed.is_some_and(|leg| leg.id == id);
        let (kind, leg) = if relayed {
            (PathKind::Relayed, &mut self.relayed)
        } else {
            (PathKind::Direct, &mut self.direct)
        };
        let Some(leg) = leg.as_mut().filter(|leg| leg.id == id) else {
            pool.discard_streams(id);
            return;
        };
        if let Some(stats) = pool
            .connection_stats(id)
            .filter(|stats| stats.acknowledged > leg.acknowledged)
        {
            leg.acknowledged = stats.acknowledged;
            self.selector.on_acknowledged(kind, stats.rtt, now);
        }
        match (kind, leg.remote) {
            (PathKind::Direct, Some(remote)) => {
                self.direct_heard = now;
                if let Some(puncher) = &mut self.puncher {
                    puncher.on_heard(remote, now);
                }
                pool.discard_streams(id);
            }
            (PathKind::Direct, None) | (PathKind::Relayed, _) => self.read_stream(pool, id, around, now),
        }
        while let Some(datagram) = pool.poll_datagram(id) {
            if let Some(packet) = self.receive(kind, datagram, now) {
                take(packet);
            }
        }
        self.follow_selector(now);
    }

    /// Takes a packet as it came; `None` if it came before.
    ///
    /// A peer that sends on both paths doubts the direct one. If what it sends there does not arrive, this end has nothing to wait
    /// for: its own packets would not arrive either until it noticed by itself, and a stream of questions and answers would be
    /// silent for both patiences, one after the other.
    fn receive(&mut self, kind: PathKind, mut datagram: Datagram, now: Instant) -> Option<Datagram> {
        if let Some(sequence) = parse_twice(&datagram) {
            if !self.once.take(sequence) {
                self.stats.duplicates += 1;
                return None;
            }
            datagram.advance(PREFIX_LEN);
            let silent = now.saturating_duration_since(self.direct_heard);
            if kind == PathKind::Relayed && self.selector.patience().is_some_and(|patience| silent > patience)
            {
                self.selector.on_check_failed(now);
            }
        }
        match kind {
            PathKind::Relayed => self.stats.relayed_received += 1,
            PathKind::Direct => self.stats.direct_received += 1,
        }
        Some(datagram)
    }

    /// Sends a packet, on the way or the ways of the moment.
    ///
    /// # Errors
    /// If none takes it.
    pub(crate) fn send<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        packet: Datagram,
        now: Instant,
    ) -> Result<(), DatagramError> {
        match self.selector.route() {
            Route::One(kind) => {
                let kind = self.way_for(pool, kind, packet.len());
                self.send_on(pool, kind, packet, now)
            }
            Route::Both => {
                let sequence = twice_prefix(self.sequence);
                self.sequence = self.sequence.wrapping_add(1);
                let mut copy = Vec::with_capacity(PREFIX_LEN + packet.len());
                copy.extend_from_slice(&sequence);
                copy.extend_from_slice(&packet);
                let second = self.send_on(pool, PathKind::Direct, copy.clone().into(), now);
                let first = self.send_on(pool, PathKind::Relayed, copy.into(), now);
                first.or(second)
            }
            Route::Nowhere => Err(DatagramError::NotReady),
        }
    }

    /// A new direct path is measured from the least size up; what it does not carry yet goes the other way.
    fn way_for<Q: Provider>(&self, pool: &Pool<Q>, kind: PathKind, len: usize) -> PathKind {
        let (PathKind::Direct, Some(direct), Some(relayed)) = (kind, self.direct, self.relayed) else {
            return kind;
        };
        let fits = |leg: Leg| pool.max_datagram_len(leg.id).is_some_and(|room| len <= room);
        if len > ALWAYS_FITS && !fits(direct) && fits(relayed) {
            PathKind::Relayed
        } else {
            kind
        }
    }

    fn send_on<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        kind: PathKind,
        packet: Datagram,
        now: Instant,
    ) -> Result<(), DatagramError> {
        let leg = match kind {
            PathKind::Relayed => self.relayed,
            PathKind::Direct => self.direct,
        };
        let id = leg.ok_or(DatagramError::NotReady)?.id;
        pool.send_datagram(id, packet)?;
        self.rearm |= self.selector.on_sent(kind, now);
        match kind {
            PathKind::Relayed => {
                self.stats.relayed_sent += 1;
                let received = || pool.connection_stats(id).map_or(0, |stats| stats.received);
                self.keepalive.on_sent(received, now);
            }
            PathKind::Direct => {
                self.stats.direct_sent += 1;
                self.direct_ping_at = now + DIRECT_KEEPALIVE;
            }
        }
        Ok(())
    }

    /// The largest packet that goes through now, on whatever way; `None` if there is none.
    pub(crate) fn max_packet_len<Q: Provider>(&self, pool: &Pool<Q>) -> Option<usize> {
        self.measure(|id| pool.max_datagram_len(id), usize::max)
    }

    /// The largest packet that goes through on any of its ways, for whoever remembers it.
    pub(crate) fn path_packet_len<Q: Provider>(&self, pool: &Pool<Q>) -> Option<usize> {
        self.measure(|id| pool.path_datagram_len(id), usize::min)
    }

    fn measure(
        &self,
        size: impl Fn(ConnId) -> Option<usize>,
        of_two: fn(usize, usize) -> usize,
    ) -> Option<usize> {
        let legs = [self.relayed, self.direct].into_iter().flatten();
        let least = legs.filter_map(|leg| size(leg.id)).reduce(of_two)?;
        // Room for the number, should packets have to travel twice.
        least.checked_sub(PREFIX_LEN)
    }

    /// How many packets find room now.
    pub(crate) fn space<Q: Provider>(&self, pool: &Pool<Q>) -> usize {
        let leg = |kind| match kind {
            PathKind::Relayed => self.relayed,
            PathKind::Direct => self.direct,
        };
        let space = |kind| leg(kind).map_or(0, |leg| pool.datagram_space(leg.id));
        match self.selector.route() {
            Route::One(kind) => space(kind),
            Route::Both => space(PathKind::Relayed).max(space(PathKind::Direct)),
            Route::Nowhere => 0,
        }
    }

    /// Whether the timer may be earlier than before the last packets.
    pub(crate) fn take_rearm(&mut self) -> bool {
        std::mem::take(&mut self.rearm)
    }

    /// A connection that this session has begun to open.
    pub(crate) fn poll_opened(&mut self) -> Option<ConnId> {
        self.search.opened.pop()
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    pub(crate) fn poll_news(&mut self) -> Option<SessionNews> {
        self.news.pop_front()
    }

    /// When [`Session::handle_timeout`] is wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let keeps = self.side == Side::Agent;
        let relayed = self.relayed.filter(|_| keeps).map(|_| self.keepalive.next());
        let direct = self.direct.filter(|_| keeps).map(|_| self.direct_ping_at);
        let puncher = self.puncher.as_ref().and_then(Puncher::poll_timeout);
        [
            self.selector.poll_timeout(),
            self.search.poll_timeout(),
            self.retiring.map(|(_, until)| until),
            puncher,
            relayed,
            direct,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Lets time pass, and sends what is due. To be called after every input as well.
    pub(crate) fn handle_timeout<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        around: &Surroundings,
        now: Instant,
    ) {
        self.selector.handle_timeout(now);
        if self.retiring.is_some_and(|(_, until)| until <= now) {
            self.retire(pool, now);
        }
        if let (true, Some(direct)) = (self.selector.poll_probe(), self.direct) {
            pool.ping(direct.id);
            self.direct_ping_at = now + DIRECT_KEEPALIVE;
        }
        if self.side == Side::Agent {
            self.keep_alive(pool, now);
        }
        self.go_on_searching(pool, around, now);
        self.follow_selector(now);
    }

    fn keep_alive<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        if let Some(relayed) = self.relayed {
            let received = pool
                .connection_stats(relayed.id)
                .map_or(0, |stats| stats.received);
            match self.keepalive.poll(received, now) {
                Some(Action::Ping) => pool.ping(relayed.id),
                Some(Action::GiveUp) => {
                    pool.discard(relayed.id);
                    self.on_closed(relayed.id, now);
                }
                None => {}
            }
        }
        if let Some(direct) = self.direct.filter(|_| self.direct_ping_at <= now) {
            pool.ping(direct.id);
            self.direct_ping_at = now + DIRECT_KEEPALIVE;
        }
    }

    /// Ends it for good: both connections are closed.
    pub(crate) fn close<Q: Provider>(&mut self, pool: &mut Pool<Q>, code: u64, why: &[u8], now: Instant) {
        let all: Vec<ConnId> = self.connections().collect();
        for id in all {
            pool.close(id, code, why, now);
        }
        self.uninvite_all(pool);
        self.broken = true;
    }

    /// Passes on what the selector has to tell.
    fn follow_selector(&mut self, now: Instant) {
        while let Some(change) = self.selector.poll_change() {
            self.path_since = now;
            let news = SessionNews::Path {
                now: self.path(),
                change,
            };
            self.tell(news);
        }
    }

    fn tell(&mut self, news: SessionNews) {
        if self.news.len() >= WORDS {
            // Nobody honest says so much at once.
            self.broken = true;
            return;
        }
        self.news.push_back(news);
    }
}

/// A packet that every path carries (RFC 9000 §14: none below 1,200 bytes), whatever it is measured to.
const ALWAYS_FITS: usize = 1100;
