//! A UDP backend: a connected socket, so that the kernel filters strangers, with its error queue on (`IP_RECVERR`), so
//! that every ICMP error about what was sent is told and not only that nobody listens.

use std::io::{self, IoSliceMut, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage, sockopt};
use proto_core::backend::{BackendUnreachable, FlowId, FromBackend};
use proto_core::machine::Backends;
use rustix::io::Errno;
use socket2::{Protocol, Socket, Type};

use super::Fate;
use crate::stats::BackendStats;
use crate::stream::is_unready;

/// Datagrams taken from one flow before the next has its turn.
const DATAGRAMS: usize = 64;

/// The wish for `SO_RCVBUF`: a burst of answers while the tunnel is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

pub(super) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = super::socket(address, Type::DGRAM, Protocol::UDP)?;
    // Less is granted where the system allows less.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    // Where it cannot be had, errors that the kernel takes for passing are not heard of.
    let _ = match address {
        SocketAddr::V4(_) => socket::setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => socket::setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    };
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Sends one payload, or drops it and counts; what ICMP said about an earlier one, if it did.
pub(super) fn send(socket: &Socket, payload: &[u8], stats: &mut BackendStats) -> Option<BackendUnreachable> {
    let mut unreachable = None;
    // An error of an earlier datagram is reported by the next call, which then sends nothing: that one is tried again.
    for _ in 0..2 {
        let Err(error) = socket.send(payload) else {
            stats.datagrams_sent += 1;
            return unreachable;
        };
        let Some(why) = reported(socket, &error) else {
            break;
        };
        unreachable = Some(why);
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
            Err(error) if is_unready(&error) => return Fate::Waits,
            // Reported once and then forgotten by the kernel; the flow lives on.
            Err(error) => match reported(socket, &error) {
                Some(why) => machine.handle_backend(FromBackend::Unreachable { flow, why }, now),
                None => log::debug!("a UDP backend: {error}"),
            },
        }
    }
    Fate::More
}

/// What ICMP said, if that is why a call failed. Empties the error queue, which else would take the room of answers.
fn reported(socket: &Socket, error: &io::Error) -> Option<BackendUnreachable> {
    let by_number = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => BackendUnreachable::Port,
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NONET) => {
            BackendUnreachable::Host
        }
        Some(Errno::ACCESS) => BackendUnreachable::Prohibited,
        Some(_) | None => return None,
    };
    let mut why = by_number;
    for _ in 0..DATAGRAMS {
        let Some(queued) = next_queued(socket) else { break };
        why = queued.unwrap_or(why);
    }
    Some(why)
}

/// The next entry of the error queue, and what it says if the error's number does not.
fn next_queued(socket: &Socket) -> Option<Option<BackendUnreachable>> {
    let mut payload = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut payload)];
    let mut control = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        socket::recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags)
            .ok()?;
    let mut prohibited = None;
    for entry in message.cmsgs().into_iter().flatten() {
        // A filter on the way: RFC 1812 §5.2.7.1 codes 9, 10 and 13; RFC 4443 §3.1 code 1.
        let filtered = if let ControlMessageOwned::Ipv4RecvErr(error, _) = entry {
            error.ee_type == 3 && matches!(error.ee_code, 9 | 10 | 13)
        } else if let ControlMessageOwned::Ipv6RecvErr(error, _) = entry {
            error.ee_type == 1 && error.ee_code == 1
        } else {
            false
        };
        if filtered {
            prohibited = Some(BackendUnreachable::Prohibited);
        }
    }
    Some(prohibited)
}
