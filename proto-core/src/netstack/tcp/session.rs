//! One TCP session that has its backend: our end of the agent's connection, and what the backend has been told.
//!
//! Decides what the shell has to hear after each step ([`Notice`]) and when a session is over. Bytes that the agent sent
//! and had acknowledged are kept until the backend has taken them, also when the agent's connection is long closed.

use std::time::{Duration, Instant};

use crate::tcp::{Budget, Config, Connection, Segment, State, Stats};

/// Silence of an agent, probes unanswered, after which its session is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// How long an agent may take to complete the handshake once its backend has answered.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long a session of which one half is closed may stand still.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(300);

/// How long a reset may wait for room in the tunnel.
pub(super) const ABORTING: Duration = Duration::from_secs(30);

/// How long the end of an orderly session is remembered: long enough for an agent that did not hear the last word to
/// repeat its end several times.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// A session with its backend connected.
#[derive(Debug)]
pub(super) struct Live {
    connection: Connection,
    established: bool,
    /// The shell was told that bytes wait and has not taken them all.
    readable_told: bool,
    /// The shell was told that there is no room.
    starved: bool,
    /// The backend has sent its last byte.
    backend_finished: bool,
    /// The shell was told that the agent has sent its last byte.
    half_closed_told: bool,
    /// The backend's socket is gone, or its end was announced.
    backend_gone: bool,
    aborted: bool,
    /// When the current stage began: the handshake, or the abortion.
    since: Instant,
    /// When bytes or an end last moved between the agent and the backend.
    moved: Instant,
    /// What of the connection's counters was counted.
    counted: Stats,
}

/// What has to happen after a step.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// The handshake has just been completed.
    pub(super) established: bool,
    /// The shell has to know that bytes wait.
    pub(super) readable: bool,
    /// The shell has to know that there is room again.
    pub(super) resume: bool,
    /// The shell has to know that the agent has sent its last byte.
    pub(super) half_close: bool,
    /// The shell has to drop its socket.
    pub(super) close: bool,
    /// The shell has to reset its socket.
    pub(super) reset: bool,
    /// Nothing of the session is needed any more.
    pub(super) over: bool,
}

/// What a session that has nothing to send waits for.
#[derive(Debug)]
pub(super) enum Rest {
    /// A timer of the session or of its connection, whichever is first.
    Until(Instant),
    /// Nothing: both ends are closed. What remains is to repeat this segment should the agent repeat its end.
    Lingering(Option<Vec<u8>>),
}

impl Live {
    /// The session of an agent's SYN; `None` if the segment is none.
    pub(super) fn accept(
        syn: &Segment<'_>,
        config: Config,
        isn: u32,
        budget: &Budget,
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            connection: Connection::accept(syn, config, isn, budget, now)?,
            established: false,
            readable_told: false,
            starved: false,
            backend_finished: false,
            half_closed_told: false,
            backend_gone: false,
            aborted: false,
            since: now,
            moved: now,
            counted: Stats::default(),
        })
    }

    /// Takes a segment of the agent.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, now: Instant) {
        self.connection.receive(segment, now);
    }

    /// The next segment for the agent, if there is one to send.
    pub(super) fn send(&mut self, mtu: usize, now: Instant) -> Option<Vec<u8>> {
        self.connection.send(mtu, now)
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }

    /// ICMP says that a segment was too long for the path.
    pub(super) fn on_too_big(&mut self, mtu: usize, sequence: u32) {
        self.connection.on_too_big(mtu, sequence);
    }

    /// Offers bytes for the backend to `take`; returns how many it took.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize, now: Instant) -> usize {
        if self.backend_gone {
            return 0;
        }
        let taken = self.connection.drain(take, now);
        if taken > 0 {
            self.moved = now;
        }
        if self.connection.readable() == 0 {
            self.readable_told = false;
        }
        taken
    }

    /// Offers room for bytes of the backend; `None` if there is none.
    pub(super) fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize, now: Instant) -> Option<usize> {
        if self.backend_gone || self.backend_finished {
            return None;
        }
        let filled = self.connection.fill(fill, now);
        // Also before the handshake is complete: the backend waits until the agent is there.
        self.starved |= filled.is_none();
        if filled.is_some_and(|filled| filled > 0) {
            self.moved = now;
        }
        filled
    }

    /// The backend has sent its last byte: the agent hears so behind everything already buffered.
    pub(super) fn finish(&mut self, now: Instant) {
        if !self.backend_gone {
            self.backend_finished = true;
            self.connection.finish();
            self.moved = now;
        }
    }

    /// Resets the agent's connection. Returns whether the shell still has to hear of it.
    pub(super) fn abort(&mut self, backend_is_gone: bool, now: Instant) -> bool {
        if !self.aborted {
            self.aborted = true;
            self.since = now;
            self.connection.abort();
        }
        let tell = !self.backend_gone && !backend_is_gone;
        self.backend_gone = true;
        tell
    }

    /// Looks at what has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Notice {
        let mut notice = Notice::default();
        let connection = &self.connection;
        if self.aborted {
            notice.over = !connection.is_resetting();
            return notice;
        }
        if connection.is_reset() {
            notice.reset = !std::mem::replace(&mut self.backend_gone, true);
            notice.over = true;
            return notice;
        }
        if !self.established && connection.is_established() {
            self.established = true;
            self.moved = now;
            notice.established = true;
        }
        let readable = connection.readable() > 0;
        if readable && !self.readable_told && !self.backend_gone {
            self.readable_told = true;
            notice.readable = true;
        }
        if self.starved && connection.has_room() {
            self.starved = false;
            notice.resume = true;
        }
        let agent_finished = !readable && connection.peer_finished();
        if agent_finished && !self.half_closed_told && !self.backend_gone {
            self.half_closed_told = true;
            self.moved = now;
            notice.half_close = true;
        }
        if self.half_closed_told && self.backend_finished {
            notice.close = !std::mem::replace(&mut self.backend_gone, true);
        }
        notice.over = connection.is_closed() && agent_finished;
        notice
    }

    /// What a session waits for that has nothing to send.
    pub(super) fn rest(&mut self, now: Instant) -> Rest {
        let ended = self.connection.state() == State::TimeWait && self.connection.is_over();
        if self.backend_gone && !self.aborted && ended {
            return Rest::Lingering(self.connection.last_word());
        }
        let deadline = self.deadline();
        let wanted = self.connection.poll_timeout();
        let until = wanted.map_or(deadline, |wanted| wanted.min(deadline));
        // Never at once again, whatever the connection says.
        Rest::Until(until.max(now + Duration::from_millis(1)))
    }

    /// What the connection's counters have grown by since the last time.
    pub(super) fn count(&mut self) -> Stats {
        let stats = self.connection.stats();
        let counted = std::mem::replace(&mut self.counted, stats);
        stats.since(&counted)
    }

    /// Whether the session has waited for too long; it is to be aborted, or forgotten if it was.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline() <= now
    }

    /// Whether the shell has forgotten the flow: what it still reports is stale.
    pub(super) fn is_unbacked(&self) -> bool {
        self.backend_gone
    }

    /// Whether the agent is being sent a reset.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// When the session will have waited for too long.
    pub(super) fn deadline(&self) -> Instant {
        if self.aborted {
            return self.since + ABORTING;
        }
        if !self.established {
            return self.since + HANDSHAKE;
        }
        let heard = self.connection.heard();
        match self.backend_finished || self.connection.peer_finished() {
            // The agent may be gone for good: what counts is whether the backend still takes its bytes.
            true => self.moved.max(heard) + HALF_CLOSED,
            false => heard + SILENCE,
        }
    }
}
