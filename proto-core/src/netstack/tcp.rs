//! TCP: every session is one [`Connection`](crate::tcp::Connection), fed and drained packet by packet.
//!
//! A session begins with a SYN that is held until the backend answers: the agent's connection is accepted, refused or
//! times out as the backend does. From then on bytes move when both sides can: the window closes while the backend is
//! slow, and the backend is not read while the connection has no room. When both ends are closed and the backend has
//! every byte, the buffers go at once and a few bytes remember the end (TIME-WAIT).

mod session;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{CONNECT_TIMEOUT, FIRST_TRY, Flow, Netstack};
use crate::backend::{FlowId, Refusal, Transport};
use crate::expiring::Inserted;
use crate::id::LaneId;
use crate::quic::Datagram;
use crate::routing::packet::{self, FiveTuple, Parsed, TcpFlags, Unreachable};
use crate::tcp::Segment;
use session::{LINGER, Live, Rest};

/// One TCP session.
#[derive(Debug)]
pub(super) struct Session {
    lane: LaneId,
    tuple: FiveTuple,
    /// Entered among the sessions that may send.
    entered: bool,
    /// Counted among those of its agent that have not completed their handshake.
    pending: bool,
    stage: Stage,
}

impl Session {
    pub(super) fn lane(&self) -> LaneId {
        self.lane
    }

    pub(super) fn tuple(&self) -> FiveTuple {
        self.tuple
    }
}

#[derive(Debug)]
enum Stage {
    /// The SYN waits for the backend.
    Pending { syn: Datagram, until: Instant },
    /// The backend has answered.
    Live(Box<Live>),
    /// Both ends are closed. If the agent repeats its end, so is this segment.
    Lingering { last_ack: Option<Vec<u8>> },
}

impl Netstack {
    pub(super) fn on_tcp(&mut self, lane: LaneId, parsed: &Parsed, flags: TcpFlags, packet: Datagram) {
        let opens = flags.syn && !flags.ack && !flags.rst && !flags.fin;
        let Some(id) = self.tcp.get(&(lane, parsed.flow)).copied() else {
            return self.on_unknown(lane, parsed, opens, packet);
        };
        let now = self.now;
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        match &mut session.stage {
            Stage::Live(_) => {
                self.stats.forwarded_packets += u64::from(!parsed.payload.is_empty());
                match Segment::parse(parsed, &packet) {
                    Some(segment) => self.feed(id, &segment),
                    None => self.stats.malformed += 1,
                }
            }
            Stage::Pending { .. } if flags.rst => self.end(id, true),
            // A repeated SYN waits in place of the first: the agent may have begun anew.
            Stage::Pending { syn, .. } if opens => {
                if Segment::parse(parsed, &packet).is_some() {
                    *syn = packet;
                }
            }
            Stage::Pending { .. } => {}
            // The agent uses the port again (RFC 9293 §3.6.1).
            Stage::Lingering { .. } if opens => {
                self.end(id, false);
                self.on_syn(lane, parsed, packet);
            }
            Stage::Lingering { .. } if flags.rst => self.end(id, false),
            Stage::Lingering { last_ack: Some(ack) } if flags.fin => {
                let ack = ack.clone();
                self.timers.set(id.index, Some(now + LINGER));
                self.queue(lane, ack);
            }
            Stage::Lingering { .. } => {}
        }
    }

    /// ICMP says that a segment of a session was too long for the path.
    pub(super) fn on_segment_too_big(&mut self, key: (LaneId, FiveTuple), mtu: usize, sequence: u32) {
        let id = self.tcp.get(&key).copied();
        let Some((id, live)) = id.and_then(|id| Some((id, self.live(id)?))) else {
            self.stats.unsupported += 1;
            return;
        };
        live.on_too_big(mtu, sequence);
        self.stats.icmp_errors += 1;
        self.after(id);
    }

    fn on_unknown(&mut self, lane: LaneId, parsed: &Parsed, opens: bool, packet: Datagram) {
        if opens {
            self.on_syn(lane, parsed, packet);
        } else {
            self.answer_reset(lane, parsed, &packet);
        }
    }

    fn on_syn(&mut self, lane: LaneId, parsed: &Parsed, syn: Datagram) {
        if Segment::parse(parsed, &syn).is_none() {
            self.stats.malformed += 1;
            return;
        }
        if self.tcp.len() >= self.limits.tcp_sessions
            && let Some((oldest, ())) = self.lingering.pop_oldest()
        {
            self.end(oldest, false);
        }
        let holder = self.lanes.holder(lane, parsed.flow.source);
        let pending = self.tcp_pending.get(&holder).copied().unwrap_or(0);
        if self.tcp.len() >= self.limits.tcp_sessions {
            self.stats.tcp_full += 1;
            self.answer_reset(lane, parsed, &syn);
            return;
        }
        if pending >= self.limits.tcp_pending_per_source {
            // As a listener does whose backlog is full: the agent asks again, and by then others may be done.
            self.stats.tcp_backlog += 1;
            return;
        }
        let Some(pick) = self.pick(lane, Transport::Tcp, parsed, &syn) else {
            return;
        };
        let patience = if pick.alternative {
            FIRST_TRY
        } else {
            CONNECT_TIMEOUT
        };
        let until = self.now + patience;
        let session = Session {
            lane,
            tuple: parsed.flow,
            entered: false,
            pending: true,
            stage: Stage::Pending { syn, until },
        };
        let flow = self.open(Flow::Tcp(Box::new(session)), Transport::Tcp, pick);
        self.tcp.insert((lane, parsed.flow), flow);
        *self.tcp_pending.entry(holder).or_insert(0) += 1;
        self.timers.set(flow.index, Some(until));
        self.stats.tcp_sessions += 1;
    }

    pub(super) fn on_tcp_opened(&mut self, id: FlowId) {
        let now = self.now;
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let tuple = session.tuple;
        let Stage::Pending { syn, .. } = &mut session.stage else {
            return;
        };
        let syn = std::mem::take(syn);
        let isn = self.isn.draw(&tuple.reversed(), now);
        let parsed = packet::parse(&syn).ok();
        let segment = parsed.and_then(|parsed| Segment::parse(&parsed, &syn));
        let live = segment
            .and_then(|syn| Live::accept(&syn, self.limits.tcp_connection(), isn, &self.tcp_memory, now));
        let Some(live) = live else {
            self.end(id, true);
            return;
        };
        if let Some(Flow::Tcp(session)) = self.flow(id) {
            session.stage = Stage::Live(Box::new(live));
        }
        self.after(id);
    }

    pub(super) fn on_tcp_refused(&mut self, id: FlowId, reason: Refusal) {
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let (lane, tuple) = (session.lane, session.tuple);
        if !matches!(session.stage, Stage::Pending { .. }) {
            self.on_tcp_broken(id);
            return;
        }
        if let Some(next) = self.try_another(id, reason) {
            let last = self.now + (CONNECT_TIMEOUT - FIRST_TRY);
            self.tcp.insert((lane, tuple), next);
            self.timers.set(next.index, Some(last));
            if let Some(Flow::Tcp(session)) = self.flow(next)
                && let Stage::Pending { until, .. } = &mut session.stage
            {
                *until = last;
            }
            return;
        }
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let Stage::Pending { syn, .. } = &mut session.stage else {
            return;
        };
        let syn = std::mem::take(syn);
        self.stats.tcp_errors += 1;
        self.end(id, false);
        let Ok(parsed) = packet::parse(&syn) else { return };
        match reason {
            Refusal::Refused | Refusal::Exhausted => self.answer_reset(lane, &parsed, &syn),
            Refusal::TimedOut | Refusal::Unreachable => {
                self.answer_unreachable(lane, &parsed, &syn, Unreachable::Host);
            }
        }
    }

    /// The backend has sent its last byte.
    pub(super) fn on_tcp_finished(&mut self, id: FlowId) {
        let now = self.now;
        let Some(live) = self.live(id) else { return };
        live.finish(now);
        self.after(id);
    }

    /// The backend's socket broke: the agent hears a reset.
    pub(super) fn on_tcp_broken(&mut self, id: FlowId) {
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        match &session.stage {
            Stage::Pending { .. } => self.on_tcp_refused(id, Refusal::Refused),
            Stage::Live(live) if !live.is_unbacked() => self.abort(id, true),
            Stage::Live(_) | Stage::Lingering { .. } => {}
        }
    }

    /// The next segment of a session, if it has one to send.
    pub(super) fn tcp_segment(&mut self, id: FlowId) -> Option<Datagram> {
        let now = self.now;
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return None;
        };
        let lane = session.lane;
        let mtu = self.lanes.mtu(lane)?;
        if let Some(segment) = self.live(id)?.send(mtu, now) {
            return Some(segment.into());
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
        let now = self.now;
        if let Some(live) = self.live(id) {
            live.handle_timeout(now);
        }
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        match &session.stage {
            Stage::Pending { until, .. } if *until <= now => {
                self.backend.close(id);
                self.on_tcp_refused(id, Refusal::TimedOut);
            }
            Stage::Pending { until, .. } => {
                let until = *until;
                self.timers.set(index, Some(until));
            }
            Stage::Live(live) if live.is_overdue(now) && live.is_aborted() => self.end(id, false),
            Stage::Live(live) if live.is_overdue(now) => {
                self.abort(id, false);
                // The reset itself waits for room in the tunnel, but not for ever.
                self.timers.set(index, Some(now + session::ABORTING));
            }
            Stage::Live(live) => {
                let deadline = live.deadline();
                self.timers.set(index, Some(deadline));
                self.after(id);
            }
            Stage::Lingering { .. } => self.end(id, false),
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
        let now = self.now;
        if let Some(taken) = self.drain_preamble(flow, take) {
            return taken;
        }
        let Some(live) = self.live(flow) else { return 0 };
        let taken = live.drain(take, now);
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
        let now = self.now;
        let filled = self.live(flow)?.fill(fill, now)?;
        if filled > 0 {
            self.stats.returned_bytes += filled as u64;
            self.after(flow);
        }
        Some(filled)
    }

    fn feed(&mut self, id: FlowId, segment: &Segment<'_>) {
        let now = self.now;
        if let Some(live) = self.live(id) {
            live.receive(segment, now);
            self.after(id);
        }
    }

    fn abort(&mut self, id: FlowId, backend_is_gone: bool) {
        let now = self.now;
        let Some(live) = self.live(id) else { return };
        let tell = live.abort(backend_is_gone, now);
        self.stats.tcp_errors += 1;
        if tell {
            self.backend.reset(id);
        }
        self.after(id);
    }

    /// After anything that may have changed a session: it may send, and its backend may have to know.
    fn after(&mut self, id: FlowId) {
        self.notice(id);
        if let Some(Flow::Tcp(session)) = self.flow(id) {
            let lane = session.lane;
            if !std::mem::replace(&mut session.entered, true) {
                self.lanes.enter(lane, id);
            }
        }
    }

    /// Tells the shell what it has to know about a session, and forgets one that is over.
    fn notice(&mut self, id: FlowId) {
        let now = self.now;
        let Some(live) = self.live(id) else { return };
        let notice = live.look(now);
        if notice.established {
            self.not_pending(id);
        }
        if notice.readable {
            self.backend.readable(id);
        }
        if notice.resume {
            self.backend.resume(id);
        }
        if notice.half_close {
            self.backend.half_close(id);
        }
        if notice.close {
            self.backend.close(id);
        }
        if notice.reset {
            self.backend.reset(id);
            self.stats.tcp_errors += 1;
        }
        if notice.over {
            self.end(id, false);
        }
    }

    /// A session that has nothing to send: it sleeps until its timer, or is over.
    fn settle(&mut self, id: FlowId) {
        self.notice(id);
        let now = self.now;
        self.count_tcp(id);
        let Some(live) = self.live(id) else { return };
        match live.rest(now) {
            Rest::Until(at) => self.timers.set(id.index, Some(at)),
            Rest::Lingering(last_ack) => {
                if let Some(Flow::Tcp(session)) = self.flow(id) {
                    session.stage = Stage::Lingering { last_ack };
                }
                self.release(id);
                self.timers.set(id.index, Some(now + LINGER));
                // There are no more of these than sessions, so none has to leave.
                if let Inserted::Evicted(oldest, ()) = self.lingering.insert(id, (), now) {
                    self.end(oldest, false);
                }
            }
        }
    }

    fn live(&mut self, id: FlowId) -> Option<&mut Live> {
        match self.flow(id)? {
            Flow::Tcp(session) => match &mut session.stage {
                Stage::Live(live) => Some(live),
                Stage::Pending { .. } | Stage::Lingering { .. } => None,
            },
            Flow::Udp { .. } => None,
        }
    }

    /// Ends a session for its agent and for its backend, because its service does not carry it any more.
    pub(super) fn end_session(&mut self, id: FlowId) {
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let lane = session.lane;
        match &mut session.stage {
            Stage::Pending { syn, .. } => {
                let syn = std::mem::take(syn);
                self.end(id, true);
                if let Ok(parsed) = packet::parse(&syn) {
                    self.answer_reset(lane, &parsed, &syn);
                }
            }
            Stage::Live(_) => {
                self.abort(id, false);
                // The reset itself waits for room in the tunnel, but not for ever.
                self.timers.set(id.index, Some(self.now + session::ABORTING));
            }
            Stage::Lingering { .. } => self.end(id, false),
        }
    }

    /// Ends a session for its backend only: behind its addresses there is another agent now.
    pub(super) fn drop_session(&mut self, id: FlowId) {
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        let backed = match &session.stage {
            Stage::Pending { .. } => true,
            Stage::Live(live) => !live.is_unbacked(),
            Stage::Lingering { .. } => false,
        };
        self.end(id, backed);
    }

    /// Removes a session; `tell` the shell if it still holds a socket.
    fn end(&mut self, id: FlowId, tell: bool) {
        self.not_pending(id);
        self.count_tcp(id);
        let Some(Flow::Tcp(session)) = self.forget(id) else {
            return;
        };
        self.tcp.remove(&(session.lane, session.tuple));
        if session.entered {
            self.lanes.abandon(session.lane, &self.slots);
        }
        if let Stage::Lingering { .. } = session.stage {
            self.lingering.remove(&id);
        }
        if tell {
            self.backend.reset(id);
        }
    }

    /// A session has completed its handshake, or ends.
    fn not_pending(&mut self, id: FlowId) {
        let Some(Flow::Tcp(session)) = self.flow(id) else {
            return;
        };
        if !std::mem::replace(&mut session.pending, false) {
            return;
        }
        let (lane, source) = (session.lane, session.tuple.source);
        let holder = self.lanes.holder(lane, source);
        if let Some(pending) = self.tcp_pending.get_mut(&holder) {
            *pending -= 1;
            if *pending == 0 {
                self.tcp_pending.remove(&holder);
            }
        }
    }

    /// Adds what a connection has counted to what the stack has.
    fn count_tcp(&mut self, id: FlowId) {
        let Some(live) = self.live(id) else { return };
        let stats = live.count();
        self.stats.tcp_retransmits += stats.retransmits;
        self.stats.tcp_timeouts += stats.timeouts;
        self.stats.tcp_dropped += stats.dropped;
    }
}
