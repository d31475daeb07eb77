//! One offer of a v1 agent, and what has come of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::MEETING_LIFETIME;
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::punch::{Family, candidate_priority};
use crate::quic::identity::Fingerprint;
use crate::rng::Rng;
use crate::wire::control::CandidateKind;
use crate::wire::v1::{RawMessage, TransactionId};

/// Each address is asked this often.
const ROUNDS: u32 = 10;

/// Between two requests to one address, when the search has begun. A hole in a NAT stays open for 30 s at least, so the
/// requests need not be close; the first few may be lost because the other side's hole is not open yet.
const ROUND: Duration = Duration::from_millis(200);

/// No search begins later than this, whatever the intermediate says.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) link: u32,
    pub(super) session: u64,
    pub(super) service: ServiceIndex,
    pub(super) service_id: ServiceId,
    /// The agent's addresses.
    pub(super) addresses: Vec<SocketAddr>,
    /// The agent's certificate, if the intermediate has said so.
    pub(super) agent: Option<Fingerprint>,
    /// What has come of it.
    pub(super) connection: Option<ConnId>,
    /// Whether the intermediate was told that a path works.
    pub(super) reported: bool,
    /// Of the requests to each address; the address counts as well.
    transactions: Vec<TransactionId>,
    /// Requests sent, and when the next is due.
    sent: u32,
    next: Option<Instant>,
    begun: bool,
    ends: Instant,
}

impl Meeting {
    pub(super) fn new(
        (link, session): (u32, u64),
        (service, service_id): (ServiceIndex, ServiceId),
        addresses: Vec<SocketAddr>,
        agent: Option<Fingerprint>,
        rng: &mut Rng,
        now: Instant,
    ) -> Self {
        let transactions = addresses.iter().map(|_| {
            let mut transaction = TransactionId::default();
            rng.fill(&mut transaction);
            transaction
        });
        Self {
            link,
            session,
            service,
            service_id,
            transactions: transactions.collect(),
            addresses,
            agent,
            connection: None,
            reported: false,
            sent: 0,
            next: None,
            begun: false,
            ends: now + MEETING_LIFETIME,
        }
    }

    /// Both sides begin after this time. Once: who says it twice does not get twice the requests.
    pub(super) fn begin(&mut self, delay: Duration, now: Instant) {
        if !std::mem::replace(&mut self.begun, true) && !self.addresses.is_empty() {
            self.next = Some(now + delay.min(LONGEST_DELAY));
        }
    }

    /// A path works: no more requests.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// The next request that is due, and to whom. All addresses in turn, evenly over the round; what a late call finds overdue
    /// is not made up for in one burst.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let due = self.next.filter(|at| *at <= now)?;
        let count = self.addresses.len() as u32;
        let turn = (self.sent % count) as usize;
        let (address, transaction) = (*self.addresses.get(turn)?, *self.transactions.get(turn)?);
        self.sent += 1;
        let gap = ROUND / count;
        self.next = (self.sent < count * ROUNDS).then_some((due + gap).max(now + gap / 2));
        let family = Family::of(address);
        let priority = candidate_priority(CandidateKind::PeerReflexive, family, 0);
        let request = RawMessage::BindingRequest {
            transaction,
            priority: u64::from(priority),
            use_candidate: false,
        };
        Some((address, request.write()))
    }

    /// Whether this answers a request of this meeting: from where it went (RFC 8445 §7.2.5.2.1), with its number.
    pub(super) fn is_answered_by(&self, from: SocketAddr, transaction: &TransactionId) -> bool {
        let known = self.addresses.iter().zip(&self.transactions);
        known
            .into_iter()
            .any(|(address, own)| *address == from && own == transaction && self.sent > 0)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.connection.is_none() && self.ends <= now
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.connection.is_none().then_some(self.ends);
        [self.next, ends].into_iter().flatten().min()
    }
}
