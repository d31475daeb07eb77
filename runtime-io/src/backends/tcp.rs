//! A TCP backend: connects, then is a stream between the socket and the machine's own buffers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use proto_core::backend::{FlowId, FromBackend};
use proto_core::machine::Backends;
use rustix::io::Errno;
use socket2::{Protocol, Socket, Type};

use super::{Fate, refusal};
use crate::reactor::Ready;
use crate::stats::BackendStats;
use crate::stream::{Buffers, Moved, Pumped, Stream, is_unready};

#[derive(Debug)]
pub(super) struct Tcp {
    stream: Stream<Socket>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
}

/// The buffers of a flow.
struct FlowBuffers<'a, M> {
    machine: &'a mut M,
    flow: FlowId,
    now: Instant,
}

impl<M: Backends> Buffers for FlowBuffers<'_, M> {
    fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.machine.drain_stream(self.flow, self.now, take)
    }

    fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize> {
        self.machine.fill_stream(self.flow, self.now, fill)
    }

    fn ended(&mut self) {
        let flow = self.flow;
        self.machine
            .handle_backend(FromBackend::HalfClosed { flow }, self.now);
    }
}

impl Tcp {
    /// Starts to connect.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = super::socket(address, Type::STREAM, Protocol::TCP)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if is_under_way(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: Stream::new(socket),
            phase: Phase::Connecting,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    pub(super) fn hint(&mut self, ready: Ready) {
        self.stream.hint(ready);
    }

    /// No byte will follow those the machine has.
    pub(super) fn half_close(&mut self) {
        self.stream.half_close();
    }

    /// Has the coming drop of the socket send a reset.
    pub(super) fn abort(&self) {
        self.stream.abort();
    }

    /// Does what is possible now, in both directions.
    pub(super) fn work<M: Backends>(
        &mut self,
        flow: FlowId,
        machine: &mut M,
        stats: &mut BackendStats,
        now: Instant,
    ) -> Fate {
        if self.phase == Phase::Connecting {
            match self.connected() {
                Ok(false) => return Fate::Waits,
                Ok(true) => {
                    self.phase = Phase::Open;
                    stats.opened += 1;
                    machine.handle_backend(FromBackend::Opened { flow }, now);
                }
                Err(error) => {
                    let reason = refusal(&error);
                    stats.refused(reason);
                    machine.handle_backend(FromBackend::Refused { flow, reason }, now);
                    return Fate::Dead;
                }
            }
        }
        let mut moved = Moved::default();
        let pumped = self
            .stream
            .pump(&mut FlowBuffers { machine, flow, now }, &mut moved);
        stats.bytes_sent += moved.written;
        stats.bytes_received += moved.read;
        match pumped {
            Pumped::Dry => Fate::Waits,
            Pumped::More => Fate::More,
            Pumped::Failed => {
                stats.resets += 1;
                machine.handle_backend(FromBackend::Reset { flow }, now);
                Fate::Dead
            }
        }
    }

    /// Whether the connection stands; hints may come for nothing, so the socket itself is asked.
    fn connected(&self) -> io::Result<bool> {
        let socket = self.stream.channel();
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INPROGRESS | Errno::INTR)) || is_unready(error)
}
