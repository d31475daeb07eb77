//! The search for a direct path and the handshake on it, as far as this end drives them.

use std::time::Duration;

use super::{AGAIN, Direct, End, HANDSHAKE, PAUSE, PAUSE_MAX, Search};
use crate::failover::PathKind;
use crate::punch::{Family, Limits, PunchEvent, Puncher, Side, candidate_priority};
use crate::sim::encounter::speech::{Body, Frame, Saying};
use crate::wire::check::{CheckKind, MAX_CHECK_LEN};
use crate::wire::control::{Candidate, CandidateKind};

impl End {
    /// The agent begins a search when there is no direct path and the other end can be told.
    pub(super) fn search(&mut self) {
        let Search::Waits { at, fresh } = self.search else {
            return;
        };
        if self.side == Side::Connector || at > self.now || !self.relayed || self.observed.is_none() {
            return;
        }
        let fresh = fresh || self.puncher.is_none();
        if fresh {
            self.begin(self.session + 1);
        }
        self.search = Search::Asked { at: self.now };
        let candidates = self.candidates();
        let session = self.session;
        self.words.push(Saying::Candidates { session, candidates });
    }

    /// Another session: what was known of the old one is void.
    pub(super) fn begin(&mut self, session: u32) {
        self.session = session;
        self.began = self.now;
        self.close_direct();
        self.admitted.clear();
        self.asked.clear();
        let mut puncher = Puncher::new(self.side, session, Limits::default(), self.rng.fork());
        let own = [Some(self.local), self.observed].into_iter().flatten();
        puncher.set_own(own.collect());
        self.puncher = Some(puncher);
    }

    fn candidates(&self) -> Vec<Candidate> {
        let kinds = [
            (CandidateKind::Host, Some(self.local)),
            (CandidateKind::ServerReflexive, self.observed),
        ];
        let known = kinds.into_iter().filter_map(|(kind, address)| {
            let address = address?;
            Some(Candidate {
                kind,
                address,
                priority: candidate_priority(kind, Family::of(address), 0),
                foundation: String::new(),
                related: None,
            })
        });
        known.collect()
    }

    /// Takes what the puncher has.
    pub(super) fn check(&mut self) {
        let now = self.now;
        let Some(mut puncher) = self.puncher.take() else {
            return;
        };
        puncher.handle_timeout(now);
        let mut events = Vec::new();
        loop {
            let check = puncher.poll_check(now);
            while let Some(event) = puncher.poll_event() {
                events.push(event);
            }
            let Some((to, check)) = check else { break };
            if let CheckKind::Request { .. } = check.kind {
                *self.asked.entry(to).or_insert(0) += 1;
            }
            let mut bytes = vec![0; MAX_CHECK_LEN];
            let len = check.write(&self.key, &mut bytes).unwrap_or(0);
            bytes.truncate(len);
            self.out.push_back((to, bytes));
        }
        self.puncher = Some(puncher);
        for event in events {
            self.on_punch(event);
        }
        // So many in five minutes each.
        let periods = 1 + now.saturating_duration_since(self.began).as_secs() / 300;
        let allowance = u32::from(Limits::default().requests_per_address) * periods as u32;
        for (address, count) in &self.asked {
            let known = self.admitted.contains(address);
            assert!(known || *count <= allowance, "{count} requests to {address}");
        }
    }

    fn on_punch(&mut self, event: PunchEvent) {
        let now = self.now;
        match event {
            PunchEvent::Heard(remote) => {
                self.admitted.insert(remote);
            }
            PunchEvent::Nominated(remote) if self.side == Side::Agent => {
                if self.direct.is_none_or(|direct| direct.remote != remote) {
                    self.close_direct();
                    self.next_direct += 1;
                    self.direct = Some(Direct {
                        id: self.next_direct,
                        remote,
                        found: remote,
                        established: false,
                        begun: now,
                        greet_at: Some(now),
                    });
                }
                self.search = Search::Runs;
            }
            PunchEvent::ConsentLost(_) => self.lose(true),
            PunchEvent::Failed if self.side == Side::Agent => {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                self.search_later(self.pause, true);
            }
            PunchEvent::Works { .. }
            | PunchEvent::Nominated(_)
            | PunchEvent::Observed(_)
            | PunchEvent::Failed => {}
        }
    }

    /// The direct path is gone; the other end is told, unless it said so.
    pub(super) fn lose(&mut self, tell: bool) {
        self.close_direct();
        if let Some(puncher) = &mut self.puncher {
            puncher.abandon();
            puncher.stop();
        }
        if tell {
            let session = self.session;
            self.words.push(Saying::Lost { session });
        }
        self.search_later(PAUSE / 2, false);
    }

    pub(super) fn search_later(&mut self, pause: Duration, fresh: bool) {
        let at = self.now + pause;
        self.search = Search::Waits { at, fresh };
    }

    pub(super) fn close_direct(&mut self) {
        if self.direct.take().is_some_and(|direct| direct.established) {
            self.selector.on_closed(PathKind::Direct);
        }
    }

    /// The agent's side of the handshake.
    pub(super) fn greet(&mut self) {
        let now = self.now;
        let Some(direct) = &mut self.direct else { return };
        if direct.established || self.side == Side::Connector {
            return;
        }
        if direct.begun + HANDSHAKE <= now {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            let pause = self.pause;
            self.lose(true);
            self.search_later(pause, true);
            return;
        }
        if direct.greet_at.is_some_and(|at| at <= now) {
            direct.greet_at = Some(now + AGAIN);
            let (remote, id) = (direct.remote, direct.id);
            let body = Body::Hello { at: now };
            self.send(
                remote,
                Frame::Direct {
                    side: self.number(),
                    id,
                    body,
                },
            );
        }
    }

    pub(super) fn on_saying(&mut self, saying: Saying) {
        let now = self.now;
        match (saying, self.side) {
            (Saying::Candidates { session, candidates }, Side::Connector) => {
                if session != self.session {
                    self.begin(session);
                }
                if let Some(puncher) = &mut self.puncher {
                    puncher.add_candidates(&candidates, now);
                }
                let candidates = self.candidates();
                self.words.push(Saying::Candidates { session, candidates });
            }
            (Saying::Candidates { session, candidates }, Side::Agent) => {
                let Search::Asked { at } = self.search else { return };
                if session != self.session {
                    return;
                }
                // Half a round trip from now the other end hears that it begins.
                let half = now.saturating_duration_since(at) / 2;
                if let Some(puncher) = &mut self.puncher {
                    puncher.add_candidates(&candidates, now);
                    puncher.start(now + half.min(Duration::from_secs(1)));
                }
                self.search = Search::Runs;
                self.words.push(Saying::Begin { session });
            }
            (Saying::Begin { session }, Side::Connector) if session == self.session => {
                if let Some(puncher) = &mut self.puncher {
                    puncher.start(now);
                }
            }
            (Saying::Lost { session }, _) if session == self.session => {
                // The agent may have begun anew meanwhile.
                if self.side == Side::Connector || self.search == Search::Runs {
                    self.lose(false);
                }
            }
            (Saying::Begin { .. } | Saying::Lost { .. }, _) => {}
        }
    }
}
