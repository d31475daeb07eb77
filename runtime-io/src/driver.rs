//! What surrounds a shell in every event loop: signals, commands, and the orderly end.
//!
//! An event loop does nothing but: [`Driver::start`]; then read the clock once, [`Driver::turn`], and sleep as told,
//! until told to exit.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use proto_core::machine::Machine;

use crate::command::{Commands, Context};
use crate::reactor::{Interest, Reactor, Ready, Token};
use crate::shell::{Shell, Sleep};
use crate::side::Side;
use crate::signal::{SignalPipe, Signals};
use crate::stats::ShellStats;

/// What the program around a machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<E> {
    /// An event of the machine.
    Event(E),
    /// The process received SIGHUP.
    Reload,
    /// The orderly end begins.
    Ending,
}

/// The program's ear.
pub type Handler<M> = Box<dyn FnMut(Notice<<M as Machine>::Event>, Context<'_, M>)>;

/// Everything an event loop needs.
pub struct RunConfig<M: Machine, S> {
    /// The machine and its descriptors.
    pub shell: Shell<M, S>,
    /// Whether it takes the process's signals.
    pub signals: Signals,
    /// Commands of other threads, if there are any.
    pub commands: Option<Commands<M>>,
    /// Takes events and notices.
    pub handler: Handler<M>,
    /// How long the orderly end may take.
    pub grace: Duration,
}

impl<M: Machine, S: Side<M>> RunConfig<M, S> {
    /// Signals handled, no commands, notices ignored, 3 seconds of grace.
    pub fn new(shell: Shell<M, S>) -> Self {
        Self {
            shell,
            signals: Signals::default(),
            commands: None,
            handler: Box::new(|_, _| {}),
            grace: Duration::from_secs(3),
        }
    }
}

impl<M: Machine, S> fmt::Debug for RunConfig<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunConfig")
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In order: every peer was told.
    Drained,
    /// The machine was not drained when the grace was over.
    GraceExpired,
    /// A second signal did not want to wait.
    Forced,
}

/// What is left after a run.
#[derive(Debug)]
pub struct ExitReport<M> {
    /// How it ended.
    pub outcome: Outcome,
    /// The machine as it was in the end.
    pub machine: M,
    /// The counters of the shell.
    pub stats: ShellStats,
}

/// Why a run could not start or go on.
#[derive(Debug)]
pub enum RunError {
    /// The event loop could not be made, or failed.
    EventLoop(io::Error),
    /// Signal handlers could not be installed.
    Signals(io::Error),
    /// The UDP socket is gone.
    Socket(io::Error),
    /// The tunnel interface is gone.
    Side(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventLoop(error) => write!(f, "the event loop failed: {error}"),
            Self::Signals(error) => write!(f, "cannot handle signals: {error}"),
            Self::Socket(error) => write!(f, "the UDP socket is gone: {error}"),
            Self::Side(error) => write!(f, "the tunnel interface is gone: {error}"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::EventLoop(error) | Self::Signals(error) | Self::Socket(error) | Self::Side(error) => {
                Some(error)
            }
        }
    }
}

/// What an event loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sleep, then turn again.
    Sleep(Sleep),
    /// Leave, by [`Driver::finish`].
    Exit(Outcome),
}

/// A shell with what surrounds it.
pub struct Driver<M: Machine, S> {
    shell: Shell<M, S>,
    signals: Option<SignalPipe>,
    commands: Option<Commands<M>>,
    handler: Handler<M>,
    grace: Duration,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    Until(Instant),
    Forced,
}

impl<M: Machine, S> fmt::Debug for Driver<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<M: Machine, S: Side<M>> Driver<M, S> {
    /// Installs signal handlers and registers every descriptor.
    ///
    /// # Errors
    /// If either fails.
    pub fn start(config: RunConfig<M, S>, reactor: &mut dyn Reactor) -> Result<Self, RunError> {
        let RunConfig {
            mut shell,
            signals,
            commands,
            handler,
            grace,
        } = config;
        let signals = match signals {
            Signals::Handle => Some(SignalPipe::install().map_err(RunError::Signals)?),
            Signals::Ignore => None,
        };
        if let Some(signals) = &signals {
            signals.start(reactor).map_err(RunError::EventLoop)?;
        }
        if let Some(commands) = &commands {
            reactor
                .register(Token::COMMANDS, commands.bell.as_fd(), Interest::Read)
                .map_err(RunError::EventLoop)?;
        }
        shell.start(reactor)?;
        Ok(Self {
            shell,
            signals,
            commands,
            handler,
            grace,
            end: End::NotYet,
        })
    }

    /// One turn: what the hints announce, commands, and the drain. `now` is the one time of the whole turn.
    ///
    /// # Errors
    /// If the shell cannot go on.
    pub fn turn(
        &mut self,
        ready: &[Ready],
        reactor: &mut dyn Reactor,
        now: Instant,
    ) -> Result<Step, RunError> {
        self.shell.input(ready, reactor, now)?;
        let mut ending = self.take_signals(ready, now);
        let more_commands = self.run_commands(ready, &mut ending, now);
        self.begin_end(ending, reactor, now);
        let mut ending = false;
        let mut sleep = self.shell.drain(reactor, &mut self.handler, &mut ending, now)?;
        if ending && self.end == End::NotYet {
            self.begin_end(true, reactor, now);
            sleep = Sleep::Not;
        }
        if more_commands {
            sleep = Sleep::Not;
        }
        Ok(match self.end {
            End::NotYet => Step::Sleep(sleep),
            End::Forced => Step::Exit(Outcome::Forced),
            End::Until(_) if self.shell.is_drained() => Step::Exit(Outcome::Drained),
            End::Until(at) if at <= now => Step::Exit(Outcome::GraceExpired),
            End::Until(at) => Step::Sleep(sleep.min(Sleep::Until(at))),
        })
    }

    /// Whether the end is asked for; delivers a reload.
    fn take_signals(&mut self, ready: &[Ready], now: Instant) -> bool {
        let Some(signals) = &self.signals else {
            return false;
        };
        let mut ending = false;
        for hint in ready {
            if hint.token == Token::RELOAD && signals.reload() {
                let context = Context {
                    machine: &mut self.shell.machine,
                    stats: &self.shell.stats,
                    now,
                    ending: &mut ending,
                };
                (self.handler)(Notice::Reload, context);
            }
            if hint.token == Token::SIGNALS {
                let count = signals.ends();
                if count > 1 || (count == 1 && self.end != End::NotYet) {
                    self.end = End::Forced;
                }
                ending |= count > 0;
            }
        }
        ending
    }

    /// Runs commands within the budget; whether some are left.
    fn run_commands(&mut self, ready: &[Ready], ending: &mut bool, now: Instant) -> bool {
        let Some(commands) = &self.commands else {
            return false;
        };
        if ready.iter().any(|hint| hint.token == Token::COMMANDS) {
            commands.answer_bell();
        }
        for _ in 0..self.shell.budget.commands {
            let Some(command) = commands.next() else {
                return false;
            };
            self.shell.stats.commands += 1;
            command(Context {
                machine: &mut self.shell.machine,
                stats: &self.shell.stats,
                now,
                ending,
            });
        }
        true
    }

    fn begin_end(&mut self, wanted: bool, reactor: &mut dyn Reactor, now: Instant) {
        if !wanted || self.end != End::NotYet {
            return;
        }
        self.end = End::Until(now + self.grace);
        // Who is told of the end can be sure that nobody new comes in.
        self.shell.side.shut_down(reactor);
        let mut ignored = false;
        let context = Context {
            machine: &mut self.shell.machine,
            stats: &self.shell.stats,
            now,
            ending: &mut ignored,
        };
        (self.handler)(Notice::Ending, context);
        self.shell.machine.shut_down(now);
    }

    /// Takes the driver apart after [`Step::Exit`].
    pub fn finish(self, outcome: Outcome, reactor: &mut dyn Reactor) -> ExitReport<M> {
        if let Some(signals) = &self.signals {
            signals.stop(reactor);
        }
        if let Some(commands) = &self.commands {
            reactor.deregister(Token::COMMANDS, commands.bell.as_fd());
        }
        let Shell { machine, stats, .. } = self.shell;
        ExitReport {
            outcome,
            machine,
            stats,
        }
    }
}
