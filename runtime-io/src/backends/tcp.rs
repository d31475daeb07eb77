//! A TCP backend: connects, then moves bytes between the socket and the machine's own buffers.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use proto_core::backend::{FlowId, FromBackend};
use proto_core::machine::Backends;
use rustix::io::Errno;
use socket2::{Protocol, Socket, Type};

use super::{Fate, is_unready, refusal};
use crate::reactor::Ready;
use crate::stats::BackendStats;

/// Calls in one direction before the next flow has its turn.
const CALLS: usize = 16;

#[derive(Debug)]
pub(super) struct Tcp {
    socket: Socket,
    phase: Phase,
    /// The socket may hold more bytes, or its end.
    readable: bool,
    /// The socket may have room.
    writable: bool,
    write: WriteSide,
    read_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteSide {
    Open,
    /// To be shut when the machine has no byte left.
    Ending,
    Shut,
}

/// How far one direction came.
enum Pumped {
    /// To its end for now.
    Dry,
    /// To the end of the budget.
    More,
    /// The socket failed.
    Failed,
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
            socket,
            phase: Phase::Connecting,
            readable: false,
            writable: true,
            write: WriteSide::Open,
            read_ended: false,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    pub(super) fn hint(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
    }

    /// No byte will follow those the machine has.
    pub(super) fn half_close(&mut self) {
        if self.write == WriteSide::Open {
            self.write = WriteSide::Ending;
        }
    }

    /// Has the coming drop of the socket send a reset.
    pub(super) fn abort(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
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
        let out = self.pump_out(flow, machine, stats, now);
        let into = match out {
            Pumped::Failed => Pumped::Failed,
            Pumped::Dry | Pumped::More => self.pump_in(flow, machine, stats, now),
        };
        match (out, into) {
            (Pumped::Failed, _) | (_, Pumped::Failed) => {
                stats.resets += 1;
                machine.handle_backend(FromBackend::Reset { flow }, now);
                Fate::Dead
            }
            (Pumped::More, _) | (_, Pumped::More) => Fate::More,
            (Pumped::Dry, Pumped::Dry) => Fate::Waits,
        }
    }

    /// Whether the connection stands; hints may come for nothing, so the socket itself is asked.
    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what the machine has for the backend.
    fn pump_out<M: Backends>(
        &mut self,
        flow: FlowId,
        machine: &mut M,
        stats: &mut BackendStats,
        now: Instant,
    ) -> Pumped {
        if self.write == WriteSide::Shut {
            return Pumped::Dry;
        }
        for _ in 0..CALLS {
            if !self.writable {
                return Pumped::Dry;
            }
            let mut failed = None;
            let socket = &mut self.socket;
            let taken = machine.drain_stream(flow, now, &mut |bytes| match socket.write(bytes) {
                Ok(count) => count,
                Err(error) => {
                    failed = Some(error);
                    0
                }
            });
            stats.bytes_sent += taken as u64;
            match failed {
                None if taken > 0 => {}
                None => return self.finish_writing(),
                Some(error) if is_unready(&error) => self.writable = false,
                Some(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(_) => return Pumped::Failed,
            }
        }
        Pumped::More
    }

    /// Nothing waits in the machine: time to shut the write side, if that is wanted.
    fn finish_writing(&mut self) -> Pumped {
        if self.write == WriteSide::Ending {
            self.write = WriteSide::Shut;
            if self.socket.shutdown(Shutdown::Write).is_err() {
                return Pumped::Failed;
            }
        }
        Pumped::Dry
    }

    /// Reads what the machine has room for.
    fn pump_in<M: Backends>(
        &mut self,
        flow: FlowId,
        machine: &mut M,
        stats: &mut BackendStats,
        now: Instant,
    ) -> Pumped {
        for _ in 0..CALLS {
            if !self.readable || self.read_ended {
                return Pumped::Dry;
            }
            let mut result = None;
            let socket = &mut self.socket;
            let filled = machine.fill_stream(flow, now, &mut |room| {
                if room.is_empty() {
                    return 0;
                }
                let (count, outcome) = match socket.read(room) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                };
                result = Some(outcome);
                count
            });
            let (Some(_), Some(result)) = (filled, result) else {
                // No room: the machine says when there is some.
                return Pumped::Dry;
            };
            match result {
                Ok(0) => {
                    self.read_ended = true;
                    machine.handle_backend(FromBackend::HalfClosed { flow }, now);
                }
                // Also after a short read: the end may have come with those bytes, and has no hint of its own.
                Ok(count) => stats.bytes_received += count as u64,
                Err(error) if is_unready(&error) => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Pumped::Failed,
            }
        }
        Pumped::More
    }
}

fn is_under_way(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INPROGRESS | Errno::INTR)) || is_unready(error)
}
