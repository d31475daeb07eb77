//! Receiving: batches of one source each, and what a machine forwards of them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use proto_core::machine::{Ecn, Forward, FourTuple, Machine, Received, Run};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef};

use super::send::{Outgoing, Wire, is_peer};
use super::{LocalAddress, canonical, is_gone};
use crate::stats::{UdpDrop, UdpStats};

/// Batches taken by one receive call. Beyond this the buffers leave the cache before the machine sees them.
const SLOTS: usize = 16;

/// The most one batch can be: a super-packet of the kernel.
const SLOT: usize = 65_535;

/// The distance of two slots; not a power of two, so that the first lines of all slots do not share a cache set.
const STRIDE: usize = 65_536 + 1_088;

/// Errors in a row after which receiving pauses, lest a broken socket turn the loop into a spin.
const ERRORS_IN_A_ROW: u32 = 8;

/// How long it pauses.
const PAUSE: Duration = Duration::from_millis(10);

/// The receive buffers, and how far they are worked off.
pub(super) struct Inbound {
    buffer: Box<[u8]>,
    meta: [RecvMeta; SLOTS],
    next: usize,
    count: usize,
    /// Whether the socket may hold more.
    pub(super) readable: bool,
    pub(super) paused_until: Option<Instant>,
    errors: u32,
    forwarding: Option<Forwarding>,
}

/// The runs of one slot on their way out.
struct Forwarding {
    slot: usize,
    ecn: Ecn,
    segment: usize,
    len: usize,
    runs: Forward,
    /// How many runs are sent or dropped.
    done: usize,
    current: Option<Outgoing>,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("next", &self.next)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; STRIDE * SLOTS].into_boxed_slice(),
            meta: [RecvMeta::default(); SLOTS],
            next: 0,
            count: 0,
            readable: false,
            paused_until: None,
            errors: 0,
            forwarding: None,
        }
    }

    pub(super) fn is_forwarding(&self) -> bool {
        self.forwarding.is_some()
    }

    pub(super) fn has_more(&self) -> bool {
        self.next < self.count || (self.readable && self.paused_until.is_none())
    }

    /// Works off received batches within a budget of (batches, datagrams).
    pub(super) fn receive<M: Machine>(
        &mut self,
        wire: &mut Wire,
        machine: &mut M,
        (mut batches, mut datagrams): (usize, usize),
        stats: &mut UdpStats,
        now: Instant,
    ) -> io::Result<()> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        while batches > 0 && datagrams > 0 && self.forward(wire, stats, now)? {
            if self.next == self.count && !self.fill(wire, stats, now)? {
                break;
            }
            let taken = self.hand_over(wire, machine, stats, now);
            batches -= 1;
            datagrams = datagrams.saturating_sub(taken);
        }
        Ok(())
    }

    /// Receives into the empty slots; `false` if there is nothing now.
    fn fill(&mut self, wire: &Wire, stats: &mut UdpStats, now: Instant) -> io::Result<bool> {
        while self.readable && self.paused_until.is_none() {
            let mut slots = self.buffer.chunks_exact_mut(STRIDE);
            let mut buffers: [IoSliceMut<'_>; SLOTS] = std::array::from_fn(|_| {
                let slot = slots.next().and_then(|slot| slot.get_mut(..SLOT));
                IoSliceMut::new(slot.unwrap_or_default())
            });
            match wire
                .state
                .recv(UdpSockRef::from(&wire.socket), &mut buffers, &mut self.meta)
            {
                Ok(count) => {
                    self.errors = 0;
                    self.next = 0;
                    self.count = count.min(SLOTS);
                    // A short count means that the queue was found empty; what comes later comes with a new hint.
                    self.readable = count == SLOTS;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) => {
                    log::debug!("receiving: {error}");
                    stats.receive_errors += 1;
                    self.errors += 1;
                    if self.errors.is_multiple_of(ERRORS_IN_A_ROW) {
                        self.paused_until = Some(now + PAUSE);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Gives the next slot to the machine; returns how many datagrams it held.
    fn hand_over<M: Machine>(
        &mut self,
        wire: &Wire,
        machine: &mut M,
        stats: &mut UdpStats,
        now: Instant,
    ) -> usize {
        let slot = self.next;
        self.next += 1;
        let Some(meta) = self.meta.get(slot) else { return 0 };
        let Some(payload) = slot_bytes(&mut self.buffer, slot, meta.len) else {
            return 0;
        };
        if payload.is_empty() {
            stats.drop(UdpDrop::Empty, 1);
            return 1;
        }
        let len = payload.len();
        let stride = NonZeroUsize::new(meta.stride).filter(|stride| stride.get() < len);
        let segment = stride.map_or(len, NonZeroUsize::get);
        let datagrams = len.div_ceil(segment);
        if !is_peer(meta.addr) {
            stats.drop(UdpDrop::Source, datagrams);
            return datagrams;
        }
        stats.received_batches += 1;
        stats.received_datagrams += datagrams as u64;
        stats.received_bytes += len as u64;
        let ecn = from_codepoint(meta.ecn);
        let path = FourTuple {
            local: local(wire, meta),
            remote: canonical(meta.addr),
        };
        let runs = machine.handle_datagram(
            Received {
                path,
                ecn,
                stride,
                payload,
            },
            now,
        );
        if !runs.is_empty() {
            self.forwarding = Some(Forwarding {
                slot,
                ecn,
                segment,
                len,
                runs,
                done: 0,
                current: None,
            });
        }
        datagrams
    }

    /// Sends on what the machine forwards of the current slot; `false` if the socket has no room.
    pub(super) fn forward(
        &mut self,
        wire: &mut Wire,
        stats: &mut UdpStats,
        now: Instant,
    ) -> io::Result<bool> {
        let Some(forwarding) = &mut self.forwarding else {
            return Ok(true);
        };
        let bytes: &[u8] = slot_bytes(&mut self.buffer, forwarding.slot, forwarding.len).unwrap_or_default();
        loop {
            let mut out = match forwarding.current.take() {
                Some(out) => out,
                None => {
                    let Some(run) = forwarding.runs.run(forwarding.done) else {
                        break;
                    };
                    forwarding.done += 1;
                    let Some(out) = start_run(wire, forwarding, run, stats) else {
                        continue;
                    };
                    out
                }
            };
            if !wire.send(bytes, &mut out, stats, now)? {
                forwarding.current = Some(out);
                return Ok(false);
            }
        }
        self.forwarding = None;
        Ok(true)
    }
}

fn start_run(wire: &Wire, forwarding: &Forwarding, run: Run, stats: &mut UdpStats) -> Option<Outgoing> {
    if run.end > forwarding.len {
        stats.drop(UdpDrop::Shape, 1);
        return None;
    }
    let out = wire.route(
        run.path,
        forwarding.ecn,
        (run.start, run.end),
        forwarding.segment,
        stats,
    )?;
    stats.forwarded_datagrams += (run.end - run.start).div_ceil(forwarding.segment) as u64;
    Some(out)
}

fn slot_bytes(buffer: &mut [u8], slot: usize, len: usize) -> Option<&mut [u8]> {
    buffer.chunks_exact_mut(STRIDE).nth(slot)?.get_mut(..len)
}

fn local(wire: &Wire, meta: &RecvMeta) -> SocketAddr {
    match (wire.report, meta.dst_ip) {
        (LocalAddress::Destination, Some(ip)) => SocketAddr::new(ip.to_canonical(), wire.local.port()),
        (LocalAddress::Destination, None) | (LocalAddress::Bound, _) => wire.local,
    }
}

fn from_codepoint(ecn: Option<EcnCodepoint>) -> Ecn {
    match ecn {
        None => Ecn::NotEct,
        Some(EcnCodepoint::Ect0) => Ecn::Ect0,
        Some(EcnCodepoint::Ect1) => Ecn::Ect1,
        Some(EcnCodepoint::Ce) => Ecn::Ce,
    }
}
