//! The shell on `mio`: one thread, one poll, nothing else.
//!
//! It decides nothing. Everything that is done about a hint is in `runtime_io`, and so is shared with the other shell.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Poll};
use proto_core::machine::Machine;
use runtime_io::{
    Driver, ExitReport, Interest, Reactor, Ready, RunConfig, RunError, Side, Sleep, Step, Token,
};

/// Hints taken from the kernel at once.
const EVENTS: usize = 1024;

/// Drives a machine until it has ended in order, or cannot go on. Blocks the calling thread.
///
/// # Errors
/// If the event loop cannot be made, or a descriptor that the role cannot live without is gone.
pub fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
    let mut poll = Poll::new().map_err(RunError::EventLoop)?;
    let mut registry = Registry(poll.registry().try_clone().map_err(RunError::EventLoop)?);
    let mut events = Events::with_capacity(EVENTS);
    let mut ready = Vec::with_capacity(EVENTS);
    let mut driver = Driver::start(config, &mut registry)?;
    loop {
        match driver.turn(&ready, &mut registry, Instant::now())? {
            Step::Exit(outcome) => return Ok(driver.finish(outcome, &mut registry)),
            Step::Sleep(sleep) => wait(&mut poll, &mut events, sleep).map_err(RunError::EventLoop)?,
        }
        ready.clear();
        ready.extend(events.iter().map(hint));
    }
}

fn wait(poll: &mut Poll, events: &mut Events, sleep: Sleep) -> io::Result<()> {
    let timeout = match sleep {
        Sleep::Not => Some(Duration::ZERO),
        // The length of a sleep is measured from its own start, or each would be late by the length of a turn.
        Sleep::Until(at) => Some(at.saturating_duration_since(Instant::now())),
        Sleep::Idle => None,
    };
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => other,
    }
}

fn hint(event: &Event) -> Ready {
    Ready {
        token: Token(u32::try_from(event.token().0).unwrap_or(u32::MAX)),
        readable: event.is_readable() || event.is_read_closed() || event.is_error(),
        writable: event.is_writable() || event.is_write_closed() || event.is_error(),
    }
}

/// The poll's registry; `mio` asks for edge-triggered hints, as the contract wants.
struct Registry(mio::Registry);

impl Reactor for Registry {
    fn register(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.0.register(
            &mut SourceFd(&fd.as_raw_fd()),
            mio_token(token),
            mio_interest(interest),
        )
    }

    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.0.reregister(
            &mut SourceFd(&fd.as_raw_fd()),
            mio_token(token),
            mio_interest(interest),
        )
    }

    fn deregister(&mut self, _: Token, fd: BorrowedFd<'_>) {
        // Closing the descriptor ends its registration in any case.
        let _ = self.0.deregister(&mut SourceFd(&fd.as_raw_fd()));
    }
}

fn mio_token(token: Token) -> mio::Token {
    mio::Token(token.0 as usize)
}

fn mio_interest(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Read => mio::Interest::READABLE,
        Interest::ReadWrite => mio::Interest::READABLE | mio::Interest::WRITABLE,
    }
}
