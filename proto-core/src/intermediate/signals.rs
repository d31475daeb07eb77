//! The streams of v1 clients: signalling in and out.

use std::time::Instant;

use super::Intermediate;
use super::signalling::{Signalling, SignallingStats};
use crate::id::ConnId;
use crate::messages::{MAX_WAITING, MessageStream};
use crate::quic::{Pool, Provider};
use crate::rng::Rng;
use crate::wire::control::{ControlMessage, PeerIdentity, SignalingMessage};

/// The sessions, and the streams of those clients that have said or were told anything.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) sessions: Signalling,
    /// By the index of the connection.
    lines: Vec<Option<(ConnId, Box<MessageStream>)>>,
}

impl Signals {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            sessions: Signalling::new(rng),
            lines: Vec::new(),
        }
    }

    fn line(&mut self, id: ConnId) -> &mut MessageStream {
        let index = id.index as usize;
        if self.lines.len() <= index {
            self.lines.resize_with(index + 1, || None);
        }
        let line = &mut self.lines[index];
        let fresh = || (id, Box::new(MessageStream::v1_server()));
        if line.as_ref().is_some_and(|(owner, _)| *owner != id) {
            *line = None;
        }
        &mut line.get_or_insert_with(fresh).1
    }

    /// Reads what a client has written, and writes on what it could not take before.
    fn read<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId) -> Vec<SignalingMessage> {
        let mut messages = Vec::new();
        let mut undecodable = 0;
        let line = self.line(id);
        line.flush(pool, id);
        line.read(pool, id, &mut |payload| match SignalingMessage::parse(payload) {
            Ok(message) => messages.push(message),
            Err(_) => undecodable += 1,
        });
        self.sessions.stats.undecodable += undecodable;
        messages
    }
}

impl<Q: Provider> Intermediate<Q> {
    /// Counters of the signalling of v1 peers.
    pub fn signalling_stats(&self) -> SignallingStats {
        self.signals.sessions.stats
    }

    /// Sessions of v1 peers under way.
    pub fn signalling_sessions(&self) -> usize {
        self.signals.sessions.len()
    }

    /// The streams of a v1 client.
    pub(super) fn read_signals(&mut self, id: ConnId, now: Instant) {
        let messages = self.signals.read(&mut self.pool, id);
        self.stats.dropped.stream_bytes = self.pool.stats().foreign_stream_bytes;
        for message in messages {
            self.on_signal(id, message, now);
        }
    }

    pub(super) fn on_signal(&mut self, id: ConnId, message: SignalingMessage, now: Instant) {
        let registry = &self.registry;
        let way = |service: &str| registry.route(id, service.as_bytes());
        self.signals.sessions.handle(id, message, way, now);
        self.send_signals();
    }

    /// Ends the sessions whose time is over.
    pub(super) fn expire_signals(&mut self, now: Instant) {
        self.signals.sessions.handle_timeout(now);
        self.send_signals();
    }

    /// A connection is gone.
    pub(super) fn forget_signals(&mut self, id: ConnId) {
        let line = self.signals.lines.get_mut(id.index as usize);
        if let Some(line) = line {
            line.take_if(|(owner, _)| *owner == id);
        }
        self.signals.sessions.remove(id);
        self.send_signals();
    }

    /// What a connector of v2 is told before an offer: the agent's connection to it will be told from others by it.
    fn offer_from(&self, message: &SignalingMessage) -> Option<ControlMessage> {
        let SignalingMessage::CandidateOffer { session, .. } = message else {
            return None;
        };
        let agent = self.signals.sessions.offerer(*session)?;
        let identity = self.session(agent)?.identity.as_ref()?;
        Some(ControlMessage::OfferFrom {
            session: *session,
            agent: PeerIdentity {
                fingerprint: identity.fingerprint().0,
                name: identity.name().to_owned(),
            },
        })
    }

    /// A client that does not read costs itself the message and nothing else: its other packets are none of the business of
    /// an agent that fills its window with offers. Clients of v2 hear of signalling on their control stream, of which it
    /// takes half at most.
    fn send_signals(&mut self) {
        while let Some((to, message)) = self.signals.sessions.poll_message() {
            let introduction = self.offer_from(&message);
            let session = self.sessions.get_mut(to.index as usize).and_then(Option::as_mut);
            let Some(session) = session.filter(|session| session.id == to) else {
                continue;
            };
            let speaks_v2 = session.control.is_some();
            let stream = match session.control.as_deref_mut() {
                Some(control) => &mut control.stream,
                None => self.signals.line(to),
            };
            let fits = stream.waiting() <= MAX_WAITING / 2;
            if let Some(introduction) = introduction.filter(|_| fits && speaks_v2) {
                stream.send(introduction.write());
            }
            if fits && stream.send(message.write()) {
                stream.flush(&mut self.pool, to);
            } else {
                self.signals.sessions.stats.unread += 1;
            }
        }
    }
}
