//! What waits to leave the stack: packets for tunnels, requests to the shell.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::backend::{FlowId, ToBackend, Transport};
use crate::id::ServiceIndex;
use crate::quic::Datagram;

#[derive(Debug, Default)]
struct TunnelQueue {
    packets: VecDeque<Datagram>,
    /// TCP sessions that may have a segment to send, each once.
    sessions: VecDeque<FlowId>,
    announced: bool,
    /// Whether a packet or a session is asked next.
    packets_next: bool,
}

/// Packets and sending sessions, by service.
#[derive(Debug)]
pub(super) struct TunnelQueues {
    queues: Vec<TunnelQueue>,
    ready: VecDeque<ServiceIndex>,
    limit: usize,
}

impl TunnelQueues {
    pub(super) fn new(services: usize, limit: usize) -> Self {
        let queues = (0..services).map(|_| TunnelQueue::default()).collect();
        Self {
            queues,
            ready: VecDeque::new(),
            limit,
        }
    }

    /// Makes room for more services.
    pub(super) fn grow(&mut self, services: usize) {
        self.queues.resize_with(services, TunnelQueue::default);
    }

    /// Forgets what waits for a service.
    pub(super) fn clear(&mut self, service: ServiceIndex) {
        if let Some(queue) = self.queues.get_mut(usize::from(service.0)) {
            queue.packets.clear();
            queue.sessions.clear();
        }
    }

    /// `false` if the queue is full; the packet is dropped.
    pub(super) fn push(&mut self, service: ServiceIndex, packet: Datagram) -> bool {
        let limit = self.limit;
        let Some(queue) = self
            .queues
            .get_mut(usize::from(service.0))
            .filter(|queue| queue.packets.len() < limit)
        else {
            return false;
        };
        queue.packets.push_back(packet);
        self.announce(service);
        true
    }

    /// Whether packets are asked before sessions this time.
    pub(super) fn turn(&mut self, service: ServiceIndex) -> bool {
        let Some(queue) = self.queues.get_mut(usize::from(service.0)) else {
            return true;
        };
        queue.packets_next = !queue.packets_next;
        queue.packets_next
    }

    pub(super) fn pop(&mut self, service: ServiceIndex) -> Option<Datagram> {
        self.queues.get_mut(usize::from(service.0))?.packets.pop_front()
    }

    /// How many sessions are entered; those that ended since are among them until their turn comes.
    pub(super) fn entered(&self, service: ServiceIndex) -> usize {
        self.queues
            .get(usize::from(service.0))
            .map_or(0, |queue| queue.sessions.len())
    }

    /// Enters a session that may have a segment to send; the session itself remembers that it is entered.
    pub(super) fn enter(&mut self, service: ServiceIndex, flow: FlowId) {
        if let Some(queue) = self.queues.get_mut(usize::from(service.0)) {
            queue.sessions.push_back(flow);
            self.announce(service);
        }
    }

    /// The session whose turn it is: the front one, moved behind the others.
    pub(super) fn next_session(&mut self, service: ServiceIndex) -> Option<FlowId> {
        let queue = self.queues.get_mut(usize::from(service.0))?;
        let flow = queue.sessions.pop_front()?;
        queue.sessions.push_back(flow);
        Some(flow)
    }

    /// The session just named has nothing to send.
    pub(super) fn session_done(&mut self, service: ServiceIndex) {
        if let Some(queue) = self.queues.get_mut(usize::from(service.0)) {
            queue.sessions.pop_back();
        }
    }

    pub(super) fn poll_ready(&mut self) -> Option<ServiceIndex> {
        let service = self.ready.pop_front()?;
        self.queues[usize::from(service.0)].announced = false;
        Some(service)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn announce(&mut self, service: ServiceIndex) {
        let queue = &mut self.queues[usize::from(service.0)];
        if !std::mem::replace(&mut queue.announced, true) {
            self.ready.push_back(service);
        }
    }
}

#[derive(Debug)]
enum Request {
    Open(FlowId, Transport, SocketAddr),
    Datagram(FlowId, Datagram),
    Readable(FlowId),
    Resume(FlowId),
    HalfClose(FlowId),
    Close(FlowId),
    Reset(FlowId),
}

/// Requests to the shell, oldest first.
///
/// Only UDP payloads are bounded here: the others are bounded by the number of flows.
#[derive(Debug)]
pub(super) struct BackendQueue {
    requests: VecDeque<Request>,
    datagrams: usize,
    limit: usize,
    /// The payload last handed out, which the shell still borrows.
    lent: Datagram,
}

impl BackendQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            requests: VecDeque::new(),
            datagrams: 0,
            limit,
            lent: Datagram::default(),
        }
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(super) fn open(&mut self, flow: FlowId, transport: Transport, address: SocketAddr) {
        self.requests.push_back(Request::Open(flow, transport, address));
    }

    /// `false` if too many payloads wait; this one is dropped.
    pub(super) fn datagram(&mut self, flow: FlowId, payload: Datagram) -> bool {
        if self.datagrams >= self.limit {
            return false;
        }
        self.datagrams += 1;
        self.requests.push_back(Request::Datagram(flow, payload));
        true
    }

    pub(super) fn readable(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Readable(flow));
    }

    pub(super) fn resume(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Resume(flow));
    }

    pub(super) fn half_close(&mut self, flow: FlowId) {
        self.requests.push_back(Request::HalfClose(flow));
    }

    pub(super) fn close(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Close(flow));
    }

    pub(super) fn reset(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Reset(flow));
    }

    pub(super) fn poll(&mut self) -> Option<ToBackend<'_>> {
        Some(match self.requests.pop_front()? {
            Request::Open(flow, transport, address) => ToBackend::Open {
                flow,
                transport,
                address,
            },
            Request::Datagram(flow, payload) => {
                self.datagrams -= 1;
                self.lent = payload;
                ToBackend::Datagram {
                    flow,
                    payload: &self.lent,
                }
            }
            Request::Readable(flow) => ToBackend::Readable { flow },
            Request::Resume(flow) => ToBackend::Resume { flow },
            Request::HalfClose(flow) => ToBackend::HalfClose { flow },
            Request::Close(flow) => ToBackend::Close { flow },
            Request::Reset(flow) => ToBackend::Reset { flow },
        })
    }
}
