//! The shell on `mio`: one thread, one poll, nothing else.
//!
//! It decides nothing. Everything that is done about a hint is in `runtime_io`, and so is shared with the other shell.

mod poller;

use std::time::{Duration, Instant};

use proto_core::machine::Machine;
use runtime_io::{Driver, ExitReport, RunConfig, RunError, Side, Sleep, Step};

pub use poller::Poller;

/// Drives a machine until it has ended in order, or cannot go on. Blocks the calling thread.
///
/// # Errors
/// If the event loop cannot be made, or a descriptor that the role cannot live without is gone.
pub fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
    let mut poller = Poller::new().map_err(RunError::EventLoop)?;
    let mut ready = Vec::new();
    let mut driver = Driver::start(config, &mut poller)?;
    loop {
        let sleep = match driver.turn(&ready, &mut poller, Instant::now())? {
            Step::Exit(outcome) => return Ok(driver.finish(outcome, &mut poller)),
            Step::Sleep(sleep) => sleep,
        };
        let timeout = match sleep {
            Sleep::Not => Some(Duration::ZERO),
            // A sleep is measured from its own start, or each would be late by the length of a turn.
            Sleep::Until(at) => Some(at.saturating_duration_since(Instant::now())),
            Sleep::Idle => None,
        };
        poller.wait(timeout, &mut ready).map_err(RunError::EventLoop)?;
    }
}
