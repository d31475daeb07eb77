//! One TCP session that has its backend: a smoltcp stack with a single socket, and what its backend has been told.
//!
//! Decides what the shell has to hear after each step ([`Notice`]) and when a session is over. Bytes that the agent sent
//! and had acknowledged are kept until the backend has taken them, also when the agent's connection is long closed.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::HardwareAddress;

use super::device::Port;
use crate::quic::Datagram;
use crate::routing::packet::FiveTuple;

/// Each direction of a session. At 20 ms RTT this carries 100 Mbit/s.
pub(super) const BUFFER: usize = 256 * 1024;

/// A backend that had to wait is read again when this much of the buffer is free.
const RESUME_AT: usize = BUFFER / 4;

/// How often a silent agent is probed, so that one that vanished is noticed.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(45);

/// Silence of an agent, probes unanswered, after which its session is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// How long an agent may take to complete the handshake once its backend has answered.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long a session of which one half is closed may stand still.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(300);

/// How long a reset may wait for room in the tunnel.
pub(super) const ABORTING: Duration = Duration::from_secs(30);

/// How long the end of an orderly session is remembered: what smoltcp takes for twice the segment lifetime.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// smoltcp forgets unread bytes when its own timer for this ends; a session with unread bytes is not driven that far.
const LAST_SAFE: Duration = Duration::from_secs(9);

/// smoltcp computes segment sizes by subtraction; this is the least MTU that IPv4 hosts must accept.
const LEAST_MTU: usize = 576;

/// The longest segment without payload: an IPv6 header and TCP with all its options.
const PURE_ACK: usize = 100;

/// A session with its backend connected.
pub(super) struct Live {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
    previous: State,
    established: bool,
    /// The shell was told that bytes wait and has not taken them all.
    readable_told: bool,
    /// The shell was told that there is no room.
    starved: bool,
    /// The backend has sent its last byte.
    backend_finished: bool,
    /// The shell was told that the agent has sent its last byte.
    half_closed_told: bool,
    /// The backend's socket is gone, or its end was announced.
    backend_gone: bool,
    aborted: bool,
    /// When the current stage began: the handshake, or the abortion.
    since: Instant,
    /// When the agent was heard last.
    heard: Instant,
    /// When bytes or an end last moved between the agent and the backend.
    moved: Instant,
    /// When smoltcp entered TIME-WAIT.
    lingers_since: Option<Instant>,
    /// The segment that acknowledges the agent's end.
    last_ack: Option<Vec<u8>>,
}

/// What has to happen after a step.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// The handshake has just been completed.
    pub(super) established: bool,
    /// The shell has to know that bytes wait.
    pub(super) readable: bool,
    /// The shell has to know that there is room again.
    pub(super) resume: bool,
    /// The shell has to know that the agent has sent its last byte.
    pub(super) half_close: bool,
    /// The shell has to drop its socket.
    pub(super) close: bool,
    /// The shell has to reset its socket.
    pub(super) reset: bool,
    /// Nothing of the session is needed any more.
    pub(super) over: bool,
}

/// What a session that has nothing to send waits for.
#[derive(Debug)]
pub(super) enum Rest {
    /// A timer of the session or of smoltcp, whichever is first.
    Until(Instant),
    /// Nothing: both ends are closed. What remains is to repeat this segment should the agent repeat its end.
    Lingering(Option<Vec<u8>>),
}

/// smoltcp's time: microseconds since the netstack began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) now: Instant,
}

impl Clock {
    fn ticks(self) -> Ticks {
        let micros = self.now.saturating_duration_since(self.start).as_micros();
        Ticks::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn instant(self, ticks: Ticks) -> Instant {
        let micros = u64::try_from(ticks.total_micros()).unwrap_or(0);
        self.start
            .checked_add(Duration::from_micros(micros))
            .unwrap_or(self.now)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// A session that listens for the SYN of a flow; `None` if the flow has no port.
    pub(super) fn new(tuple: FiveTuple, mtu: usize, seed: u64, clock: Clock) -> Option<Self> {
        let mut port = Port::new(mtu.max(LEAST_MTU));
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        // The backend has decided how to cut its bytes.
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.listen((tuple.destination, tuple.destination_port)).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Self {
            interface: interface(&mut port, seed, clock),
            sockets,
            handle,
            port,
            previous: State::Listen,
            established: false,
            readable_told: false,
            starved: false,
            backend_finished: false,
            half_closed_told: false,
            backend_gone: false,
            aborted: false,
            since: clock.now,
            heard: clock.now,
            moved: clock.now,
            lingers_since: None,
            last_ack: None,
        })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes a packet of the agent; returns what smoltcp answers at once.
    pub(super) fn receive(&mut self, packet: Datagram, clock: Clock) -> Option<Vec<u8>> {
        self.heard = clock.now;
        self.port.receive(packet);
        let Self {
            interface,
            sockets,
            port,
            ..
        } = self;
        interface.poll_ingress_single(clock.ticks(), port, sockets);
        port.take_reply()
    }

    /// The next segment for the agent, if there is one to send.
    pub(super) fn send(&mut self, mtu: usize, clock: Clock) -> Option<Vec<u8>> {
        if self.is_past_safety(clock) {
            return None;
        }
        let mtu = mtu.max(LEAST_MTU);
        if self.port.mtu() != mtu {
            // The path has changed: from now on segments fit the new one. The random numbers of an interface serve only
            // handshakes, and this session has had its own.
            self.port.set_mtu(mtu);
            self.interface = interface(&mut self.port, 0, clock);
        }
        let Self {
            interface,
            sockets,
            port,
            ..
        } = self;
        port.allow_one();
        interface.poll_egress(clock.ticks(), port, sockets);
        let segment = port.take_segment();
        let ending = matches!(self.socket().state(), State::Closing | State::TimeWait);
        if let Some(segment) = segment
            .as_ref()
            .filter(|segment| ending && segment.len() <= PURE_ACK)
        {
            self.last_ack = Some(segment.clone());
        }
        segment
    }

    /// Offers bytes for the backend to `take`; returns how many it took.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize, now: Instant) -> usize {
        if self.backend_gone {
            return 0;
        }
        let taken = self.socket().recv(|bytes| {
            let taken = if bytes.is_empty() {
                0
            } else {
                take(bytes).min(bytes.len())
            };
            (taken, taken)
        });
        let taken = taken.unwrap_or(0);
        if taken > 0 {
            self.moved = now;
        }
        if !self.socket().can_recv() {
            self.readable_told = false;
        }
        taken
    }

    /// Offers room for bytes of the backend; `None` if there is none.
    pub(super) fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize, now: Instant) -> Option<usize> {
        if self.backend_gone || self.backend_finished {
            return None;
        }
        if !self.socket().can_send() {
            // Also before the handshake is complete: the backend waits until the agent is there.
            self.starved = true;
            return None;
        }
        let filled = self.socket().send(|room| {
            let filled = fill(room).min(room.len());
            (filled, filled)
        });
        let filled = filled.ok()?;
        if filled > 0 {
            self.moved = now;
        }
        Some(filled)
    }

    /// The backend has sent its last byte: the agent hears so behind everything already buffered.
    pub(super) fn finish(&mut self, now: Instant) {
        if !self.backend_gone {
            self.backend_finished = true;
            self.moved = now;
        }
    }

    /// Resets the agent's connection. Returns whether the shell still has to hear of it.
    pub(super) fn abort(&mut self, backend_is_gone: bool, now: Instant) -> bool {
        if !self.aborted {
            self.aborted = true;
            self.since = now;
            self.socket().abort();
        }
        let tell = !self.backend_gone && !backend_is_gone;
        self.backend_gone = true;
        tell
    }

    /// Looks at what has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Notice {
        let mut notice = Notice::default();
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if self.aborted {
            // The socket forgets the agent once the reset is sent.
            notice.over = socket.remote_endpoint().is_none();
            return notice;
        }
        let state = socket.state();
        let previous = std::mem::replace(&mut self.previous, state);
        let ended = matches!(state, State::Closed | State::Listen);
        let orderly = matches!(previous, State::LastAck | State::TimeWait | State::Closed);
        if ended && !orderly {
            // A reset in the handshake puts the socket back into LISTEN.
            notice.reset = !std::mem::replace(&mut self.backend_gone, true);
            notice.over = true;
            return notice;
        }
        if !self.established && state != State::SynReceived {
            self.established = true;
            self.moved = now;
            notice.established = true;
        }
        // Before the handshake is complete smoltcp would forget that its SYN has to be acknowledged.
        if self.backend_finished && socket.may_send() {
            socket.close();
            self.previous = socket.state();
        }
        if socket.can_recv() && !self.readable_told && !self.backend_gone {
            self.readable_told = true;
            notice.readable = true;
        }
        let free = socket.send_capacity() - socket.send_queue();
        if self.starved && socket.can_send() && free >= RESUME_AT {
            self.starved = false;
            notice.resume = true;
        }
        let agent_finished = !socket.can_recv() && agent_has_finished(self.previous);
        if agent_finished && !self.half_closed_told && !self.backend_gone {
            self.half_closed_told = true;
            self.moved = now;
            notice.half_close = true;
        }
        if self.half_closed_told && self.backend_finished {
            notice.close = !std::mem::replace(&mut self.backend_gone, true);
        }
        if state == State::TimeWait {
            self.lingers_since.get_or_insert(now);
        }
        notice.over = ended && agent_finished;
        notice
    }

    /// What a session waits for that has nothing to send.
    pub(super) fn rest(&mut self, clock: Clock) -> Rest {
        // Never at once again: what smoltcp wanted to do and could not is tried after a moment.
        let soon = clock.now + Duration::from_millis(1);
        let mut until = self.deadline();
        if !self.is_past_safety(clock) {
            let wanted = self.interface.poll_at(clock.ticks(), &self.sockets);
            let wanted = wanted.map(|at| clock.instant(at).max(soon));
            until = wanted.map_or(until, |at| at.min(until));
        }
        // An acknowledgement that is merely delayed has to leave before.
        if self.backend_gone && self.previous == State::TimeWait && until >= clock.now + LINGER / 2 {
            return Rest::Lingering(self.last_ack.take());
        }
        Rest::Until(until.max(soon))
    }

    /// Whether the session has waited for too long; it is to be aborted, or forgotten if it was.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline() <= now
    }

    /// Whether the shell has forgotten the flow: what it still reports is stale.
    pub(super) fn is_unbacked(&self) -> bool {
        self.backend_gone
    }

    /// Whether the agent is being sent a reset.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// When the session will have waited for too long.
    pub(super) fn deadline(&self) -> Instant {
        if self.aborted {
            return self.since + ABORTING;
        }
        if !self.established {
            return self.since + HANDSHAKE;
        }
        let silent = self.heard + SILENCE;
        let half = self.backend_finished || agent_has_finished(self.previous);
        match half {
            // The agent may be gone for good: what counts is whether the backend still takes its bytes.
            true => self.moved.max(self.heard) + HALF_CLOSED,
            false => silent,
        }
    }

    /// Whether smoltcp's own end of TIME-WAIT is near.
    fn is_past_safety(&self, clock: Clock) -> bool {
        self.lingers_since
            .is_some_and(|since| clock.now >= since + LAST_SAFE)
    }
}

fn agent_has_finished(state: State) -> bool {
    matches!(
        state,
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed
    )
}

/// A stack that takes packets for any address: what belongs to the session was decided before.
fn interface(port: &mut Port, seed: u64, clock: Clock) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, port, clock.ticks());
    interface.set_any_ip(true);
    interface
}
