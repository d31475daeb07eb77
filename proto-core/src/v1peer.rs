//! A connector's side of the direct paths of v1 agents.
//!
//! An agent's offer comes through the intermediate and is a *meeting*: its addresses become *named* for a while. To a named
//! address requests are sent when both sides begin, its requests are answered, and a connection from it is let in. Nothing
//! else is: the messages beside QUIC carry no authentication, and whoever writes them may have written somebody else's
//! address on the packet. What goes to an address in answer is never more than what came from it, so nobody gains by that.
//!
//! A meeting ends when its time is over, or when the connection that came of it does. Whose connection it is, its certificate
//! says: it must permit the service of the offer, and be the agent's own where the intermediate has said who that is.

mod meeting;
mod named;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::machine::canonical;
use crate::punch::is_usable;
use crate::quic::identity::{Capacity, Fingerprint, Identity};
use crate::rng::{Rng, SeededMap};
use crate::wire::control::{Candidate, ErrorCode, SignalingMessage};
use crate::wire::v1::RawMessage;
use meeting::Meeting;
use named::Named;

/// Meetings at one time, those with a connection included.
pub const MEETINGS: usize = 256;

/// How long an agent may take from its offer to its connection: the search of a v1 agent, and a handshake.
pub const MEETING_LIFETIME: Duration = Duration::from_secs(15);

/// Addresses of one agent that are tried.
const ADDRESSES: usize = 8;

/// Invitations to v1 agents carry this name in the pool.
pub const INVITATION: u32 = u32::MAX;

/// Counters of the direct paths of v1 agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1PeerStats {
    /// Offers answered.
    pub answered: u64,
    /// Offers refused.
    pub refused: u64,
    /// Meetings in which an agent answered on some address.
    pub met: u64,
    /// Connections admitted.
    pub admitted: u64,
    /// Connections whose certificate does not permit what was offered, or is another agent's.
    pub rejected: u64,
    /// Requests sent.
    pub requests_sent: u64,
    /// Requests and keepalives answered.
    pub answers_sent: u64,
    /// Messages from addresses that nobody named.
    pub unnamed: u64,
    /// Messages not answered, because there were too many or the answer is longer than all that came.
    pub unanswered: u64,
    /// Messages that are none.
    pub malformed: u64,
}

/// What the connector offers where an offer comes from.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The service, if it is published here.
    pub service: Option<(ServiceIndex, &'a ServiceId)>,
    /// The connector's own addresses; none means that no direct path is wished for.
    pub own: &'a [Candidate],
    /// Whether the socket carries IPv6.
    pub speaks_v6: bool,
}

/// A connection that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The session of the offer.
    pub session: u64,
    /// The service that its packets are for.
    pub service: ServiceIndex,
    /// By which link the offer came.
    pub link: u32,
}

/// Whether connections from an address are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// From now on.
    Open(SocketAddr),
    /// No longer.
    Close(SocketAddr),
}

/// All meetings of a connector.
#[derive(Debug)]
pub struct V1Peers {
    /// In the order of their offers.
    meetings: VecDeque<Meeting>,
    named: SeededMap<SocketAddr, Named>,
    signals: VecDeque<(u32, SignalingMessage)>,
    raw: VecDeque<(SocketAddr, Vec<u8>)>,
    doors: VecDeque<Door>,
    /// When the first meeting wants something: asked far more often than it changes.
    due: Option<Instant>,
    rng: Rng,
    stats: V1PeerStats,
}

impl V1Peers {
    /// No meetings.
    pub fn new(mut rng: Rng) -> Self {
        Self {
            meetings: VecDeque::new(),
            named: rng.map(),
            signals: VecDeque::new(),
            raw: VecDeque::new(),
            doors: VecDeque::new(),
            due: None,
            rng,
            stats: V1PeerStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> V1PeerStats {
        self.stats
    }

    /// Meetings under way, and addresses named, for tests of leaks.
    pub fn len(&self) -> (usize, usize) {
        (self.meetings.len(), self.named.len())
    }

    /// Whether there is no meeting.
    pub fn is_empty(&self) -> bool {
        self.meetings.is_empty()
    }

    /// An agent's offer, as it came by a link. `agent` is its certificate, if the intermediate has said so.
    pub fn handle_offer(
        &mut self,
        link: u32,
        session: u64,
        candidates: &[Candidate],
        agent: Option<Fingerprint>,
        offered: Offered<'_>,
        now: Instant,
    ) {
        self.handle_timeout(now);
        let Some((service, id)) = offered.service else {
            return self.refuse(
                link,
                session,
                ErrorCode::ServiceNotFound,
                "the service is not published here",
            );
        };
        if offered.own.is_empty() {
            let code = ErrorCode::NoConnectorAvailable;
            return self.refuse(link, session, code, "no direct connections here");
        }
        let known = self
            .meetings
            .iter()
            .any(|known| (known.link, known.session) == (link, session));
        if known {
            return;
        }
        if self.meetings.len() >= MEETINGS {
            return self.refuse(link, session, ErrorCode::Unknown, "too many sessions");
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for candidate in candidates {
            let address = canonical(candidate.address);
            let suits = is_usable(address) && (offered.speaks_v6 || address.is_ipv4());
            if suits && addresses.len() < ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        self.stats.answered += 1;
        for address in &addresses {
            self.name(*address, now);
        }
        self.meetings.push_back(Meeting::new(
            (link, session),
            (service, id.clone()),
            addresses,
            agent,
            &mut self.rng,
            now,
        ));
        let answer = SignalingMessage::CandidateAnswer {
            session,
            candidates: offered.own.to_vec(),
        };
        self.signals.push_back((link, answer));
        self.schedule();
    }

    /// Any other message of signalling.
    pub fn handle_signal(&mut self, link: u32, message: &SignalingMessage, now: Instant) {
        self.handle_timeout(now);
        match message {
            // The addresses are those of the offer: the intermediate only sends them back.
            SignalingMessage::StartPunching {
                session,
                start_delay_ms,
                ..
            } => {
                if let Some(meeting) = self.meeting(link, *session) {
                    meeting.begin(Duration::from_millis(*start_delay_ms), now);
                    self.schedule();
                }
            }
            SignalingMessage::Error {
                session: Some(session),
                ..
            } => {
                let over = |meeting: &Meeting| {
                    (meeting.link, meeting.session) == (link, *session) && meeting.connection.is_none()
                };
                self.end_where(over);
            }
            SignalingMessage::CandidateOffer { .. }
            | SignalingMessage::CandidateAnswer { .. }
            | SignalingMessage::PunchingResult { .. }
            | SignalingMessage::Error { session: None, .. } => {}
        }
    }

    /// A message beside QUIC.
    pub fn handle_raw(&mut self, from: SocketAddr, payload: &[u8], now: Instant) {
        let from = canonical(from);
        let Some(named) = self.named.get_mut(&from) else {
            self.stats.unnamed += 1;
            return;
        };
        let Ok(message) = RawMessage::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        named.on_received(payload.len());
        let (full, short) = match message {
            RawMessage::BindingRequest { transaction, .. } => {
                let answer = |observed| {
                    RawMessage::BindingResponse {
                        transaction,
                        success: true,
                        observed,
                    }
                    .write()
                };
                (answer(Some(from)), answer(None))
            }
            RawMessage::KeepaliveRequest { sequence } => {
                let answer = RawMessage::KeepaliveResponse { sequence }.write();
                (answer.clone(), answer)
            }
            RawMessage::BindingResponse {
                transaction, success, ..
            } => return self.on_answer(from, transaction, success),
            RawMessage::KeepaliveResponse { .. } => return,
        };
        match named.choose(full, short, now) {
            Some(answer) => {
                self.stats.answers_sent += 1;
                self.raw.push_back((from, answer));
            }
            None => self.stats.unanswered += 1,
        }
    }

    /// A connection from an address that the door was opened for has proven its certificate: the meeting that it comes of. If
    /// there is none, it is to be closed.
    pub fn admit(&mut self, id: ConnId, from: SocketAddr, identity: Option<&Identity>) -> Option<Admitted> {
        let from = canonical(from);
        // The newest first: an agent that tries again means its last offer.
        let meeting = self.meetings.iter_mut().rev().find(|meeting| {
            let permitted = identity.is_some_and(|identity| {
                identity.names(Capacity::Agent, &meeting.service_id)
                    && meeting.agent.is_none_or(|agent| agent == identity.fingerprint())
            });
            permitted && meeting.connection.is_none() && meeting.addresses.contains(&from)
        });
        let Some(meeting) = meeting else {
            self.stats.rejected += 1;
            return None;
        };
        meeting.connection = Some(id);
        meeting.stop();
        self.stats.admitted += 1;
        // It came from there: the intermediate is told what has worked, if the requests have not done so.
        if !std::mem::replace(&mut meeting.reported, true) {
            let result = SignalingMessage::PunchingResult {
                session: meeting.session,
                success: true,
                working: Some(from),
            };
            self.signals.push_back((meeting.link, result));
        }
        let admitted = Admitted {
            session: meeting.session,
            service: meeting.service,
            link: meeting.link,
        };
        self.schedule();
        Some(admitted)
    }

    /// A connection that was admitted is reached at another address now, which its peer has proven.
    pub fn on_moved(&mut self, id: ConnId, to: SocketAddr, now: Instant) {
        let to = canonical(to);
        let mut left = None;
        let meeting = self
            .meetings
            .iter_mut()
            .find(|meeting| meeting.connection == Some(id) && !meeting.addresses.contains(&to));
        let Some(meeting) = meeting else { return };
        // One beyond those of the offer: the last place it went to.
        if meeting.addresses.len() > ADDRESSES {
            left = meeting.addresses.pop();
        }
        meeting.addresses.push(to);
        self.name(to, now);
        if let Some(left) = left {
            self.unname(left);
        }
    }

    /// A connection that was admitted is gone.
    pub fn on_closed(&mut self, id: ConnId) {
        self.end_where(|meeting| meeting.connection == Some(id));
    }

    /// A link is gone, and with it the sessions that came by it.
    pub fn on_link_down(&mut self, link: u32) {
        self.end_where(|meeting| meeting.link == link && meeting.connection.is_none());
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        self.end_where(|meeting| meeting.is_over(now));
        for meeting in &mut self.meetings {
            while let Some((to, request)) = meeting.next_request(now) {
                self.stats.requests_sent += 1;
                self.raw.push_back((to, request));
            }
        }
        self.schedule();
    }

    /// When [`V1Peers::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn schedule(&mut self) {
        self.due = self.meetings.iter().filter_map(Meeting::poll_timeout).min();
    }

    /// Whether anything waits to be taken.
    pub fn has_output(&self) -> bool {
        !(self.signals.is_empty() && self.raw.is_empty() && self.doors.is_empty())
    }

    /// The next message for the intermediate, and by which link.
    pub fn poll_signal(&mut self) -> Option<(u32, SignalingMessage)> {
        self.signals.pop_front()
    }

    /// The next message beside QUIC, and to whom.
    pub fn poll_raw(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.raw.pop_front()
    }

    /// The next change of who is let in.
    pub fn poll_door(&mut self) -> Option<Door> {
        self.doors.pop_front()
    }

    fn on_answer(&mut self, from: SocketAddr, transaction: [u8; 12], success: bool) {
        let met = self
            .meetings
            .iter_mut()
            .find(|meeting| meeting.is_answered_by(from, &transaction));
        let Some(meeting) = met.filter(|_| success) else {
            return;
        };
        meeting.stop();
        if std::mem::replace(&mut meeting.reported, true) {
            return;
        }
        self.stats.met += 1;
        let result = SignalingMessage::PunchingResult {
            session: meeting.session,
            success: true,
            working: Some(from),
        };
        self.signals.push_back((meeting.link, result));
    }

    fn meeting(&mut self, link: u32, session: u64) -> Option<&mut Meeting> {
        self.meetings
            .iter_mut()
            .find(|meeting| (meeting.link, meeting.session) == (link, session))
    }

    fn refuse(&mut self, link: u32, session: u64, code: ErrorCode, text: &str) {
        self.stats.refused += 1;
        let error = SignalingMessage::Error {
            session: Some(session),
            code,
            text: text.to_owned(),
        };
        self.signals.push_back((link, error));
    }

    fn name(&mut self, address: SocketAddr, now: Instant) {
        let doors = &mut self.doors;
        let named = self.named.entry(address).or_insert_with(|| {
            doors.push_back(Door::Open(address));
            Named::new(now)
        });
        named.meetings += 1;
    }

    fn end_where(&mut self, over: impl Fn(&Meeting) -> bool) {
        let mut index = 0;
        while let Some(meeting) = self.meetings.get(index) {
            if !over(meeting) {
                index += 1;
                continue;
            }
            let Some(ended) = self.meetings.remove(index) else {
                continue;
            };
            for address in ended.addresses {
                self.unname(address);
            }
        }
        self.schedule();
    }

    fn unname(&mut self, address: SocketAddr) {
        let Some(named) = self.named.get_mut(&address) else {
            return;
        };
        named.meetings -= 1;
        if named.meetings == 0 {
            self.named.remove(&address);
            self.doors.push_back(Door::Close(address));
        }
    }
}

#[cfg(test)]
mod tests;
