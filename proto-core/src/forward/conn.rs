//! The client side of one TCP connection through the tunnel: bytes and segments in, segments and notices out.
//!
//! Decides what local programs have to hear after each step ([`Notice`]). Bytes that a service sent and had acknowledged
//! are kept until the program has taken them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::{HardwareAddress, IpEndpoint};

use crate::quic::Datagram;

/// Each direction of a connection. At 20 ms RTT this carries 100 Mbit/s.
const BUFFER: usize = 256 * 1024;

/// A program that had to wait is read again when this much of the buffer is free.
const RESUME_AT: usize = BUFFER / 4;

/// How often a silent service is probed, so that one that vanished is noticed.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(45);

/// Silence of a service, probes unanswered, after which the connection is given up.
const SILENCE: Duration = Duration::from_secs(300);

/// How long a reset may wait for room in the tunnel.
const ABORTING: Duration = Duration::from_secs(5);

/// How long a finished connection answers a repeated end.
const LINGER: Duration = Duration::from_secs(2);

/// smoltcp computes segment sizes by subtraction; this is the least MTU that IPv4 hosts must accept.
const LEAST_MTU: usize = 576;

/// One connection.
pub(super) struct Conn {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
    previous: State,
    opened: bool,
    readable_told: bool,
    starved: bool,
    /// The program has sent its last byte.
    finished: bool,
    half_closed_told: bool,
    /// Both directions are done, and the program was told.
    closed_told: bool,
    aborted: bool,
    heard: Instant,
    since: Instant,
    lingers_since: Option<Instant>,
}

/// What has to happen after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// The service has just accepted.
    pub(super) opened: bool,
    /// The service has refused.
    pub(super) refused: bool,
    /// Bytes wait for the program.
    pub(super) readable: bool,
    /// There is room again for bytes of the program.
    pub(super) resume: bool,
    /// The service has sent its last byte.
    pub(super) half_close: bool,
    /// Both directions came to their end, and every byte was taken: the program's socket is not needed any more.
    pub(super) close: bool,
    /// The service reset the connection.
    pub(super) broke: bool,
    /// Nothing of the connection is needed any more.
    pub(super) over: bool,
}

/// smoltcp's time: microseconds since the stack began.
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

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

impl Conn {
    /// Begins to connect; `None` if the addresses make no connection.
    pub(super) fn open(local: SocketAddr, remote: SocketAddr, seed: u64, clock: Clock) -> Option<Self> {
        let mut port = Port::new(1280);
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        // The program has decided how to cut its bytes.
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        let mut interface = interface(&mut port, seed, clock);
        let endpoint = |address: SocketAddr| IpEndpoint::from((address.ip(), address.port()));
        socket
            .connect(interface.context(), endpoint(remote), endpoint(local))
            .ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Self {
            interface,
            sockets,
            handle,
            port,
            previous: State::SynSent,
            opened: false,
            readable_told: false,
            starved: true,
            finished: false,
            half_closed_told: false,
            closed_told: false,
            aborted: false,
            heard: clock.now,
            since: clock.now,
            lingers_since: None,
        })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(super) fn is_opened(&self) -> bool {
        self.opened
    }

    pub(super) fn receive(&mut self, packet: Datagram, clock: Clock) -> Option<Vec<u8>> {
        self.heard = clock.now;
        self.port.incoming = Some(packet);
        let Self {
            interface,
            sockets,
            port,
            ..
        } = self;
        interface.poll_ingress_single(clock.ticks(), port, sockets);
        port.reply.take()
    }

    /// The next segment, if there is one to send.
    pub(super) fn send(&mut self, mtu: usize, clock: Clock) -> Option<Vec<u8>> {
        if self.is_past_safety(clock.now) {
            return None;
        }
        let mtu = mtu.max(LEAST_MTU);
        if self.port.mtu != mtu {
            self.port.mtu = mtu;
            self.interface = interface(&mut self.port, 0, clock);
        }
        let Self {
            interface,
            sockets,
            port,
            ..
        } = self;
        port.may_send = true;
        interface.poll_egress(clock.ticks(), port, sockets);
        port.may_send = false;
        port.segment.take()
    }

    /// Offers bytes for the program to `take`; returns how many it took.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        if self.aborted {
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
        if !self.socket().can_recv() {
            self.readable_told = false;
        }
        taken.unwrap_or(0)
    }

    /// Offers room for bytes of the program; `None` if there is none.
    pub(super) fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize> {
        if self.finished || self.aborted {
            return None;
        }
        if !self.socket().can_send() {
            self.starved = true;
            return None;
        }
        let filled = self.socket().send(|room| {
            let filled = fill(room).min(room.len());
            (filled, filled)
        });
        filled.ok()
    }

    /// The program has sent its last byte.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        self.socket().close();
        self.previous = self.socket().state();
    }

    /// Resets the service's connection; nobody listens to notices any more.
    pub(super) fn abort(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.aborted, true) {
            self.since = now;
            self.socket().abort();
        }
    }

    /// Looks at what has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Notice {
        let mut notice = Notice::default();
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if self.aborted {
            // The socket forgets the service once the reset is sent.
            notice.over = socket.remote_endpoint().is_none() || now >= self.since + ABORTING;
            return notice;
        }
        let state = socket.state();
        let previous = std::mem::replace(&mut self.previous, state);
        if state == State::Closed && previous == State::SynSent {
            notice.refused = true;
            return notice;
        }
        let orderly = matches!(previous, State::LastAck | State::TimeWait | State::Closed);
        if state == State::Closed && !orderly {
            notice.broke = true;
            return notice;
        }
        if !self.opened && state != State::SynSent {
            self.opened = true;
            notice.opened = true;
        }
        if socket.can_recv() && !std::mem::replace(&mut self.readable_told, socket.can_recv()) {
            notice.readable = true;
        }
        let free = socket.send_capacity() - socket.send_queue();
        if self.starved && socket.can_send() && free >= RESUME_AT {
            self.starved = false;
            notice.resume = true;
        }
        let remote_finished = matches!(
            state,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed
        );
        if remote_finished && !socket.can_recv() && !self.half_closed_told {
            self.half_closed_told = true;
            notice.half_close = true;
        }
        if self.half_closed_told && self.finished && !self.closed_told {
            self.closed_told = true;
            notice.close = true;
        }
        if state == State::TimeWait {
            self.lingers_since.get_or_insert(now);
        }
        let ended = state == State::Closed || self.is_past_safety(now);
        notice.over = ended && self.closed_told;
        notice
    }

    /// When something is to be done at the latest.
    pub(super) fn wakes(&mut self, clock: Clock) -> Instant {
        let soon = clock.now + Duration::from_millis(1);
        let own = self.deadline();
        if self.is_past_safety(clock.now) {
            return own.max(soon);
        }
        let wanted = self.interface.poll_at(clock.ticks(), &self.sockets);
        wanted.map_or(own, |at| clock.instant(at).min(own)).max(soon)
    }

    /// Whether the service has been silent for too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.lingers_since.is_none() && self.deadline() <= now
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.lingers_since {
            _ if self.aborted => self.since + ABORTING,
            Some(since) if !self.is_past_safety(since) => since + LINGER,
            Some(_) | None => self.heard + SILENCE,
        }
    }

    /// smoltcp forgets unread bytes when its TIME-WAIT ends: it is not driven that far.
    fn is_past_safety(&self, now: Instant) -> bool {
        self.lingers_since.is_some_and(|since| now >= since + LINGER)
    }
}

/// A stack that takes packets for any address: what belongs to the connection was decided before.
fn interface(port: &mut Port, seed: u64, clock: Clock) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, port, clock.ticks());
    interface.set_any_ip(true);
    interface
}

/// A device that holds at most one packet in each direction.
struct Port {
    incoming: Option<Datagram>,
    reply: Option<Vec<u8>>,
    segment: Option<Vec<u8>>,
    may_send: bool,
    mtu: usize,
}

impl Port {
    fn new(mtu: usize) -> Self {
        Self {
            incoming: None,
            reply: None,
            segment: None,
            may_send: false,
            mtu,
        }
    }
}

struct Incoming(Datagram);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Option<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        *self.0 = Some(packet);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Ticks) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&mut self.reply)))
    }

    fn transmit(&mut self, _: Ticks) -> Option<Outgoing<'_>> {
        if !self.may_send || self.segment.is_some() {
            return None;
        }
        Some(Outgoing(&mut self.segment))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}
