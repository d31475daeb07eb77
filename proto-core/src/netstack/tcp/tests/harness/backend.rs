//! A backend behind the shell: it follows its script.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::backend::{FlowId, FromBackend, Refusal};
use crate::netstack::Netstack;

/// What a backend does.
#[derive(Clone, Debug)]
pub(in super::super) enum Script {
    /// Sends back what it gets, and ends when the agent has ended.
    Echo,
    /// Sends this and ends, whatever it gets.
    Serve(Vec<u8>),
    /// Takes everything; when the agent has ended, sends this and ends.
    Reply(Vec<u8>),
    /// Takes everything and never sends.
    Sink,
    /// Takes so many bytes each 10 ms, then as [`Script::Sink`].
    Slow(usize),
    /// Is not there.
    Refuse(Refusal),
    /// Does not even refuse.
    Mute,
}

/// One backend connection.
pub(in super::super) struct Backend {
    pub(in super::super) flow: FlowId,
    pub(super) script: Script,
    pub(in super::super) received: Vec<u8>,
    to_send: VecDeque<u8>,
    pub(super) readable: bool,
    pub(super) room: bool,
    pub(in super::super) ended: bool,
    pub(super) finished: bool,
    pub(in super::super) closed: bool,
    pub(in super::super) reset: bool,
    pub(super) next: Option<Instant>,
    pub(in super::super) filled: usize,
}

impl Backend {
    pub(super) fn new(flow: FlowId, script: Script) -> Self {
        let to_send = match &script {
            Script::Serve(bytes) => bytes.clone().into(),
            Script::Echo
            | Script::Reply(_)
            | Script::Sink
            | Script::Slow(_)
            | Script::Refuse(_)
            | Script::Mute => VecDeque::new(),
        };
        Self {
            flow,
            script,
            received: Vec::new(),
            to_send,
            readable: false,
            room: true,
            ended: false,
            finished: false,
            closed: false,
            reset: false,
            next: None,
            filled: 0,
        }
    }

    /// The agent has sent its last byte.
    pub(super) fn end(&mut self) {
        assert!(
            !self.ended && !self.closed && !self.reset,
            "an end comes once, and first"
        );
        self.ended = true;
        if let Script::Reply(bytes) = &self.script {
            self.to_send.extend(bytes);
        }
    }

    fn is_open(&self) -> bool {
        !self.closed && !self.reset && !matches!(self.script, Script::Refuse(_) | Script::Mute)
    }

    pub(super) fn work(&mut self, stack: &mut Netstack, now: Instant) -> bool {
        if !self.is_open() {
            return false;
        }
        let mut busy = false;
        let budget = match self.script {
            Script::Slow(_) if self.next.is_some_and(|next| next > now) => 0,
            Script::Slow(bytes) => bytes,
            Script::Echo | Script::Serve(_) | Script::Reply(_) | Script::Sink => usize::MAX,
            Script::Refuse(_) | Script::Mute => 0,
        };
        if self.readable && budget > 0 {
            self.next = None;
            let mut left = budget;
            loop {
                let (received, to_send) = (&mut self.received, &mut self.to_send);
                let echo = matches!(self.script, Script::Echo);
                let taken = stack.drain_stream(self.flow, now, &mut |bytes| {
                    let bytes = &bytes[..bytes.len().min(left)];
                    received.extend_from_slice(bytes);
                    if echo {
                        to_send.extend(bytes);
                    }
                    bytes.len()
                });
                busy |= taken > 0;
                left -= taken;
                if taken == 0 {
                    self.readable = left == 0;
                    break;
                }
            }
            if matches!(self.script, Script::Slow(_)) {
                self.readable = true;
                self.next = (!self.ended).then(|| now + Duration::from_millis(10));
            }
        }
        while self.room && !self.to_send.is_empty() {
            let to_send = &mut self.to_send;
            let filled = stack.fill_stream(self.flow, now, &mut |room| {
                let count = room.len().min(to_send.len());
                for (place, byte) in room.iter_mut().zip(to_send.drain(..count)) {
                    *place = byte;
                }
                count
            });
            self.room = filled.is_some();
            self.filled += filled.unwrap_or(0);
            busy |= self.room;
        }
        let over = match self.script {
            Script::Serve(_) => self.to_send.is_empty(),
            Script::Echo | Script::Reply(_) | Script::Sink | Script::Slow(_) => {
                self.ended && self.to_send.is_empty()
            }
            Script::Refuse(_) | Script::Mute => false,
        };
        if over && !self.finished {
            self.finished = true;
            busy = true;
            stack.handle_backend(FromBackend::HalfClosed { flow: self.flow }, now);
        }
        busy
    }
}
