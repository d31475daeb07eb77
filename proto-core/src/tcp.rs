//! TCP, sans I/O: one [`Connection`] is one end of one connection, opened by this end or by the other.
//!
//! It decides everything between IP packets and a byte stream: RFC 9293 with the protections of RFC 5961, window scaling
//! and timestamps (RFC 7323), selective acknowledgements (RFC 2018, RFC 2883), loss recovery by time (RFC 8985) in
//! proportion (RFC 6937), timeouts (RFC 6298) that are taken back when they were for nothing (RFC 3522), and either BBR
//! (draft-ietf-ccwg-bbr) with pacing, or CUBIC (RFC 9438) with HyStart++ (RFC 9406). smoltcp's wire format reads and writes the headers. To its owner it leaves which packets belong
//! to it, their checksums, how long silence is tolerated, and TIME-WAIT: [`Connection::is_over`] says when nothing but the
//! memory of the end is left, and [`Connection::last_word`] what to repeat then.
//!
//! # Use
//! - Packets of the peer go in by [`Connection::receive`]; packets for it come out of [`Connection::send`], which is called
//!   while the tunnel has room, until it returns `None`, after any other call.
//! - The owner's bytes go in by [`Connection::fill`], which says `None` while there is no room, and come out of
//!   [`Connection::drain`]. [`Connection::finish`] ends the outgoing stream behind what is buffered;
//!   [`Connection::abort`] ends everything with a reset.
//! - [`Connection::handle_timeout`] is wanted at [`Connection::poll_timeout`], which lies in the future once `send` has
//!   returned `None`.
//! - Buffers grow with the product of bandwidth and delay, up to [`Config`]'s limits and within a [`Budget`] that many
//!   connections share, and go back when the connection rests.

mod acknowledge;
mod bbr;
mod congestion;
mod cubic;
mod delivery;
mod isn;
mod pacer;
mod rack;
mod reassembly;
mod receive;
mod recovery;
mod ring;
mod rtt;
mod scoreboard;
mod segment;
mod send;
#[cfg(test)]
mod tests;
mod timers;

use std::time::{Duration, Instant};

use crate::routing::packet::FiveTuple;
pub use congestion::Algorithm;
use congestion::Congestion;
use delivery::Delivery;
pub use isn::IsnSource;
use pacer::Pacer;
use rack::Rack;
use reassembly::Reassembly;
use recovery::{Episode, Probe};
pub use ring::Budget;
use ring::Ring;
use rtt::{Micros, Rtt};
use scoreboard::Scoreboard;
pub use segment::Segment;
use timers::Timer;

/// Segments acknowledged at once when a connection begins, while the peer's window is small.
const QUICK: u8 = 16;

/// What the sender buffers at least, if the owner has it: more than a first window.
const LEAST_SEND: usize = 64 * 1024;

/// Limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of the owner that wait to be acknowledged, at most.
    pub send_buffer: usize,
    /// Bytes of the peer that wait for the owner or behind a hole, at most.
    pub receive_buffer: usize,
    /// Silence of the peer after which it is asked whether it is there, again and again.
    pub keep_alive: Option<Duration>,
    /// What decides how much may be under way.
    pub congestion: Algorithm,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            keep_alive: Some(Duration::from_secs(45)),
            congestion: Algorithm::default(),
        }
    }
}

/// The states of RFC 9293 §3.3.2, without LISTEN, which is the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// This end has asked to open.
    SynSent,
    /// Both have asked, and the peer has not confirmed.
    SynReceived,
    /// Open in both directions.
    Established,
    /// This end has ended, unconfirmed.
    FinWait1,
    /// This end has ended; the peer may still send.
    FinWait2,
    /// The peer has ended; this end may still send.
    CloseWait,
    /// Both have ended at the same time; the peer has not confirmed.
    Closing,
    /// The peer has ended, then this end, unconfirmed.
    LastAck,
    /// Both have ended; the peer may repeat its end.
    TimeWait,
    /// Nothing more will be sent but a reset that is due.
    Closed,
}

/// Counters of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments sent again.
    pub retransmits: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Tail loss probes.
    pub probes: u64,
    /// Reductions of the window that turned out to be for nothing, and were taken back.
    pub undone: u64,
    /// Segments of the peer for which there was no room.
    pub dropped: u64,
}

impl Stats {
    /// By how much these have grown since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            retransmits: self.retransmits - earlier.retransmits,
            timeouts: self.timeouts - earlier.timeouts,
            probes: self.probes - earlier.probes,
            undone: self.undone - earlier.undone,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

/// What the two timestamps of a connection are counted from.
#[derive(Clone, Copy, Debug)]
struct Timestamps {
    offset: u32,
    /// The peer's, to be echoed, and when it came.
    recent: u32,
    recent_at: Micros,
}

/// One end of a TCP connection; see the module's own words for how it is driven.
#[derive(Debug)]
pub struct Connection {
    /// In the direction of what is sent.
    flow: FiveTuple,
    config: Config,
    state: State,
    start: Instant,
    now: Micros,
    stats: Stats,

    /// Both ends understand selective acknowledgements.
    sack: bool,
    timestamps: Option<Timestamps>,
    peer_mss: usize,
    /// What the path beyond the tunnel's first stretch carries, as ICMP said.
    path_mtu: Option<usize>,
    /// By how much the peer's windows are shifted, if both ends shift.
    peer_scale: Option<u8>,

    /// This end's initial sequence number. Offsets count from the SYN, which is 0.
    initial: u32,
    una: u64,
    next: u64,
    /// What the owner has written and the peer has not acknowledged; it ends at `written`.
    ring: Ring,
    written: u64,
    finishing: bool,
    /// The first byte that the peer has no room for, and the segment that said so (RFC 9293 §3.10.7.4).
    edge: u64,
    edge_from: (u64, u64),
    /// The largest window that the peer has announced.
    widest: u64,

    board: Scoreboard,
    rtt: Rtt,
    rack: Rack,
    congestion: Congestion,
    delivery: Delivery,
    pacer: Pacer,
    /// When a segment may go that the pacing holds back.
    paced: Option<Micros>,
    episode: Option<Box<Episode>>,
    probe: Option<Probe>,
    /// When a segment that others have overtaken is lost.
    reorder_at: Option<Micros>,
    /// Bytes before this were sent in a flight that the congestion window limited.
    limited_until: u64,
    duplicates: u8,

    rx: Reassembly,
    /// What the last acknowledgement said.
    acknowledged: u64,
    /// Acknowledgements that are due now.
    owed: u8,
    delayed: Option<Micros>,
    quick: u8,

    timer: Option<(Timer, Micros)>,
    /// What the retransmission timeout counts from.
    since: Micros,
    /// A segment is due that a timer asked for.
    due: Option<Timer>,
    heard: Micros,
    asked: Micros,
    sent: Micros,
    /// When bytes moved last.
    moved: Micros,
    challenged: Option<Micros>,

    /// A reset for a segment of another connection, by its sequence number.
    refusal: Option<u32>,
    reset_due: bool,
    peer_reset: bool,
}

impl Connection {
    /// Opens a connection; `flow` is in the direction of what is sent.
    pub fn connect(flow: FiveTuple, config: Config, isn: u32, budget: &Budget, now: Instant) -> Self {
        Self::new(flow, config, State::SynSent, isn, budget, now)
    }

    /// Answers the peer's SYN; `None` if the segment is none.
    pub fn accept(
        syn: &Segment<'_>,
        config: Config,
        isn: u32,
        budget: &Budget,
        now: Instant,
    ) -> Option<Self> {
        if !syn.opens() {
            return None;
        }
        let flow = syn.flow.reversed();
        let mut connection = Self::new(flow, config, State::SynReceived, isn, budget, now);
        connection.take_syn(syn);
        Some(connection)
    }

    fn new(flow: FiveTuple, config: Config, state: State, isn: u32, budget: &Budget, now: Instant) -> Self {
        let peer_mss = if flow.source.is_ipv4() { 536 } else { 1220 };
        Self {
            flow,
            config,
            state,
            start: now,
            now: 0,
            stats: Stats::default(),
            sack: true,
            // The peer of a SYN may do without; nothing is to be read from the clock (RFC 7323 §5.4).
            timestamps: Some(Timestamps {
                offset: isn.rotate_left(16) ^ 0x5bd1_e995,
                recent: 0,
                recent_at: 0,
            }),
            peer_mss,
            path_mtu: None,
            peer_scale: None,
            initial: isn,
            una: 0,
            next: 0,
            ring: Ring::new(budget.clone()),
            written: 1,
            finishing: false,
            edge: 1,
            edge_from: (0, 0),
            widest: 0,
            board: Scoreboard::default(),
            rtt: Rtt::default(),
            rack: Rack::default(),
            congestion: Congestion::new(config.congestion, peer_mss as u64, None, isn),
            delivery: Delivery::default(),
            pacer: Pacer::default(),
            paced: None,
            episode: None,
            probe: None,
            reorder_at: None,
            limited_until: 0,
            duplicates: 0,
            rx: Reassembly::new(config.receive_buffer, budget.clone()),
            acknowledged: 0,
            owed: 0,
            delayed: None,
            quick: QUICK,
            timer: None,
            since: 0,
            due: None,
            heard: 0,
            asked: 0,
            sent: 0,
            moved: 0,
            challenged: None,
            refusal: None,
            reset_due: false,
            peer_reset: false,
        }
    }

    /// Takes the owner's time, which may stand still but never runs backwards here.
    fn advance(&mut self, now: Instant) -> Micros {
        let now = now.saturating_duration_since(self.start).as_micros();
        self.now = self.now.max(u64::try_from(now).unwrap_or(u64::MAX));
        self.now
    }

    fn instant(&self, at: Micros) -> Instant {
        self.start + Duration::from_micros(at)
    }

    /// Offers bytes of the peer to `take`, which says how many it took; returns that.
    ///
    /// What the peer sent in order can be drained also when the connection has ended in order.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize, now: Instant) -> usize {
        let now = self.advance(now);
        let bytes = self.rx.readable();
        if bytes.is_empty() {
            return 0;
        }
        let taken = take(bytes).min(bytes.len());
        if taken > 0 {
            self.rx.consume(taken, now);
            self.moved = now;
            let open = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
            if open && self.rx.has_opened() {
                self.owe();
            }
        }
        taken
    }

    /// Offers room for the owner's bytes to `fill`, which says how many it wrote; `None` if there is none now.
    pub fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize, now: Instant) -> Option<usize> {
        let now = self.advance(now);
        if !self.may_write() {
            return None;
        }
        let limit = self.send_limit();
        let (held, capacity) = (self.ring.len(), self.ring.capacity());
        if held >= limit {
            return None;
        }
        if capacity < limit && capacity - held <= capacity / 4 {
            self.ring.reserve(capacity + 1);
        }
        let room = self.ring.room(limit);
        if room.is_empty() {
            return None;
        }
        let filled = fill(room).min(room.len());
        self.ring.extend(filled);
        self.written += filled as u64;
        if filled > 0 {
            self.moved = now;
        } else if self.ring.len() == 0 && self.board.is_empty() {
            self.ring.shrink(0);
        }
        Some(filled)
    }

    /// What the sender may hold: two windows, so that the next is there when the first is acknowledged.
    fn send_limit(&self) -> usize {
        let wanted = usize::try_from(self.congestion.window().saturating_mul(2)).unwrap_or(usize::MAX);
        wanted
            .max(LEAST_SEND)
            .min(self.config.send_buffer)
            .min(self.ring.allowed())
    }

    /// The owner has written its last byte: the peer hears so behind everything buffered.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            State::SynSent | State::SynReceived => self.state,
            State::FinWait1 | State::FinWait2 | State::Closing => self.state,
            State::LastAck | State::TimeWait | State::Closed => self.state,
        };
    }

    /// Ends the connection with a reset, which [`Connection::send`] then gives; what is buffered is dropped.
    pub fn abort(&mut self) {
        let tell = match self.state {
            State::SynReceived | State::Established | State::CloseWait => true,
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => true,
            State::SynSent | State::TimeWait | State::Closed => false,
        };
        self.close();
        self.rx.clear();
        self.reset_due |= tell;
    }

    /// Nothing more is sent or expected; what the peer has sent in order stays.
    fn close(&mut self) {
        self.state = State::Closed;
        self.finishing = true;
        self.ring.clear();
        self.board = Scoreboard::default();
        self.episode = None;
        self.probe = None;
        self.timer = None;
        self.paced = None;
        self.due = None;
        self.delayed = None;
        self.owed = 0;
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the handshake is, or was, complete.
    pub fn is_established(&self) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived) && self.una > 0
    }

    /// Bytes of the peer that wait to be drained.
    pub fn readable(&self) -> usize {
        self.rx.len()
    }

    /// Whether the owner may write now or later.
    fn may_write(&self) -> bool {
        !self.finishing && matches!(self.state, State::Established | State::CloseWait)
    }

    /// Whether there is room worth filling: a quarter of what may be buffered.
    pub fn has_room(&self) -> bool {
        let limit = self.send_limit();
        self.may_write() && self.ring.len() <= limit - limit / 4
    }

    /// Bytes of the owner that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.ring.len()
    }

    /// Whether the peer's last byte has come; bytes may still wait to be drained.
    pub fn peer_finished(&self) -> bool {
        self.rx.is_finished()
    }

    /// Whether the connection has ended: in order, by a reset, or given up by this end. A reset may still be due.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the peer ended the connection with a reset.
    pub fn is_reset(&self) -> bool {
        self.peer_reset
    }

    /// Whether a reset waits to be sent.
    pub fn is_resetting(&self) -> bool {
        self.reset_due
    }

    /// Whether both ends are closed and every acknowledgement is sent: what is left is to remember it (TIME-WAIT).
    pub fn is_over(&self) -> bool {
        let quiet = self.owed == 0 && self.delayed.is_none() && !self.reset_due;
        quiet && matches!(self.state, State::TimeWait | State::Closed)
    }

    /// When the peer was heard last.
    pub fn heard(&self) -> Instant {
        self.instant(self.heard)
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.congestion.window()
    }

    /// The smoothed round trip, once one was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed().map(Duration::from_micros)
    }

    /// The present retransmission timeout.
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.rtt.timeout())
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The bytes of memory that the buffers hold.
    pub fn memory(&self) -> usize {
        self.ring.capacity() + self.rx.capacity()
    }
}
