//! What a connection does because time has passed.

use std::time::{Duration, Instant};

use super::Connection;
use super::State;
use super::rack;
use super::recovery::{Cause, Episode};
use super::rtt::{Micros, SECOND};
use super::scoreboard::Delivered;

/// A connection that moved nothing for so long gives unused memory back.
const REST: Micros = SECOND;

/// The timers of the sender, of which one runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Nothing was heard of what is under way (RFC 6298).
    Retransmit,
    /// The tail may be lost (RFC 8985 §7).
    Tail,
    /// What came out of order has had its time (RFC 8985 §6.2).
    Reorder,
    /// The window is closed (RFC 9293 §3.8.6.1).
    Persist,
    /// The peer is silent.
    KeepAlive,
}

impl Connection {
    /// When [`Connection::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timer.map(|timer| timer.1),
            self.paced,
            self.delayed,
            self.next_question(),
            self.next_rest(),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| self.instant(at))
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        if let Some((timer, _)) = self.timer.filter(|timer| timer.1 <= now) {
            self.timer = None;
            match timer {
                Timer::Retransmit => self.on_timeout(),
                Timer::Reorder => {
                    self.detect_loss(now);
                    self.adjust_window(&Delivered::default(), None, self.una, false, now);
                    self.arm(now);
                }
                Timer::Persist => {
                    self.rtt.back_off();
                    self.due = Some(timer);
                }
                Timer::Tail | Timer::KeepAlive => self.due = Some(timer),
            }
        }
        // The owner sends now.
        self.paced = self.paced.filter(|at| *at > now);
        if self.delayed.is_some_and(|at| at <= now) {
            self.delayed = None;
            self.owe();
        }
        if self.next_question().is_some_and(|at| at <= now) {
            self.asked = now;
            self.due.get_or_insert(Timer::KeepAlive);
        }
        if self.next_rest().is_some_and(|at| at <= now) {
            self.rest();
        }
    }

    /// When a silent peer is asked whether it is there.
    fn next_question(&self) -> Option<Micros> {
        let open = matches!(
            self.state,
            State::Established | State::CloseWait | State::FinWait2
        );
        let interval = self.config.keep_alive.filter(|_| open && self.board.is_empty())?;
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        Some(self.heard.max(self.asked).saturating_add(interval))
    }

    /// When memory that is not in use goes back.
    fn next_rest(&self) -> Option<Micros> {
        let slack = self.ring.has_slack(0) || self.rx.has_slack() || self.board.has_slack();
        slack.then_some(self.moved + REST)
    }

    fn rest(&mut self) {
        self.ring.shrink(0);
        self.rx.shrink();
        self.board.shrink();
        // Asked again only when there is something to free.
        self.moved = self.now;
    }

    /// RFC 6298 §5.4 to §5.7, with the window of RFC 5681 §3.1.
    fn on_timeout(&mut self) {
        self.stats.timeouts += 1;
        let timed_out = self
            .episode
            .as_ref()
            .is_some_and(|episode| episode.cause == Cause::Timeout);
        let flight = self.board.pipe();
        if !timed_out {
            let saved = self.episode.take();
            let saved = saved.map_or(self.congestion, |episode| episode.saved);
            let episode = Episode::new(Cause::Timeout, self.next, flight, saved);
            self.episode = Some(Box::new(episode));
        }
        self.congestion.on_timeout(self.next - self.una, timed_out);
        self.delivery.on_lost(flight);
        self.probe = None;
        self.reorder_at = None;
        self.board.give_up_all();
        self.rtt.back_off();
    }

    /// Sets the sender's timer by what is under way.
    pub(super) fn arm(&mut self, now: Micros) {
        let timeout = self.rtt.timeout();
        self.timer = if !self.board.is_empty() {
            if self.board.pipe() == 0 && self.board.has_lost() {
                // Nothing holds the retransmission back but the tunnel.
                None
            } else {
                let retransmit = (Timer::Retransmit, (self.since + timeout).max(now + 1));
                Some(self.earlier_timer(retransmit, now))
            }
        } else {
            // Only the window's timer runs while nothing is under way.
            self.timer
                .filter(|(timer, _)| *timer == Timer::Persist && self.waits())
        };
    }

    /// Whether data or the end wait to be sent for the first time.
    fn waits(&self) -> bool {
        self.next < self.written || (self.finishing && self.next == self.written)
    }

    /// The window holds back what waits, and nothing is under way whose acknowledgement would tell when it opens.
    pub(super) fn persist(&mut self, now: Micros) {
        if self.board.is_empty() && self.timer.is_none() && self.waits() {
            self.timer = Some((Timer::Persist, now + self.rtt.timeout()));
        }
    }

    /// RFC 8985 has timers that come before the retransmission timeout.
    fn earlier_timer(&self, retransmit: (Timer, Micros), now: Micros) -> (Timer, Micros) {
        if let Some(at) = self.reorder_at {
            return (Timer::Reorder, at.max(now + 1).min(retransmit.1));
        }
        let may_probe = self.sack
            && self.episode.is_none()
            && self.probe.is_none()
            && self.is_established()
            && self.board.last().is_some_and(|last| !last.sacked);
        if may_probe {
            let single = self.board.first().map(|first| first.end) == self.board.last().map(|last| last.end);
            let at = now + rack::probe_timeout(&self.rtt, single);
            if at < retransmit.1 {
                return (Timer::Tail, at);
            }
        }
        retransmit
    }

    /// This end's timestamp at a time.
    pub(super) fn timestamp(&self, at: Micros) -> u32 {
        let offset = self.timestamps.map_or(0, |timestamps| timestamps.offset);
        offset.wrapping_add((at / 1000) as u32)
    }

    /// How long the connection has been without a sign of the peer.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard())
    }
}
