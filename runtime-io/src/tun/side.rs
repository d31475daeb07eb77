//! Packets between the interface and a machine with a tunnel.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto_core::machine::{SendError, Tunnel};
use rustix::io::Errno;
use tun_rs::{ExpandBuffer, GROTable, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

use super::Tun;
use crate::reactor::{Interest, Reactor, Ready, Token};
use crate::side::{Side, SideContext};
use crate::stats::TunStats;

/// Packets taken from the interface in one turn.
const PACKETS: usize = 512;

/// Segments of one super-packet: enough for segments of 256 bytes.
const SEGMENTS: usize = 256;

/// The largest packet or super-packet.
const PACKET: usize = 65_535;

/// Batches written to the interface in one call.
const BATCHES: usize = 8;

/// Errors in a row after which reading pauses.
const ERRORS_IN_A_ROW: u32 = 8;

/// How long it pauses.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the path is asked how much it carries, while there is anything to do: it changes with a new connection, and
/// seldom otherwise.
const MTU_GLANCE: Duration = Duration::from_millis(500);

/// The side of a machine with a [`Tunnel`].
pub struct TunSide {
    tun: Tun,
    readable: bool,
    paused_until: Option<Instant>,
    errors: u32,
    /// A super-packet as it is read.
    raw: Box<[u8]>,
    /// Its packets; those from `next` to `count` wait for the machine to have room.
    segments: Vec<Box<[u8]>>,
    sizes: Vec<usize>,
    next: usize,
    count: usize,
    outgoing: Vec<Packet>,
    coalescing: GROTable,
    /// The least MTU that this host's protocols can live with, and the most that was asked for.
    mtu: (u16, u16),
    /// When the path is asked next.
    ask_path: Option<Instant>,
    /// Whether anything happened since it was asked: nothing else may happen until then.
    asks_again: bool,
}

impl fmt::Debug for TunSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunSide")
            .field("tun", &self.tun)
            .finish_non_exhaustive()
    }
}

/// A packet on its way to the interface, behind room for the header of offload.
struct Packet {
    bytes: Box<[u8]>,
    len: usize,
}

impl TunSide {
    /// Of an interface that is up.
    pub fn new(tun: Tun) -> Self {
        let segment = usize::from(tun.mtu()).max(2_048);
        Self {
            readable: true,
            paused_until: None,
            errors: 0,
            raw: vec![0; VIRTIO_NET_HDR_LEN + PACKET].into_boxed_slice(),
            segments: (0..SEGMENTS)
                .map(|_| vec![0; segment].into_boxed_slice())
                .collect(),
            sizes: vec![0; SEGMENTS],
            next: 0,
            count: 0,
            outgoing: (0..IDEAL_BATCH_SIZE).map(|_| Packet::new()).collect(),
            coalescing: GROTable::new(),
            mtu: (tun.mtu(), tun.mtu()),
            ask_path: None,
            asks_again: false,
            tun,
        }
    }

    /// Lets the MTU of the interface follow what the path carries, between `floor` and what the interface has now.
    #[must_use]
    pub fn following_path(mut self, floor: u16) -> Self {
        self.mtu = (floor.min(self.tun.mtu()), self.tun.mtu());
        self
    }

    /// Asks the machine now and then how much the path carries, and sets the interface to it. While there is no path,
    /// the last one is as good as any.
    fn follow_path<M: Tunnel>(&mut self, machine: &M, now: Instant) {
        let (floor, ceiling) = self.mtu;
        let floor = floor.max(self.tun.least_mtu.load(Ordering::Relaxed)).min(ceiling);
        if floor == ceiling {
            return;
        }
        self.asks_again = self.ask_path.is_some_and(|at| at > now);
        if self.asks_again {
            return;
        }
        self.ask_path = Some(now + MTU_GLANCE);
        let Some(path) = machine.path_mtu() else {
            return;
        };
        let wanted = u16::try_from(path).unwrap_or(u16::MAX).clamp(floor, ceiling);
        let before = self.tun.mtu();
        if wanted == before {
            return;
        }
        match self.tun.set_mtu(wanted) {
            Ok(()) => log::info!(
                "{}: MTU {wanted}, was {before}; the path carries {path}",
                self.tun.name
            ),
            Err(error) => {
                log::warn!("{error}");
                // Without the right to do so it would fail for ever.
                self.mtu = (before, before);
            }
        }
    }

    /// The interface, for its name and further routes.
    pub fn tun_mut(&mut self) -> &mut Tun {
        &mut self.tun
    }

    /// Gives the machine what was read, as far as it has room; returns how many packets went.
    fn hand_over<M: Tunnel>(&mut self, machine: &mut M, stats: &mut TunStats, now: Instant) -> usize {
        let first = self.next;
        while self.next < self.count && machine.can_send() {
            let (Some(segment), Some(size)) = (self.segments.get(self.next), self.sizes.get(self.next))
            else {
                break;
            };
            let packet = segment.get(..*size).unwrap_or_default();
            stats.packets_read += 1;
            stats.bytes_read += packet.len() as u64;
            match machine.send_packet(packet, now) {
                Ok(()) => {}
                Err(
                    SendError::Malformed
                    | SendError::NoRoute
                    | SendError::NotReady
                    | SendError::TooLarge
                    | SendError::Full,
                ) => stats.packets_refused += 1,
            }
            self.next += 1;
        }
        self.next - first
    }

    /// Reads one packet or super-packet; `false` if there is none.
    fn read(&mut self, stats: &mut TunStats, now: Instant) -> io::Result<bool> {
        let device = &self.tun.device;
        match device.recv_multiple(&mut self.raw, &mut self.segments, &mut self.sizes, 0) {
            Ok(count) => {
                stats.reads += 1;
                stats.super_packets_read += u64::from(count > 1);
                self.errors = 0;
                self.next = 0;
                self.count = count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(false);
            }
            Err(error) if is_gone(&error) => return Err(error),
            Err(error) => {
                log::debug!("reading from {}: {error}", self.tun.name);
                stats.read_errors += 1;
                self.errors += 1;
                if self.errors.is_multiple_of(ERRORS_IN_A_ROW) {
                    self.paused_until = Some(now + PAUSE);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Fills the outgoing batch; returns how many packets it has.
    fn gather<M: Tunnel>(&mut self, machine: &mut M, stats: &mut TunStats) -> usize {
        let mut count = 0;
        while let Some(packet) = self.outgoing.get_mut(count) {
            let Some(len) = machine.poll_packet(packet.room()) else {
                break;
            };
            if len == 0 || len > PACKET {
                stats.write_errors += 1;
                continue;
            }
            packet.len = VIRTIO_NET_HDR_LEN + len;
            stats.packets_written += 1;
            stats.bytes_written += len as u64;
            count += 1;
        }
        count
    }
}

impl<M: Tunnel> Side<M> for TunSide {
    fn start(&mut self, reactor: &mut dyn Reactor) -> io::Result<()> {
        reactor.register(Token::of_side(0), self.tun.as_fd(), Interest::Read)
    }

    fn hint(&mut self, _: u32, ready: Ready) {
        self.readable |= ready.readable;
    }

    fn input(&mut self, machine: &mut M, context: SideContext<'_>) -> io::Result<()> {
        let SideContext { stats, now, .. } = context;
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let mut budget = PACKETS;
        while budget > 0 {
            budget = budget.saturating_sub(self.hand_over(machine, &mut stats.tun, now));
            let is_free = self.next == self.count && self.readable && self.paused_until.is_none();
            if !is_free || !machine.can_send() || !self.read(&mut stats.tun, now)? {
                break;
            }
        }
        Ok(())
    }

    fn output(&mut self, machine: &mut M, context: SideContext<'_>) -> io::Result<bool> {
        self.follow_path(machine, context.now);
        let stats = &mut context.stats.tun;
        stats.mtu = self.tun.mtu();
        stats.tcp_offload = self.tun.device.tcp_gso();
        stats.udp_offload = self.tun.device.udp_gso();
        let mut moved = false;
        for _ in 0..BATCHES {
            let count = self.gather(machine, stats);
            let Some(batch) = self.outgoing.get_mut(..count).filter(|batch| !batch.is_empty()) else {
                break;
            };
            moved = true;
            match self
                .tun
                .device
                .send_multiple(&mut self.coalescing, batch, VIRTIO_NET_HDR_LEN)
            {
                Ok(_) => stats.writes += 1,
                Err(error) if is_gone(&error) => return Err(error),
                // The interface is down, or its queue full: what it did not take is lost, as on any interface.
                Err(error) => {
                    log::debug!("writing to {}: {error}", self.tun.name);
                    stats.write_errors += 1;
                }
            }
        }
        Ok(moved)
    }

    fn wants_turn(&self, machine: &M) -> bool {
        let has_more = self.next < self.count || (self.readable && self.paused_until.is_none());
        has_more && machine.can_send()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let asks = self.ask_path.filter(|_| self.asks_again);
        [self.paused_until, asks].into_iter().flatten().min()
    }
}

impl Packet {
    fn new() -> Self {
        // Exactly so much that a coalesced packet cannot outgrow the length field of IP: the coalescer keeps room for
        // two headers.
        Self {
            bytes: vec![0; 2 * VIRTIO_NET_HDR_LEN + PACKET].into_boxed_slice(),
            len: 0,
        }
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(VIRTIO_NET_HDR_LEN..VIRTIO_NET_HDR_LEN + PACKET)
            .unwrap_or_default()
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Packet {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

/// Room is never made here: the coalescer asks for the capacity before it extends.
impl ExpandBuffer for Packet {
    fn buf_capacity(&self) -> usize {
        self.bytes.len()
    }

    fn buf_resize(&mut self, new_len: usize, value: u8) {
        let old_len = std::mem::replace(&mut self.len, new_len.min(self.bytes.len()));
        if let Some(added) = self.bytes.get_mut(old_len..self.len) {
            added.fill(value);
        }
    }

    fn buf_extend_from_slice(&mut self, src: &[u8]) {
        let end = self.len + src.len();
        if let Some(added) = self.bytes.get_mut(self.len..end) {
            added.copy_from_slice(src);
            self.len = end;
        }
    }
}

/// Whether the interface itself was deleted.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADFD | Errno::BADF | Errno::NODEV | Errno::FAULT)
    )
}
