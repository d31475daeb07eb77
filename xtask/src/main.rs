//! `cargo xtask`: everything about this workspace that is not a library or a program of it.
//!
//! It installs what a machine lacks, runs every test tier, builds the network laboratory out of namespaces and shows the
//! product at work. It decides nothing about the protocol and links none of it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the output of this program is for people"
)]

mod args;
mod bench;
mod command;
mod demo;
mod lab;
mod netlab;
mod prerequisites;
mod suite;
mod tally;
mod tool;
mod worlds;

use std::process::ExitCode;

use anyhow::Result;

use args::Args;

const HELP: &str = "\
cargo xtask test  [--quick] [--only STAGE]          every check and every test tier; stages: fmt clippy doc deny tests release lab
cargo xtask demo                                    the product at work: device, public network, private network
cargo xtask netlab test [--runtime mio|tokio] [--only TEXT] [--keep] [--debug]   tier 4 alone
cargo xtask netlab matrix [--runtime mio|tokio]         transfers over every kind of bad wire (minutes)
cargo xtask netlab nat [--cells A:B,… | --all] [--runs N] [--gaps N] [--wire WORDS] [--json] [--runtime mio|tokio]   every NAT against every NAT
cargo xtask bench [--quick] [--runtime mio|tokio]   the relay and the whole path measured, beside a plain forwarder (root)
cargo xtask bench tcp [--quick] [--only PART] [--wire WORDS] [--congestion NAME]   TCP beside boringtun-cli and plain TCP (root)
cargo xtask worlds [--count N] [--first N]          generated encounters behind NATs, by number (a million: an hour)
cargo xtask netlab clean                            remove what a killed run left behind
cargo xtask setup                                   install what a bare machine lacks (root), or say what to install
";

fn main() -> ExitCode {
    let mut args = Args::from_env();
    match dispatch(&mut args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn dispatch(args: &mut Args) -> Result<ExitCode> {
    let command = args.word().unwrap_or_default();
    match command.as_str() {
        "test" => suite::main(args),
        "demo" => demo::main(args),
        "netlab" => netlab::main(args),
        "bench" => bench::main(args),
        "setup" => {
            args.finish()?;
            prerequisites::setup()
        }
        "worlds" => worlds::main(args),
        "tool" => tool::main(args),
        "help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{HELP}");
            Ok(ExitCode::from(2))
        }
    }
}
