//! The shell on `tokio`: the same turns, on a single-threaded runtime of its own or inside a program's.
//!
//! It decides nothing. Everything that is done about a hint is in `runtime_io`, and so is shared with the other shell;
//! here is only who sleeps. Other tasks on the same thread run meanwhile.
//!
//! The descriptors are in the other shell's poller, whose own descriptor is the one that tokio watches. An `AsyncFd`
//! for each would not do: tokio never forgets that a stream was closed or in error, so that after the first half-close
//! its readiness says nothing any more, and an error alone wakes no reader.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use proto_core::machine::Machine;
use runtime_io::{Driver, ExitReport, Ready, RunConfig, RunError, Side, Sleep, Step};
use runtime_mio::Poller;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

/// Drives a machine until it has ended in order, or cannot go on. Blocks the calling thread.
///
/// # Errors
/// If the event loop cannot be made, or a descriptor that the role cannot live without is gone.
///
/// # Panics
/// Inside another tokio runtime, where a thread must not block: use [`drive`] there.
pub fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(RunError::EventLoop)?.block_on(drive(config))
}

/// As [`run`], for a program that has a tokio runtime with I/O and time.
///
/// # Errors
/// If the event loop cannot be made, or a descriptor that the role cannot live without is gone.
pub async fn drive<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
    let mut poller = watched().map_err(RunError::EventLoop)?;
    let mut ready = Vec::new();
    let mut driver = Driver::start(config, poller.get_mut())?;
    loop {
        match driver.turn(&ready, poller.get_mut(), Instant::now())? {
            Step::Exit(outcome) => return Ok(driver.finish(outcome, poller.get_mut())),
            Step::Sleep(sleep) => wait(&mut poller, &mut ready, sleep)
                .await
                .map_err(RunError::EventLoop)?,
        }
    }
}

fn watched() -> io::Result<AsyncFd<Poller>> {
    #[expect(
        deprecated,
        reason = "sound: a poller owns its descriptor; the successor is unsafe for others' sake"
    )]
    AsyncFd::with_interest(Poller::new()?, Interest::READABLE)
}

/// Replaces `ready` by what has come, after waiting as long as `sleep` allows.
async fn wait(poller: &mut AsyncFd<Poller>, ready: &mut Vec<Ready>, sleep: Sleep) -> io::Result<()> {
    match sleep {
        Sleep::Not => {
            // Other tasks have their turn also while this one is busy.
            tokio::task::yield_now().await;
            poller.get_mut().wait(Some(Duration::ZERO), ready)
        }
        Sleep::Idle => hints(poller, ready).await,
        Sleep::Until(at) => {
            ready.clear();
            let sleep = pin!(tokio::time::sleep_until(at.into()));
            tokio::select! {
                result = hints(poller, ready) => result,
                () = sleep => Ok(()),
            }
        }
    }
}

/// Waits until there is a hint.
async fn hints(poller: &mut AsyncFd<Poller>, ready: &mut Vec<Ready>) -> io::Result<()> {
    loop {
        let mut guard = poller.readable_mut().await?;
        // Before the hints are taken: what comes after that makes the poller readable anew.
        guard.clear_ready();
        guard.get_inner_mut().wait(Some(Duration::ZERO), ready)?;
        if !ready.is_empty() {
            return Ok(());
        }
    }
}
