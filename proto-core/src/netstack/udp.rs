//! UDP: one backend flow per agent flow, forgotten after silence.

use std::net::SocketAddr;

use super::{Flow, Netstack};
use crate::backend::{BackendUnreachable, FlowId, Refusal, Transport};
use crate::id::LaneId;
use crate::quic::Datagram;
use crate::routing::packet::{self, FiveTuple, Parsed, Unreachable};
use crate::service::Pick;

impl Netstack {
    pub(super) fn on_udp(&mut self, lane: LaneId, parsed: &Parsed, mut packet: Datagram) {
        let key = (lane, parsed.flow);
        let flow = match self.udp.touch(&key, self.now) {
            Some(flow) => *flow,
            None => {
                let Some(pick) = self.pick(lane, Transport::Udp, parsed, &packet) else {
                    return;
                };
                self.open_udp(lane, parsed.flow, pick)
            }
        };
        // The payload stays in the buffer it arrived in.
        packet.truncate(parsed.payload.end);
        packet.advance(parsed.payload.start);
        let len = packet.len() as u64;
        // The shell opens a UDP socket at once, and requests keep their order: nothing has to wait for `Opened`.
        if self.backend.datagram(flow, packet) {
            self.stats.forwarded_packets += 1;
            self.stats.forwarded_bytes += len;
        } else {
            self.stats.backend_full += 1;
        }
    }

    fn open_udp(&mut self, lane: LaneId, tuple: FiveTuple, pick: Pick) -> FlowId {
        let holder = self.lanes.holder(lane, tuple.source);
        if let Some((_, old)) = self.udp.make_room(holder) {
            self.stats.udp_evicted += 1;
            self.forget(old);
            self.backend.close(old);
        }
        let flow = self.open(
            Flow::Udp {
                lane,
                tuple,
                opened: false,
            },
            Transport::Udp,
            pick,
        );
        self.stats.udp_flows += 1;
        self.udp.insert(holder, (lane, tuple), flow, self.now);
        flow
    }

    pub(super) fn on_udp_opened(&mut self, id: FlowId) {
        if let Some(Flow::Udp { opened, .. }) = self.flow(id) {
            *opened = true;
        }
    }

    /// No socket, no flow; the agent hears what it would hear from a real network.
    pub(super) fn on_udp_refused(&mut self, id: FlowId, reason: Refusal) {
        if let Some(Flow::Udp { lane, tuple, .. }) = self.flow(id) {
            let key = (*lane, *tuple);
            if let Some(next) = self.try_another(id, reason) {
                if let Some(flow) = self.udp.touch(&key, self.now) {
                    *flow = next;
                }
                return;
            }
        }
        let Some(Flow::Udp { lane, tuple, .. }) = self.forget(id) else {
            return;
        };
        self.udp.remove(&(lane, tuple));
        let why = match reason {
            Refusal::Refused => Unreachable::Port,
            Refusal::TimedOut | Refusal::Unreachable | Refusal::Exhausted => Unreachable::Host,
        };
        self.say_unreachable(lane, tuple, why);
    }

    /// A backend's answer goes back from the address and port that the agent spoke to.
    pub(super) fn on_udp_answer(&mut self, id: FlowId, payload: &[u8]) {
        let now = self.now;
        let Some(Flow::Udp { lane, tuple, .. }) = self.flow(id) else {
            return;
        };
        let (lane, tuple) = (*lane, *tuple);
        self.udp.touch(&(lane, tuple), now);
        let mut answer = Vec::with_capacity(payload.len() + 48);
        if packet::udp(destination(tuple), source(tuple), payload, &mut answer) {
            self.stats.returned_bytes += payload.len() as u64;
            self.queue(lane, answer);
        } else {
            self.stats.too_large += 1;
        }
    }

    /// Nobody takes what the agent sends: its socket hears what it would hear from the real host.
    pub(super) fn on_udp_unreachable(&mut self, id: FlowId, why: BackendUnreachable) {
        let Some(Flow::Udp { lane, tuple, .. }) = self.flow(id) else {
            return;
        };
        let (lane, tuple) = (*lane, *tuple);
        let why = match why {
            BackendUnreachable::Port => Unreachable::Port,
            BackendUnreachable::Host => Unreachable::Host,
            BackendUnreachable::Prohibited => Unreachable::AdminProhibited,
        };
        self.say_unreachable(lane, tuple, why);
    }

    /// Says so about an empty datagram of the flow: the packets themselves are gone, and their ports are what counts.
    pub(super) fn say_unreachable(&mut self, lane: LaneId, tuple: FiveTuple, why: Unreachable) {
        let mut quoted = Vec::new();
        if !packet::udp(source(tuple), destination(tuple), &[], &mut quoted) {
            return;
        }
        if let Ok(parsed) = packet::parse(&quoted) {
            self.answer_unreachable(lane, &parsed, &quoted, why);
        }
    }
}

fn source(tuple: FiveTuple) -> SocketAddr {
    SocketAddr::new(tuple.source, tuple.source_port)
}

fn destination(tuple: FiveTuple) -> SocketAddr {
    SocketAddr::new(tuple.destination, tuple.destination_port)
}
