//! Time: idleness, probes, held acknowledgements, losses, the end of closing.

use std::time::{Duration, Instant};

use super::Side;
use super::connection::FakeConnection;
use super::packet::Space;
use super::recovery::GRANULARITY;
use super::send::INITIAL_LEN;
use super::space::MAX_ACK_DELAY;
use crate::quic::{CloseReason, State};

impl FakeConnection {
    /// When the next timer is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let earliest = match self.state {
            State::Closed => None,
            State::Closing => self.close_at,
            State::Handshaking | State::Established => {
                let spaces = Space::ALL.into_iter().flat_map(|space| {
                    let state = &self.spaces[space.index()];
                    [state.ack_at, state.loss_at, self.probe_at(space)]
                });
                spaces
                    .chain([Some(self.idle_at()), self.paths.deadline()])
                    .flatten()
                    .min()
            }
        };
        // Whatever was due has been handled: what seems due now came out of rounding.
        let floor = self.timers_ran_at.map(|at| at + GRANULARITY);
        earliest.map(|at| floor.map_or(at, |floor| at.max(floor)))
    }

    fn idle_at(&self) -> Instant {
        let ours = self.config.idle_timeout;
        let theirs = self
            .peer_params
            .as_ref()
            .map_or(ours, |params| Duration::from_millis(params.idle_ms));
        self.active_at + ours.min(theirs).max(self.recovery.pto() * 3)
    }

    /// When a probe of this space is due (RFC 9002 §6.2).
    fn probe_at(&self, space: Space) -> Option<Instant> {
        let state = &self.spaces[space.index()];
        state.keys?;
        // A server that may not send waits for the client, whose probes give it room.
        if self.side == Side::Server && self.state == State::Handshaking && self.paths.budget() < INITIAL_LEN
        {
            return None;
        }
        let extra = match space {
            Space::Application if self.state != State::Established => return None,
            Space::Application => MAX_ACK_DELAY,
            Space::Initial | Space::Handshake => Duration::ZERO,
        };
        // A client probes also with nothing under way until the server has certainly validated its address.
        let next = self
            .spaces
            .get(space.index() + 1)
            .filter(|_| space == Space::Initial);
        let stuck = self.state == State::Handshaking
            && !self.peer_unblocked
            && next.is_none_or(|next| next.keys.is_none())
            && space != Space::Application;
        if !state.has_in_flight() && !stuck {
            return None;
        }
        let base = state.probe_base.unwrap_or(self.started);
        Some(base + self.recovery.backed_off_pto() + extra)
    }

    /// Does everything that is due.
    pub(super) fn run_timers(&mut self) {
        let now = self.now;
        self.timers_ran_at = Some(now);
        if self.close_at.is_some_and(|at| at <= now) {
            return self.vanish(CloseReason::TimedOut);
        }
        if !self.is_open() {
            return;
        }
        if self.idle_at() <= now {
            return self.vanish(CloseReason::TimedOut);
        }
        self.paths.on_timeout(now);
        for space in Space::ALL {
            let state = &mut self.spaces[space.index()];
            if state.ack_at.take_if(|at| *at <= now).is_some() {
                state.ack_now = true;
            }
            if state.loss_at.is_some_and(|at| at <= now) {
                self.detect_losses(space);
            }
        }
        let mut fired = false;
        for space in Space::ALL {
            if self.probe_at(space).is_some_and(|at| at <= now) {
                let state = &mut self.spaces[space.index()];
                state.prepare_probe();
                state.probe_base = Some(now);
                fired = true;
            }
        }
        if fired {
            self.recovery.backoff += 1;
        }
    }

    pub(super) fn detect_losses(&mut self, space: Space) {
        let delay = self.recovery.loss_delay();
        let (count, bytes, last) = self.spaces[space.index()].detect_losses(delay, self.now);
        self.stats.lost += count;
        if let Some(last) = last {
            self.recovery.on_lost(bytes, last, self.now);
        }
    }
}
