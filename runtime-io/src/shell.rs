//! One turn around a machine: pending output, sockets, deadlines; then the drain its contract asks for.
//!
//! Every step has a budget, so that no direction starves another. Receiving comes before sending and takes several
//! batches at once: what the machine answers then shares segments and acknowledgements.

use std::time::{Duration, Instant};

use proto_core::machine::Machine;

use crate::command::Context;
use crate::driver::{Handler, Notice, RunError};
use crate::reactor::{Reactor, Ready, Token};
use crate::side::{Side, SideContext};
use crate::stats::ShellStats;
use crate::udp::{Drained, UdpEndpoint};

/// While the socket is full a machine reports its queued output as due, which hides its timers; so it is looked after
/// this often until there is room.
const BLOCKED_TICK: Duration = Duration::from_millis(10);

/// The pause for a machine that is still due after a drain, against its contract.
const RESTLESS_PAUSE: Duration = Duration::from_millis(1);

/// Rounds of events, side and transmits in one drain; more means that a handler answers every event with another.
const ROUNDS: usize = 16;

/// How much one turn may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Received batches.
    pub receive_batches: usize,
    /// Received datagrams. What they trigger must fit into the machine's queues before they are drained.
    pub receive_datagrams: usize,
    /// Transmits, each of up to 64 datagrams.
    pub transmits: usize,
    /// Events.
    pub events: usize,
    /// Commands.
    pub commands: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            receive_batches: 64,
            receive_datagrams: 512,
            transmits: 128,
            events: 256,
            commands: 16,
        }
    }
}

/// How long the event loop may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Not at all: look for hints and turn again.
    Not,
    /// Until a hint comes, at most until this instant.
    Until(Instant),
    /// Until a hint comes.
    Idle,
}

impl Sleep {
    /// The shorter of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::Not, _) | (_, Self::Not) => Self::Not,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.min(b)),
            (Self::Until(at), Self::Idle) | (Self::Idle, Self::Until(at)) => Self::Until(at),
            (Self::Idle, Self::Idle) => Self::Idle,
        }
    }

    fn at_most(self, at: Option<Instant>) -> Self {
        at.map_or(self, |at| self.min(Self::Until(at)))
    }
}

/// A machine and its descriptors.
#[derive(Debug)]
pub struct Shell<M, S> {
    pub(crate) machine: M,
    pub(crate) stats: ShellStats,
    udp: UdpEndpoint,
    pub(crate) side: S,
    pub(crate) budget: Budget,
}

impl<M: Machine, S: Side<M>> Shell<M, S> {
    /// Puts them together.
    pub fn new(machine: M, udp: UdpEndpoint, side: S) -> Self {
        Self {
            machine,
            stats: ShellStats::default(),
            udp,
            side,
            budget: Budget::default(),
        }
    }

    /// With another budget per turn.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    pub(crate) fn start(&mut self, reactor: &mut dyn Reactor) -> Result<(), RunError> {
        self.udp.start(reactor).map_err(RunError::EventLoop)?;
        self.side.start(reactor).map_err(RunError::EventLoop)
    }

    /// The first half of a turn: everything that came in.
    pub(crate) fn input(
        &mut self,
        ready: &[Ready],
        reactor: &mut dyn Reactor,
        now: Instant,
    ) -> Result<(), RunError> {
        self.stats.turns += 1;
        for hint in ready {
            if hint.token == Token::UDP {
                if hint.readable {
                    self.udp.hint_readable();
                }
            } else if let Some(index) = hint.token.side_index() {
                self.side.hint(index, *hint);
            }
        }
        self.udp
            .flush(&mut self.stats.udp, now)
            .map_err(RunError::Socket)?;
        let Budget {
            receive_batches,
            receive_datagrams,
            ..
        } = self.budget;
        self.udp
            .receive(
                &mut self.machine,
                receive_batches,
                receive_datagrams,
                &mut self.stats.udp,
                now,
            )
            .map_err(RunError::Socket)?;
        let context = SideContext {
            reactor,
            stats: &mut self.stats,
            now,
        };
        self.side
            .input(&mut self.machine, context)
            .map_err(RunError::Side)?;
        if let Some(deadline) = self.machine.poll_timeout().filter(|deadline| deadline.at <= now) {
            self.stats.woke(deadline.wake);
            self.machine.handle_timeout(now);
        }
        Ok(())
    }

    /// The second half of a turn: everything the machine has to say, until it has no more.
    pub(crate) fn drain(
        &mut self,
        reactor: &mut dyn Reactor,
        handler: &mut Handler<M>,
        ending: &mut bool,
        now: Instant,
    ) -> Result<Sleep, RunError> {
        let mut transmits = self.budget.transmits;
        let mut events = self.budget.events;
        let mut complete = false;
        for _ in 0..ROUNDS {
            let mut moved = false;
            while events > 0 {
                let Some(event) = self.machine.poll_event() else {
                    break;
                };
                events -= 1;
                moved = true;
                let context = Context {
                    machine: &mut self.machine,
                    stats: &self.stats,
                    now,
                    ending,
                };
                handler(Notice::Event(event), context);
            }
            let context = SideContext {
                reactor,
                stats: &mut self.stats,
                now,
            };
            moved |= self
                .side
                .output(&mut self.machine, context)
                .map_err(RunError::Side)?;
            let (drained, asked) = self
                .udp
                .transmit(&mut self.machine, transmits, &mut self.stats.udp, now)
                .map_err(RunError::Socket)?;
            transmits = transmits.saturating_sub(asked);
            moved |= asked > 0;
            if drained != Drained::Empty {
                break;
            }
            if !moved {
                complete = events > 0;
                break;
            }
        }
        self.udp.watch(reactor).map_err(RunError::EventLoop)?;
        Ok(self.sleep(complete, now))
    }

    fn sleep(&mut self, complete: bool, now: Instant) -> Sleep {
        let due = self.machine.poll_timeout().map(|deadline| deadline.at);
        let own = if self.udp.is_blocked() {
            // Hints of writability wake earlier; the rest of the drain follows then.
            due.filter(|at| *at > now)
                .map_or(Sleep::Idle, Sleep::Until)
                .min(Sleep::Until(now + BLOCKED_TICK))
        } else if !complete {
            Sleep::Not
        } else {
            match due {
                None => Sleep::Idle,
                Some(at) if at > now => Sleep::Until(at),
                Some(_) => {
                    self.stats.restless += 1;
                    Sleep::Until(now + RESTLESS_PAUSE)
                }
            }
        };
        let own = own
            .at_most(self.udp.paused_until())
            .at_most(self.side.poll_timeout());
        if self.udp.wants_turn() || self.side.wants_turn(&self.machine) {
            Sleep::Not
        } else {
            own
        }
    }

    /// Whether the orderly end is complete, down to the last byte.
    pub(crate) fn is_drained(&self) -> bool {
        self.machine.is_drained() && !self.udp.is_blocked()
    }
}
