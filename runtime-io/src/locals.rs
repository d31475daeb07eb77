//! The local sockets of an agent without a tunnel interface: listeners, the programs that connect to them, and the
//! standard streams of this process.
//!
//! It decides how a request of the machine becomes calls on a descriptor, and what an error of one means as a report.
//! When a stream opens, waits or ends is the machine's to say. As with backends, stream bytes are never held here, and
//! nothing is scanned: hints and requests put a stream on a list, and each entry is worked off within a budget.
//!
//! An error of a listener pauses it and never ends the process: descriptors may run out, and come back.

mod datagrams;
mod doors;
mod pipes;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use proto_core::backend::FlowId;
use proto_core::local::{DatagramSocket, FromLocal, ToLocal};
use proto_core::machine::Locals;
use socket2::Socket;

use crate::reactor::{Interest, Reactor, Ready, Token};
use crate::side::{Side, SideContext};
use crate::stream::{Buffers, Moved, Pumped, Stream};
use datagrams::Datagrams;
use pipes::Pipes;

pub use datagrams::bind_datagrams;

/// Connections taken from one listener in one turn.
const ACCEPTS: usize = 64;

/// Streams worked off in one turn.
const STREAMS: usize = 64;

/// Requests of the machine taken in one call.
const REQUESTS: usize = 1024;

/// The largest slot a machine may name; a bound on memory only, machines keep to their own limits.
const MAX_INDEX: u32 = 1 << 20;

/// How long a listener rests that cannot accept.
const PAUSE: Duration = Duration::from_millis(250);

/// Where programs come in.
#[derive(Debug)]
pub enum LocalListener {
    /// Connections.
    Stream(TcpListener),
    /// Datagrams.
    Datagram(std::net::UdpSocket),
    /// One stream: what this process reads from its standard input, and writes to its standard output.
    Standard,
}

/// The side of a machine with [`Locals`].
#[derive(Debug)]
pub struct LocalSide {
    doors: Vec<Door>,
    /// Where streams' tokens begin: behind the doors, and two for the standard streams.
    base: u32,
    slots: Vec<Option<Slot>>,
    open: usize,
    /// Streams to work on, each at most once.
    listed: VecDeque<u32>,
    /// Doors that may have something.
    knocking: VecDeque<u32>,
    /// Doors that rest after an error.
    resting: VecDeque<(Instant, u32)>,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Door {
    kind: DoorKind,
    is_listed: bool,
    /// That it cannot accept has been told.
    is_told: bool,
}

#[derive(Debug)]
enum DoorKind {
    Stream(TcpListener),
    Datagram(Datagrams),
    /// The standard streams, until they are taken.
    Standard(Option<FlowId>),
    /// Nobody comes in here any more.
    Closed,
}

#[derive(Debug)]
struct Slot {
    flow: FlowId,
    end: LocalEnd,
    /// The UDP socket beside it.
    relay: Option<Datagrams>,
    is_listed: bool,
}

#[derive(Debug)]
enum LocalEnd {
    Socket(Stream<Socket>),
    Pipes(Box<Stream<Pipes>>),
}

/// The machine's buffers of a stream.
struct FlowBuffers<'a, M> {
    machine: &'a mut M,
    flow: FlowId,
    now: Instant,
}

impl<M: Locals> Buffers for FlowBuffers<'_, M> {
    fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.machine.drain_stream(self.flow, self.now, take)
    }

    fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize> {
        self.machine.fill_stream(self.flow, self.now, fill)
    }

    fn ended(&mut self) {
        let flow = self.flow;
        self.machine
            .handle_local(FromLocal::HalfClosed { flow }, self.now);
    }
}

impl LocalSide {
    /// With these listeners, in the order of the machine's configuration.
    ///
    /// # Errors
    /// If a socket cannot be made non-blocking.
    pub fn new(listeners: Vec<LocalListener>) -> io::Result<Self> {
        let door = |listener| {
            let kind = match listener {
                LocalListener::Stream(listener) => {
                    listener.set_nonblocking(true)?;
                    DoorKind::Stream(listener)
                }
                LocalListener::Datagram(socket) => DoorKind::Datagram(Datagrams::new(socket)?),
                LocalListener::Standard => DoorKind::Standard(None),
            };
            Ok(Door {
                kind,
                is_listed: false,
                is_told: false,
            })
        };
        let doors: Vec<Door> = listeners.into_iter().map(door).collect::<io::Result<_>>()?;
        // The standard streams are two descriptors, and have two tokens behind those of the doors.
        let base = doors.len() as u32 + 2;
        Ok(Self {
            knocking: VecDeque::new(),
            doors,
            base,
            slots: Vec::new(),
            open: 0,
            listed: VecDeque::new(),
            resting: VecDeque::new(),
            buffer: vec![0; datagrams::LARGEST].into_boxed_slice(),
        })
    }

    fn slot(&mut self, flow: FlowId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(flow.index as usize)?.as_mut()?;
        (slot.flow == flow).then_some(slot)
    }

    /// The tokens of a stream: its own, and that of its relay.
    fn tokens(&self, index: u32) -> (Token, Token) {
        let first = self.base.saturating_add(index.saturating_mul(2));
        (Token::of_side(first), Token::of_side(first.saturating_add(1)))
    }

    fn standard_tokens(&self) -> (Token, Token) {
        (Token::of_side(self.base - 2), Token::of_side(self.base - 1))
    }

    fn list(&mut self, index: u32) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else {
            return;
        };
        if !std::mem::replace(&mut slot.is_listed, true) {
            self.listed.push_back(index);
        }
    }

    fn knock(&mut self, index: u32) {
        if self.resting.iter().any(|(_, resting)| *resting == index) {
            return;
        }
        if let Some(door) = self.doors.get_mut(index as usize)
            && !std::mem::replace(&mut door.is_listed, true)
        {
            self.knocking.push_back(index);
        }
    }

    fn put(&mut self, flow: FlowId, end: LocalEnd) {
        let index = flow.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(Slot {
                flow,
                end,
                relay: None,
                is_listed: false,
            });
            self.open += 1;
        }
        self.list(flow.index);
    }

    /// Drops the descriptors of a slot, whatever it is at.
    fn remove(&mut self, index: u32, reactor: &mut dyn Reactor) {
        let (token, relay_token) = self.tokens(index);
        let (input, output) = self.standard_tokens();
        let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        match slot.end {
            LocalEnd::Socket(stream) => reactor.deregister(token, stream.as_fd()),
            LocalEnd::Pipes(stream) => stream.into_channel().close(reactor, input, output),
        }
        if let Some(relay) = slot.relay {
            reactor.deregister(relay_token, relay.as_fd());
        }
    }

    /// Takes one request; the machine is borrowed by it, so what there is to do with it comes back as a value.
    fn take(&mut self, request: &ToLocal<'_>, context: &mut SideContext<'_>) -> After {
        match *request {
            ToLocal::Readable { flow } | ToLocal::Resume { flow } => return After::Work(flow),
            ToLocal::HalfClose { flow } => {
                match self.slot(flow).map(|slot| &mut slot.end) {
                    Some(LocalEnd::Socket(stream)) => stream.half_close(),
                    Some(LocalEnd::Pipes(stream)) => stream.half_close(),
                    None => {}
                }
                return After::Work(flow);
            }
            ToLocal::Close { flow } => {
                if self.slot(flow).is_some() {
                    self.remove(flow.index, context.reactor);
                }
            }
            ToLocal::Reset { flow } => {
                if let Some(slot) = self.slot(flow) {
                    if let LocalEnd::Socket(stream) = &slot.end {
                        stream.abort();
                    }
                    self.remove(flow.index, context.reactor);
                }
            }
            ToLocal::Relay { flow } => return After::Relaying(flow, self.relay(flow, context)),
            ToLocal::Datagram { from, to, payload } => {
                let socket = match from {
                    DatagramSocket::Listener(listener) => {
                        match self
                            .doors
                            .get_mut(usize::from(listener.0))
                            .map(|door| &mut door.kind)
                        {
                            Some(DoorKind::Datagram(socket)) => Some(socket),
                            Some(DoorKind::Stream(_) | DoorKind::Standard(_) | DoorKind::Closed) | None => {
                                None
                            }
                        }
                    }
                    DatagramSocket::Relay(flow) => self.slot(flow).and_then(|slot| slot.relay.as_mut()),
                };
                if let Some(socket) = socket {
                    socket.send(to, payload, &mut context.stats.locals);
                }
            }
        }
        After::Nothing
    }

    /// Does what a stream's hints and requests allow now.
    fn work<M: Locals>(&mut self, index: u32, machine: &mut M, context: &mut SideContext<'_>) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else {
            return;
        };
        let (flow, now) = (slot.flow, context.now);
        let stats = &mut context.stats.locals;
        let mut more = false;
        if let Some(relay) = &mut slot.relay {
            let to = DatagramSocket::Relay(flow);
            more |= relay.receive(to, machine, &mut self.buffer, stats, now);
        }
        let mut moved = Moved::default();
        let mut buffers = FlowBuffers { machine, flow, now };
        let pumped = match &mut slot.end {
            LocalEnd::Socket(stream) => stream.pump(&mut buffers, &mut moved),
            LocalEnd::Pipes(stream) => stream.pump(&mut buffers, &mut moved),
        };
        stats.bytes_written += moved.written;
        stats.bytes_read += moved.read;
        match pumped {
            Pumped::Dry => {}
            Pumped::More => more = true,
            Pumped::Failed => {
                stats.resets += 1;
                machine.handle_local(FromLocal::Reset { flow }, now);
                self.remove(index, context.reactor);
                return;
            }
        }
        if more {
            self.list(index);
        }
    }
}

/// What a request leads to, once the machine is free again to be told.
enum After {
    Nothing,
    Work(FlowId),
    Relaying(FlowId, Option<SocketAddr>),
}

impl<M: Locals> Side<M> for LocalSide {
    fn start(&mut self, reactor: &mut dyn Reactor) -> io::Result<()> {
        for index in 0..self.doors.len() as u32 {
            let Some(door) = self.doors.get(index as usize) else {
                continue;
            };
            let token = Token::of_side(index);
            match &door.kind {
                DoorKind::Stream(listener) => reactor.register(token, listener.as_fd(), Interest::Read)?,
                DoorKind::Datagram(socket) => reactor.register(token, socket.as_fd(), Interest::Read)?,
                DoorKind::Standard(_) | DoorKind::Closed => {}
            }
            self.knock(index);
        }
        Ok(())
    }

    fn hint(&mut self, index: u32, ready: Ready) {
        if (index as usize) < self.doors.len() {
            return self.knock(index);
        }
        let Some(rest) = index.checked_sub(self.base) else {
            let standard = self.doors.iter().find_map(|door| match door.kind {
                DoorKind::Standard(flow) => flow,
                DoorKind::Stream(_) | DoorKind::Datagram(_) | DoorKind::Closed => None,
            });
            if let Some(Slot {
                end: LocalEnd::Pipes(stream),
                flow,
                ..
            }) = standard.and_then(|flow| self.slot(flow))
            {
                let index = flow.index;
                stream.hint(ready);
                self.list(index);
            }
            return;
        };
        let Some(Some(slot)) = self.slots.get_mut((rest / 2) as usize) else {
            return;
        };
        match &mut slot.end {
            LocalEnd::Socket(stream) if rest % 2 == 0 => stream.hint(ready),
            LocalEnd::Socket(_) | LocalEnd::Pipes(_) => {}
        }
        self.list(rest / 2);
    }

    fn input(&mut self, machine: &mut M, mut context: SideContext<'_>) -> io::Result<()> {
        while let Some((at, index)) = self.resting.front().copied()
            && at <= context.now
        {
            self.resting.pop_front();
            self.knock(index);
        }
        for _ in 0..self.knocking.len() {
            let Some(index) = self.knocking.pop_front() else {
                break;
            };
            if let Some(door) = self.doors.get_mut(index as usize) {
                door.is_listed = false;
            }
            if self.answer(index, machine, &mut context) {
                self.knock(index);
            }
        }
        for _ in 0..STREAMS.min(self.listed.len()) {
            let Some(index) = self.listed.pop_front() else {
                break;
            };
            if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
                slot.is_listed = false;
            }
            self.work(index, machine, &mut context);
        }
        context.stats.locals.open = self.open as u64;
        Ok(())
    }

    fn output(&mut self, machine: &mut M, mut context: SideContext<'_>) -> io::Result<bool> {
        let mut moved = false;
        for _ in 0..REQUESTS {
            let after = match machine.poll_local() {
                Some(request) => self.take(&request, &mut context),
                None => break,
            };
            moved = true;
            match after {
                After::Nothing => {}
                After::Work(flow) => {
                    if self.slot(flow).is_some() {
                        self.work(flow.index, machine, &mut context);
                    }
                }
                After::Relaying(flow, at) => {
                    machine.handle_local(FromLocal::Relaying { flow, at }, context.now);
                }
            }
        }
        context.stats.locals.open = self.open as u64;
        Ok(moved)
    }

    /// Whoever connects from now on is refused. Datagrams are let in to the end, for the sake of the answers.
    fn shut_down(&mut self, reactor: &mut dyn Reactor) {
        for (index, door) in self.doors.iter_mut().enumerate() {
            if let DoorKind::Stream(listener) = &door.kind {
                reactor.deregister(Token::of_side(index as u32), listener.as_fd());
                door.kind = DoorKind::Closed;
            }
        }
    }

    fn wants_turn(&self, _: &M) -> bool {
        !self.listed.is_empty() || !self.knocking.is_empty()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.resting.front().map(|(at, _)| *at)
    }
}
