//! A UDP backend: a connected socket, so that the kernel filters strangers and reports that nobody listens.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::time::Instant;

use proto_core::backend::{FlowId, FromBackend};
use proto_core::machine::Backends;
use rustix::io::Errno;
use socket2::{Protocol, Socket, Type};

use super::{Fate, is_unready};
use crate::stats::BackendStats;

/// Datagrams taken from one flow before the next has its turn.
const DATAGRAMS: usize = 64;

/// The wish for `SO_RCVBUF`: a burst of answers while the tunnel is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

pub(super) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = super::socket(address, Type::DGRAM, Protocol::UDP)?;
    // Less is granted where the system allows less.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Sends one payload, or drops it and counts; whether the host said that nobody listens.
pub(super) fn send(socket: &Socket, payload: &[u8], stats: &mut BackendStats) -> bool {
    let mut unreachable = false;
    // An error of an earlier datagram is reported by the next call, which then sends nothing: that one is tried again.
    for _ in 0..2 {
        let Err(error) = socket.send(payload) else {
            stats.datagrams_sent += 1;
            return unreachable;
        };
        if !is_refused(&error) {
            break;
        }
        unreachable = true;
    }
    stats.datagrams_dropped += 1;
    unreachable
}

pub(super) fn receive<M: Backends>(
    socket: &mut Socket,
    flow: FlowId,
    machine: &mut M,
    buffer: &mut [u8],
    stats: &mut BackendStats,
    now: Instant,
) -> Fate {
    for _ in 0..DATAGRAMS {
        match socket.read(buffer) {
            Ok(len) => {
                let Some(payload) = buffer.get(..len) else {
                    continue;
                };
                stats.datagrams_received += 1;
                machine.handle_backend(FromBackend::Datagram { flow, payload }, now);
            }
            Err(error) if is_refused(&error) => {
                machine.handle_backend(FromBackend::PortUnreachable { flow }, now);
            }
            Err(error) if is_unready(&error) => return Fate::Waits,
            // Reported once and then forgotten by the kernel; the flow lives on.
            Err(error) => log::debug!("a UDP backend: {error}"),
        }
    }
    Fate::More
}

fn is_refused(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::CONNREFUSED)
}
