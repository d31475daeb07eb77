//! Streams on the way to their service or there: segments, timers, what the program is told of its connection, the end.

use std::time::Instant;

use super::{SOON, Stage, Stream};
use crate::backend::FlowId;
use crate::forward::socks::Reply;
use crate::forward::stack::{Registration, Stack};
use crate::forward::{ForwardEvent, NotReached};
use crate::id::ServiceIndex;

impl Stack {
    /// The next segment of a stream; without one it is no longer among those that may send.
    pub(in crate::forward) fn stream_segment(
        &mut self,
        id: FlowId,
        mtu: &dyn Fn(ServiceIndex) -> Option<usize>,
    ) -> Option<Vec<u8>> {
        let now = self.now;
        let stream = self.stream(id)?;
        let mtu = stream.service().and_then(mtu);
        let segment = match (&mut stream.stage, mtu) {
            (Stage::Live { conn, .. }, Some(mtu)) => conn.send(mtu, now),
            (
                Stage::Live { .. }
                | Stage::Negotiating(_)
                | Stage::Waiting
                | Stage::Relaying
                | Stage::Leaving,
                _,
            ) => None,
        };
        if segment.is_none() {
            stream.entered = false;
            self.rest(id, mtu.is_some());
        } else {
            self.look(id);
        }
        segment
    }

    /// Nothing to send: the timer says when to look again.
    fn rest(&mut self, id: FlowId, registered: bool) {
        self.look(id);
        let now = self.now;
        let Some(Stream {
            stage: Stage::Live { conn, until },
            ..
        }) = self.stream(id)
        else {
            return;
        };
        let give_up = if conn.is_opened() { conn.deadline() } else { *until };
        let at = if registered {
            conn.wakes().min(give_up)
        } else {
            give_up
        };
        // What is overdue is found at the next moment, never at this one again.
        self.timers.set(id.index, Some(at.max(now + SOON)));
    }

    pub(in crate::forward) fn on_stream_timer(&mut self, id: FlowId) {
        let now = self.now;
        let Some(stream) = self.stream(id) else { return };
        match &mut stream.stage {
            Stage::Negotiating(_) => {
                self.stats.socks_malformed += 1;
                self.drop_stream(id);
            }
            Stage::Waiting => {
                let service = stream.service();
                let registration = service.map(|service| self.registration(service));
                let why = match registration {
                    Some(Registration::Registered) => NotReached::TimedOut,
                    Some(Registration::Pending | Registration::Denied) | None => NotReached::NotRegistered,
                };
                self.refuse(id, why);
            }
            Stage::Live { conn, until } if !conn.is_opened() && *until <= now => {
                self.refuse(id, NotReached::TimedOut);
            }
            Stage::Live { conn, .. } if conn.is_opened() && conn.is_overdue(now) => self.on_silent(id),
            Stage::Live { conn, .. } => {
                conn.handle_timeout(now);
                self.after(id);
            }
            Stage::Relaying => {}
            Stage::Leaving => self.drop_stream(id),
        }
    }

    /// A service that answers nothing any more.
    fn on_silent(&mut self, id: FlowId) {
        let now = self.now;
        let Some(stream) = self.stream(id) else { return };
        let Some(conn) = stream.live() else { return };
        conn.abort(now);
        self.broke(id);
        self.after(id);
    }

    /// Tells the program that its connection broke.
    fn broke(&mut self, id: FlowId) {
        let Some(stream) = self.stream(id) else { return };
        let listener = stream.listener;
        if std::mem::replace(&mut stream.gone, true) {
            return;
        }
        self.requests.reset(id);
        self.stats.broken += 1;
        self.tell(ForwardEvent::Ended {
            listener,
            orderly: false,
        });
    }

    /// After anything that may have changed a connection.
    pub(in crate::forward) fn after(&mut self, id: FlowId) {
        self.look(id);
        if self.stream(id).is_some_and(|stream| stream.live().is_some()) {
            self.enter(id);
        }
    }

    /// Tells the program what it has to know about its connection.
    fn look(&mut self, id: FlowId) {
        let now = self.now;
        let Some(stream) = self.stream(id) else { return };
        let (socks, gone, listener) = (stream.socks, stream.gone, stream.listener);
        let local = stream.route.and_then(|route| route.local);
        let Some(conn) = stream.live() else { return };
        let notice = conn.look(now);
        if notice.refused {
            return self.refuse(id, NotReached::Refused);
        }
        if notice.broke {
            self.broke(id);
            self.remove(id);
            return;
        }
        if notice.opened {
            self.stats.established += 1;
            self.not_opening(id);
            if socks && let Some(stream) = self.stream(id) {
                stream.said = Reply::Succeeded.message(local);
                self.requests.readable(id);
            }
        }
        if !gone {
            if notice.readable {
                self.requests.readable(id);
            }
            if notice.resume {
                self.requests.resume(id);
            }
            if notice.half_close {
                self.requests.half_close(id);
            }
        }
        if notice.close && !gone {
            self.requests.close(id);
            if let Some(stream) = self.stream(id) {
                stream.gone = true;
            }
            self.tell(ForwardEvent::Ended {
                listener,
                orderly: true,
            });
        }
        if notice.over {
            self.remove(id);
        }
    }

    /// No new streams. Those on the way to their service or there may finish, and refusals be heard; the others, which
    /// have reached nothing yet or end only when their program wants it, are let go.
    pub(in crate::forward) fn close(&mut self, now: Instant) {
        self.advance(now);
        self.closing = true;
        self.abort_where(|stream| match stream.stage {
            Stage::Negotiating(_) | Stage::Waiting | Stage::Relaying => true,
            Stage::Live { .. } | Stage::Leaving => false,
        });
    }

    /// Aborts the streams whose program has not ended; what the others left behind may still leave.
    pub(in crate::forward) fn abort_running(&mut self, now: Instant) {
        self.advance(now);
        self.abort_where(|stream| !stream.gone);
    }

    pub(in crate::forward) fn abort_all(&mut self, now: Instant) {
        self.advance(now);
        self.abort_where(|_| true);
    }

    fn abort_where(&mut self, which: impl Fn(&Stream) -> bool) {
        let now = self.now;
        for id in self.streams_where(which) {
            let Some(stream) = self.stream(id) else { continue };
            match stream.live() {
                Some(conn) => {
                    conn.abort(now);
                    self.broke(id);
                    self.after(id);
                }
                None => self.drop_stream(id),
            }
        }
    }
}
