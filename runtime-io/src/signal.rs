//! Signals as bytes in a pipe, so that the event loop sees them like any descriptor.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

use crate::command::swallow;
use crate::reactor::{Interest, Reactor, Token};

/// Whether a shell takes the process's signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signals {
    /// SIGTERM and SIGINT start the orderly end, and the second of them ends at once; SIGHUP becomes a notice.
    #[default]
    Handle,
    /// Signals do what they do without us. For tests, and for programs with several shells.
    Ignore,
}

/// The pipes that the handlers write to.
#[derive(Debug)]
pub(crate) struct SignalPipe {
    end: UnixStream,
    reload: UnixStream,
    handlers: Vec<SigId>,
}

impl SignalPipe {
    pub(crate) fn install() -> io::Result<Self> {
        let (end, end_writer) = UnixStream::pair()?;
        let (reload, reload_writer) = UnixStream::pair()?;
        end.set_nonblocking(true)?;
        reload.set_nonblocking(true)?;
        let mut this = Self {
            end,
            reload,
            handlers: Vec::new(),
        };
        this.handlers
            .push(pipe::register(SIGTERM, end_writer.try_clone()?)?);
        this.handlers.push(pipe::register(SIGINT, end_writer)?);
        this.handlers.push(pipe::register(SIGHUP, reload_writer)?);
        Ok(this)
    }

    pub(crate) fn start(&self, reactor: &mut dyn Reactor) -> io::Result<()> {
        reactor.register(Token::SIGNALS, self.end.as_fd(), Interest::Read)?;
        reactor.register(Token::RELOAD, self.reload.as_fd(), Interest::Read)
    }

    pub(crate) fn stop(&self, reactor: &mut dyn Reactor) {
        reactor.deregister(Token::SIGNALS, self.end.as_fd());
        reactor.deregister(Token::RELOAD, self.reload.as_fd());
    }

    /// How many signals asked for the end since the last call.
    pub(crate) fn ends(&self) -> usize {
        swallow(&self.end)
    }

    /// Whether a signal asked to reload since the last call.
    pub(crate) fn reload(&self) -> bool {
        swallow(&self.reload) > 0
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        for id in self.handlers.drain(..) {
            unregister(id);
        }
    }
}
