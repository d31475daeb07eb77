//! What waits for the shell.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::backend::FlowId;
use crate::local::{DatagramSocket, ToLocal};

#[derive(Debug)]
enum Request {
    Readable(FlowId),
    Resume(FlowId),
    HalfClose(FlowId),
    Close(FlowId),
    Reset(FlowId),
    Relay(FlowId),
    Datagram(DatagramSocket, SocketAddr, Vec<u8>),
}

/// Requests to the shell, oldest first.
///
/// Only datagrams are bounded here: the others are bounded by the number of streams.
#[derive(Debug)]
pub(super) struct LocalQueue {
    requests: VecDeque<Request>,
    datagrams: usize,
    limit: usize,
    /// The payload last handed out, which the shell still borrows.
    lent: Vec<u8>,
}

impl LocalQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            requests: VecDeque::new(),
            datagrams: 0,
            limit,
            lent: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
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

    pub(super) fn relay(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Relay(flow));
    }

    /// `false` if too many datagrams wait; this one is dropped.
    pub(super) fn datagram(&mut self, from: DatagramSocket, to: SocketAddr, payload: Vec<u8>) -> bool {
        if self.datagrams >= self.limit {
            return false;
        }
        self.datagrams += 1;
        self.requests.push_back(Request::Datagram(from, to, payload));
        true
    }

    pub(super) fn poll(&mut self) -> Option<ToLocal<'_>> {
        Some(match self.requests.pop_front()? {
            Request::Readable(flow) => ToLocal::Readable { flow },
            Request::Resume(flow) => ToLocal::Resume { flow },
            Request::HalfClose(flow) => ToLocal::HalfClose { flow },
            Request::Close(flow) => ToLocal::Close { flow },
            Request::Reset(flow) => ToLocal::Reset { flow },
            Request::Relay(flow) => ToLocal::Relay { flow },
            Request::Datagram(from, to, payload) => {
                self.datagrams -= 1;
                self.lent = payload;
                ToLocal::Datagram {
                    from,
                    to,
                    payload: &self.lent,
                }
            }
        })
    }
}
