//! One end: a puncher and a selector with the least of a session around them.
//!
//! The session is a stand-in: what it says to the other end goes through the relay, in order and again until it is
//! acknowledged, as on a stream of QUIC; its connections are a handshake of three packets and acknowledgements. The puncher and
//! the selector are the real ones, and are driven as their contracts say.

mod hearing;
mod search;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::speech::{Body, Frame, Speech, Words};
use crate::failover::{PathKind, Route, Selector};
use crate::machine::{Deadline, Forward, FourTuple, Received, Transmit, Wake};
use crate::punch::{Puncher, Side};
use crate::rng::Rng;
use crate::sim::Host;
use crate::sim::trace::Digest;
use crate::window::Once;
use crate::wire::check::CheckKey;

/// Between two signs of life to the relay, and how long it may be silent.
const PING: Duration = Duration::from_millis(2500);
const SILENCE: Duration = Duration::from_millis(5500);

/// Before something is said again.
const AGAIN: Duration = Duration::from_millis(300);

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// Before the next search, after one that led nowhere, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// The direct connection.
#[derive(Clone, Copy, Debug)]
struct Direct {
    id: u32,
    remote: SocketAddr,
    /// Where it was when it began: what the puncher knows it by.
    found: SocketAddr,
    established: bool,
    begun: Instant,
    /// The agent's next greeting.
    greet_at: Option<Instant>,
}

/// What an end of the application has still to send.
#[derive(Clone, Copy, Debug)]
struct Talk {
    left: u32,
    gap: Duration,
    next: Instant,
}

/// Where the agent's search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Begins then, with new numbers or with the old ones.
    Waits { at: Instant, fresh: bool },
    /// The other end was told, and has not answered.
    Asked { at: Instant },
    /// Both check, or a path is in use.
    Runs,
}

/// One end.
pub(super) struct End {
    side: Side,
    local: SocketAddr,
    relay: SocketAddr,
    key: CheckKey,
    rng: Rng,
    now: Instant,
    speech: Speech,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    // The way through the relay.
    relayed: bool,
    heard_relay: Instant,
    ping_at: Instant,
    observed: Option<SocketAddr>,
    // What is said in order.
    words: Words,
    // The search.
    session: u32,
    /// When that began.
    began: Instant,
    search: Search,
    pause: Duration,
    pub(super) puncher: Option<Puncher>,
    admitted: BTreeSet<SocketAddr>,
    /// Requests to each address in this session.
    asked: BTreeMap<SocketAddr, u32>,
    // The paths.
    pub(super) selector: Selector,
    direct: Option<Direct>,
    next_direct: u32,
    once: Once,
    // The application.
    talk: Option<Talk>,
    sent: u32,
    arrived: BTreeSet<u32>,
    left: bool,
}

impl End {
    pub(super) fn new(
        side: Side,
        local: SocketAddr,
        relay: SocketAddr,
        speech: Speech,
        rng: Rng,
        now: Instant,
    ) -> Self {
        Self {
            side,
            local,
            relay,
            key: CheckKey::new(&[7; 32]),
            rng,
            now,
            speech,
            out: VecDeque::new(),
            relayed: false,
            heard_relay: now,
            ping_at: now,
            observed: None,
            words: Words::default(),
            session: 0,
            began: now,
            search: Search::Waits { at: now, fresh: true },
            pause: PAUSE,
            puncher: None,
            admitted: BTreeSet::new(),
            asked: BTreeMap::new(),
            selector: Selector::new(),
            direct: None,
            next_direct: 1,
            once: Once::default(),
            talk: None,
            sent: 0,
            arrived: BTreeSet::new(),
            left: false,
        }
    }

    fn number(&self) -> u8 {
        u8::from(self.side == Side::Connector)
    }

    /// How it stands, for people.
    pub(super) fn describe(&self) -> String {
        let running = self
            .puncher
            .as_ref()
            .map(|puncher| (puncher.is_running(), puncher.nominated()));
        format!(
            "{:?}: session {}, search {:?}, puncher {running:?}, direct {:?}, words {:?}, relayed {}",
            self.side, self.session, self.search, self.direct, self.words, self.relayed
        )
    }

    /// Whether the direct connection stands and is the one in use.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some_and(|direct| direct.established)
            && self.selector.route() == Route::One(PathKind::Direct)
    }

    /// Whether there is a direct connection at all.
    pub(super) fn has_direct(&self) -> bool {
        self.direct.is_some_and(|direct| direct.established)
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    pub(super) fn arrived(&self) -> &BTreeSet<u32> {
        &self.arrived
    }

    pub(super) fn talk(&mut self, count: u32, gap: Duration, now: Instant) {
        self.talk = Some(Talk {
            left: count,
            gap,
            next: now,
        });
        self.tick(now);
    }

    /// Stops everything, as a session that is closed.
    pub(super) fn leave(&mut self, now: Instant) {
        self.left = true;
        self.talk = None;
        self.puncher = None;
        self.direct = None;
        self.words = Words::default();
        self.selector.on_closed(PathKind::Direct);
        self.selector.on_closed(PathKind::Relayed);
        while self.selector.poll_change().is_some() {}
        self.tick(now);
        self.out.clear();
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.left {
            return;
        }
        self.keep_relay();
        self.search();
        self.check();
        self.greet();
        self.choose();
        self.talk_on();
        self.say();
    }

    fn keep_relay(&mut self) {
        let now = self.now;
        if self.relayed && self.heard_relay + SILENCE <= now {
            self.relayed = false;
            self.selector.on_closed(PathKind::Relayed);
            self.ping_at = now;
        }
        if self.ping_at <= now {
            self.send(
                self.relay,
                Frame::Ping {
                    side: self.number(),
                    at: now,
                },
            );
            self.ping_at = now + if self.relayed { PING } else { AGAIN };
        }
    }

    fn say(&mut self) {
        if let Some(said) = self.words.poll(self.now, AGAIN) {
            self.send_relayed(Body::Words(said));
        }
    }

    /// Takes what the selector has.
    fn choose(&mut self) {
        let now = self.now;
        self.selector.handle_timeout(now);
        if self.selector.poll_probe() {
            self.send_on(PathKind::Direct, Body::Probe { at: now });
        }
        while self.selector.poll_change().is_some() {}
    }

    fn talk_on(&mut self) {
        let now = self.now;
        while let Some(talk) = &mut self.talk
            && talk.next <= now
        {
            talk.next += talk.gap;
            talk.left -= 1;
            // Whoever slept does not send in one go what it would have sent meanwhile.
            talk.next = talk.next.max(now);
            if talk.left == 0 {
                self.talk = None;
            }
            let number = self.sent;
            self.sent += 1;
            let body = |twice| Body::Data {
                number,
                twice,
                at: now,
            };
            match self.selector.route() {
                Route::One(kind) => self.send_on(kind, body(false)),
                Route::Both => {
                    self.send_on(PathKind::Relayed, body(true));
                    self.send_on(PathKind::Direct, body(true));
                }
                Route::Nowhere => {}
            }
        }
    }

    /// Sends something that is acknowledged.
    fn send_on(&mut self, kind: PathKind, body: Body) {
        self.selector.on_sent(kind, self.now);
        self.answer_on(kind, body);
    }

    fn answer_on(&mut self, kind: PathKind, body: Body) {
        match (kind, self.direct) {
            (PathKind::Relayed, _) => self.send_relayed(body),
            (PathKind::Direct, Some(Direct { id, remote, .. })) => {
                self.send(
                    remote,
                    Frame::Direct {
                        side: self.number(),
                        id,
                        body,
                    },
                );
            }
            (PathKind::Direct, None) => {}
        }
    }

    fn send_relayed(&mut self, body: Body) {
        self.send(
            self.relay,
            Frame::Relayed {
                side: self.number(),
                body,
            },
        );
    }

    fn send(&mut self, to: SocketAddr, frame: Frame) {
        self.out.push_back((to, self.speech.write(frame)));
    }
}

impl Host for End {
    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.now = self.now.max(now);
        let size = received.segment_size();
        for datagram in received.payload.chunks(size) {
            self.receive(received.path.remote, datagram);
        }
        self.tick(now);
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        self.tick(now);
        let (remote, bytes) = self.out.pop_front()?;
        buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Transmit {
            path: FourTuple {
                local: self.local,
                remote,
            },
            ecn: crate::machine::Ecn::NotEct,
            len: bytes.len(),
            segment_size: None,
        })
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.left {
            return None;
        }
        let queued = !self.out.is_empty() || self.puncher.as_ref().is_some_and(Puncher::has_output);
        if queued || self.selector.has_output() {
            return Some(Deadline {
                at: self.now,
                wake: Wake::QueuedOutput,
            });
        }
        let search = match self.search {
            Search::Waits { at, .. } => {
                let may = self.side == Side::Agent && self.relayed && self.observed.is_some();
                may.then_some(at)
            }
            Search::Asked { .. } | Search::Runs => None,
        };
        let greeting = self.direct.filter(|direct| !direct.established);
        let greeting = greeting.and_then(|direct| Some(direct.greet_at?.min(direct.begun + HANDSHAKE)));
        let silence = self.relayed.then_some(self.heard_relay + SILENCE);
        let times = [
            Some(self.ping_at),
            silence,
            self.words.poll_timeout(),
            search,
            greeting,
            self.puncher.as_ref().and_then(Puncher::poll_timeout),
            self.selector.poll_timeout(),
            self.talk.map(|talk| talk.next),
        ];
        let at = times.into_iter().flatten().min()?;
        Some(Deadline {
            at,
            wake: Wake::Keepalive,
        })
    }

    fn poll_local(&mut self, _: &mut Digest, _: Instant) -> bool {
        false
    }
}
