//! One address of the peer: how often and when it is tried, and what came of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{FIRST_RETRY, LAST_ANSWER, REQUESTS_PER_ROUND};

/// After this time an address that never answered may be asked again: what is in the way may be gone, and a stranger's address that a
/// peer named gets one packet in half a minute at most.
const REPLENISH: Duration = Duration::from_secs(300);

/// Where a pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No round has begun.
    Idle,
    /// It is tried: so many requests of the round are out, and something is due then.
    Trying { sent: u8, at: Instant },
    /// A request was answered.
    Works { rtt: Duration },
    /// Nothing came in this round.
    Failed,
}

/// An address of the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) remote: SocketAddr,
    pub(super) priority: u64,
    /// Named by the peer, as opposed to found by a check from there.
    pub(super) named: bool,
    /// Something authentic came from there in this round.
    pub(super) heard: bool,
    /// … or ever.
    authentic: bool,
    pub(super) state: State,
    /// The agent chose it, and asks the connector to.
    pub(super) nominate: bool,
    /// The agent said that it chose it.
    pub(super) peer_nominated: bool,
    /// It goes before better ones: something depends on it.
    pub(super) urgent: bool,
    /// Requests that may still be sent without an authentic word from there.
    allowance: u8,
    /// What it begins with.
    limit: u8,
    /// When the first of them went out.
    spent_since: Option<Instant>,
    last_sent: Option<Instant>,
    nominations: u8,
    nominate_at: Option<Instant>,
}

/// RFC 8445 §6.1.2.3, of the agent's and the connector's candidate.
pub(super) fn priority(agent: u32, connector: u32) -> u64 {
    let (g, d) = (u64::from(agent), u64::from(connector));
    (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d)
}

impl Pair {
    pub(super) fn new(remote: SocketAddr, priority: u64, named: bool, allowance: u8) -> Self {
        Self {
            remote,
            priority,
            named,
            heard: false,
            authentic: !named,
            state: State::Idle,
            nominate: false,
            peer_nominated: false,
            urgent: false,
            allowance,
            limit: allowance,
            spent_since: None,
            last_sent: None,
            nominations: 0,
            nominate_at: None,
        }
    }

    pub(super) fn begin_round(&mut self, at: Instant) {
        if self.spent_since.is_some_and(|since| since + REPLENISH <= at) {
            self.allowance = self.limit;
            self.spent_since = None;
        }
        self.state = if self.authentic || self.allowance > 0 {
            State::Trying { sent: 0, at }
        } else {
            State::Failed
        };
        self.heard = false;
        self.nominate = false;
        self.peer_nominated = false;
        self.urgent = false;
        self.nominate_at = None;
        self.nominations = 0;
    }

    /// When a request is due; `None` if none is.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.authentic && self.allowance == 0 {
            return None;
        }
        match self.state {
            State::Trying { sent, at } if sent < REQUESTS_PER_ROUND => Some(at),
            State::Works { .. } => self.nominate_at.filter(|_| self.nominations < REQUESTS_PER_ROUND),
            State::Idle | State::Trying { .. } | State::Failed => None,
        }
    }

    /// When anything is due: a request, or giving up.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.state {
            State::Trying { at, .. } => Some(at),
            State::Works { .. } => self.nominate_at,
            State::Idle | State::Failed => None,
        }
    }

    /// Whether something may still come of it in this round.
    pub(super) fn is_open(&self) -> bool {
        match self.state {
            State::Trying { .. } => true,
            State::Works { .. } => self.nominate_at.is_some(),
            State::Idle | State::Failed => false,
        }
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
        self.urgent = false;
        if !self.authentic {
            self.allowance = self.allowance.saturating_sub(1);
            self.spent_since.get_or_insert(now);
        }
        match self.state {
            State::Trying { sent, .. } => {
                let sent = sent + 1;
                let last = sent >= REQUESTS_PER_ROUND || (!self.authentic && self.allowance == 0);
                let wait = if last {
                    LAST_ANSWER
                } else {
                    FIRST_RETRY * (1 << (sent - 1))
                };
                self.state = State::Trying { sent, at: now + wait };
            }
            State::Works { rtt } => {
                self.nominations += 1;
                let wait = rtt.max(FIRST_RETRY) * (1 << (self.nominations - 1).min(4));
                self.nominate_at = Some(now + wait);
            }
            State::Idle | State::Failed => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.due().is_some() {
            return;
        }
        if let State::Trying { at, .. } = self.state
            && at <= now
        {
            self.state = State::Failed;
        }
        self.nominate_at = self.nominate_at.filter(|at| *at > now);
    }

    /// The nomination was answered.
    pub(super) fn is_taken(&mut self) {
        self.nominate_at = None;
    }

    /// Something authentic came from there; whether it is the first in this round.
    pub(super) fn on_heard(&mut self) -> bool {
        self.authentic = true;
        !std::mem::replace(&mut self.heard, true)
    }

    /// It is not tried any more: there is something better.
    pub(super) fn rest(&mut self) {
        if let State::Trying { .. } = self.state {
            self.state = State::Idle;
        }
    }

    /// A request came from there: ask back at once, unless that was just done.
    pub(super) fn trigger(&mut self, now: Instant, gap: Duration) {
        if self.last_sent.is_some_and(|at| now < at + gap) {
            return;
        }
        self.urgent = true;
        self.state = match self.state {
            // One that had failed gets what is left of a round.
            State::Idle | State::Failed => State::Trying {
                sent: REQUESTS_PER_ROUND / 2,
                at: now,
            },
            State::Trying { sent, .. } => State::Trying {
                sent: sent.min(REQUESTS_PER_ROUND - 1),
                at: now,
            },
            State::Works { rtt } => State::Works { rtt },
        };
    }

    pub(super) fn works(&mut self, rtt: Duration) {
        let rtt = match self.state {
            State::Works { rtt: known } => known.min(rtt),
            State::Idle | State::Trying { .. } | State::Failed => rtt,
        };
        self.state = State::Works { rtt };
    }

    pub(super) fn nominate(&mut self, now: Instant) {
        self.nominate = true;
        self.urgent = true;
        self.nominate_at = Some(now);
    }
}
