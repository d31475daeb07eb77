//! Requests to the shell that wait to be taken.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::backend::{FlowId, ToBackend, Transport};
use crate::quic::Datagram;

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
