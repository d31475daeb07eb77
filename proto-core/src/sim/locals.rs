//! A machine with local sockets, and a simple model of the programs at them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Instant;

use super::host::Host;
use super::trace::Digest;
use crate::backend::FlowId;
use crate::local::{DatagramSocket, FromLocal, ListenerIndex, ToLocal};
use crate::machine::{Deadline, Forward, Locals, Received, Transmit};

/// A program with a connection: what it says, and what it has heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What it says.
    pub words: Vec<u8>,
    /// How much of that has been taken.
    pub said: usize,
    /// Whether it closes its half behind its words.
    pub ends: bool,
    ended: bool,
    /// Whether it reads at all.
    pub deaf: bool,
    /// What it has heard.
    pub heard: Vec<u8>,
    half_closing: bool,
    /// Nothing more will come.
    pub heard_end: bool,
    /// Its connection was closed in order.
    pub closed: bool,
    /// Its connection was reset.
    pub reset: bool,
}

impl Program {
    /// One that says `words`, and then perhaps closes its half.
    pub fn saying(words: Vec<u8>, ends: bool) -> Self {
        Self {
            words,
            ends,
            ..Self::default()
        }
    }
}

/// A machine with local sockets.
#[derive(Debug)]
pub struct LocalsHost<M: Locals> {
    /// The machine.
    pub machine: M,
    /// All its events so far, oldest first.
    pub events: Vec<M::Event>,
    programs: BTreeMap<FlowId, Program>,
    /// Datagrams for programs, oldest first.
    pub datagrams: Vec<(DatagramSocket, SocketAddr, Vec<u8>)>,
    /// Where relays are opened, if at all.
    pub relay: Option<SocketAddr>,
}

impl<M: Locals> LocalsHost<M> {
    /// Takes a machine.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            events: Vec::new(),
            programs: BTreeMap::new(),
            datagrams: Vec::new(),
            relay: None,
        }
    }

    /// A program connects; `None` if the machine has no room.
    pub fn connect(&mut self, listener: ListenerIndex, program: Program, now: Instant) -> Option<FlowId> {
        let flow = self.machine.accept(listener, None, now)?;
        self.programs.insert(flow, program);
        self.pump(flow, now);
        Some(flow)
    }

    /// The program of a connection, also when that is over.
    pub fn program(&self, flow: FlowId) -> Option<&Program> {
        self.programs.get(&flow)
    }

    /// Changes what a program does, and lets it act.
    pub fn change(&mut self, flow: FlowId, change: impl FnOnce(&mut Program), now: Instant) {
        if let Some(program) = self.programs.get_mut(&flow) {
            change(program);
        }
        self.pump(flow, now);
    }

    /// A program resets its connection.
    pub fn reset(&mut self, flow: FlowId, now: Instant) {
        if let Some(program) = self.programs.get_mut(&flow)
            && !program.closed
            && !std::mem::replace(&mut program.reset, true)
        {
            self.machine.handle_local(FromLocal::Reset { flow }, now);
        }
    }

    /// A program sends a datagram.
    pub fn send(&mut self, to: DatagramSocket, from: SocketAddr, payload: &[u8], now: Instant) {
        self.machine
            .handle_local(FromLocal::Datagram { to, from, payload }, now);
    }

    /// All programs that ever connected.
    pub fn programs(&self) -> impl Iterator<Item = (FlowId, &Program)> {
        self.programs.iter().map(|(flow, program)| (*flow, program))
    }

    /// Moves bytes between a program and the machine as far as they go.
    fn pump(&mut self, flow: FlowId, now: Instant) {
        let Self {
            machine, programs, ..
        } = self;
        let Some(program) = programs.get_mut(&flow) else {
            return;
        };
        if program.closed || program.reset {
            return;
        }
        let heard = &mut program.heard;
        let mut take = |bytes: &[u8]| {
            heard.extend_from_slice(bytes);
            bytes.len()
        };
        while !program.deaf && machine.drain_stream(flow, now, &mut take) > 0 {}
        program.heard_end |= program.half_closing && !program.deaf;
        while program.said < program.words.len() {
            let rest = &program.words[program.said..];
            let filled = machine.fill_stream(flow, now, &mut |room| {
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                count
            });
            match filled {
                None | Some(0) => return,
                Some(count) => program.said += count,
            }
        }
        // As a socket would: the end is read only where there is room to read.
        if program.ends && !program.ended && machine.fill_stream(flow, now, &mut |_| 0).is_some() {
            program.ended = true;
            machine.handle_local(FromLocal::HalfClosed { flow }, now);
        }
    }

    fn end(&mut self, flow: FlowId, end: fn(&mut Program)) {
        if let Some(program) = self.programs.get_mut(&flow) {
            end(program);
        }
    }
}

/// A request to the shell, owned, so that the machine is free to be called.
enum Request {
    Move(FlowId),
    HalfClose(FlowId),
    Close(FlowId),
    Reset(FlowId),
    Relay(FlowId),
    Datagram(DatagramSocket, SocketAddr, Vec<u8>),
}

impl From<ToLocal<'_>> for Request {
    fn from(request: ToLocal<'_>) -> Self {
        match request {
            ToLocal::Readable { flow } | ToLocal::Resume { flow } => Self::Move(flow),
            ToLocal::HalfClose { flow } => Self::HalfClose(flow),
            ToLocal::Close { flow } => Self::Close(flow),
            ToLocal::Reset { flow } => Self::Reset(flow),
            ToLocal::Relay { flow } => Self::Relay(flow),
            ToLocal::Datagram { from, to, payload } => Self::Datagram(from, to, payload.to_vec()),
        }
    }
}

impl<M> Host for LocalsHost<M>
where
    M: Locals + 'static,
    M::Event: Debug,
{
    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.machine.handle_datagram(received, now)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        self.machine.poll_transmit(buf, now)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }

    fn poll_local(&mut self, digest: &mut Digest, now: Instant) -> bool {
        if let Some(event) = self.machine.poll_event() {
            digest.debug(&event);
            self.events.push(event);
            return true;
        }
        let Some(request) = self.machine.poll_local() else {
            return false;
        };
        digest.debug(&request);
        match Request::from(request) {
            Request::Move(flow) => self.pump(flow, now),
            Request::HalfClose(flow) => {
                self.end(flow, |program| program.half_closing = true);
                self.pump(flow, now);
            }
            Request::Close(flow) => self.end(flow, |program| program.closed = true),
            Request::Reset(flow) => self.end(flow, |program| program.reset = true),
            Request::Relay(flow) => {
                let at = self.relay;
                self.machine.handle_local(FromLocal::Relaying { flow, at }, now);
            }
            Request::Datagram(from, to, payload) => self.datagrams.push((from, to, payload)),
        }
        true
    }
}
