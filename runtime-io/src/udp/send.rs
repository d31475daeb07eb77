//! Sending: one batch in as few calls as the kernel takes.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use proto_core::machine::{Ecn, FourTuple, Transmit};
use quinn_udp::{EcnCodepoint, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::Socket;

use super::{LocalAddress, is_gone};
use crate::stats::{UdpDrop, UdpStats};

/// What one call may carry: the largest UDP payload over IPv6.
const MAX_PAYLOAD: usize = 65_487;

/// How long segmentation stays off once the kernel refused it; routes and interfaces change.
const SEGMENTATION_RETRY: Duration = Duration::from_secs(60);

/// The socket and what is known about it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Socket,
    pub(super) state: UdpSocketState,
    pub(super) local: SocketAddr,
    pub(super) is_v6: bool,
    pub(super) is_wildcard: bool,
    pub(super) report: LocalAddress,
    pub(super) unsegmented_since: Option<Instant>,
    /// Answers of the next send calls; for what a test cannot have the kernel say.
    #[cfg(test)]
    pub(super) script: std::collections::VecDeque<Option<Errno>>,
}

/// Datagrams of one buffer under way to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Ecn,
    /// The first byte not yet sent.
    start: usize,
    end: usize,
    /// The size of every datagram but the last; not zero.
    segment: usize,
}

impl Outgoing {
    fn datagrams(&self) -> usize {
        self.end.saturating_sub(self.start).div_ceil(self.segment)
    }
}

impl Wire {
    /// Checks what a machine wants to send from a buffer of `capacity`; `None` if it is dropped and counted.
    pub(super) fn accept(
        &self,
        transmit: &Transmit,
        capacity: usize,
        stats: &mut UdpStats,
    ) -> Option<Outgoing> {
        if transmit.len > capacity {
            stats.drop(UdpDrop::Shape, 1);
            return None;
        }
        let segment = transmit
            .segment_size
            .map_or(transmit.len, std::num::NonZeroUsize::get);
        self.route(transmit.path, transmit.ecn, (0, transmit.len), segment, stats)
    }

    /// Checks that `path` can be sent along. A destination that the kernel answers with `EINVAL` must not get as far
    /// as a call with segmentation: the same error means there that segmentation is refused.
    pub(super) fn route(
        &self,
        path: FourTuple,
        ecn: Ecn,
        (start, end): (usize, usize),
        segment: usize,
        stats: &mut UdpStats,
    ) -> Option<Outgoing> {
        if start >= end || segment == 0 {
            stats.drop(UdpDrop::Shape, 1);
            return None;
        }
        let datagrams = (end - start).div_ceil(segment);
        let Some(destination) = self.reachable(path.remote) else {
            stats.drop(UdpDrop::Destination, datagrams);
            return None;
        };
        let source = path.local.ip().to_canonical();
        let same_family = source.is_ipv4() == path.remote.ip().to_canonical().is_ipv4();
        let source = (self.is_wildcard && !source.is_unspecified() && same_family).then_some(source);
        Some(Outgoing {
            destination,
            source,
            ecn,
            start,
            end,
            segment,
        })
    }

    /// The destination in the socket's own family; `None` if a datagram cannot or should not go there.
    fn reachable(&self, remote: SocketAddr) -> Option<SocketAddr> {
        if !is_peer(remote) {
            return None;
        }
        match (remote.ip().to_canonical(), self.is_v6) {
            (IpAddr::V4(ip), false) => Some(SocketAddr::new(ip.into(), remote.port())),
            (IpAddr::V4(ip), true) => {
                let mapped: Ipv6Addr = ip.to_ipv6_mapped();
                Some(SocketAddrV6::new(mapped, remote.port(), 0, 0).into())
            }
            (IpAddr::V6(_), true) => Some(remote),
            (IpAddr::V6(_), false) => None,
        }
    }

    /// Sends on; `false` if the socket has no room and the rest must be tried again.
    ///
    /// # Errors
    /// Only if the socket itself is gone.
    pub(super) fn send(
        &mut self,
        buffer: &[u8],
        out: &mut Outgoing,
        stats: &mut UdpStats,
        now: Instant,
    ) -> io::Result<bool> {
        self.retry_segmentation(now);
        while out.start < out.end {
            let end = out
                .end
                .min(out.start + self.segments_at_once(out.segment) * out.segment);
            let Some(contents) = buffer.get(out.start..end) else {
                stats.drop(UdpDrop::Shape, out.datagrams());
                return Ok(true);
            };
            let datagrams = contents.len().div_ceil(out.segment);
            let transmit = quinn_udp::Transmit {
                destination: out.destination,
                ecn: to_codepoint(out.ecn),
                contents,
                segment_size: (datagrams > 1).then_some(out.segment),
                src_ip: out.source,
            };
            let Err(error) = self.call(&transmit) else {
                stats.sent_batches += 1;
                stats.sent_datagrams += datagrams as u64;
                stats.sent_bytes += contents.len() as u64;
                out.start = end;
                continue;
            };
            if error.kind() == io::ErrorKind::WouldBlock {
                stats.blocked += 1;
                return Ok(false);
            }
            if is_gone(&error) {
                return Err(error);
            }
            let ambiguous = matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::IO));
            if ambiguous && datagrams > 1 {
                log::debug!("{error} on a segmented send: splitting");
                stats.segmentation_refused += 1;
                self.unsegmented_since = Some(now);
                continue;
            }
            if ambiguous {
                // A single datagram fails as well: it was the address, not segmentation.
                self.restore_segmentation();
            }
            log::trace!("dropped {datagrams} datagrams: {error}");
            stats.drop(reason(&error), datagrams);
            out.start = end;
        }
        Ok(true)
    }

    fn call(&mut self, transmit: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Some(errno)) = self.script.pop_front() {
            return Err(errno.into());
        }
        self.state.try_send(UdpSockRef::from(&self.socket), transmit)
    }

    /// How many datagrams one call may carry.
    fn segments_at_once(&self, segment: usize) -> usize {
        if self.unsegmented_since.is_some() {
            return 1;
        }
        self.state.max_gso_segments().min(MAX_PAYLOAD / segment).max(1)
    }

    fn retry_segmentation(&mut self, now: Instant) {
        let Some(since) = self.unsegmented_since else {
            return;
        };
        if now.saturating_duration_since(since) >= SEGMENTATION_RETRY {
            self.restore_segmentation();
        }
    }

    /// The socket's state remembers for good that segmentation failed; only a fresh one forgets.
    fn restore_segmentation(&mut self) {
        if let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.socket)) {
            self.state = state;
            self.unsegmented_since = None;
        }
    }
}

/// Whether a single host can be behind the address.
pub(super) fn is_peer(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

fn reason(error: &io::Error) -> UdpDrop {
    match Errno::from_io_error(error) {
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) => {
            UdpDrop::Unreachable
        }
        Some(Errno::PERM | Errno::ACCESS) => UdpDrop::Denied,
        Some(Errno::MSGSIZE) => UdpDrop::TooLarge,
        Some(Errno::CONNREFUSED) => UdpDrop::Refused,
        Some(_) | None => UdpDrop::Other,
    }
}

fn to_codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    match ecn {
        Ecn::NotEct => None,
        Ecn::Ect0 => Some(EcnCodepoint::Ect0),
        Ecn::Ect1 => Some(EcnCodepoint::Ect1),
        Ecn::Ce => Some(EcnCodepoint::Ce),
    }
}
