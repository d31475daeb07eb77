//! The shell on `tokio`: the same turns, on a single-threaded runtime of its own or inside a program's.
//!
//! It decides nothing. Everything that is done about a hint is in `runtime_io`, and so is shared with the other shell;
//! here are only a reactor over `AsyncFd` and a sleep. Other tasks on the same thread run while it sleeps.

mod reactor;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use proto_core::machine::Machine;
use runtime_io::{Driver, ExitReport, Ready, RunConfig, RunError, Side, Sleep, Step};
use tokio::runtime::Builder;

use reactor::Descriptors;

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
    let mut descriptors = Descriptors::default();
    let mut ready = Vec::new();
    let mut driver = Driver::start(config, &mut descriptors)?;
    loop {
        match driver.turn(&ready, &mut descriptors, Instant::now())? {
            Step::Exit(outcome) => return Ok(driver.finish(outcome, &mut descriptors)),
            Step::Sleep(sleep) => wait(&mut descriptors, &mut ready, sleep).await,
        }
    }
}

/// Replaces `ready` by what has come, after waiting as long as `sleep` allows.
async fn wait(descriptors: &mut Descriptors, ready: &mut Vec<Ready>, sleep: Sleep) {
    ready.clear();
    let until = match sleep {
        Sleep::Not => {
            // Gives the runtime its turn, which is where it looks for new hints.
            tokio::task::yield_now().await;
            poll_fn(|context| {
                descriptors.collect(context, ready);
                Poll::Ready(())
            })
            .await;
            return;
        }
        Sleep::Until(at) => Some(at),
        Sleep::Idle => None,
    };
    let hints = poll_fn(|context| {
        descriptors.collect(context, ready);
        if ready.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    });
    match until {
        None => hints.await,
        Some(at) => {
            let sleep = pin!(tokio::time::sleep_until(at.into()));
            tokio::select! {
                () = hints => {}
                () = sleep => {}
            }
        }
    }
}
