//! The way into a running shell from other threads: closures over the machine, run between two waits.
//!
//! A metrics endpoint asks for a snapshot this way, and a program asks for the orderly end. The channel is bounded: a
//! sender that is too fast is told so, and the machine's thread is never waited for without a limit.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use crate::stats::ShellStats;

/// What a command or an event handler may work with.
#[derive(Debug)]
pub struct Context<'a, M> {
    /// The machine; whatever is asked of it is sent before the shell sleeps again.
    pub machine: &'a mut M,
    /// The shell's counters.
    pub stats: &'a ShellStats,
    /// The time of this turn.
    pub now: Instant,
    pub(crate) ending: &'a mut bool,
}

impl<M> Context<'_, M> {
    /// Asks for the orderly end, as a signal would.
    pub fn end(&mut self) {
        *self.ending = true;
    }
}

type Command<M> = Box<dyn FnOnce(Context<'_, M>) + Send>;

/// Sends commands to a shell; cheap to clone.
pub struct CommandSender<M> {
    queue: SyncSender<Command<M>>,
    bell: Arc<UnixStream>,
}

/// The shell's end of the channel.
pub struct Commands<M> {
    queue: Receiver<Command<M>>,
    pub(crate) bell: UnixStream,
}

/// Why a command had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Too many commands wait: try again later.
    Full,
    /// The shell has ended.
    Closed,
    /// No answer in time.
    TimedOut,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many requests wait",
            Self::Closed => "the event loop has ended",
            Self::TimedOut => "the event loop did not answer in time",
        })
    }
}

impl std::error::Error for AskError {}

/// A channel for at most `capacity` waiting commands.
///
/// # Errors
/// If the operating system has no descriptors left.
pub fn command_channel<M>(capacity: usize) -> io::Result<(CommandSender<M>, Commands<M>)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let (sender, receiver) = mpsc::sync_channel(capacity);
    Ok((
        CommandSender {
            queue: sender,
            bell: Arc::new(near),
        },
        Commands {
            queue: receiver,
            bell: far,
        },
    ))
}

impl<M> CommandSender<M> {
    /// Has `command` run by the shell, soon.
    ///
    /// # Errors
    /// [`AskError::Full`] or [`AskError::Closed`].
    pub fn send(&self, command: impl FnOnce(Context<'_, M>) + Send + 'static) -> Result<(), AskError> {
        self.queue
            .try_send(Box::new(command))
            .map_err(|error| match error {
                TrySendError::Full(_) => AskError::Full,
                TrySendError::Disconnected(_) => AskError::Closed,
            })?;
        // A full pipe rings already; a closed one is noticed by the next send.
        let _ = (&*self.bell).write(&[0]);
        Ok(())
    }

    /// Has `question` answered by the shell and waits for the answer, at most `timeout`.
    ///
    /// # Errors
    /// If there is none.
    pub fn ask<R: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(Context<'_, M>) -> R + Send + 'static,
    ) -> Result<R, AskError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.send(move |context| {
            // Nobody may wait any more; then the answer is not wanted.
            let _ = sender.try_send(question(context));
        })?;
        receiver.recv_timeout(timeout).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => AskError::TimedOut,
            mpsc::RecvTimeoutError::Disconnected => AskError::Closed,
        })
    }

    /// Asks for the orderly end, as a signal would.
    ///
    /// # Errors
    /// [`AskError::Full`] or [`AskError::Closed`].
    pub fn shut_down(&self) -> Result<(), AskError> {
        self.send(|mut context| context.end())
    }
}

impl<M> Commands<M> {
    /// The next command, oldest first.
    pub(crate) fn next(&self) -> Option<Command<M>> {
        self.queue.try_recv().ok()
    }

    /// Empties the bell after a hint; must come before looking into the queue.
    pub(crate) fn answer_bell(&self) {
        swallow(&self.bell);
    }
}

/// Reads a non-blocking pipe empty and returns how many bytes were in it.
pub(crate) fn swallow(mut pipe: &UnixStream) -> usize {
    let mut total = 0;
    let mut bytes = [0; 64];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return total,
        }
    }
}

impl<M> Clone for CommandSender<M> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<M> fmt::Debug for CommandSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSender").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Commands<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}
