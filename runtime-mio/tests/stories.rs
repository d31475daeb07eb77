//! The stories of every shell, on `mio`.

#[path = "../../runtime-io/stories/stories.rs"]
mod stories;

use proto_core::machine::Machine;
use runtime_io::{ExitReport, RunConfig, RunError, Side};

struct Mio;

impl stories::Runtime for Mio {
    fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError> {
        runtime_mio::run(config)
    }
}

stories::all!(Mio);
