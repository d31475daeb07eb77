//! What comes in: checks, the relay's answers, and everything that the other end sends.

use std::net::SocketAddr;

use super::{Direct, End, PAUSE};
use crate::failover::PathKind;
use crate::punch::Side;
use crate::sim::encounter::speech::{Body, Frame, Words};
use crate::wire::check::{CHECK, Check, claimed_session};

impl End {
    pub(super) fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        if self.left {
            return;
        }
        if bytes.first() == Some(&CHECK) {
            let ours = claimed_session(bytes) == Ok(self.session);
            if let (true, Ok(check), Some(puncher)) =
                (ours, Check::parse(bytes, &self.key), &mut self.puncher)
            {
                puncher.handle_check(&check, from, now);
            }
            return;
        }
        match self.speech.read(bytes) {
            Some(Frame::Pong { observed, at }) => {
                self.heard_relay = now;
                self.observed = Some(observed);
                if !std::mem::replace(&mut self.relayed, true) {
                    let rtt = now.saturating_duration_since(at);
                    self.selector.on_established(PathKind::Relayed, rtt, now);
                }
            }
            Some(Frame::Relayed { side, .. } | Frame::Direct { side, .. }) if side == self.number() => {}
            Some(Frame::Relayed { body, .. }) => {
                self.heard_relay = now;
                self.on_body(PathKind::Relayed, body);
            }
            Some(Frame::Direct { id, body, .. }) => self.on_direct(from, id, body),
            Some(Frame::Ping { .. }) | None => {}
        }
    }

    fn on_direct(&mut self, from: SocketAddr, id: u32, body: Body) {
        let now = self.now;
        if let (Body::Hello { at }, Side::Connector) = (&body, self.side) {
            let known = self.direct.is_some_and(|direct| direct.id >= id);
            if !known && self.admitted.contains(&from) {
                self.close_direct();
                self.direct = Some(Direct {
                    id,
                    remote: from,
                    found: from,
                    established: false,
                    begun: now,
                    greet_at: None,
                });
            }
            if self.direct.is_some_and(|direct| direct.id == id) {
                let body = Body::Welcome { at: *at };
                self.send(
                    from,
                    Frame::Direct {
                        side: self.number(),
                        id,
                        body,
                    },
                );
            }
            return;
        }
        let Some(direct) = self.direct.as_mut().filter(|direct| direct.id == id) else {
            return;
        };
        match self.side {
            // A client that appears elsewhere is followed (RFC 9000 §9); a server does not move.
            Side::Connector => direct.remote = from,
            Side::Agent if direct.remote != from => return,
            Side::Agent => {}
        }
        let found = direct.found;
        if !direct.established {
            let begun = match (&body, self.side) {
                (Body::Welcome { at }, _) => *at,
                (_, Side::Connector) => direct.begun,
                (_, Side::Agent) => return,
            };
            direct.established = true;
            let rtt = now.saturating_duration_since(begun);
            self.selector.on_established(PathKind::Direct, rtt, now);
            self.pause = PAUSE;
            if self.side == Side::Agent {
                self.send_on(PathKind::Direct, Body::Probe { at: now });
            }
        }
        if let Some(puncher) = &mut self.puncher {
            puncher.on_heard(found, now);
        }
        self.on_body(PathKind::Direct, body);
    }

    fn on_body(&mut self, kind: PathKind, body: Body) {
        let now = self.now;
        match body {
            Body::Data { number, twice, at } => {
                if !twice || self.once.take(number) {
                    let first = self.arrived.insert(number);
                    assert!(
                        first,
                        "{number} came through twice, {kind:?} {twice} {:?} {}",
                        self.once,
                        self.describe()
                    );
                }
                self.answer_on(kind, Body::Ack { at });
            }
            Body::Probe { at } => self.answer_on(kind, Body::Ack { at }),
            Body::Ack { at } => {
                let rtt = now.saturating_duration_since(at);
                self.selector.on_acknowledged(kind, rtt, now);
            }
            Body::Words(said) => {
                if let Some(saying) = self.words.take(&said) {
                    self.on_saying(saying);
                }
                if let Some(heard) = Words::acknowledge(&said) {
                    self.send_relayed(Body::Words(heard));
                }
            }
            Body::Hello { .. } | Body::Welcome { .. } => {}
        }
    }
}
