//! The stories of every shell, on `tokio`.

#[path = "../../runtime-io/stories/stories.rs"]
mod stories;

use proto_core::machine::Machine;
use runtime_io::{ExitReport, RunConfig, RunError, Side};

struct Tokio;

impl stories::Runtime for Tokio {
    fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
        runtime_tokio::run(config)
    }
}

stories::all!(Tokio);
