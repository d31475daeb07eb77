//! TCP: every session is a smoltcp stack with one socket, fed and drained packet by packet.
//!
//! A session begins with a SYN that is held until the backend answers: the agent's connection is accepted, refused or
//! times out as the backend does. From then on bytes move when both sides can: the socket's window closes while the
//! backend is slow, and the backend is not read while the socket is full.

mod device;

use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::{CONNECT_TIMEOUT, Flow, Netstack};
use crate::backend::{FlowId, Refusal, Transport};
use crate::id::ServiceIndex;
use crate::quic::Datagram;
use crate::routing::packet::{self, FiveTuple, Parsed, TcpFlags, Unreachable};
use device::Port;

/// Each direction of a session. At 20 ms RTT this carries 100 Mbit/s.
const BUFFER: usize = 256 * 1024;

/// A backend that had to wait is read again when this much of the buffer is free.
const RESUME_AT: usize = BUFFER / 4;

/// Unacknowledged data older than this ends a session.
const USER_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(120);

/// How often a silent session is probed, so that agents that vanished are noticed.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(45);

/// One TCP session.
#[derive(Debug)]
pub(super) struct Session {
    service: ServiceIndex,
    tuple: FiveTuple,
    /// Entered among the sessions that may send.
    entered: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The SYN waits for the backend.
    Pending {
        syn: Datagram,
        until: Instant,
    },
    Live(Box<Live>),
}

struct Live {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
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
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Live {
    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

impl Netstack {
    pub(super) fn on_tcp(
        &mut self,
        service: ServiceIndex,
        parsed: &Parsed,
        flags: TcpFlags,
        packet: Datagram,
    ) {
        if !parsed.payload.is_empty() {
            self.stats.forwarded_packets += 1;
        }
        match self.tcp.get(&(service, parsed.flow)).copied() {
            Some(flow) => self.feed(flow, flags, packet),
            None if flags.syn && !flags.ack && !flags.rst => self.on_syn(service, parsed, packet),
            None => self.answer_reset(service, parsed, &packet),
        }
    }

    fn on_syn(&mut self, service: ServiceIndex, parsed: &Parsed, syn: Datagram) {
        let pending = self.tcp_pending.get(&parsed.flow.source).copied().unwrap_or(0);
        if self.tcp.len() >= self.limits.tcp_sessions || pending >= self.limits.tcp_pending_per_source {
            self.stats.tcp_full += 1;
            self.answer_reset(service, parsed, &syn);
            return;
        }
        let until = self.now + CONNECT_TIMEOUT;
        let session = Session {
            service,
            tuple: parsed.flow,
            entered: false,
            stage: Stage::Pending { syn, until },
        };
        let address = self.services[usize::from(service.0)].backend;
        let flow = self.open(Flow::Tcp(Box::new(session)), Transport::Tcp, address);
        self.tcp.insert((service, parsed.flow), flow);
        *self.tcp_pending.entry(parsed.flow.source).or_insert(0) += 1;
        self.timers.set(flow.index, Some(until));
        self.stats.tcp_sessions += 1;
    }

    pub(super) fn on_tcp_opened(&mut self, id: FlowId) {
        let now = self.smoltcp_now();
        let seed = self.rng.next_u64();
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let (service, tuple) = (session.service, session.tuple);
        let Stage::Pending { syn, .. } = &mut session.stage else {
            return;
        };
        let syn = std::mem::take(syn);
        let mtu = self.mtu[usize::from(service.0)];
        let Some(live) = listen(tuple, mtu, seed, now) else {
            self.end(id, true);
            return;
        };
        if let Some(Flow::Tcp(session)) = self.flow(id) {
            session.stage = Stage::Live(Box::new(live));
        }
        self.not_pending(tuple);
        self.feed(
            id,
            TcpFlags {
                syn: true,
                ..TcpFlags::default()
            },
            syn,
        );
    }

    pub(super) fn on_tcp_refused(&mut self, id: FlowId, reason: Refusal) {
        self.stats.tcp_errors += 1;
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let service = session.service;
        let Stage::Pending { syn, .. } = &mut session.stage else {
            self.on_tcp_broken(id);
            return;
        };
        let syn = std::mem::take(syn);
        self.end(id, false);
        let Ok(parsed) = packet::parse(&syn) else { return };
        match reason {
            Refusal::Refused | Refusal::Exhausted => self.answer_reset(service, &parsed, &syn),
            Refusal::TimedOut | Refusal::Unreachable => {
                self.answer_unreachable(service, &parsed, &syn, Unreachable::Host);
            }
        }
    }

    /// The backend has sent its last byte: the socket says so behind everything already buffered.
    pub(super) fn on_tcp_finished(&mut self, id: FlowId) {
        let Some(live) = self.live(id) else { return };
        live.backend_finished = true;
        live.socket().close();
        self.after(id);
    }

    /// The backend's socket broke: the agent hears a reset.
    pub(super) fn on_tcp_broken(&mut self, id: FlowId) {
        self.stats.tcp_errors += 1;
        let Some(live) = self.live(id) else { return };
        live.backend_gone = true;
        live.socket().abort();
        self.after(id);
    }

    /// The next segment of a session, if it has one to send.
    pub(super) fn tcp_segment(&mut self, id: FlowId) -> Option<Datagram> {
        let now = self.smoltcp_now();
        if let Some(live) = self.live(id) {
            if let Some(reply) = live.port.take_reply() {
                return Some(reply);
            }
            live.port.allow_one();
            let Live {
                interface,
                sockets,
                port,
                ..
            } = live;
            interface.poll_egress(now, port, sockets);
            if let Some(segment) = port.take_segment() {
                self.notice(id);
                return Some(segment);
            }
        }
        if let Some(Flow::Tcp(session)) = self.flow(id) {
            session.entered = false;
        }
        self.settle(id);
        None
    }

    pub(super) fn on_tcp_timer(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        let id = FlowId {
            index,
            generation: slot.generation,
        };
        let Flow::Tcp(session) = &slot.flow else { return };
        match &session.stage {
            Stage::Pending { until, .. } if *until <= self.now => {
                self.backend.close(id);
                self.on_tcp_refused(id, Refusal::TimedOut);
            }
            Stage::Pending { until, .. } => self.timers.set(index, Some(*until)),
            Stage::Live(_) => self.after(id),
        }
    }

    /// Offers bytes waiting for a backend; see [`crate::machine::Backends::drain_stream`].
    pub fn drain_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        take: &mut dyn FnMut(&[u8]) -> usize,
    ) -> usize {
        self.advance(now);
        let Some(live) = self.live(flow) else { return 0 };
        let taken = live.socket().recv(|bytes| {
            let taken = take(bytes).min(bytes.len());
            (taken, taken)
        });
        let taken = taken.unwrap_or(0);
        if !live.socket().can_recv() {
            live.readable_told = false;
        }
        self.stats.forwarded_bytes += taken as u64;
        self.after(flow);
        taken
    }

    /// Offers room for bytes of a backend; see [`crate::machine::Backends::fill_stream`].
    pub fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.advance(now);
        let live = self.live(flow)?;
        if !live.socket().can_send() {
            // Also before the handshake is complete: the backend waits until the agent is there.
            live.starved = true;
            return None;
        }
        let filled = live.socket().send(|room| {
            let filled = fill(room).min(room.len());
            (filled, filled)
        });
        let filled = filled.unwrap_or(0);
        if filled > 0 {
            self.stats.returned_bytes += filled as u64;
            self.after(flow);
        }
        Some(filled)
    }

    fn feed(&mut self, id: FlowId, flags: TcpFlags, packet: Datagram) {
        let now = self.smoltcp_now();
        let Some(live) = self.live(id) else {
            // A repeated SYN waits with the first; a reset ends the wait.
            if flags.rst {
                self.end(id, true);
            }
            return;
        };
        live.port.receive(packet);
        let Live {
            interface,
            sockets,
            port,
            ..
        } = live;
        interface.poll_ingress_single(now, port, sockets);
        self.after(id);
    }

    /// After anything that may have changed a session: it may send, and its backend may have to know.
    fn after(&mut self, id: FlowId) {
        self.notice(id);
        if let Some(Flow::Tcp(session)) = self.flow(id) {
            let service = session.service;
            if !std::mem::replace(&mut session.entered, true) {
                self.tunnel.enter(service, id);
            }
        }
    }

    /// Tells the shell what it has to know about a session.
    fn notice(&mut self, id: FlowId) {
        let Some(Flow::Tcp(session)) = self.slots.get_mut(id.index as usize).map(|slot| &mut slot.flow)
        else {
            return;
        };
        let Stage::Live(live) = &mut session.stage else {
            return;
        };
        if live.backend_gone {
            return;
        }
        let socket = live.sockets.get_mut::<Socket<'_>>(live.handle);
        if socket.state() == State::Listen {
            // The SYN was none, or a reset took it back (RFC 9293 §3.10.7.4): nothing more is listened for.
            socket.abort();
        }
        if socket.can_recv() && !live.readable_told {
            live.readable_told = true;
            self.backend.readable(id);
        }
        if live.starved && socket.can_send() && socket.send_capacity() - socket.send_queue() >= RESUME_AT {
            live.starved = false;
            self.backend.resume(id);
        }
        let agent_finished = matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        ) && !socket.can_recv();
        if agent_finished && !live.half_closed_told {
            live.half_closed_told = true;
            self.backend.half_close(id);
        }
        match socket.state() {
            // Both directions are done; only the memory of the connection lingers.
            State::TimeWait => {
                live.backend_gone = true;
                self.backend.close(id);
            }
            State::Closed => {
                live.backend_gone = true;
                if live.backend_finished && live.half_closed_told {
                    self.backend.close(id);
                } else {
                    self.backend.reset(id);
                }
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {}
        }
    }

    /// A session that has nothing to send: it sleeps until its timer, or is over.
    fn settle(&mut self, id: FlowId) {
        self.notice(id);
        let now = self.smoltcp_now();
        let (start, earliest) = (self.start, self.now + std::time::Duration::from_micros(1));
        let Some(live) = self.live(id) else { return };
        if live.socket().state() == State::Closed {
            self.end(id, false);
            return;
        }
        let Live {
            interface, sockets, ..
        } = live;
        let at = interface.poll_at(now, sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            (start + std::time::Duration::from_micros(micros)).max(earliest)
        });
        self.timers.set(id.index, at);
    }

    fn live(&mut self, id: FlowId) -> Option<&mut Live> {
        match self.flow(id)? {
            Flow::Tcp(session) => match &mut session.stage {
                Stage::Live(live) => Some(live),
                Stage::Pending { .. } => None,
            },
            Flow::Udp { .. } => None,
        }
    }

    /// Removes a session; `tell` the shell if it still holds a socket.
    fn end(&mut self, id: FlowId, tell: bool) {
        let Some(Flow::Tcp(session)) = self.forget(id) else {
            return;
        };
        self.tcp.remove(&(session.service, session.tuple));
        if let Stage::Pending { .. } = session.stage {
            self.not_pending(session.tuple);
        }
        if tell {
            self.backend.reset(id);
        }
    }

    fn not_pending(&mut self, tuple: FiveTuple) {
        if let Some(pending) = self.tcp_pending.get_mut(&tuple.source) {
            *pending -= 1;
            if *pending == 0 {
                self.tcp_pending.remove(&tuple.source);
            }
        }
    }

    fn smoltcp_now(&self) -> smoltcp::time::Instant {
        let micros = self.now.saturating_duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

/// A stack with one socket that listens where the SYN is addressed.
fn listen(tuple: FiveTuple, mtu: usize, seed: u64, now: smoltcp::time::Instant) -> Option<Live> {
    let mut port = Port::new(mtu);
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut port, now);
    let address = IpAddress::from(tuple.destination);
    let mut added = false;
    interface.update_ip_addrs(|addresses| {
        let host = if tuple.destination.is_ipv4() { 32 } else { 128 };
        added = addresses.push(IpCidr::new(address, host)).is_ok();
    });
    match address {
        IpAddress::Ipv4(own) => interface.routes_mut().add_default_ipv4_route(own).map(drop),
        IpAddress::Ipv6(own) => interface.routes_mut().add_default_ipv6_route(own).map(drop),
    }
    .ok()?;
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_congestion_control(CongestionControl::Cubic);
    socket.set_nagle_enabled(false);
    socket.set_timeout(Some(USER_TIMEOUT));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.listen((address, tuple.destination_port)).ok()?;
    let mut sockets = SocketSet::new(Vec::with_capacity(1));
    let handle = sockets.add(socket);
    added.then_some(Live {
        interface,
        sockets,
        handle,
        port,
        readable_told: false,
        starved: false,
        backend_finished: false,
        half_closed_told: false,
        backend_gone: false,
    })
}
