//! The contract between a machine and whatever drives it.
//!
//! A [`Machine`] takes datagrams and time, and gives back datagrams, events and the next time it wants to be woken.
//! It decides everything about the protocol and nothing about sockets, threads or clocks; those belong to the shell.
//!
//! The rules, tested for every machine by `machine::contract`:
//! 1. After any input, drain [`Machine::poll_transmit`], [`Tunnel::poll_packet`], [`Backends::poll_backend`] or
//!    [`Locals::poll_local`], and [`Machine::poll_event`] until `None`, then sleep until [`Machine::poll_timeout`].
//! 2. If anything is queued, `poll_timeout` is due now.
//! 3. After a drain at `now`, `poll_timeout` is strictly later than `now`, or `None`.
//! 4. `handle_timeout` may come early, late or twice; time running backwards is clamped; hours may pass in one step.
//! 5. No bytes panic, and none grow state beyond the configured limits; unauthenticated input allocates nothing that
//!    outlives the call.
//! 6. Same configuration, seed and inputs: the same outputs, byte for byte.

#[cfg(any(test, feature = "sim"))]
pub mod contract;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use crate::backend::{FlowId, FromBackend, ToBackend};
use crate::local::{FromLocal, ListenerIndex, ToLocal};

/// The two ends of a UDP path, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourTuple {
    /// The address of this host; its IP may be unspecified when the socket is bound to a wildcard.
    pub local: SocketAddr,
    /// The address of the peer.
    pub remote: SocketAddr,
}

/// One form for each address: an IPv4 address in IPv6 clothes, as sockets may report it, is that IPv4 address; flow labels and
/// scopes mean nothing to a peer.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The explicit congestion notification codepoint of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not take part.
    #[default]
    NotEct,
    /// ECN-capable transport, codepoint `10`.
    Ect0,
    /// ECN-capable transport, codepoint `01`.
    Ect1,
    /// Congestion experienced.
    Ce,
}

/// One batch of UDP payloads from one source, as a receive call with segmentation offload hands it over.
#[derive(Debug)]
pub struct Received<'a> {
    /// Where it came from and which local address took it.
    pub path: FourTuple,
    /// The ECN codepoint shared by the batch.
    pub ecn: Ecn,
    /// The size of every datagram in `payload` but the last, which may be shorter; `None` for a single datagram.
    pub stride: Option<NonZeroUsize>,
    /// The datagrams, back to back. They are decrypted in place, so the content is gone after the call.
    pub payload: &'a mut [u8],
}

impl Received<'_> {
    /// The size of one datagram of the batch; never zero.
    pub fn segment_size(&self) -> usize {
        self.stride.map_or(self.payload.len(), NonZeroUsize::get).max(1)
    }
}

/// Datagrams written into the caller's buffer, to be sent along one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to send from and to.
    pub path: FourTuple,
    /// The ECN codepoint to set.
    pub ecn: Ecn,
    /// How many bytes of the buffer are used.
    pub len: usize,
    /// The size of every datagram but the last when there are several; `None` for a single datagram.
    pub segment_size: Option<NonZeroUsize>,
}

/// A run of datagrams of the batch just received that the shell sends on unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first byte of the run in the received payload.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// Where the shell sends it, with the stride of the batch.
    pub path: FourTuple,
}

/// Most runs that one received batch may be split into; further datagrams are dropped and counted. The kernel merges no more
/// datagrams than this into one batch, so none are, even if each goes to another peer.
pub const MAX_RUNS: usize = 128;

/// Room for so many more runs is made when a batch turns out to have several.
const MORE_RUNS: usize = 15;

/// What the shell forwards straight out of the receive buffer: runs of the batch just received.
///
/// It is how a relay forwards without touching payloads. Empty for everything that a machine consumes, which is all
/// of `ztna-v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the shell sends these runs of the received buffer on"]
pub struct Forward {
    /// Most batches go one way; only others need memory.
    first: Option<Run>,
    more: Vec<Run>,
}

impl Forward {
    /// Nothing to forward.
    pub const NONE: Self = Self {
        first: None,
        more: Vec::new(),
    };

    /// Adds a run; `false` if the batch is split into too many already, and the run is dropped.
    pub fn push(&mut self, run: Run) -> bool {
        if self.first.is_none() {
            self.first = Some(run);
            return true;
        }
        if self.more.len() + 1 >= MAX_RUNS {
            return false;
        }
        if self.more.capacity() == 0 {
            self.more.reserve_exact(MORE_RUNS);
        }
        self.more.push(run);
        true
    }

    /// The runs, in the order of the received buffer.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.first.iter().chain(&self.more).copied()
    }

    /// The run at a place in that order.
    pub fn run(&self, index: usize) -> Option<Run> {
        match index.checked_sub(1) {
            None => self.first,
            Some(index) => self.more.get(index).copied(),
        }
    }

    /// Whether there is nothing to forward.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// Why a machine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// Something is queued: drain now.
    QueuedOutput,
    /// A QUIC timer: loss detection, idle timeout, a held acknowledgement, or draining.
    Quic,
    /// A registration is to be repeated.
    Registration,
    /// A keepalive or liveness check is due.
    Keepalive,
    /// The next attempt to connect.
    Reconnect,
    /// A timer of the userspace network stack.
    Netstack,
    /// A timer of a session: its paths, or the search for one.
    Session,
    /// Something that was granted for a time is over: a lease, a channel without frames.
    Expiry,
}

/// When a machine wants to be woken, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// At or after this instant.
    pub at: Instant,
    /// The reason, for traces and wake-up counters.
    pub wake: Wake,
}

impl Deadline {
    /// The earlier of two optional deadlines.
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// A sans-IO state machine; the module documentation states the contract.
pub trait Machine {
    /// What the machine tells the program around it.
    type Event;

    /// Takes one received batch. Hostile input is not an error: it is counted and dropped.
    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward;

    /// Lets time pass: everything due at `now` happens.
    fn handle_timeout(&mut self, now: Instant);

    /// Writes the next datagrams into `buf`; `None` when nothing is left to send.
    ///
    /// `buf` should hold at least one datagram of the configured size; the more it holds the larger the batches.
    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit>;

    /// The next event, oldest first.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// When `handle_timeout` is wanted next.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// Starts an orderly end: tells every peer. Drained when [`Machine::is_drained`] says so.
    fn shut_down(&mut self, now: Instant);

    /// Whether the orderly end is complete and nothing is left to send.
    fn is_drained(&self) -> bool;
}

/// Why an IP packet was not taken into the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Not an IP packet, or its header contradicts its length: drop it.
    Malformed,
    /// No configured service has this destination: drop it.
    NoRoute,
    /// The service is known but not registered with the intermediate at this moment: drop it, a later one may pass.
    NotReady,
    /// Larger than the path carries; the machine has queued the ICMP answer where one is due.
    TooLarge,
    /// The queue towards the path is full: drop it, or stop reading until [`Tunnel::can_send`].
    Full,
}

/// A machine with a tunnel interface: IP packets on one side, datagrams on the other.
pub trait Tunnel: Machine {
    /// Takes one IP packet that the host wants to send to a service.
    ///
    /// # Errors
    /// Says why the packet was not taken; it is counted either way.
    fn send_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), SendError>;

    /// Whether a packet sent now would find room. While it is `false`, leave packets in the interface's own queue.
    fn can_send(&self) -> bool;

    /// Writes the next IP packet for the host into `buf` and returns its length; `None` when there is none.
    fn poll_packet(&mut self, buf: &mut [u8]) -> Option<usize>;

    /// The largest IP packet that the path carries to every service; `None` while there is no path, or nobody knows.
    fn path_mtu(&self) -> Option<usize> {
        None
    }
}

/// A machine whose services have backends: TCP and UDP sockets that the shell owns.
///
/// Stream bytes are pulled and pushed by the shell when its sockets are ready, so back-pressure reaches through: bytes
/// for a slow backend stay in the machine's window, and [`Backends::fill_stream`] offers no room while the tunnel is
/// slow.
pub trait Backends: Machine {
    /// The next request to the shell; `None` when there is none.
    fn poll_backend(&mut self) -> Option<ToBackend<'_>>;

    /// Tells the machine what happened at a backend. An unknown or stale flow is ignored.
    fn handle_backend(&mut self, from: FromBackend<'_>, now: Instant);

    /// Offers the bytes waiting for a TCP backend to `take`, which returns how many it wrote to the socket.
    ///
    /// Returns what `take` returned, 0 if nothing waits. May be called until it returns 0.
    fn drain_stream(&mut self, flow: FlowId, now: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// Offers free room for bytes read from a TCP backend to `fill`, which returns how many it put there.
    ///
    /// `None` if there is no room at all (wait for [`ToBackend::Resume`]); otherwise what `fill` returned.
    fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize>;
}

/// A machine with local sockets: programs of this host connect to listeners that the shell owns.
///
/// Stream bytes are pulled and pushed as in [`Backends`].
pub trait Locals: Machine {
    /// Takes a connection of a local program, at `peer` if it has an address; `None` if there is no room, and the shell
    /// resets it.
    fn accept(&mut self, listener: ListenerIndex, peer: Option<SocketAddr>, now: Instant) -> Option<FlowId>;

    /// The next request to the shell; `None` when there is none.
    fn poll_local(&mut self) -> Option<ToLocal<'_>>;

    /// Tells the machine what happened at a local socket. An unknown or stale flow is ignored.
    fn handle_local(&mut self, from: FromLocal<'_>, now: Instant);

    /// Offers the bytes waiting for a local program to `take`; as [`Backends::drain_stream`].
    fn drain_stream(&mut self, flow: FlowId, now: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// Offers free room for bytes read from a local program to `fill`; as [`Backends::fill_stream`].
    fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize>;
}
