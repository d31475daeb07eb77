//! The search for a direct path between an agent and a connector: ICE (RFC 8445) as values.
//!
//! A [`Puncher`] is one side of one session. It decides which addresses of the peer to try, in which order and how often,
//! whom to answer, when a path works, which path is taken (the agent nominates), and when a path that was taken may no longer be
//! used. It speaks through the one socket that its host uses for everything, so an address of the peer is all that makes a
//! pair: which of our addresses a packet leaves from is the routing table's choice, as it is for the packets that follow.
//!
//! What it deviates in from RFC 8445, and why:
//! - Both sides begin at an instant they agreed on, with a burst: they know each other, so there is no flood to fear,
//!   and holes have to open on both sides within each other's lifetime.
//! - The first pair that works is nominated at once. A better one that works later in the same round is nominated
//!   again; the connection on it takes over.
//! - An address that never answered authentically gets [`Limits::requests_per_address`] packets in five minutes, and no more.
//!
//! Checks come in authenticated (`wire::check`); their encoding and the key are the owner's business.

mod candidate;
mod pair;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use candidate::{
    Family, Interface, candidate_priority, host_candidates, is_usable, peer_reflexive_priority,
};
use pair::{Pair, State};

use crate::machine::canonical;
use crate::rng::Rng;
use crate::window::{Freshness, SequenceWindow};
use crate::wire::check::{Check, CheckKind, Transaction};
use crate::wire::control::{Candidate, CandidateKind};

/// Between two requests, once the burst is spent (RFC 8445 §14.2: at least 5 ms).
const PACE: Duration = Duration::from_millis(5);

/// Requests that may go out at once.
const BURST: u32 = 8;

/// Before the first repetition of a request; doubles with each. Short, because on a path through two port-restricted NATs
/// the first request of the faster side is always lost.
const FIRST_RETRY: Duration = Duration::from_millis(20);

/// After the last request of a pair: how long an answer may still take.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// A request that answers one may follow the last on the same pair after this time, or it is not sent.
const TRIGGER_GAP: Duration = Duration::from_millis(10);

/// How long after the first nomination a better pair is still worth changing to.
const IMPROVEMENT: Duration = Duration::from_millis(500);

/// Nothing heard on the path for this long: ask (RFC 7675 §5.1 has 5 s).
const CONSENT_INTERVAL: Duration = Duration::from_secs(5);

/// Nothing authentic heard on the path for this long: it may not be used any more (RFC 7675 §5.1).
const CONSENT_LIFETIME: Duration = Duration::from_secs(30);

/// While nobody answers, consent is asked for again after this.
const CONSENT_RETRY: Duration = Duration::from_millis(500);

/// Requests without an answer that are remembered.
const OUTSTANDING: usize = 128;

/// Answers that wait to be sent; more requests at once are dropped.
const ANSWERS: usize = 16;

/// Bounds of one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses that the peer may name.
    pub named: usize,
    /// Addresses found by authentic checks from elsewhere.
    pub discovered: usize,
    /// Requests to an address that has not answered, in five minutes.
    pub requests_per_address: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            named: 16,
            discovered: 8,
            requests_per_address: 10,
        }
    }
}

/// Requests to one pair in one round: at 0, 20, 60, 140, 300, 620 and 1260 ms.
const REQUESTS_PER_ROUND: u8 = 7;

/// On which side of the session a puncher stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It nominates ("controlling").
    Agent,
    /// It follows ("controlled").
    Connector,
}

/// What a puncher tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunchEvent {
    /// The first authentic word from this address: packets of the peer arrive from there. An agent may begin a handshake
    /// before the pair is proven in both directions; it saves half a round trip.
    Heard(SocketAddr),
    /// The pair works in both directions.
    Works {
        /// The peer's address.
        remote: SocketAddr,
        /// The round trip of the check.
        rtt: Duration,
    },
    /// The agent has chosen this pair, and this side knows that it works.
    Nominated(SocketAddr),
    /// The peer sees this side at an address that was not known.
    Observed(SocketAddr),
    /// Every pair of the round was tried and none works.
    Failed,
    /// The nominated path may not be used any more: its other end was silent for too long.
    ConsentLost(SocketAddr),
}

/// Counters of a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PunchStats {
    /// Requests sent.
    pub requests: u64,
    /// Responses sent.
    pub responses: u64,
    /// Authentic checks that were for somebody else or came back to their sender.
    pub misdirected: u64,
    /// Authentic requests seen before, or too old to tell.
    pub replayed: u64,
    /// Responses to nothing asked, or from another address than was asked.
    pub unasked: u64,
    /// Addresses of the peer that were not taken: unusable, or too many.
    pub refused_candidates: u64,
    /// Answers dropped because too many waited.
    pub answers_dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    transaction: Transaction,
    remote: SocketAddr,
    at: Instant,
    nominate: bool,
}

#[derive(Clone, Copy, Debug)]
struct Consent {
    remote: SocketAddr,
    heard: Instant,
    ask_at: Instant,
}

/// One side of one search.
#[derive(Debug)]
pub struct Puncher {
    side: Side,
    /// The number that the peer expects in checks to it.
    peer_session: u32,
    limits: Limits,
    rng: Rng,
    pairs: Vec<Pair>,
    /// When the round begins or began; `None` between rounds.
    started: Option<Instant>,
    /// When the first pair of the round was nominated.
    nominated_at: Option<Instant>,
    /// Whether the round has led to a path.
    taken: bool,
    /// The pair in use, with the best priority so far.
    consent: Option<Consent>,
    /// When the bucket of requests is full again (GCRA).
    paced_until: Option<Instant>,
    next_sequence: u64,
    seen: SequenceWindow,
    asked: VecDeque<Asked>,
    answers: VecDeque<(SocketAddr, Check)>,
    known_own: Vec<SocketAddr>,
    events: VecDeque<PunchEvent>,
    stats: PunchStats,
}

impl Puncher {
    /// A search that has not begun. `peer_session` is the number that the peer gave for checks to it.
    pub fn new(side: Side, peer_session: u32, limits: Limits, rng: Rng) -> Self {
        Self {
            side,
            peer_session,
            limits,
            rng,
            pairs: Vec::new(),
            started: None,
            nominated_at: None,
            taken: false,
            consent: None,
            paced_until: None,
            next_sequence: 1,
            seen: SequenceWindow::default(),
            asked: VecDeque::with_capacity(OUTSTANDING),
            answers: VecDeque::with_capacity(ANSWERS),
            known_own: Vec::new(),
            events: VecDeque::new(),
            stats: PunchStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> PunchStats {
        self.stats
    }

    /// Whether a round is under way.
    pub fn is_running(&self) -> bool {
        self.started.is_some()
    }

    /// The path in use.
    pub fn nominated(&self) -> Option<SocketAddr> {
        self.consent.map(|consent| consent.remote)
    }

    /// The addresses under which this side is known already: the peer's view of one of them is no news.
    pub fn set_own(&mut self, addresses: Vec<SocketAddr>) {
        self.known_own = addresses;
    }

    /// Takes addresses of the peer, as they become known. In a round that is under way they are tried at once.
    pub fn add_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        for candidate in candidates {
            let address = canonical(candidate.address);
            if self.pairs.iter().any(|pair| pair.remote == address) {
                continue;
            }
            let named = self.pairs.iter().filter(|pair| pair.named).count();
            if candidate.kind == CandidateKind::Relay || !is_usable(address) || named >= self.limits.named {
                self.stats.refused_candidates += 1;
                continue;
            }
            self.insert(address, candidate.priority, true, now);
        }
    }

    /// Begins a round at `at`: every pair is tried, from the best to the worst.
    pub fn start(&mut self, at: Instant) {
        self.started = Some(at);
        self.nominated_at = None;
        self.taken = false;
        for pair in &mut self.pairs {
            pair.begin_round(at);
        }
    }

    /// Ends the search for now: nothing is asked any more but consent for the path in use.
    pub fn stop(&mut self) {
        self.started = None;
    }

    /// Gives the path in use up: the connection on it is over.
    pub fn abandon(&mut self) {
        self.consent = None;
    }

    /// Takes an authentic check that came from `remote`.
    pub fn handle_check(&mut self, check: &Check, remote: SocketAddr, now: Instant) {
        let remote = canonical(remote);
        if check.from_agent == (self.side == Side::Agent) {
            self.stats.misdirected += 1;
            return;
        }
        match check.kind {
            CheckKind::Request { nominate } => self.on_request(check, nominate, remote, now),
            CheckKind::Response { observed } => self.on_response(check.transaction, observed, remote, now),
        }
        self.end_round(now);
    }

    /// The connection on the path in use has proved that its peer is at another address now: what was agreed for the old one holds
    /// for the new.
    pub fn on_moved(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) {
        let (from, to) = (canonical(from), canonical(to));
        if let Some(consent) = self.consent.as_mut().filter(|consent| consent.remote == from) {
            consent.remote = to;
            consent.heard = consent.heard.max(now);
            consent.ask_at = consent.ask_at.max(now + CONSENT_INTERVAL);
        }
    }

    /// Notes that the connection on the path in use heard something authentic: that is consent, too.
    pub fn on_heard(&mut self, remote: SocketAddr, now: Instant) {
        if let Some(consent) = self.consent.as_mut().filter(|consent| consent.remote == remote) {
            consent.heard = consent.heard.max(now);
            consent.ask_at = consent.ask_at.max(now + CONSENT_INTERVAL);
        }
    }

    /// The next check to send, and where to. Drain until `None`.
    pub fn poll_check(&mut self, now: Instant) -> Option<(SocketAddr, Check)> {
        self.handle_timeout(now);
        if let Some(answer) = self.answers.pop_front() {
            self.stats.responses += 1;
            return Some(answer);
        }
        if let Some(check) = self.poll_consent(now) {
            return Some(check);
        }
        let started = self.started?;
        let due = |pair: &Pair| pair.due().is_some_and(|at| at <= now) && (pair.urgent || started <= now);
        let best = self.pairs.iter().enumerate().filter(|(_, pair)| due(pair));
        let (index, _) = best.max_by_key(|(_, pair)| (pair.urgent, pair.priority))?;
        if !self.may_send(now) {
            return None;
        }
        let pair = self.pairs.get_mut(index)?;
        let (remote, nominate) = (pair.remote, pair.nominate);
        pair.on_sent(now);
        Some(self.request(remote, nominate, now))
    }

    /// What the puncher has to tell.
    pub fn poll_event(&mut self) -> Option<PunchEvent> {
        self.events.pop_front()
    }

    /// Whether there is something to take without waiting.
    pub fn has_output(&self) -> bool {
        !self.answers.is_empty() || !self.events.is_empty()
    }

    /// When [`Puncher::handle_timeout`] and a drain are wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let consent = self
            .consent
            .map(|consent| consent.ask_at.min(consent.heard + CONSENT_LIFETIME));
        let round = self.started.map(|started| {
            // What is urgent does not wait for the start, and nothing goes out while the bucket is empty.
            let next = |pair: &Pair| {
                let at = pair.next()?;
                Some(if pair.urgent { at } else { at.max(started) })
            };
            let next = self.pairs.iter().filter_map(next).min();
            let next = next.or_else(|| self.waits_until()).unwrap_or(started);
            self.paced_until
                .and_then(|until| until.checked_sub(PACE * (BURST - 1)))
                .map_or(next, |paced| next.max(paced))
        });
        [consent, round].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(consent) = self
            .consent
            .filter(|consent| consent.heard + CONSENT_LIFETIME <= now)
        {
            self.consent = None;
            self.events.push_back(PunchEvent::ConsentLost(consent.remote));
        }
        if self.started.is_none_or(|at| now < at) {
            return;
        }
        let settled = self.nominated_at.is_some_and(|at| at + IMPROVEMENT <= now);
        for pair in &mut self.pairs {
            pair.handle_timeout(now);
            if settled {
                pair.rest();
            }
        }
        self.end_round(now);
    }

    /// Ends the round if nothing can come of it any more.
    fn end_round(&mut self, now: Instant) {
        let waits = self.waits_until().is_some_and(|until| now < until);
        if self.started.is_none() || waits || self.pairs.iter().any(Pair::is_open) {
            return;
        }
        self.started = None;
        if !self.taken {
            self.events.push_back(PunchEvent::Failed);
        }
    }

    /// Until when a round lasts although nothing is asked: for candidates to come, or for the agent to choose.
    fn waits_until(&self) -> Option<Instant> {
        let waits = !self.taken && (self.pairs.is_empty() || self.side == Side::Connector);
        self.started.filter(|_| waits).map(|started| started + ROUND)
    }

    fn insert(&mut self, remote: SocketAddr, peer_priority: u32, named: bool, now: Instant) {
        let own_priority = candidate_priority(CandidateKind::Host, Family::of(remote), 0);
        let priority = match self.side {
            Side::Agent => pair::priority(own_priority, peer_priority),
            Side::Connector => pair::priority(peer_priority, own_priority),
        };
        let mut pair = Pair::new(remote, priority, named, self.limits.requests_per_address);
        if let Some(started) = self.started {
            pair.begin_round(started.max(now));
        }
        self.pairs.push(pair);
    }

    fn on_request(&mut self, check: &Check, nominate: bool, remote: SocketAddr, now: Instant) {
        match self.seen.note(check.transaction.sequence) {
            Freshness::Fresh => {}
            Freshness::Seen | Freshness::TooOld => {
                self.stats.replayed += 1;
                return;
            }
        }
        self.answer(check, remote);
        if !self.pairs.iter().any(|pair| pair.remote == remote) {
            let discovered = self.pairs.iter().filter(|pair| !pair.named).count();
            if discovered >= self.limits.discovered || !is_usable(remote) {
                self.stats.refused_candidates += 1;
                return;
            }
            self.insert(remote, check.priority, false, now);
        }
        let running = self.started.is_some();
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == remote) else {
            return;
        };
        if pair.on_heard() {
            self.events.push_back(PunchEvent::Heard(remote));
        }
        pair.peer_nominated |= nominate;
        let works = matches!(pair.state, State::Works { .. });
        if running && !works {
            // The peer's packets arrive; whether ours do is the question now (RFC 8445 §7.3.1.4).
            pair.trigger(now, TRIGGER_GAP);
        }
        let take = pair.peer_nominated && works;
        if take && self.side == Side::Connector {
            self.take(remote, now);
        }
        self.on_heard(remote, now);
    }

    fn on_response(
        &mut self,
        transaction: Transaction,
        observed: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) {
        let position = self
            .asked
            .iter()
            .position(|asked| asked.transaction == transaction);
        let asked = position.and_then(|index| self.asked.get(index).copied());
        // RFC 8445 §7.2.5.2.1: the answer must come from where the question went.
        let Some(asked) = asked.filter(|asked| asked.remote == remote) else {
            self.stats.unasked += 1;
            return;
        };
        if let Some(index) = position {
            self.asked.remove(index);
        }
        self.on_heard(remote, now);
        let observed = canonical(observed);
        if is_usable(observed)
            && !self.known_own.contains(&observed)
            && self.known_own.len() < 2 * self.limits.named
        {
            self.known_own.push(observed);
            self.events.push_back(PunchEvent::Observed(observed));
        }
        let rtt = now.saturating_duration_since(asked.at);
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == remote) else {
            return;
        };
        if pair.on_heard() {
            self.events.push_back(PunchEvent::Heard(remote));
        }
        let news = !matches!(pair.state, State::Works { .. });
        pair.works(rtt);
        let (priority, nominated) = (pair.priority, pair.peer_nominated);
        if news {
            self.events.push_back(PunchEvent::Works { remote, rtt });
        }
        match self.side {
            Side::Agent if asked.nominate => self.take(remote, now),
            Side::Agent => self.consider(remote, priority, now),
            Side::Connector if nominated => self.take(remote, now),
            Side::Connector => {}
        }
    }

    /// The agent's choice: the first pair that works, and each better one that works soon after.
    fn consider(&mut self, remote: SocketAddr, priority: u64, now: Instant) {
        if self.started.is_none() || self.nominated_at.is_some_and(|at| now > at + IMPROVEMENT) {
            return;
        }
        let best = self
            .pairs
            .iter()
            .filter(|pair| pair.nominate)
            .map(|pair| pair.priority)
            .max();
        if best.is_some_and(|best| best >= priority) {
            return;
        }
        self.nominated_at.get_or_insert(now);
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == remote) {
            pair.nominate(now);
        }
    }

    fn take(&mut self, remote: SocketAddr, now: Instant) {
        if self.consent.is_some_and(|consent| consent.remote == remote) {
            return;
        }
        // Both sides saw both nominations, in any order: the better pair stays.
        let priority_of = |address| {
            self.pairs
                .iter()
                .find(|pair| pair.remote == address)
                .map(|pair| pair.priority)
        };
        let current = self.consent.and_then(|consent| priority_of(consent.remote));
        if self.taken && current > priority_of(remote) {
            return;
        }
        self.nominated_at.get_or_insert(now);
        self.taken = true;
        let taken = priority_of(remote);
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == remote) {
            pair.is_taken();
        }
        for pair in self.pairs.iter_mut().filter(|pair| Some(pair.priority) < taken) {
            pair.rest();
        }
        let ask_at = now + self.consent_interval();
        self.consent = Some(Consent {
            remote,
            heard: now,
            ask_at,
        });
        self.events.push_back(PunchEvent::Nominated(remote));
    }

    fn answer(&mut self, check: &Check, remote: SocketAddr) {
        if self.answers.len() >= ANSWERS {
            self.stats.answers_dropped += 1;
            return;
        }
        self.answers.push_back((
            remote,
            Check {
                session: self.peer_session,
                from_agent: self.side == Side::Agent,
                transaction: check.transaction,
                phase: check.phase,
                priority: check.priority,
                kind: CheckKind::Response { observed: remote },
            },
        ));
    }

    fn request(&mut self, remote: SocketAddr, nominate: bool, now: Instant) -> (SocketAddr, Check) {
        let transaction = Transaction {
            sequence: self.next_sequence,
            nonce: self.rng.next_u64() as u32,
        };
        self.next_sequence += 1;
        if self.asked.len() >= OUTSTANDING {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked {
            transaction,
            remote,
            at: now,
            nominate,
        });
        self.stats.requests += 1;
        let check = Check {
            session: self.peer_session,
            from_agent: self.side == Side::Agent,
            transaction,
            phase: 0,
            priority: peer_reflexive_priority(Family::of(remote)),
            kind: CheckKind::Request { nominate },
        };
        (remote, check)
    }

    /// Spends one of the requests that may go out now, if there is one.
    fn may_send(&mut self, now: Instant) -> bool {
        let until = self.paced_until.map_or(now, |until| until.max(now));
        if until - now > PACE * (BURST - 1) {
            return false;
        }
        self.paced_until = Some(until + PACE);
        true
    }

    fn poll_consent(&mut self, now: Instant) -> Option<(SocketAddr, Check)> {
        let consent = self.consent.as_mut().filter(|consent| consent.ask_at <= now)?;
        let remote = consent.remote;
        consent.ask_at = now + CONSENT_RETRY;
        Some(self.request(remote, self.side == Side::Agent, now))
    }

    /// RFC 7675 §5.1: between 80 and 120 % of the interval, so that sessions do not beat together.
    fn consent_interval(&mut self) -> Duration {
        self.rng
            .duration_between(CONSENT_INTERVAL * 4 / 5, CONSENT_INTERVAL * 6 / 5)
    }
}

/// How long a round takes at most: the last request of a pair, and its answer.
const ROUND: Duration = Duration::from_millis(1260 + 500);
