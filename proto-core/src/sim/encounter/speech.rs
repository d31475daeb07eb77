//! What two ends and their relay say to each other: only the checks are those of the protocol.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::wire::control::Candidate;

/// The first byte of a datagram that is not a check.
const SPEECH: u8 = 0xf0;

/// A datagram that is not a check. Each says from whom it is, as a key would: translators that forget may hand an end its own
/// packets.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// An end asks the relay whether it is there.
    Ping { side: u8, at: Instant },
    /// It is, and sees the end at this address.
    Pong { observed: SocketAddr, at: Instant },
    /// From one end, through the relay, to the other.
    Relayed { side: u8, body: Body },
    /// On a direct connection.
    Direct { side: u8, id: u32, body: Body },
}

/// What one end says to the other.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A packet of the application.
    Data { number: u32, twice: bool, at: Instant },
    /// Wants an acknowledgement, and carries nothing.
    Probe { at: Instant },
    /// Something that was sent then has arrived.
    Ack { at: Instant },
    /// The handshake's first packet.
    Hello { at: Instant },
    /// Its second.
    Welcome { at: Instant },
    /// Something that is said in order, or that it was heard.
    Words(Said),
}

/// What the two ends agree on.
#[derive(Clone, Debug)]
pub(super) enum Saying {
    /// A search begins or goes on, with these addresses.
    Candidates {
        session: u32,
        candidates: Vec<Candidate>,
    },
    /// The other end begins to check when it hears this.
    Begin { session: u32 },
    /// The direct path is gone.
    Lost { session: u32 },
}

/// One saying, or the word that it was heard.
#[derive(Clone, Debug)]
pub(super) struct Said {
    number: u32,
    saying: Option<Saying>,
}

/// What was ever said in a world: datagrams carry a number, and this has the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Speech(Rc<RefCell<Vec<Frame>>>);

impl Speech {
    pub(super) fn write(&self, frame: Frame) -> Vec<u8> {
        let mut said = self.0.borrow_mut();
        said.push(frame);
        [&[SPEECH][..], &said.len().to_be_bytes()].concat()
    }

    pub(super) fn read(&self, bytes: &[u8]) -> Option<Frame> {
        let (first, number) = bytes.split_first()?;
        let number = usize::from_be_bytes(number.try_into().ok().filter(|_| *first == SPEECH)?);
        self.0.borrow().get(number.checked_sub(1)?).cloned()
    }
}

/// Sayings of one end, in order: one is under way at a time, and is repeated until it was heard.
#[derive(Debug, Default)]
pub(super) struct Words {
    waiting: VecDeque<Saying>,
    /// The number of the first of them.
    number: u32,
    again_at: Option<Instant>,
    /// How many of the other end's were heard.
    heard: u32,
    /// When something was put in that was not said yet.
    fresh: bool,
}

impl Words {
    pub(super) fn push(&mut self, saying: Saying) {
        self.waiting.push_back(saying);
        self.fresh |= self.waiting.len() == 1;
    }

    /// What is to be said now.
    pub(super) fn poll(&mut self, now: Instant, pause: Duration) -> Option<Said> {
        let saying = self.waiting.front()?;
        if !self.fresh && self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        self.fresh = false;
        self.again_at = Some(now + pause);
        Some(Said {
            number: self.number,
            saying: Some(saying.clone()),
        })
    }

    /// Takes what the other end said, if it is new.
    pub(super) fn take(&mut self, said: &Said) -> Option<Saying> {
        match &said.saying {
            Some(saying) if said.number == self.heard => {
                self.heard += 1;
                Some(saying.clone())
            }
            Some(_) => None,
            None => {
                if said.number == self.number && self.waiting.pop_front().is_some() {
                    self.number += 1;
                    self.fresh = !self.waiting.is_empty();
                }
                None
            }
        }
    }

    /// The word that something was heard.
    pub(super) fn acknowledge(said: &Said) -> Option<Said> {
        said.saying.as_ref().map(|_| Said {
            number: said.number,
            saying: None,
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again_at.filter(|_| !self.waiting.is_empty())
    }
}
