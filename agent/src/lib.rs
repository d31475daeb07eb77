//! The program around `proto_core::agent`, and the tools that belong to it.
//!
//! # Map
//! * `ztna up` (`up.rs`): a tunnel interface on this host, whose packets reach services.
//! * `ztna pki` ([`pki`]): a development CA and certificates.

pub mod config;
pub mod pki;
mod snapshot;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use program::exit;

/// The program's name, in its messages.
const NAME: &str = "ztna";

/// Reaches private services through the ZTNA overlay.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "ztna",
    version,
    after_help = "Exit codes: 0 ended in order; 2 something in the settings or on this host has to be put right; 1 anything else."
)]
pub struct Args {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Bring the tunnel up and keep it up until SIGTERM or SIGINT
    ///
    /// Creates a tunnel interface with routes to the virtual addresses of the configured services, and nothing else.
    /// Settings come from flags, from the environment (ZTNA_*), and from /etc/ztna/agent.json, in this order. Needs
    /// CAP_NET_ADMIN or root.
    Up(config::UpArgs),
    /// Make a development CA and certificates
    #[command(subcommand)]
    Pki(pki::PkiCommand),
}

/// The whole program; returns when it has ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    let result = match &args.command {
        Command::Up(args) => up::run(args),
        Command::Pki(command) => pki::run(command),
    };
    exit::conclude(NAME, result)
}
