//! Standard input and output as one stream, whatever they are: pipes, sockets, terminals, files.
//!
//! They may be shared with other processes, which `O_NONBLOCK` would surprise, so nothing is changed about them. A socket
//! is asked not to wait call by call; of a pipe or terminal, poll(2) says whether a call would wait; a file never does.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::reactor::{Interest, Reactor, Token};
use crate::stream::Channel;

/// Descriptors below are the standard ones.
const FIRST_OWN: i32 = 3;

/// A pipe or terminal that poll(2) calls writable takes this much without waiting (PIPE_BUF, pipe(7)).
const WRITE: usize = 4096;

#[derive(Debug)]
struct End {
    descriptor: OwnedFd,
    kind: Kind,
    /// Whether the event loop knows it.
    watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Socket,
    /// Pipes and terminals.
    Waits,
    /// Files, and devices that are always ready.
    Always,
}

/// Both standard streams.
#[derive(Debug)]
pub(super) struct Pipes {
    input: End,
    /// Gone as soon as its reader was told that no byte follows.
    output: Option<End>,
}

impl End {
    fn open(
        standard: OwnedFd,
        reactor: &mut dyn Reactor,
        token: Token,
        interest: Interest,
    ) -> io::Result<Self> {
        let is_socket = FileType::from_raw_mode(fstat(&standard)?.st_mode) == FileType::Socket;
        let kind = if is_socket { Kind::Socket } else { Kind::Waits };
        let (kind, watched) = match reactor.register(token, standard.as_fd(), interest) {
            Ok(()) => (kind, true),
            // What epoll does not take never waits (epoll_ctl(2), EPERM).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (Kind::Always, false),
            Err(error) => return Err(error),
        };
        Ok(Self {
            descriptor: standard,
            kind,
            watched,
        })
    }

    fn close(self, reactor: &mut dyn Reactor, token: Token) {
        if self.watched {
            reactor.deregister(token, self.descriptor.as_fd());
        }
    }

    /// Whether a call would not wait.
    fn is_ready(&self, flags: PollFlags) -> io::Result<bool> {
        let mut asked = [PollFd::new(&self.descriptor, flags)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(poll(&mut asked, Some(&now))? > 0)
    }
}

impl Pipes {
    /// Takes the standard streams of this process, by descriptors of its own.
    pub(super) fn open(reactor: &mut dyn Reactor, input: Token, output: Token) -> io::Result<Self> {
        let own = |standard| rustix::io::fcntl_dupfd_cloexec(standard, FIRST_OWN);
        let stdin = own(rustix::stdio::stdin())?;
        let stdout = own(rustix::stdio::stdout())?;
        Ok(Self {
            input: End::open(stdin, reactor, input, Interest::Read)?,
            output: Some(End::open(stdout, reactor, output, Interest::ReadWrite)?),
        })
    }

    pub(super) fn close(self, reactor: &mut dyn Reactor, input: Token, output: Token) {
        self.input.close(reactor, input);
        if let Some(end) = self.output {
            end.close(reactor, output);
        }
    }
}

impl Channel for Pipes {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Self { input, .. } = self;
        match input.kind {
            Kind::Socket => Ok(recv(&input.descriptor, room, RecvFlags::DONTWAIT)?.0),
            // Readable, at its end, or broken: the call says which.
            Kind::Waits if !input.is_ready(PollFlags::IN)? => Err(io::ErrorKind::WouldBlock.into()),
            Kind::Waits | Kind::Always => Ok(rustix::io::read(&input.descriptor, room)?),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(output) = &self.output else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        match output.kind {
            Kind::Socket => Ok(send(
                &output.descriptor,
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            )?),
            Kind::Waits if !output.is_ready(PollFlags::OUT)? => Err(io::ErrorKind::WouldBlock.into()),
            Kind::Waits => {
                let bytes = bytes.get(..WRITE).unwrap_or(bytes);
                Ok(rustix::io::write(&output.descriptor, bytes)?)
            }
            Kind::Always => Ok(rustix::io::write(&output.descriptor, bytes)?),
        }
    }

    /// The reader sees the end when nobody holds the descriptor any more: ours goes, and the standard one with it.
    fn shut(&mut self) -> io::Result<()> {
        let Some(output) = self.output.take() else {
            return Ok(());
        };
        if output.kind == Kind::Socket {
            shutdown(&output.descriptor, Shutdown::Write)?;
        }
        let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(&nowhere)?)
    }
}
