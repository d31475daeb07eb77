//! `ztna-intermediate`: the relay and rendezvous of the overlay.

use std::process::ExitCode;

fn main() -> ExitCode {
    intermediate::main(std::env::args_os())
}
