//! The sockets towards a connector's services: one per flow, opened and dropped as the machine says.
//!
//! It decides how a request of the machine becomes socket calls, and what an error of a socket means as a report. It
//! leaves to the machine when a flow opens, ends or expires. Stream bytes are never held here: they are written from
//! and read into the machine's own buffers, so a full window on either side holds the other back.
//!
//! Nothing is scanned: hints and requests put a flow on a list, and each entry is worked off within a budget.

mod probe;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use proto_core::backend::{Answer, Ask, FlowId, FromBackend, NameId, ProbeId, Refusal, ToBackend, Transport};
use proto_core::machine::Backends;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::reactor::{Interest, Reactor, Ready, Token};
use crate::side::{Side, SideContext};
use crate::stats::BackendStats;
use probe::{Probe, Progress};
use tcp::Tcp;

/// Flows worked off in one turn.
const FLOWS: usize = 64;

/// Requests of the machine taken in one call.
const REQUESTS: usize = 1024;

/// The largest slot a machine may name; a bound on memory only, machines keep to their own limits.
const MAX_INDEX: u32 = 1 << 20;

/// Checks of backends have tokens behind those of flows; a bound on memory only, as well.
const MAX_PROBES: u32 = 1 << 16;

/// Hands the names that a machine asks for to a resolver, which must not block. The answer comes by
/// `machine.handle_backend`, from a command.
pub type Resolve = Box<dyn FnMut(NameId, &str) + Send>;

/// The largest UDP payload there is.
const DATAGRAM: usize = 65_535;

/// What the shell grants to flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendLimits {
    /// Open sockets at a time; a flow beyond is refused as [`Refusal::Exhausted`].
    pub sockets: usize,
    /// How long a TCP connection may take to open, unless the machine closes the flow earlier.
    pub connect: Duration,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            sockets: 16_384,
            connect: Duration::from_secs(10),
        }
    }
}

/// The side of a machine with [`Backends`].
pub struct BackendSide {
    limits: BackendLimits,
    slots: Vec<Option<Slot>>,
    open: usize,
    /// Slots to work on, each at most once.
    listed: VecDeque<u32>,
    /// Connections under way, oldest first; those that are not any more are passed over.
    connecting: VecDeque<(Instant, FlowId)>,
    /// Checks under way, by the index of the machine.
    probes: Vec<Option<Probe>>,
    /// Checks to work on; a hint may list one twice.
    hinted: VecDeque<u32>,
    resolve: Option<Resolve>,
    datagram: Box<[u8]>,
}

impl std::fmt::Debug for BackendSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendSide")
            .field("limits", &self.limits)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    flow: FlowId,
    backend: Backend,
    is_listed: bool,
}

#[derive(Debug)]
enum Backend {
    Udp(Socket),
    Tcp(Tcp),
}

/// What becomes of a slot after some work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It waits for a hint or a request.
    Waits,
    /// There is more to do than the budget allowed.
    More,
    /// The flow is dead and the machine knows.
    Dead,
}

/// What a request leads to, once the machine is free again to be told.
enum After {
    Nothing,
    Work(u32),
    Check(u32),
    Unchecked(ProbeId, Refusal),
    Unresolved(NameId),
    Report(FromBackend<'static>),
}

impl BackendSide {
    /// Without a socket yet.
    pub fn new(limits: BackendLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            open: 0,
            listed: VecDeque::new(),
            connecting: VecDeque::new(),
            probes: Vec::new(),
            hinted: VecDeque::new(),
            resolve: None,
            datagram: vec![0; DATAGRAM].into_boxed_slice(),
        }
    }

    /// With a resolver; without one no name has an address.
    #[must_use]
    pub fn with_resolver(mut self, resolve: Resolve) -> Self {
        self.resolve = Some(resolve);
        self
    }

    fn slot(&mut self, flow: FlowId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(flow.index as usize)?.as_mut()?;
        (slot.flow == flow).then_some(slot)
    }

    fn list(&mut self, index: u32) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else {
            return;
        };
        if !std::mem::replace(&mut slot.is_listed, true) {
            self.listed.push_back(index);
        }
    }

    fn open(
        &mut self,
        flow: FlowId,
        transport: Transport,
        address: SocketAddr,
        context: &mut SideContext<'_>,
    ) -> Result<(), Refusal> {
        // A machine names a slot again only after it gave it up.
        self.remove(flow.index, context.reactor);
        if self.open >= self.limits.sockets || flow.index >= MAX_INDEX {
            return Err(Refusal::Exhausted);
        }
        let backend = match transport {
            Transport::Udp => Backend::Udp(udp::open(address).map_err(|error| refusal(&error))?),
            Transport::Tcp => Backend::Tcp(Tcp::open(address).map_err(|error| refusal(&error))?),
        };
        let interest = match transport {
            Transport::Udp => Interest::Read,
            Transport::Tcp => Interest::ReadWrite,
        };
        let token = Token::of_side(flow.index);
        context
            .reactor
            .register(token, backend.as_fd(), interest)
            .map_err(|_| Refusal::Exhausted)?;
        let index = flow.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(Slot {
                flow,
                backend,
                is_listed: false,
            });
            self.open += 1;
        }
        if transport == Transport::Tcp {
            self.connecting
                .push_back((context.now + self.limits.connect, flow));
            self.list(flow.index);
        }
        Ok(())
    }

    /// Drops the socket of a slot, whatever it is at.
    fn remove(&mut self, index: u32, reactor: &mut dyn Reactor) {
        let Some(place) = self.slots.get_mut(index as usize) else {
            return;
        };
        if let Some(slot) = place.take() {
            reactor.deregister(Token::of_side(index), slot.backend.as_fd());
            self.open -= 1;
        }
    }

    /// Takes one request; the machine is borrowed by it, so what there is to say comes back as a value.
    fn take(&mut self, request: &ToBackend<'_>, context: &mut SideContext<'_>) -> After {
        match *request {
            ToBackend::Open {
                flow,
                transport,
                address,
            } => match (self.open(flow, transport, address, context), transport) {
                (Ok(()), Transport::Tcp) => return After::Work(flow.index),
                (Ok(()), Transport::Udp) => {
                    context.stats.backends.opened += 1;
                    return After::Report(FromBackend::Opened { flow });
                }
                (Err(reason), _) => {
                    context.stats.backends.refused(reason);
                    return After::Report(FromBackend::Refused { flow, reason });
                }
            },
            ToBackend::Datagram { flow, payload } => {
                if let Some(Slot {
                    backend: Backend::Udp(socket),
                    ..
                }) = self.slot(flow)
                    && let Some(why) = udp::send(socket, payload, &mut context.stats.backends)
                {
                    return After::Report(FromBackend::Unreachable { flow, why });
                }
            }
            ToBackend::Readable { flow } | ToBackend::Resume { flow } => {
                if let Some(Slot {
                    backend: Backend::Tcp(_),
                    ..
                }) = self.slot(flow)
                {
                    return After::Work(flow.index);
                }
            }
            ToBackend::HalfClose { flow } => {
                if let Some(Slot {
                    backend: Backend::Tcp(tcp),
                    ..
                }) = self.slot(flow)
                {
                    tcp.half_close();
                    return After::Work(flow.index);
                }
            }
            ToBackend::Close { flow } => {
                if self.slot(flow).is_some() {
                    self.remove(flow.index, context.reactor);
                }
            }
            ToBackend::Reset { flow } => {
                if let Some(slot) = self.slot(flow) {
                    if let Backend::Tcp(tcp) = &slot.backend {
                        tcp.abort();
                    }
                    self.remove(flow.index, context.reactor);
                }
            }
            ToBackend::Ask(ref ask) => return self.ask(ask, context),
        }
        After::Nothing
    }

    fn ask(&mut self, ask: &Ask<'_>, context: &mut SideContext<'_>) -> After {
        match *ask {
            Ask::Probe {
                probe,
                transport,
                address,
                send,
                awaited,
            } => {
                self.end_probe(probe.index, context.reactor);
                let opened = if probe.index < MAX_PROBES {
                    Probe::open(probe, transport, address, send, awaited).map_err(|error| refusal(&error))
                } else {
                    Err(Refusal::Exhausted)
                };
                let opened = opened.and_then(|opened| {
                    let token = Token::of_side(MAX_INDEX + probe.index);
                    let registered = context
                        .reactor
                        .register(token, opened.as_fd(), Interest::ReadWrite);
                    registered.map(|()| opened).map_err(|_| Refusal::Exhausted)
                });
                match opened {
                    Ok(opened) => {
                        let index = probe.index as usize;
                        if index >= self.probes.len() {
                            self.probes.resize_with(index + 1, || None);
                        }
                        if let Some(place) = self.probes.get_mut(index) {
                            *place = Some(opened);
                        }
                        After::Check(probe.index)
                    }
                    Err(reason) => After::Unchecked(probe, reason),
                }
            }
            Ask::EndProbe { probe } => {
                let current = self.probes.get(probe.index as usize).and_then(Option::as_ref);
                if current.is_some_and(|current| current.id == probe) {
                    self.end_probe(probe.index, context.reactor);
                }
                After::Nothing
            }
            Ask::Resolve { name, host } => match &mut self.resolve {
                Some(resolve) => {
                    resolve(name, host);
                    After::Nothing
                }
                None => After::Unresolved(name),
            },
        }
    }

    fn end_probe(&mut self, index: u32, reactor: &mut dyn Reactor) {
        if let Some(probe) = self.probes.get_mut(index as usize).and_then(Option::take) {
            reactor.deregister(Token::of_side(MAX_INDEX + index), probe.as_fd());
        }
    }

    /// Gets on with a check, and reports its end.
    fn check<M: Backends>(&mut self, index: u32, machine: &mut M, context: &mut SideContext<'_>) {
        let Some(Some(probe)) = self.probes.get_mut(index as usize) else {
            return;
        };
        let Progress::Ended(result) = probe.work() else {
            return;
        };
        let answer = Answer::Probed {
            probe: probe.id,
            result: result.map(|()| probe.answer()),
        };
        machine.handle_backend(FromBackend::Answer(answer), context.now);
        self.end_probe(index, context.reactor);
    }

    /// Does what a slot's hints and requests allow now.
    fn work<M: Backends>(&mut self, index: u32, machine: &mut M, context: &mut SideContext<'_>) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else {
            return;
        };
        let stats = &mut context.stats.backends;
        let fate = match &mut slot.backend {
            Backend::Udp(socket) => {
                udp::receive(socket, slot.flow, machine, &mut self.datagram, stats, context.now)
            }
            Backend::Tcp(tcp) => tcp.work(slot.flow, machine, stats, context.now),
        };
        match fate {
            Fate::Waits => {}
            Fate::More => self.list(index),
            Fate::Dead => self.remove(index, context.reactor),
        }
    }

    /// Gives up connections that take too long.
    fn expire<M: Backends>(&mut self, machine: &mut M, context: &mut SideContext<'_>) {
        while let Some((at, flow)) = self.connecting.front().copied() {
            let waits = match self.slot(flow) {
                Some(Slot {
                    backend: Backend::Tcp(tcp),
                    ..
                }) => tcp.is_connecting(),
                Some(Slot {
                    backend: Backend::Udp(_),
                    ..
                })
                | None => false,
            };
            if waits && at > context.now {
                return;
            }
            self.connecting.pop_front();
            if waits {
                self.remove(flow.index, context.reactor);
                context.stats.backends.refused(Refusal::TimedOut);
                machine.handle_backend(
                    FromBackend::Refused {
                        flow,
                        reason: Refusal::TimedOut,
                    },
                    context.now,
                );
            }
        }
    }

    /// A flow that never opened leaves an entry behind; more entries than sockets means that most are such.
    fn prune(&mut self) {
        if self.connecting.len() <= 2 * self.limits.sockets.max(64) {
            return;
        }
        let slots = &self.slots;
        self.connecting.retain(|(_, flow)| {
            let slot = slots.get(flow.index as usize).and_then(Option::as_ref);
            slot.is_some_and(|slot| {
                slot.flow == *flow && matches!(&slot.backend, Backend::Tcp(tcp) if tcp.is_connecting())
            })
        });
    }
}

impl<M: Backends> Side<M> for BackendSide {
    fn start(&mut self, _: &mut dyn Reactor) -> io::Result<()> {
        Ok(())
    }

    fn hint(&mut self, index: u32, ready: Ready) {
        if let Some(probe) = index.checked_sub(MAX_INDEX) {
            self.hinted.push_back(probe);
            return;
        }
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else {
            return;
        };
        if let Backend::Tcp(tcp) = &mut slot.backend {
            tcp.hint(ready);
        }
        self.list(index);
    }

    fn input(&mut self, machine: &mut M, mut context: SideContext<'_>) -> io::Result<()> {
        self.expire(machine, &mut context);
        // No more than there were hints in this turn.
        while let Some(index) = self.hinted.pop_front() {
            self.check(index, machine, &mut context);
        }
        for _ in 0..FLOWS.min(self.listed.len()) {
            let Some(index) = self.listed.pop_front() else {
                break;
            };
            if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
                slot.is_listed = false;
            }
            self.work(index, machine, &mut context);
        }
        context.stats.backends.open = self.open as u64;
        Ok(())
    }

    fn output(&mut self, machine: &mut M, mut context: SideContext<'_>) -> io::Result<bool> {
        let mut moved = false;
        for _ in 0..REQUESTS {
            let after = match machine.poll_backend() {
                Some(request) => self.take(&request, &mut context),
                None => break,
            };
            moved = true;
            match after {
                After::Nothing => {}
                After::Work(index) => self.work(index, machine, &mut context),
                After::Check(index) => self.check(index, machine, &mut context),
                After::Unchecked(probe, reason) => {
                    let answer = Answer::Probed {
                        probe,
                        result: Err(reason),
                    };
                    machine.handle_backend(FromBackend::Answer(answer), context.now);
                }
                After::Unresolved(name) => {
                    let answer = Answer::Resolved { name, found: None };
                    machine.handle_backend(FromBackend::Answer(answer), context.now);
                }
                After::Report(report) => machine.handle_backend(report, context.now),
            }
        }
        self.prune();
        context.stats.backends.open = self.open as u64;
        Ok(moved)
    }

    fn wants_turn(&self, _: &M) -> bool {
        !self.listed.is_empty()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.connecting.front().map(|(at, _)| *at)
    }
}

impl Backend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(tcp) => tcp.as_fd(),
        }
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn refusal(error: &io::Error) -> Refusal {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED | Errno::CONNRESET) => Refusal::Refused,
        Some(Errno::TIMEDOUT) => Refusal::TimedOut,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            Refusal::Exhausted
        }
        Some(_) | None => Refusal::Unreachable,
    }
}

impl BackendStats {
    fn refused(&mut self, reason: Refusal) {
        *self.refused.entry(reason).or_default() += 1;
    }
}
