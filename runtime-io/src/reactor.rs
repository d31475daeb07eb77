//! The seam to an event loop.
//!
//! An event loop watches descriptors and reports hints. What is done about a hint is decided by the owner of the
//! descriptor, the same way for every event loop:
//!
//! * **Edge-triggered.** After registration, and after each change of readiness, a hint comes at least once. It may
//!   come again or come for nothing, but none is missing. An owner therefore remembers a hint until a call says that
//!   it would block, and never waits for a hint without having seen that.
//! * Errors and hang-ups are hints to read and to write; the next call on the descriptor tells which it was.
//! * A hint may arrive for a descriptor that has gone in the same turn, and then reaches the next one with the same
//!   token. As hints may come for nothing, that is harmless.
//! * A descriptor is deregistered before it is closed.

use std::io;
use std::os::fd::BorrowedFd;

/// The name under which a descriptor is registered: dense, small, usable as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

impl Token {
    pub(crate) const UDP: Self = Self(0);
    pub(crate) const SIGNALS: Self = Self(1);
    pub(crate) const RELOAD: Self = Self(2);
    pub(crate) const COMMANDS: Self = Self(3);
    /// The first token that belongs to a [`crate::Side`].
    pub const FIRST_SIDE: Self = Self(4);

    /// The token of a side's `index`-th descriptor.
    pub fn of_side(index: u32) -> Self {
        Self(Self::FIRST_SIDE.0.saturating_add(index))
    }

    /// Which of the side's descriptors this is; `None` if it is not one.
    pub fn side_index(self) -> Option<u32> {
        self.0.checked_sub(Self::FIRST_SIDE.0)
    }
}

/// Which changes of a descriptor are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only that it became readable.
    Read,
    /// That it became readable or writable.
    ReadWrite,
}

/// A hint that a descriptor may be ready; the module documentation says what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor.
    pub token: Token,
    /// Reading may get on.
    pub readable: bool,
    /// Writing may get on.
    pub writable: bool,
}

/// An event loop, as seen by the owners of descriptors.
pub trait Reactor {
    /// Starts to watch `fd` under a token that is free.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn register(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Changes what is reported of a registered descriptor; a hint follows if it is ready by then.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Stops to watch a registered descriptor, which the caller is about to close.
    fn deregister(&mut self, token: Token, fd: BorrowedFd<'_>);
}
