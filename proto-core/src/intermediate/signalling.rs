//! The signalling of v1 peers: an agent and the connector of its service exchange addresses and begin at one moment.
//!
//! A session joins exactly two connections: the agent that offered, and the connector that held the service at that time.
//! An offer goes to that connector, its answer starts both, and nobody else has a say: an answer from elsewhere would send
//! the agent to an address of a stranger's choice. A session lives [`SESSION_LIFETIME`], answered or not.
//!
//! What comes of a session may outlive it: packets of the connector for an agent that reaches it directly, and takes none there.
//! So who was paired is remembered until the agent leaves.
//!
//! Nothing of it can pile up: sessions are bounded per client and in all, and so is what an offer may hold. A message that
//! cannot be taken is answered with an error, except an error, which never is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::expiring::Expiring;
use crate::id::ConnId;
use crate::registration::Unroutable;
use crate::rng::{Rng, SeededMap};
use crate::wire::control::{Candidate, ErrorCode, SignalingMessage};

/// How long a session lives: fixed by `ztna-v1`.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(5);

/// How long both sides wait before they begin, in milliseconds: fixed by `ztna-v1`. Longer than the way to either.
const START_DELAY_MS: u64 = 100;

/// Sessions of one agent at one time. A v1 agent has one, and begins another after the first has failed.
const PER_AGENT: usize = 8;

/// Sessions of one connector at one time: what it is sent within five seconds.
const PER_CONNECTOR: usize = 256;

/// Sessions of all clients. Each holds one offer, 4 KiB at most.
const SESSIONS: usize = 8_192;

/// Candidates of one side. ICE agents limit the pairs to 100 (RFC 8445 §6.1.2.5); a host has a few addresses.
const CANDIDATES: usize = 32;

/// Longest foundation of a candidate: v1 writes a kind and an address.
const FOUNDATION: usize = 64;

/// Pairs that are remembered for one agent; the oldest goes first. An agent has one direct path to each of its connectors.
const PAIRS: usize = 16;

/// Counters of the signalling of v1 peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignallingStats {
    /// Offers passed on to a connector.
    pub offers: u64,
    /// Sessions that a connector answered, and both sides were told to begin.
    pub started: u64,
    /// Sessions whose peers said that they found a path, each side counted.
    pub succeeded: u64,
    /// Sessions whose peers said that they found none, each side counted.
    pub failed: u64,
    /// Messages answered with an error.
    pub refused: u64,
    /// Sessions that no connector answered in time.
    pub expired: u64,
    /// Frames that are no message, and messages that clients do not send.
    pub undecodable: u64,
    /// Messages for a client that does not read.
    pub unread: u64,
}

#[derive(Debug)]
struct Session {
    agent: ConnId,
    connector: ConnId,
    /// The agent's addresses, until the connector has answered.
    offered: Option<Vec<Candidate>>,
}

/// All sessions of an intermediate.
#[derive(Debug)]
pub(super) struct Signalling {
    /// In the order of their offers, which is that of their ends.
    sessions: Expiring<u64, Session>,
    /// The sessions of each client, no more than its limit.
    of_client: SeededMap<ConnId, Vec<u64>>,
    /// The agent of each session that a connector has answered, by the connector and the session.
    pairs: SeededMap<(ConnId, u64), ConnId>,
    /// The pairs of each agent, oldest first.
    of_agent: SeededMap<ConnId, VecDeque<(ConnId, u64)>>,
    messages: VecDeque<(ConnId, SignalingMessage)>,
    pub(super) stats: SignallingStats,
}

impl Signalling {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            sessions: Expiring::new(SESSIONS, rng),
            of_client: rng.map(),
            pairs: rng.map(),
            of_agent: rng.map(),
            messages: VecDeque::new(),
            stats: SignallingStats::default(),
        }
    }

    /// A client's message. `way` finds the connector for an agent and a service.
    pub(super) fn handle(
        &mut self,
        from: ConnId,
        message: SignalingMessage,
        way: impl FnOnce(&str) -> Result<ConnId, Unroutable>,
        now: Instant,
    ) {
        self.handle_timeout(now);
        match message {
            SignalingMessage::CandidateOffer {
                session,
                service,
                candidates,
            } => {
                let connector = way(&service);
                self.on_offer(from, session, service, candidates, connector, now);
            }
            SignalingMessage::CandidateAnswer { session, candidates } => {
                self.on_answer(from, session, candidates);
            }
            SignalingMessage::PunchingResult { session, success, .. } => {
                match self.require_member(from, session) {
                    Some(_) if success => self.stats.succeeded += 1,
                    Some(_) => self.stats.failed += 1,
                    None => {}
                }
            }
            SignalingMessage::Error { session, code, text } => self.on_error(from, session, code, text),
            SignalingMessage::StartPunching { session, .. } => {
                self.stats.undecodable += 1;
                self.refuse(
                    from,
                    session,
                    ErrorCode::InvalidMessage,
                    "only the intermediate starts",
                );
            }
        }
    }

    /// A connection is gone: whoever waits for it need not wait on.
    pub(super) fn remove(&mut self, conn: ConnId) {
        for pair in self.of_agent.remove(&conn).unwrap_or_default() {
            self.pairs.remove(&pair);
        }
        for session in self.of_client.get(&conn).cloned().unwrap_or_default() {
            let Some(ended) = self.end(session) else { continue };
            if ended.connector == conn && ended.offered.is_some() {
                let code = ErrorCode::NoConnectorAvailable;
                self.tell(ended.agent, Some(session), code, "the connector has left");
            }
        }
    }

    /// The agent whose session a connector has answered.
    pub(super) fn agent_of(&self, connector: ConnId, session: u64) -> Option<ConnId> {
        self.pairs.get(&(connector, session)).copied()
    }

    /// The agent of a session under way.
    pub(super) fn offerer(&self, session: u64) -> Option<ConnId> {
        self.sessions.get(&session).map(|known| known.agent)
    }

    /// Ends the sessions that are over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, session)) = self.sessions.pop_expired(now, SESSION_LIFETIME) {
            self.forget(id, &session);
            if session.offered.is_some() {
                self.stats.expired += 1;
                let code = ErrorCode::SessionTimeout;
                self.tell(session.agent, Some(id), code, "the connector did not answer");
            }
        }
    }

    /// When [`Signalling::handle_timeout`] is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.next_expiry(SESSION_LIFETIME)
    }

    /// The next message, and to whom.
    pub(super) fn poll_message(&mut self) -> Option<(ConnId, SignalingMessage)> {
        self.messages.pop_front()
    }

    /// Sessions under way.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn on_offer(
        &mut self,
        agent: ConnId,
        session: u64,
        service: String,
        candidates: Vec<Candidate>,
        connector: Result<ConnId, Unroutable>,
        now: Instant,
    ) {
        let connector = match connector {
            Ok(connector) => connector,
            Err(Unroutable::NoConnector) => {
                let code = ErrorCode::NoConnectorAvailable;
                return self.refuse(agent, session, code, "no connector holds the service");
            }
            Err(Unroutable::NotRegistered | Unroutable::Ambiguous) => {
                let code = ErrorCode::ServiceNotFound;
                return self.refuse(agent, session, code, "not registered for the service");
            }
        };
        if !are_sensible(&candidates) {
            let code = ErrorCode::InvalidMessage;
            return self.refuse(agent, session, code, "too many or too long candidates");
        }
        let known = self.sessions.get(&session).map(|known| known.agent);
        if let Some(known) = known.or_else(|| self.agent_of(connector, session)) {
            // The connector has it already, or another agent does: in neither case does it get another.
            if known != agent {
                self.refuse(agent, session, ErrorCode::InvalidMessage, "the session is taken");
            }
            return;
        }
        if self.count(agent) >= PER_AGENT
            || self.count(connector) >= PER_CONNECTOR
            || self.sessions.len() >= SESSIONS
        {
            return self.refuse(agent, session, ErrorCode::Unknown, "too many sessions");
        }
        self.stats.offers += 1;
        for client in [agent, connector] {
            self.of_client.entry(client).or_default().push(session);
        }
        let offered = Some(candidates.clone());
        self.sessions.insert(
            session,
            Session {
                agent,
                connector,
                offered,
            },
            now,
        );
        let offer = SignalingMessage::CandidateOffer {
            session,
            service,
            candidates,
        };
        self.messages.push_back((connector, offer));
    }

    fn on_answer(&mut self, from: ConnId, session: u64, candidates: Vec<Candidate>) {
        let Some(known) = self.require_member(from, session) else {
            return;
        };
        if known.connector != from {
            return self.refuse(
                from,
                session,
                ErrorCode::PeerRejected,
                "only the connector answers",
            );
        }
        if !are_sensible(&candidates) {
            let code = ErrorCode::InvalidMessage;
            return self.refuse(from, session, code, "too many or too long candidates");
        }
        let (agent, connector) = (known.agent, known.connector);
        // Answered already: both have begun.
        let Some(offered) = known.offered.take() else {
            return;
        };
        self.stats.started += 1;
        self.pair(agent, connector, session);
        for (to, peer_candidates) in [(agent, candidates), (connector, offered)] {
            let start = SignalingMessage::StartPunching {
                session,
                start_delay_ms: START_DELAY_MS,
                peer_candidates,
            };
            self.messages.push_back((to, start));
        }
    }

    fn pair(&mut self, agent: ConnId, connector: ConnId, session: u64) {
        self.pairs.insert((connector, session), agent);
        let own = self.of_agent.entry(agent).or_default();
        own.push_back((connector, session));
        if own.len() > PAIRS
            && let Some(oldest) = own.pop_front()
        {
            self.pairs.remove(&oldest);
        }
    }

    /// One of the two gives up. Who is none of them is not even answered: errors about errors would go on for ever.
    fn on_error(&mut self, from: ConnId, session: Option<u64>, code: ErrorCode, mut text: String) {
        let Some(session) = session else { return };
        let concerned = self
            .sessions
            .get(&session)
            .is_some_and(|known| known.agent == from || known.connector == from);
        if !concerned {
            return;
        }
        let Some(ended) = self.end(session) else { return };
        if ended.connector == from && ended.offered.is_some() {
            text.truncate(text.floor_char_boundary(FOUNDATION));
            self.tell(ended.agent, Some(session), code, &text);
        }
    }

    /// The session, if `from` is one of its two; else `from` is refused.
    fn require_member(&mut self, from: ConnId, session: u64) -> Option<&mut Session> {
        let why = match self.sessions.get(&session) {
            Some(known) if known.agent == from || known.connector == from => {
                return self.sessions.get_mut(&session);
            }
            Some(_) => (ErrorCode::PeerRejected, "not a peer of the session"),
            None => (ErrorCode::SessionNotFound, "no such session"),
        };
        self.refuse(from, session, why.0, why.1);
        None
    }

    fn count(&self, client: ConnId) -> usize {
        self.of_client.get(&client).map_or(0, Vec::len)
    }

    fn end(&mut self, id: u64) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.forget(id, &session);
        Some(session)
    }

    fn forget(&mut self, id: u64, session: &Session) {
        for client in [session.agent, session.connector] {
            let Some(ids) = self.of_client.get_mut(&client) else {
                continue;
            };
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.of_client.remove(&client);
            }
        }
    }

    fn refuse(&mut self, to: ConnId, session: u64, code: ErrorCode, text: &str) {
        self.stats.refused += 1;
        self.tell(to, Some(session), code, text);
    }

    fn tell(&mut self, to: ConnId, session: Option<u64>, code: ErrorCode, text: &str) {
        let text = text.to_owned();
        let error = SignalingMessage::Error { session, code, text };
        self.messages.push_back((to, error));
    }
}

fn are_sensible(candidates: &[Candidate]) -> bool {
    candidates.len() <= CANDIDATES
        && candidates
            .iter()
            .all(|candidate| candidate.foundation.len() <= FOUNDATION)
}

#[cfg(test)]
mod tests;
