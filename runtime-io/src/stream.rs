//! A byte stream between a descriptor and a machine's own buffers.
//!
//! Bytes are never held here: they are written from and read into the machine's buffers, so a full window on either
//! side holds the other back. The two directions end apart. What the descriptor is, a socket or a pipe, is a
//! [`Channel`]; whose buffers they are, [`Buffers`].

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use crate::reactor::Ready;

/// Calls in one direction before the next stream has its turn.
const CALLS: usize = 16;

/// A descriptor with bytes in both directions, never blocking.
pub(crate) trait Channel {
    /// Reads what is there; 0 at the end, [`io::ErrorKind::WouldBlock`] if there is nothing yet.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Tells the reader that no byte follows.
    fn shut(&mut self) -> io::Result<()>;
}

impl Channel for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, room)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn shut(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The machine's buffers of one stream.
pub(crate) trait Buffers {
    /// Offers waiting bytes to `take`; returns how many it took.
    fn drain(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// Offers room to `fill`; `None` if there is none, else how many bytes it put there.
    fn fill(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize>;

    /// The descriptor has said its last byte.
    fn ended(&mut self);
}

/// Bytes moved by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Written to the descriptor.
    pub(crate) written: u64,
    /// Read from it.
    pub(crate) read: u64,
}

/// How far a stream came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// To its end for now: it waits for a hint or a request.
    Dry,
    /// To the end of the budget.
    More,
    /// The descriptor failed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteSide {
    Open,
    /// To be shut when the machine has no byte left.
    Ending,
    Shut,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream<C> {
    channel: C,
    /// There may be more bytes to read, or the end.
    readable: bool,
    /// There may be room to write.
    writable: bool,
    write: WriteSide,
    read_ended: bool,
}

impl<C: Channel> Stream<C> {
    /// A stream of which nothing is known to be readable yet.
    pub(crate) fn new(channel: C) -> Self {
        Self {
            channel,
            readable: false,
            writable: true,
            write: WriteSide::Open,
            read_ended: false,
        }
    }

    pub(crate) fn channel(&self) -> &C {
        &self.channel
    }

    pub(crate) fn into_channel(self) -> C {
        self.channel
    }

    pub(crate) fn hint(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
    }

    /// No byte will follow those the machine has.
    pub(crate) fn half_close(&mut self) {
        if self.write == WriteSide::Open {
            self.write = WriteSide::Ending;
        }
    }

    /// Does what is possible now, in both directions.
    pub(crate) fn pump(&mut self, buffers: &mut impl Buffers, moved: &mut Moved) -> Pumped {
        let out = self.pump_out(buffers, moved);
        if out == Pumped::Failed {
            return Pumped::Failed;
        }
        match (out, self.pump_in(buffers, moved)) {
            (_, Pumped::Failed) => Pumped::Failed,
            (Pumped::Dry, Pumped::Dry) => Pumped::Dry,
            (Pumped::Dry | Pumped::More | Pumped::Failed, Pumped::Dry | Pumped::More) => Pumped::More,
        }
    }

    /// Writes what the machine has.
    fn pump_out(&mut self, buffers: &mut impl Buffers, moved: &mut Moved) -> Pumped {
        if self.write == WriteSide::Shut {
            return Pumped::Dry;
        }
        for _ in 0..CALLS {
            if !self.writable {
                return Pumped::Dry;
            }
            let mut failed = None;
            let channel = &mut self.channel;
            let taken = buffers.drain(&mut |bytes| match channel.write(bytes) {
                Ok(count) => count,
                Err(error) => {
                    failed = Some(error);
                    0
                }
            });
            moved.written += taken as u64;
            match failed {
                None if taken > 0 => {}
                None => return self.finish_writing(),
                Some(error) if is_unready(&error) => self.writable = false,
                Some(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(_) => return Pumped::Failed,
            }
        }
        Pumped::More
    }

    /// Nothing waits in the machine: time to shut the write side, if that is wanted.
    fn finish_writing(&mut self) -> Pumped {
        if self.write == WriteSide::Ending {
            self.write = WriteSide::Shut;
            if self.channel.shut().is_err() {
                return Pumped::Failed;
            }
        }
        Pumped::Dry
    }

    /// Reads what the machine has room for.
    fn pump_in(&mut self, buffers: &mut impl Buffers, moved: &mut Moved) -> Pumped {
        for _ in 0..CALLS {
            if !self.readable || self.read_ended {
                return Pumped::Dry;
            }
            let mut result = None;
            let channel = &mut self.channel;
            let filled = buffers.fill(&mut |room| {
                if room.is_empty() {
                    return 0;
                }
                let (count, outcome) = match channel.read(room) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                };
                result = Some(outcome);
                count
            });
            let (Some(_), Some(result)) = (filled, result) else {
                // No room: the machine says when there is some.
                return Pumped::Dry;
            };
            match result {
                Ok(0) => {
                    self.read_ended = true;
                    buffers.ended();
                }
                // Also after a short read: the end may have come with those bytes, and has no hint of its own.
                Ok(count) => moved.read += count as u64,
                Err(error) if is_unready(&error) => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Pumped::Failed,
            }
        }
        Pumped::More
    }
}

impl Stream<Socket> {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Has the coming drop of the socket send a reset.
    pub(crate) fn abort(&self) {
        let _ = self.channel.set_linger(Some(Duration::ZERO));
    }
}

pub(crate) fn is_unready(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
