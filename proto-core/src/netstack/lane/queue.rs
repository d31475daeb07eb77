//! What waits to leave by one lane: packets that are ready, and sessions that may have a segment to send.

use std::collections::VecDeque;

use crate::backend::FlowId;
use crate::quic::Datagram;

/// Ended sessions that may stand among the entered ones before they are cleared out.
const ENDED: usize = 32;

/// So many places a queue may keep while its lane has no flow.
const KEPT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Queue {
    packets: VecDeque<Datagram>,
    /// TCP sessions that may have a segment to send, each once; those that ended since stand here until their turn comes.
    sessions: VecDeque<FlowId>,
    /// How many of those have ended.
    ended: u32,
    /// Whether a packet or a session is asked next.
    packets_next: bool,
}

impl Queue {
    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let packets = self.packets.capacity() * size_of::<Datagram>();
        packets + self.sessions.capacity() * size_of::<FlowId>()
    }

    #[cfg(test)]
    pub(super) fn entered(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn push(&mut self, packet: Datagram) {
        self.packets.push_back(packet);
    }

    pub(super) fn pop(&mut self) -> Option<Datagram> {
        self.packets.pop_front()
    }

    pub(super) fn turn(&mut self) -> bool {
        self.packets_next = !self.packets_next;
        self.packets_next
    }

    pub(super) fn enter(&mut self, flow: FlowId) {
        self.sessions.push_back(flow);
    }

    /// An entered session has ended. While a tunnel is blocked sessions may come and go without their turn ever coming, so
    /// they are cleared out once they are more than the others: each is looked at twice at most.
    pub(super) fn abandon(&mut self, lives: impl Fn(FlowId) -> bool) {
        self.ended += 1;
        let ended = self.ended as usize;
        if ended > ENDED && 2 * ended > self.sessions.len() {
            self.sessions.retain(|flow| lives(*flow));
            self.ended = 0;
        }
    }

    pub(super) fn next_session(&mut self) -> Option<FlowId> {
        let flow = self.sessions.pop_front()?;
        self.sessions.push_back(flow);
        Some(flow)
    }

    pub(super) fn session_done(&mut self, ended: bool) {
        self.sessions.pop_back();
        self.ended = self.ended.saturating_sub(u32::from(ended));
    }

    pub(super) fn rest(&mut self) {
        if self.packets.is_empty() && self.packets.capacity() > KEPT {
            self.packets = VecDeque::new();
        }
        if self.sessions.is_empty() && self.sessions.capacity() > KEPT {
            self.sessions = VecDeque::new();
        }
    }
}
