//! A local UDP socket: many programs at one address.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use proto_core::local::{DatagramSocket, FromLocal};
use proto_core::machine::Locals;
use socket2::{Domain, Protocol, Socket, Type};

use crate::stats::LocalStats;
use crate::stream::is_unready;

/// The largest UDP payload there is.
pub(super) const LARGEST: usize = 65_535;

/// Datagrams taken from one socket before the next has its turn.
const DATAGRAMS: usize = 64;

/// The wish for `SO_RCVBUF`: a burst of a program while the tunnel is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Binds a UDP socket; an IPv6 one takes IPv6 only.
///
/// # Errors
/// If the address is in use, not permitted or not of this host.
pub fn bind_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Less is granted where the system allows less.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[derive(Debug)]
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Sends one payload, or drops it and counts.
    pub(super) fn send(&self, to: SocketAddr, payload: &[u8], stats: &mut LocalStats) {
        match self.0.send_to(payload, to) {
            Ok(_) => stats.datagrams_sent += 1,
            Err(_) => stats.datagrams_dropped += 1,
        }
    }

    /// Hands over what is there; whether there may be more.
    pub(super) fn receive<M: Locals>(
        &self,
        to: DatagramSocket,
        machine: &mut M,
        buffer: &mut [u8],
        stats: &mut LocalStats,
        now: Instant,
    ) -> bool {
        for _ in 0..DATAGRAMS {
            match self.0.recv_from(buffer) {
                Ok((len, from)) => {
                    stats.datagrams_received += 1;
                    let payload = buffer.get(..len).unwrap_or_default();
                    machine.handle_local(FromLocal::Datagram { to, from, payload }, now);
                }
                Err(error) if is_unready(&error) => return false,
                // Reported once and then forgotten by the kernel: a program that is gone, mostly.
                Err(error) => log::debug!("a local UDP socket: {error}"),
            }
        }
        true
    }
}
