//! Local byte streams: from the first byte of a program, by way of SOCKS and a registration where need be, to the end.
//!
//! A stream that does not reach its service hears so in the words of its protocol: a SOCKS reply, else a reset. One that
//! has reached it hears what the service does: bytes, an end, a reset.
//!
//! Here is the way to the service and the refusal; `live` is what follows, `local` what the program does.

mod live;
mod local;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::socks::{Negotiation, Reply};
use super::stack::{Registration, Stack};
use super::{
    CONNECT_PATIENCE, ForwardEvent, Listens, NEGOTIATION_PATIENCE, NotReached, REGISTRATION_PATIENCE,
};
use crate::backend::FlowId;
use crate::id::ServiceIndex;
use crate::local::ListenerIndex;
use crate::routing::packet::{FiveTuple, TCP};
use crate::tcp::{Config, Segment};

/// How long a program may take to read a refusal and go.
const LEAVING: Duration = Duration::from_secs(2);

/// The least pause of a stream's timer.
const SOON: Duration = Duration::from_micros(100);

/// Bytes of a program that was refused are read into this and forgotten.
const DISCARDED: usize = 4096;

/// Connections to one service that are opened at a time; a connector takes 128 of an agent, for all its services.
const OPENING: usize = 32;

/// Whose turn it is to connect to a service.
#[derive(Debug, Default)]
pub(super) struct Turns {
    opening: usize,
    waiting: VecDeque<FlowId>,
}

/// Where a stream goes.
#[derive(Clone, Copy, Debug)]
struct Route {
    service: ServiceIndex,
    remote: SocketAddr,
    local: Option<SocketAddr>,
}

/// One local stream.
#[derive(Debug)]
pub(super) struct Stream {
    listener: ListenerIndex,
    /// Where the program is.
    pub(super) peer: Option<IpAddr>,
    /// The program speaks SOCKS and awaits a reply.
    socks: bool,
    /// What we have to say to the program, before any byte of the service.
    said: Vec<u8>,
    /// The shell has forgotten the flow.
    gone: bool,
    route: Option<Route>,
    /// Whether it stands among those that may send.
    pub(super) entered: bool,
    /// Counted among those of its service that are being opened.
    opening: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The program says where it wants to go.
    Negotiating(Negotiation),
    /// The service is not registered yet.
    Waiting,
    /// The service is being connected to until then, or is connected.
    Live { conn: Box<Conn>, until: Instant },
    /// A relay for datagrams lives as long as this stream (RFC 1928 §6).
    Relaying,
    /// A refusal is on its way to the program.
    Leaving,
}

impl Stream {
    pub(super) fn service(&self) -> Option<ServiceIndex> {
        self.route.map(|route| route.service)
    }

    /// Our port towards the service.
    pub(super) fn port(&self) -> Option<u16> {
        Some(self.route?.local?.port())
    }

    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.route.map(|route| route.remote)
    }

    pub(super) fn on_too_big(&mut self, mtu: usize, sequence: u32) {
        if let Stage::Live { conn, .. } = &mut self.stage {
            conn.on_too_big(mtu, sequence);
        }
    }

    pub(super) fn is_relaying(&self) -> bool {
        matches!(self.stage, Stage::Relaying)
    }

    /// Whether the service has not answered yet.
    pub(super) fn is_opening(&self) -> bool {
        matches!(&self.stage, Stage::Live { conn, .. } if !conn.is_opened())
    }

    /// Whether its program has gone, and nothing is left but to answer a repeated end.
    pub(super) fn is_lingering(&self) -> bool {
        matches!(&self.stage, Stage::Live { conn, .. } if conn.is_lingering())
    }

    /// Takes a segment of the service.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, now: Instant) {
        if let Some(conn) = self.live() {
            conn.receive(segment, now);
        }
    }

    fn live(&mut self) -> Option<&mut Conn> {
        match &mut self.stage {
            Stage::Live { conn, .. } => Some(conn),
            Stage::Negotiating(_) | Stage::Waiting | Stage::Relaying | Stage::Leaving => None,
        }
    }
}

impl Stack {
    pub(super) fn accept(
        &mut self,
        listener: ListenerIndex,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Option<FlowId> {
        self.advance(now);
        let listens = *self.listeners.get(usize::from(listener.0))?;
        if self.closing || self.slots.len() >= self.limits.streams || self.is_crowded() {
            self.stats.streams_full += 1;
            return None;
        }
        let stream = |stage, socks| Stream {
            listener,
            peer: peer.map(|peer| peer.ip()),
            socks,
            said: Vec::new(),
            gone: false,
            route: None,
            entered: false,
            opening: false,
            stage,
        };
        let id = match listens {
            Listens::Datagram(..) => return None,
            Listens::Stream(service, port) => {
                let id = self.insert(stream(Stage::Waiting, false));
                match self.directory.address(service) {
                    Some(address) => self.set_out(id, service, SocketAddr::new(address, port)),
                    None => self.refuse(id, NotReached::NotAllowed),
                }
                id
            }
            Listens::Socks => {
                let id = self.insert(stream(Stage::Negotiating(Negotiation::default()), true));
                self.timers.set(id.index, Some(self.now + NEGOTIATION_PATIENCE));
                id
            }
        };
        self.stats.streams += 1;
        Some(id)
    }

    /// The destination is known: on to the service, if it is registered.
    fn set_out(&mut self, id: FlowId, service: ServiceIndex, remote: SocketAddr) {
        let Some(stream) = self.stream(id) else { return };
        stream.route = Some(Route {
            service,
            remote,
            local: None,
        });
        stream.stage = Stage::Waiting;
        match self.registration(service) {
            Registration::Registered => self.connect(id),
            Registration::Pending => self.timers.set(id.index, Some(self.now + REGISTRATION_PATIENCE)),
            Registration::Denied => self.refuse(id, NotReached::NotAllowed),
        }
    }

    fn connect(&mut self, id: FlowId) {
        let Some(Route { remote, service, .. }) = self.stream(id).and_then(|stream| stream.route) else {
            return;
        };
        let Some(address) = self.directory.local(remote.ip()) else {
            return self.refuse(id, NotReached::NotAllowed);
        };
        if !self.may_open(id, service) {
            return;
        }
        let Some(port) = Self::free_port(&mut self.rng, &self.tcp) else {
            return self.refuse(id, NotReached::Full);
        };
        let local = SocketAddr::new(address, port);
        let flow = FiveTuple {
            source: address,
            destination: remote.ip(),
            protocol: TCP,
            source_port: port,
            destination_port: remote.port(),
        };
        let isn = self.isn.draw(&flow, self.now);
        let config = Config {
            congestion: self.limits.congestion,
            ..Config::default()
        };
        let conn = Conn::open(flow, config, isn, &self.budget, self.now);
        let until = self.now + CONNECT_PATIENCE;
        if let Some(stream) = self.stream(id) {
            if let Some(route) = &mut stream.route {
                route.local = Some(local);
            }
            stream.stage = Stage::Live {
                conn: Box::new(conn),
                until,
            };
        }
        self.tcp.insert(port, id);
        self.timers.set(id.index, Some(until));
        self.enter(id);
    }

    /// Whether the connection may be opened now; else it waits for its turn. A connector bounds the handshakes of one
    /// agent, and would refuse what is beyond.
    fn may_open(&mut self, id: FlowId, service: ServiceIndex) -> bool {
        let until = self.now + CONNECT_PATIENCE;
        let Some(turns) = self.turns.get_mut(usize::from(service.0)) else {
            return false;
        };
        if turns.opening >= OPENING {
            turns.waiting.push_back(id);
            self.timers.set(id.index, Some(until));
            return false;
        }
        turns.opening += 1;
        if let Some(stream) = self.stream(id) {
            stream.opening = true;
        }
        true
    }

    /// A stream is opened, or never will be: the next one has its turn.
    pub(super) fn not_opening(&mut self, id: FlowId) {
        let Some(stream) = self.stream(id) else { return };
        let Some(service) = stream.service() else { return };
        if !std::mem::replace(&mut stream.opening, false) {
            return;
        }
        if let Some(turns) = self.turns.get_mut(usize::from(service.0)) {
            turns.opening -= 1;
        }
        while !self.closing
            && let Some(turns) = self.turns.get_mut(usize::from(service.0))
            && turns.opening < OPENING
            && let Some(next) = turns.waiting.pop_front()
        {
            let waits = |stream: &mut Stream| matches!(stream.stage, Stage::Waiting);
            if self.stream(next).is_some_and(waits) {
                self.connect(next);
            }
        }
    }

    pub(super) fn on_stream_registered(&mut self, id: FlowId) {
        let Some(stream) = self.stream(id) else { return };
        match stream.stage {
            Stage::Waiting => self.connect(id),
            // What it wanted to send meanwhile.
            Stage::Live { .. } => self.enter(id),
            Stage::Negotiating(_) | Stage::Relaying | Stage::Leaving => {}
        }
    }

    pub(super) fn on_stream_denied(&mut self, id: FlowId) {
        let waits = self
            .stream(id)
            .is_some_and(|stream| matches!(stream.stage, Stage::Waiting));
        if waits {
            self.refuse(id, NotReached::NotAllowed);
        }
    }

    /// A stream does not reach its service.
    pub(super) fn refuse(&mut self, id: FlowId, why: NotReached) {
        let Some(stream) = self.stream(id) else { return };
        let (listener, service, socks) = (stream.listener, stream.service(), stream.socks);
        self.count_refusal(why);
        self.tell(ForwardEvent::NotReached {
            listener,
            service,
            why,
        });
        if socks {
            self.say_last(id, &reply(why).message(None));
        } else {
            self.requests.reset(id);
            self.remove(id);
        }
    }

    fn count_refusal(&mut self, why: NotReached) {
        let stats = &mut self.stats;
        *match why {
            NotReached::Refused => &mut stats.refused,
            NotReached::Unreachable => &mut stats.unreachable,
            NotReached::TimedOut => &mut stats.timed_out,
            NotReached::NotRegistered => &mut stats.not_registered,
            NotReached::NotAllowed => &mut stats.not_allowed,
            NotReached::Full => &mut stats.streams_full,
        } += 1;
    }

    /// Says something to a program and lets it go.
    fn say_last(&mut self, id: FlowId, words: &[u8]) {
        let until = self.now + LEAVING;
        self.not_opening(id);
        let Some(stream) = self.stream(id) else { return };
        stream.said.extend_from_slice(words);
        stream.stage = Stage::Leaving;
        if let Some(port) = stream.port() {
            stream.route = None;
            self.tcp.remove(&port);
        }
        self.timers.set(id.index, Some(until));
        self.requests.readable(id);
        self.requests.half_close(id);
        // Whatever it still sends is read and forgotten, so that its socket is not reset before the words are read.
        self.requests.resume(id);
    }

    fn drop_stream(&mut self, id: FlowId) {
        if self.remove(id).is_some_and(|stream| !stream.gone) {
            self.requests.close(id);
        }
    }
}

fn reply(why: NotReached) -> Reply {
    match why {
        NotReached::Refused => Reply::Refused,
        NotReached::Unreachable | NotReached::TimedOut => Reply::HostUnreachable,
        NotReached::NotRegistered => Reply::NetworkUnreachable,
        NotReached::NotAllowed => Reply::NotAllowed,
        NotReached::Full => Reply::Failed,
    }
}
