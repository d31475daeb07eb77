//! The search for a direct way: what is said of addresses, when both sides begin, and what follows from what the puncher finds.
//!
//! The agent leads. It names its addresses with its offer, and begins a round as soon as it knows those of the connector: the word
//! takes half a round trip through the relay, so it waits as long itself, and both begin together. When the first authentic word
//! comes from an address, it begins a QUIC handshake there at once; the connector lets it in because an authentic check came from
//! there. A round that finds nothing is repeated with growing pauses, and at once when addresses change or a direct way is lost.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{CODE_REPLACED, Session, SessionNews, Surroundings};
use crate::id::ConnId;
use crate::machine::{FourTuple, canonical};
use crate::punch::{Family, Limits, PunchEvent, Puncher, Side, candidate_priority, is_usable};
use crate::quic::{Pool, Provider, Via};
use crate::wire::check::{Check, CheckKey, MAX_CHECK_LEN};
use crate::wire::control::{Candidate, CandidateKind, PathOutcome, SessionMessage};

/// How long the handshake on a path that was found may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Handshakes on found paths at one time.
const ATTEMPTS: usize = 2;

/// The pause after a round that found nothing, at first; it triples.
const PAUSE_FIRST: Duration = Duration::from_secs(5);

/// The longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The pause after a direct way is lost, or addresses have changed: for what else changes in that moment.
const PAUSE_SHORT: Duration = Duration::from_millis(250);

/// How far ahead a peer may set the beginning of a round.
const FURTHEST_START: Duration = Duration::from_secs(2);

/// Addresses that a connector lets in for one session.
const GUESTS: usize = 24;

#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: ConnId,
    remote: SocketAddr,
    until: Instant,
}

/// Where a search stands.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The agent's handshakes on paths that were found.
    attempts: Vec<Attempt>,
    /// Of these, those that the owner does not know yet.
    pub(super) opened: Vec<ConnId>,
    round: u32,
    /// When the agent begins the next round.
    next: Option<Instant>,
    pause: Option<Duration>,
    /// Own addresses as the peer knows them.
    told: Vec<SocketAddr>,
    /// Addresses that the connector lets in.
    guests: Vec<SocketAddr>,
}

impl Search {
    pub(super) fn attempts(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.attempts.iter().map(|attempt| attempt.id)
    }

    /// Whether there was such a handshake.
    pub(super) fn forget_attempt(&mut self, id: ConnId) -> bool {
        let before = self.attempts.len();
        self.attempts.retain(|attempt| attempt.id != id);
        self.attempts.len() < before
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let attempts = self.attempts.iter().map(|attempt| attempt.until);
        attempts.chain(self.next).min()
    }
}

/// The addresses of a host, as a peer is told of them.
pub(crate) fn own_candidates(around: &Surroundings) -> Vec<Candidate> {
    let mut candidates = around.hosts.clone();
    let observed = around
        .observed
        .map(canonical)
        .filter(|address| is_usable(*address) && !candidates.iter().any(|own| own.address == *address));
    if let Some(address) = observed {
        candidates.push(Candidate {
            kind: CandidateKind::ServerReflexive,
            address,
            priority: candidate_priority(CandidateKind::ServerReflexive, Family::of(address), 0),
            foundation: format!("srflx_{}", address.ip()),
            related: candidates.first().map(|host| host.address),
        });
    }
    candidates
}

impl Session {
    /// The number by which messages name this session: the agent's.
    fn shared_number(&self) -> Option<u32> {
        match self.side {
            Side::Agent => Some(self.number),
            Side::Connector => self.peer_number,
        }
    }

    /// Reads what the peer says on the relayed connection.
    pub(super) fn read_stream<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        id: ConnId,
        around: &Surroundings,
        now: Instant,
    ) {
        let mut words = Vec::new();
        let malformed = &mut self.stats.malformed;
        self.stream
            .read(pool, id, &mut |payload| match SessionMessage::parse(payload) {
                Ok(message) => words.push(message),
                Err(_) => *malformed += 1,
            });
        self.stream.flush(pool, id);
        for word in words {
            self.on_word(pool, word, around, now);
        }
    }

    pub(crate) fn on_word<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        word: SessionMessage,
        around: &Surroundings,
        now: Instant,
    ) {
        let shared = self.shared_number();
        match (word, self.side) {
            (SessionMessage::PathOffer { session, key }, Side::Connector) => {
                // Whether it is another session's is for the owner of all of them to see.
                self.tell(SessionNews::Offered { session, key });
            }
            (SessionMessage::PathAnswer { session, own_session }, Side::Agent) if Some(session) == shared => {
                self.on_answer(pool, own_session, around, now);
            }
            (
                SessionMessage::Candidates {
                    session, candidates, ..
                },
                _,
            ) if Some(session) == shared => {
                // A socket bound to the wildcard of IPv6 reaches both families.
                let both = around.local.is_ipv6() && around.local.ip().is_unspecified();
                let own_family = Family::of(around.local);
                let reachable = |candidate: &Candidate| both || Family::of(candidate.address) == own_family;
                let reachable: Vec<Candidate> = candidates.into_iter().filter(reachable).collect();
                if let Some(puncher) = &mut self.puncher {
                    puncher.add_candidates(&reachable, now);
                }
                if self.side == Side::Agent && self.direct.is_none() && self.search.next.is_none() {
                    self.search.next = Some(now);
                }
            }
            (
                SessionMessage::PunchAt {
                    session,
                    round,
                    delay_us,
                },
                Side::Connector,
            ) if Some(session) == shared && round > self.search.round => {
                self.search.round = round;
                let delay = Duration::from_micros(u64::from(delay_us)).min(FURTHEST_START);
                if let Some(puncher) = &mut self.puncher {
                    puncher.start(now + delay);
                }
            }
            (SessionMessage::PathResult { .. }, _) => {}
            (
                word @ (SessionMessage::UseService { .. } | SessionMessage::ReleaseService { .. }),
                Side::Connector,
            )
            | (
                word @ (SessionMessage::ServiceAccepted { .. } | SessionMessage::ServiceRefused { .. }),
                Side::Agent,
            ) => self.tell(SessionNews::Said(word)),
            _ => self.stats.malformed += 1,
        }
    }

    /// The connector takes an offer as this session's: its first, or that of another relayed connection.
    pub(crate) fn accept_offer<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        session: u32,
        key: [u8; 32],
        around: &Surroundings,
        now: Instant,
    ) {
        if !self.is_named(session, &key) {
            if self.peer_number.is_some() {
                self.stats.malformed += 1;
                return;
            }
            self.peer_number = Some(session);
            self.key = Some(CheckKey::new(&key));
            self.secret = Some(key);
            let rng = self.rng.fork();
            self.puncher = around
                .direct
                .then(|| Puncher::new(Side::Connector, session, Limits::default(), rng));
        }
        let own_session = self.number;
        self.say(pool, &SessionMessage::PathAnswer { session, own_session }, now);
        self.search.told.clear();
        self.tell_candidates(pool, around, now);
    }

    fn on_answer<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        own_session: u32,
        around: &Surroundings,
        now: Instant,
    ) {
        if self.peer_number.replace(own_session) != Some(own_session) {
            // A connector that does not know the session has nothing to do with a direct connection of it.
            if let Some(direct) = self.direct {
                pool.close(direct.id, CODE_REPLACED, b"another session", now);
                self.lose_direct(now);
            }
            let rng = self.rng.fork();
            self.puncher = around
                .direct
                .then(|| Puncher::new(Side::Agent, own_session, Limits::default(), rng));
        }
        self.search.told.clear();
        self.tell_candidates(pool, around, now);
    }

    /// Names addresses that the peer does not know yet. A change of them is a reason to look again.
    pub(crate) fn tell_candidates<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        around: &Surroundings,
        now: Instant,
    ) {
        let Some(session) = self.shared_number().filter(|_| self.peer_number.is_some()) else {
            return;
        };
        let candidates = own_candidates(around);
        let addresses: Vec<SocketAddr> = candidates.iter().map(|own| own.address).collect();
        let Some(puncher) = &mut self.puncher else { return };
        if self.relayed.is_none() || addresses == self.search.told {
            return;
        }
        puncher.set_own(addresses.clone());
        self.search.told = addresses;
        let message = SessionMessage::Candidates {
            session,
            candidates,
            complete: true,
        };
        self.say(pool, &message, now);
        if self.side == Side::Agent && self.direct.is_none() && self.search.round > 0 {
            self.search.pause = None;
            self.search.next = Some(now + PAUSE_SHORT);
        }
    }

    /// A check that named this session came from `path.remote`. `false` if it is forged.
    pub(crate) fn handle_check(&mut self, payload: &[u8], path: FourTuple, now: Instant) -> bool {
        let (Some(key), Some(puncher)) = (&self.key, &mut self.puncher) else {
            return false;
        };
        match Check::parse(payload, key) {
            Ok(check) => {
                puncher.handle_check(&check, path.remote, now);
                true
            }
            Err(_) => {
                self.stats.checks_refused += 1;
                false
            }
        }
    }

    pub(super) fn on_direct_found(&mut self) {
        self.search.next = None;
        self.search.pause = None;
    }

    pub(super) fn on_direct_lost(&mut self, now: Instant) {
        if let Some(puncher) = &mut self.puncher {
            puncher.abandon();
        }
        if self.side == Side::Agent {
            self.search.pause = None;
            self.search.next = Some(now + PAUSE_SHORT);
        }
    }

    /// A handshake on a found path came to nothing.
    pub(super) fn on_attempt_failed(&mut self, now: Instant) {
        let running = self.puncher.as_ref().is_some_and(Puncher::is_running);
        if self.direct.is_none() && self.search.attempts.is_empty() && !running {
            self.pause(now);
        }
    }

    /// The next round comes later than the last one did.
    fn pause(&mut self, now: Instant) {
        let pause = self
            .search
            .pause
            .map_or(PAUSE_FIRST, |pause| (pause * 3).min(PAUSE_MAX));
        self.search.pause = Some(pause);
        self.search.next = Some(now + self.rng.duration_between(pause * 4 / 5, pause * 6 / 5));
    }

    pub(super) fn go_on_searching<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        around: &Surroundings,
        now: Instant,
    ) {
        self.begin_round(pool, now);
        let late = self.search.attempts.iter().filter(|attempt| attempt.until <= now);
        let late: Vec<ConnId> = late.map(|attempt| attempt.id).collect();
        for id in late {
            pool.discard(id);
            self.on_closed(id, now);
        }
        let Some(puncher) = &mut self.puncher else { return };
        puncher.handle_timeout(now);
        self.send_checks(pool, around, now);
        while let Some(event) = self.puncher.as_mut().and_then(Puncher::poll_event) {
            self.on_found(pool, event, around, now);
        }
    }

    fn begin_round<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        if self.search.next.is_none_or(|at| now < at) {
            return;
        }
        self.search.next = None;
        let (Some(session), Some(relayed), None, true) = (
            self.shared_number(),
            self.relayed,
            self.direct,
            self.puncher.is_some(),
        ) else {
            return;
        };
        self.search.round += 1;
        self.punch_at = Some(now);
        let round = self.search.round;
        let delay_us = 0;
        self.say(
            pool,
            &SessionMessage::PunchAt {
                session,
                round,
                delay_us,
            },
            now,
        );
        let rtt = pool
            .connection_stats(relayed.id)
            .map_or(Duration::ZERO, |stats| stats.rtt);
        if let Some(puncher) = &mut self.puncher {
            puncher.start(now + rtt / 2);
        }
    }

    fn send_checks<Q: Provider>(&mut self, pool: &mut Pool<Q>, around: &Surroundings, now: Instant) {
        let (Some(key), Some(puncher)) = (&self.key, &mut self.puncher) else {
            return;
        };
        let mut out = [0; MAX_CHECK_LEN];
        while let Some((remote, check)) = puncher.poll_check(now) {
            let path = FourTuple {
                local: around.local,
                remote,
            };
            if let Some(payload) = check.write(key, &mut out).and_then(|len| out.get(..len)) {
                // Lost where too many wait, as it may be on the way.
                let _ = pool.send_raw(path, payload);
            }
        }
    }

    fn on_found<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        event: PunchEvent,
        around: &Surroundings,
        now: Instant,
    ) {
        match (event, self.side) {
            (PunchEvent::Heard(remote), Side::Connector) => self.invite(pool, remote),
            (PunchEvent::Heard(remote), Side::Agent) => {
                if self.direct.is_none() && self.search.attempts.is_empty() {
                    self.attempt(pool, remote, around, now);
                }
            }
            (PunchEvent::Nominated(remote), Side::Agent) => self.attempt(pool, remote, around, now),
            (PunchEvent::Nominated(_) | PunchEvent::Works { .. } | PunchEvent::Observed(_), _) => {}
            (PunchEvent::Failed, side) => {
                self.stats.searches_failed += u64::from(self.direct.is_none());
                if side == Side::Agent && self.direct.is_none() && self.search.attempts.is_empty() {
                    self.tell_result(pool, PathOutcome::NoPath, now);
                    self.pause(now);
                }
            }
            (PunchEvent::ConsentLost(remote), _) => {
                if let Some(direct) = self.direct.filter(|direct| direct.remote == Some(remote)) {
                    pool.discard(direct.id);
                    self.on_closed(direct.id, now);
                    self.tell_result(pool, PathOutcome::Lost, now);
                }
            }
        }
    }

    fn tell_result<Q: Provider>(&mut self, pool: &mut Pool<Q>, outcome: PathOutcome, now: Instant) {
        let Some(session) = self.shared_number() else {
            return;
        };
        let round = self.search.round;
        let message = SessionMessage::PathResult {
            session,
            round,
            outcome,
        };
        self.say(pool, &message, now);
    }

    /// Begins a handshake with an address that an authentic check came from.
    fn attempt<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        remote: SocketAddr,
        around: &Surroundings,
        now: Instant,
    ) {
        let under_way = self
            .search
            .attempts
            .iter()
            .any(|attempt| attempt.remote == remote);
        if under_way || self.direct.is_some_and(|direct| direct.remote == Some(remote)) {
            return;
        }
        if self.search.attempts.len() >= ATTEMPTS {
            let oldest = self.search.attempts.remove(0);
            pool.discard(oldest.id);
        }
        let path = FourTuple {
            local: around.local,
            remote,
        };
        if let Ok(id) = pool.connect_session(Via::Path(path), now) {
            self.search.opened.push(id);
            self.search.attempts.push(Attempt {
                id,
                remote,
                until: now + ATTEMPT,
            });
        }
    }

    /// The address of a handshake of ours.
    pub(crate) fn attempted(&self, id: ConnId) -> Option<SocketAddr> {
        let attempts = self.search.attempts.iter();
        attempts
            .filter(|attempt| attempt.id == id)
            .map(|attempt| attempt.remote)
            .next()
    }

    fn invite<Q: Provider>(&mut self, pool: &mut Pool<Q>, remote: SocketAddr) {
        if self.search.guests.contains(&remote) {
            return;
        }
        if self.search.guests.len() >= GUESTS {
            pool.uninvite(self.search.guests.remove(0));
        }
        self.search.guests.push(remote);
        pool.invite(remote, self.number);
    }

    pub(super) fn uninvite_all<Q: Provider>(&mut self, pool: &mut Pool<Q>) {
        for guest in self.search.guests.drain(..) {
            pool.uninvite(guest);
        }
    }
}
