//! One TCP connection to a service, with what its local program has been told of it.
//!
//! Decides what the program has to hear after each step ([`Notice`]), and when a connection is over. Everything between
//! segments and bytes is [`Connection`]'s.

use std::time::{Duration, Instant};

use crate::routing::packet::FiveTuple;
use crate::tcp::{Budget, Config, Connection, Segment};

/// Silence of a service, questions unanswered, after which the connection is given up.
const SILENCE: Duration = Duration::from_secs(300);

/// How long a reset may wait for room in the tunnel.
const ABORTING: Duration = Duration::from_secs(5);

/// How long a connection that is over answers a repeated end. Ports are drawn at random, so twice the life of a segment
/// (RFC 9293 §3.6.1) is not needed to keep old segments from new connections; a later repetition is answered with a reset.
const LINGER: Duration = Duration::from_secs(1);

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    connection: Connection,
    opened: bool,
    /// The shell was told that bytes wait and has not taken them all.
    readable_told: bool,
    /// The shell found no room.
    starved: bool,
    /// The program has sent its last byte.
    finished: bool,
    half_closed_told: bool,
    /// Both directions are done, and the program was told.
    closed_told: bool,
    /// When it was aborted.
    aborted: Option<Instant>,
    /// When everything was done.
    over_since: Option<Instant>,
}

/// What has to happen after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// The service has just accepted.
    pub(super) opened: bool,
    /// The service has refused.
    pub(super) refused: bool,
    /// Bytes wait for the program.
    pub(super) readable: bool,
    /// There is room again for bytes of the program.
    pub(super) resume: bool,
    /// The service has sent its last byte.
    pub(super) half_close: bool,
    /// Both directions came to their end, and every byte was taken: the program's socket is not needed any more.
    pub(super) close: bool,
    /// The service reset the connection.
    pub(super) broke: bool,
    /// Nothing of the connection is needed any more.
    pub(super) over: bool,
}

impl Conn {
    /// Begins to connect; `flow` is in the direction of the service.
    pub(super) fn open(flow: FiveTuple, config: Config, isn: u32, budget: &Budget, now: Instant) -> Self {
        Self {
            connection: Connection::connect(flow, config, isn, budget, now),
            opened: false,
            readable_told: false,
            starved: true,
            finished: false,
            half_closed_told: false,
            closed_told: false,
            aborted: None,
            over_since: None,
        }
    }

    pub(super) fn is_opened(&self) -> bool {
        self.opened
    }

    /// Whether nothing is left but to answer a repeated end.
    pub(super) fn is_lingering(&self) -> bool {
        self.over_since.is_some()
    }

    /// Takes a segment of the service.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, now: Instant) {
        self.connection.receive(segment, now);
    }

    /// ICMP says that a segment was too long for the path.
    pub(super) fn on_too_big(&mut self, mtu: usize, sequence: u32) {
        self.connection.on_too_big(mtu, sequence);
    }

    /// The next segment, if there is one to send.
    pub(super) fn send(&mut self, mtu: usize, now: Instant) -> Option<Vec<u8>> {
        self.connection.send(mtu, now)
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }

    /// Offers bytes for the program to `take`; returns how many it took.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize, now: Instant) -> usize {
        if self.aborted.is_some() {
            return 0;
        }
        let taken = self.connection.drain(take, now);
        if self.connection.readable() == 0 {
            self.readable_told = false;
        }
        taken
    }

    /// Offers room for bytes of the program; `None` if there is none.
    pub(super) fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize, now: Instant) -> Option<usize> {
        let filled = self.connection.fill(fill, now);
        self.starved |= filled.is_none();
        filled
    }

    /// The program has sent its last byte.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        self.connection.finish();
    }

    /// Resets the service's connection; nobody listens to notices any more.
    pub(super) fn abort(&mut self, now: Instant) {
        if self.aborted.is_none() {
            self.aborted = Some(now);
            self.connection.abort();
        }
    }

    /// Looks at what has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Notice {
        let mut notice = Notice::default();
        let connection = &self.connection;
        if let Some(since) = self.aborted {
            notice.over = !connection.is_resetting() || now >= since + ABORTING;
            return notice;
        }
        let closed = connection.is_closed();
        if !self.opened {
            if connection.is_established() {
                self.opened = true;
                notice.opened = true;
            } else {
                notice.refused = closed;
                return notice;
            }
        }
        let remote_finished = connection.peer_finished();
        if closed && !(remote_finished && self.finished) {
            notice.broke = true;
            return notice;
        }
        let waiting = connection.readable() > 0;
        notice.readable = waiting && !std::mem::replace(&mut self.readable_told, waiting);
        notice.resume = self.starved && !self.finished && connection.has_room();
        self.starved &= !notice.resume;
        if remote_finished && !waiting {
            notice.half_close = !std::mem::replace(&mut self.half_closed_told, true);
        }
        if self.half_closed_told && self.finished {
            notice.close = !std::mem::replace(&mut self.closed_told, true);
        }
        if self.closed_told && connection.is_over() {
            let since = *self.over_since.get_or_insert(now);
            notice.over = now >= since + LINGER;
        }
        notice
    }

    /// When something is to be done at the latest, if nothing comes before.
    pub(super) fn wakes(&self) -> Instant {
        let deadline = self.deadline();
        match (self.over_since, self.aborted) {
            (None, None) => self
                .connection
                .poll_timeout()
                .map_or(deadline, |at| at.min(deadline)),
            (Some(_), _) | (_, Some(_)) => deadline,
        }
    }

    /// Whether the service has been silent for too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.over_since.is_none() && self.aborted.is_none() && self.connection.silence(now) >= SILENCE
    }

    /// When the connection is given up, or forgotten.
    pub(super) fn deadline(&self) -> Instant {
        match (self.aborted, self.over_since) {
            (Some(since), _) => since + ABORTING,
            (None, Some(since)) => since + LINGER,
            (None, None) => self.connection.heard() + SILENCE,
        }
    }
}
