//! What programs do with their streams: bytes, ends, resets, and what they say to the SOCKS proxy.

use std::net::SocketAddr;
use std::time::Instant;

use super::{DISCARDED, Stage};
use crate::backend::FlowId;
use crate::forward::socks::{LONGEST, Reply, Request, Step};
use crate::forward::stack::Stack;
use crate::forward::{ForwardEvent, NotReached};

impl Stack {
    pub(in crate::forward) fn on_local_finished(&mut self, id: FlowId) {
        let Some(stream) = self.stream(id) else { return };
        match &mut stream.stage {
            Stage::Live { conn, .. } => {
                conn.finish();
                self.after(id);
            }
            // A program that says no more has no use for an answer either.
            Stage::Negotiating(_) => {
                self.stats.socks_malformed += 1;
                self.drop_stream(id);
            }
            Stage::Waiting | Stage::Relaying | Stage::Leaving => self.drop_stream(id),
        }
    }

    pub(in crate::forward) fn on_local_broken(&mut self, id: FlowId) {
        let now = self.now;
        let Some(stream) = self.stream(id) else { return };
        stream.gone = true;
        let listener = stream.listener;
        let Some(conn) = stream.live() else {
            self.remove(id);
            return;
        };
        conn.abort(now);
        self.stats.broken += 1;
        self.tell(ForwardEvent::Ended {
            listener,
            orderly: false,
        });
        self.after(id);
    }

    pub(in crate::forward) fn drain_stream(
        &mut self,
        id: FlowId,
        now: Instant,
        take: &mut dyn FnMut(&[u8]) -> usize,
    ) -> usize {
        self.advance(now);
        let Some(stream) = self.stream(id) else { return 0 };
        if !stream.said.is_empty() {
            let taken = take(&stream.said).min(stream.said.len());
            stream.said.drain(..taken);
            return taken;
        }
        let Some(conn) = stream.live() else { return 0 };
        let taken = conn.drain(take, now);
        self.stats.bytes_received += taken as u64;
        // Also without a byte taken: the socket may be full, or the end may have come.
        self.after(id);
        taken
    }

    pub(in crate::forward) fn fill_stream(
        &mut self,
        id: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.advance(now);
        let stream = self.stream(id)?;
        match &mut stream.stage {
            Stage::Live { conn, .. } => {
                let filled = conn.fill(fill, now)?;
                if filled > 0 {
                    self.stats.bytes_sent += filled as u64;
                    self.after(id);
                }
                Some(filled)
            }
            Stage::Negotiating(negotiation) => {
                let mut room = [0; LONGEST];
                let wanted = negotiation.wants().min(room.len());
                let filled = fill(&mut room[..wanted]).min(wanted);
                let step = negotiation.feed(&room[..filled]);
                if filled > 0 {
                    self.on_step(id, step);
                }
                Some(filled)
            }
            // The relay's stream says nothing more; a refused program may, and nobody listens.
            Stage::Relaying | Stage::Leaving => Some(fill(&mut [0; DISCARDED]).min(DISCARDED)),
            Stage::Waiting => None,
        }
    }

    fn on_step(&mut self, id: FlowId, step: Step) {
        match step {
            Step::More => {}
            Step::Say(words) => {
                if let Some(stream) = self.stream(id) {
                    stream.said.extend_from_slice(words);
                    self.requests.readable(id);
                }
            }
            Step::Asked(Request::Connect(host, port)) => match self.directory.find(&host) {
                Some((service, address)) if port != 0 => {
                    self.set_out(id, service, SocketAddr::new(address, port));
                }
                Some(_) | None => self.refuse(id, NotReached::NotAllowed),
            },
            Step::Asked(Request::Associate) => {
                if let Some(stream) = self.stream(id) {
                    stream.stage = Stage::Relaying;
                    self.timers.set(id.index, None);
                    self.requests.relay(id);
                }
            }
            Step::Refuse(words) => {
                self.stats.socks_malformed += 1;
                self.say_last(id, &words);
            }
            Step::Alien => {
                self.stats.socks_malformed += 1;
                self.drop_stream(id);
            }
        }
    }

    /// The shell has opened a socket for a relay, or could not.
    pub(in crate::forward) fn on_relaying(&mut self, id: FlowId, at: Option<SocketAddr>) {
        let Some(stream) = self.stream(id).filter(|stream| stream.is_relaying()) else {
            return;
        };
        match at {
            Some(at) => {
                stream.said = Reply::Succeeded.message(Some(at));
                self.requests.readable(id);
                self.requests.resume(id);
            }
            None => self.refuse(id, NotReached::Full),
        }
    }
}
