//! One connection of a pool and what the pool remembers about it.

use std::net::SocketAddr;
use std::time::Instant;

use super::PoolEvent;
use crate::id::ConnId;
use crate::machine::FourTuple;
use crate::quic::{Cid, CloseReason, Connection, State};

/// What acknowledgements wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    /// The connection whose queue is crowded.
    pub(super) queue: ConnId,
    /// They go out then, whatever the queue is like.
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Slot<C> {
    pub(super) id: ConnId,
    pub(super) connection: C,
    /// Clients name their local address once: the kernel may report another form of it with every packet.
    pub(super) client_local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    /// Where the connection began, then where it has moved to: never a path that only claims to be the peer's.
    pub(super) path: FourTuple,
    /// The channel that its packets travel in.
    pub(super) carrier: Option<u32>,
    /// What the role calls the address that was invited, if its first packet came from one.
    pub(super) invitation: Option<u32>,
    pub(super) cids: Vec<Cid>,
    /// Ids of ours beyond the first that the peer holds.
    pub(super) spares: usize,
    /// Queued for sending.
    pub(super) dirty: bool,
    /// Queued for events.
    pub(super) touched: bool,
    /// Until when an acknowledgement may wait.
    pub(super) hold: Option<Instant>,
    /// Whose queue an acknowledgement waits for.
    pub(super) behind: Option<Behind>,
    /// When a packet for this connection came last.
    pub(super) heard: Option<Instant>,
    /// Packets received since the last flush.
    pub(super) unacked: u32,
    pub(super) reported_established: bool,
    pub(super) reported_readable: bool,
}

impl<C: Connection> Slot<C> {
    pub(super) fn new(id: ConnId, connection: C, path: FourTuple, client_local: Option<SocketAddr>) -> Self {
        Self {
            id,
            connection,
            client_local,
            peer: None,
            path,
            carrier: None,
            invitation: None,
            cids: Vec::new(),
            spares: 0,
            dirty: false,
            touched: false,
            hold: None,
            behind: None,
            heard: None,
            unacked: 0,
            reported_established: false,
            reported_readable: false,
        }
    }

    pub(super) fn established(&self) -> bool {
        self.connection.state() == State::Established
    }

    /// The next thing to tell, in the order in which a role wants to hear it.
    pub(super) fn poll_event(&mut self) -> Option<PoolEvent> {
        if !self.reported_established && self.established() {
            self.reported_established = true;
            return Some(PoolEvent::Established(self.id));
        }
        if let Some(path) = self.connection.poll_path_change() {
            self.path = path;
            return Some(PoolEvent::PathChanged(self.id, path));
        }
        if !self.reported_readable && self.reported_established {
            self.reported_readable = true;
            return Some(PoolEvent::Readable(self.id));
        }
        if self.connection.state() == State::Closed {
            let reason = self.connection.close_reason().unwrap_or(CloseReason::Reset);
            return Some(PoolEvent::Closed(self.id, reason));
        }
        None
    }
}
