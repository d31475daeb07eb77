//! The signalling of v1 agents, as it reaches a connector: on streams of its own where the connection speaks v1, among the control
//! messages where it speaks v2. What it means is decided in [`v1peer`](crate::v1peer).

use std::time::Instant;

use super::{Link, LinkNews};
use crate::id::ConnId;
use crate::messages::MessageStream;
use crate::quic::{Pool, Provider};
use crate::wire::control::SignalingMessage;
use crate::wire::datagram::Role;

impl Link {
    /// Says something to the intermediate, or through it to an agent. What does not fit any more is lost: a v1 agent gives up
    /// after a while, and tries again.
    pub(crate) fn signal<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        message: &SignalingMessage,
        _now: Instant,
    ) {
        let Some(id) = self.connection() else { return };
        let stream = match (&mut self.control, &mut self.signals) {
            (Some(control), _) => &mut control.stream,
            (None, Some(stream)) => stream,
            (None, None) => return,
        };
        stream.send(message.write());
        stream.flush(pool, id);
    }

    /// A new connection that speaks v1. Agents of ours take no part in its signalling.
    pub(super) fn begin_signals(&mut self) {
        self.signals = (self.role == Role::Connector).then(MessageStream::v1_client);
    }

    /// Reads the streams of a v1 connection, and goes on writing to them.
    pub(super) fn read_signals<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId) {
        let Some(mut stream) = self.signals.take() else {
            pool.discard_streams(id);
            return;
        };
        let (mut messages, mut malformed) = (Vec::new(), 0);
        stream.read(pool, id, &mut |payload| match SignalingMessage::parse(payload) {
            Ok(message) => messages.push(message),
            Err(_) => malformed += 1,
        });
        stream.flush(pool, id);
        self.signals = Some(stream);
        self.stats.malformed += malformed;
        for message in messages {
            self.report(LinkNews::Signal(message));
        }
    }
}
