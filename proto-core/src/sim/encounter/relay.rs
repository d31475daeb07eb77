//! The relay of an encounter: it says where it sees an end, and carries what one says to the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::speech::{Frame, Speech};
use crate::machine::{Deadline, Ecn, Forward, FourTuple, Received, Transmit, Wake};
use crate::sim::Host;
use crate::sim::trace::Digest;

pub(super) struct Relay {
    local: SocketAddr,
    speech: Speech,
    /// Where it saw the agent last, and the connector.
    ends: [Option<SocketAddr>; 2],
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    now: Option<Instant>,
}

impl Relay {
    pub(super) fn new(local: SocketAddr, speech: Speech) -> Self {
        Self {
            local,
            speech,
            ends: [None; 2],
            out: VecDeque::new(),
            now: None,
        }
    }

    fn take(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(frame) = self.speech.read(bytes) else {
            return;
        };
        let (to, answer) = match frame {
            Frame::Ping { side, at } => {
                self.ends[usize::from(side)] = Some(from);
                let observed = from;
                (Some(from), self.speech.write(Frame::Pong { observed, at }))
            }
            Frame::Relayed { side, .. } => {
                self.ends[usize::from(side)] = Some(from);
                (self.ends[usize::from(1 - side)], bytes.to_vec())
            }
            Frame::Pong { .. } | Frame::Direct { .. } => return,
        };
        self.out.extend(to.map(|to| (to, answer)));
    }
}

impl Host for Relay {
    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.now = Some(now);
        let size = received.segment_size();
        for datagram in received.payload.chunks(size) {
            self.take(received.path.remote, datagram);
        }
        Forward::NONE
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        let (remote, bytes) = self.out.pop_front()?;
        buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Transmit {
            path: FourTuple {
                local: self.local,
                remote,
            },
            ecn: Ecn::NotEct,
            len: bytes.len(),
            segment_size: None,
        })
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let at = self.now.filter(|_| !self.out.is_empty())?;
        Some(Deadline {
            at,
            wake: Wake::QueuedOutput,
        })
    }

    fn poll_local(&mut self, _: &mut Digest, _: Instant) -> bool {
        false
    }
}
