//! `ztna-connector`: publishes private services through the overlay.

use std::process::ExitCode;

fn main() -> ExitCode {
    connector::main(std::env::args_os())
}
