//! A reactor over `mio::Poll`, which asks the kernel for edge-triggered hints, as the contract wants.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Poll};
use runtime_io::{Interest, Reactor, Ready, Token};

/// Hints taken from the kernel at once.
const EVENTS: usize = 1024;

/// Descriptors and the hints about them.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
}

impl Poller {
    /// Without a descriptor yet.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
        })
    }

    /// Replaces `ready` by the hints that have come, after waiting for one as long as `timeout` allows; `None` is for
    /// ever. May end early with nothing.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut timeout = timeout;
        loop {
            match self.poll.poll(&mut self.events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                other => other?,
            }
            let before = ready.len();
            ready.extend(self.events.iter().map(hint));
            // A full list may have left some behind, which nobody would announce again.
            if ready.len() < before + EVENTS {
                return Ok(());
            }
            timeout = Some(Duration::ZERO);
        }
    }
}

/// The descriptor that becomes readable when there are hints, for event loops that embed this one.
impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl Reactor for Poller {
    fn register(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let source = &mut SourceFd(&fd.as_raw_fd());
        self.poll
            .registry()
            .register(source, mio_token(token), mio_interest(interest))
    }

    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let source = &mut SourceFd(&fd.as_raw_fd());
        self.poll
            .registry()
            .reregister(source, mio_token(token), mio_interest(interest))
    }

    fn deregister(&mut self, _: Token, fd: BorrowedFd<'_>) {
        // Closing the descriptor ends its registration in any case.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
    }
}

fn hint(event: &Event) -> Ready {
    Ready {
        token: Token(u32::try_from(event.token().0).unwrap_or(u32::MAX)),
        readable: event.is_readable() || event.is_read_closed() || event.is_error(),
        writable: event.is_writable() || event.is_write_closed() || event.is_error(),
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
