//! The UDP socket of a machine: batches in, batches out, nothing lost to a full buffer.
//!
//! It decides how bytes reach the kernel: segmentation offload both ways, splitting where the kernel refuses, what to
//! do about each error of a socket call. No error but the loss of the socket itself is returned; the rest is counted
//! and costs the datagram at hand. It leaves to the machine what the bytes mean, and to the event loop when to try.
//!
//! While the socket has no room, the one batch under way stays where it is (the machine's in the send buffer,
//! forwarded ones in the receive buffer) and neither the machine nor the socket is asked for more. So nothing is
//! dropped here, and back-pressure ends in the kernel's receive queue, which drops by its own limit.

mod bind;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Instant;

use proto_core::machine::Machine;

pub use bind::{BindError, LocalAddress, UdpConfig};

use crate::reactor::{Interest, Reactor, Token};
use crate::stats::UdpStats;
use receive::Inbound;
use send::{Outgoing, Wire};

/// What one send buffer holds: the largest UDP payload over IPv6, in segments of any size.
const SEND_BUFFER: usize = 65_487;

/// A bound, non-blocking UDP socket with its buffers.
#[derive(Debug)]
pub struct UdpEndpoint {
    wire: Wire,
    inbound: Inbound,
    buffer: Box<[u8]>,
    pending: Option<Outgoing>,
    interest: Interest,
}

/// How far a drain of the machine's transmits came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// The machine has nothing left.
    Empty,
    /// The budget is spent.
    Budget,
    /// The socket has no room.
    Blocked,
}

impl UdpEndpoint {
    /// Binds a socket.
    ///
    /// # Errors
    /// With a text fit for the operator: the address is in use, not permitted, or not of this host.
    pub fn bind(config: &UdpConfig) -> Result<Self, BindError> {
        Ok(Self {
            wire: bind::bind(config)?,
            inbound: Inbound::new(),
            buffer: vec![0; SEND_BUFFER].into_boxed_slice(),
            pending: None,
            interest: Interest::Read,
        })
    }

    /// The address it is bound to, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.wire.local
    }

    pub(crate) fn start(&mut self, reactor: &mut dyn Reactor) -> io::Result<()> {
        self.inbound.readable = true;
        reactor.register(Token::UDP, self.wire.socket.as_fd(), self.interest)
    }

    pub(crate) fn hint_readable(&mut self) {
        self.inbound.readable = true;
    }

    /// Whether something waits for room in the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        self.pending.is_some() || self.inbound.is_forwarding()
    }

    /// Whether a receive would get on now.
    pub(crate) fn wants_turn(&self) -> bool {
        !self.is_blocked() && self.inbound.has_more()
    }

    /// When receiving pauses because the socket keeps failing: when to try again.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.inbound.paused_until
    }

    /// Sends what waited for room.
    pub(crate) fn flush(&mut self, stats: &mut UdpStats, now: Instant) -> io::Result<()> {
        if let Some(pending) = &mut self.pending {
            if !self.wire.send(&self.buffer, pending, stats, now)? {
                return Ok(());
            }
            self.pending = None;
        }
        self.inbound.forward(&mut self.wire, stats, now)?;
        Ok(())
    }

    /// Hands received batches to the machine, and sends on what it forwards.
    pub(crate) fn receive<M: Machine>(
        &mut self,
        machine: &mut M,
        batches: usize,
        datagrams: usize,
        stats: &mut UdpStats,
        now: Instant,
    ) -> io::Result<()> {
        if self.pending.is_some() {
            return Ok(());
        }
        self.inbound
            .receive(&mut self.wire, machine, (batches, datagrams), stats, now)
    }

    /// Sends what the machine has, up to `batches`; also returns how many were asked for.
    pub(crate) fn transmit<M: Machine>(
        &mut self,
        machine: &mut M,
        batches: usize,
        stats: &mut UdpStats,
        now: Instant,
    ) -> io::Result<(Drained, usize)> {
        for done in 0..batches {
            if self.is_blocked() {
                return Ok((Drained::Blocked, done));
            }
            let Some(transmit) = machine.poll_transmit(&mut self.buffer, now) else {
                return Ok((Drained::Empty, done));
            };
            let Some(mut outgoing) = self.wire.accept(&transmit, self.buffer.len(), stats) else {
                continue;
            };
            if !self.wire.send(&self.buffer, &mut outgoing, stats, now)? {
                self.pending = Some(outgoing);
            }
        }
        Ok((
            if self.is_blocked() {
                Drained::Blocked
            } else {
                Drained::Budget
            },
            batches,
        ))
    }

    /// Asks for hints of writability exactly while something waits for it.
    ///
    /// Asking always would wake the loop for every packet that leaves the machine's network card.
    pub(crate) fn watch(&mut self, reactor: &mut dyn Reactor) -> io::Result<()> {
        let wanted = if self.is_blocked() {
            Interest::ReadWrite
        } else {
            Interest::Read
        };
        if wanted != self.interest {
            reactor.modify(Token::UDP, self.wire.socket.as_fd(), wanted)?;
            self.interest = wanted;
        }
        Ok(())
    }
}

/// `::ffff:a.b.c.d` as `a.b.c.d`: a dual-stack socket shows IPv4 peers so, a machine never does.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Whether the descriptor itself is unusable, so that no later call can succeed.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::BADF | Errno::NOTSOCK))
}
