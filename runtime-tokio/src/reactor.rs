//! Descriptors under `AsyncFd`, each with a waker that says which it was.
//!
//! A wake-up so costs what has changed, not what is open: the waker of a descriptor puts its token on a list, and only
//! the descriptors on the list are looked at. Readiness is cleared as it is reported, which makes hints edge-triggered
//! as the contract wants: what changes after that comes as a new hint.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use runtime_io::{Interest, Reactor, Ready, Token};
use tokio::io::unix::AsyncFd;

/// All registered descriptors, by token.
#[derive(Default)]
pub(crate) struct Descriptors {
    slots: Vec<Option<Slot>>,
    woken: Arc<Mutex<Woken>>,
    /// The list that is worked off; kept for its capacity.
    batch: Vec<Token>,
}

/// What the wakers write to.
#[derive(Default)]
struct Woken {
    tokens: Vec<Token>,
    task: Option<Waker>,
}

struct Slot {
    /// A duplicate, so that what is registered is open as long as it is registered.
    fd: AsyncFd<OwnedFd>,
    interest: Interest,
    waker: Waker,
}

struct Bell {
    token: Token,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            woken.tokens.push(self.token);
            woken.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Descriptors {
    /// Appends the hints that have come; the task of `context` is woken when another comes.
    pub(crate) fn collect(&mut self, context: &Context<'_>, ready: &mut Vec<Ready>) {
        {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut woken.tokens, &mut self.batch);
            woken.task = Some(context.waker().clone());
        }
        for token in self.batch.drain(..) {
            let Some(Some(slot)) = self.slots.get(token.0 as usize) else {
                continue;
            };
            ready.extend(slot.hint(token));
        }
    }
}

impl Slot {
    /// Takes what has changed, and arms the waker for the next change.
    fn hint(&self, token: Token) -> Option<Ready> {
        let mut context = Context::from_waker(&self.waker);
        let mut readable = false;
        while let Poll::Ready(guard) = self.fd.poll_read_ready(&mut context) {
            readable = true;
            let Ok(mut guard) = guard else { break };
            guard.clear_ready();
        }
        let mut writable = false;
        while self.interest == Interest::ReadWrite
            && let Poll::Ready(guard) = self.fd.poll_write_ready(&mut context)
        {
            writable = true;
            let Ok(mut guard) = guard else { break };
            guard.clear_ready();
        }
        (readable || writable).then_some(Ready {
            token,
            readable,
            writable,
        })
    }
}

impl Reactor for Descriptors {
    fn register(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let tokio_interest = match interest {
            Interest::Read => tokio::io::Interest::READABLE,
            Interest::ReadWrite => tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE,
        };
        let waker = Waker::from(Arc::new(Bell {
            token,
            woken: Arc::clone(&self.woken),
        }));
        #[expect(
            deprecated,
            reason = "sound for an owned descriptor; its successor is unsafe for all others' sake"
        )]
        let fd = AsyncFd::with_interest(fd.try_clone_to_owned()?, tokio_interest)?;
        let index = token.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            // Looked at in the next collection, which arms it.
            waker.wake_by_ref();
            *slot = Some(Slot { fd, interest, waker });
        }
        Ok(())
    }

    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.deregister(token, fd);
        self.register(token, fd, interest)
    }

    fn deregister(&mut self, token: Token, _: BorrowedFd<'_>) {
        if let Some(slot) = self.slots.get_mut(token.0 as usize) {
            *slot = None;
        }
    }
}
