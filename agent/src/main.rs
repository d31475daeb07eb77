//! `ztna`: the agent of the overlay.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(std::env::args_os())
}
