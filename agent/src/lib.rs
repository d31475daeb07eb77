//! The program around `proto_core::agent`, and the tools that belong to it.
//!
//! # Map
//! * `ztna up` (`up.rs`): a tunnel interface on this host, whose packets reach services. Beside it: `dns.rs` answers
//!   their names, `system.rs` changes what the host asks and puts it back, `control.rs` tells the two below.
//! * `ztna status`, `ztna down` (`remote.rs`): look at a running `ztna up`, and end it; `place.rs` says where it is.
//! * `ztna forward`, `ztna socks`, `ztna connect` (`forward.rs`, `socks.rs`, `connect.rs`, and `rootless.rs` beneath
//!   them): the same services without a tunnel interface, and without root.
//! * `ztna pki` ([`pki`]): a development CA and certificates.

pub mod config;
pub mod connect;
mod control;
mod dns;
pub mod forward;
pub mod pki;
mod place;
pub mod remote;
mod report;
pub mod rootless;
mod snapshot;
pub mod socks;
pub mod system;
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
    after_help = "Exit codes: 0 ended in order; 2 something in the settings or on this host has to be put right; 3 `status` or `down` found nothing running; 1 anything else."
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
    /// Lead local ports to services, without root
    ///
    /// For example: ztna forward web-app:8080 --listen 127.0.0.1:8080 dns:53/udp --listen 127.0.0.1:5353
    Forward(forward::ForwardArgs),
    /// Be a SOCKS 5 proxy to services, without root
    ///
    /// Programs name services as web-app or web-app.ztna, or by their virtual addresses; nothing else is reached.
    Socks(socks::SocksArgs),
    /// Join standard input and output to a port of a service, without root
    ///
    /// For example: ssh -o ProxyCommand='ztna connect %h:%p' web-app
    Connect(connect::ConnectArgs),
    /// Show what a running `ztna up` does
    Status(remote::StatusArgs),
    /// End a running `ztna up` in order, wait for it, and put back what one that was killed has left
    Down(remote::RemoteArgs),
    /// Put back what a `ztna up` changed on this host when it is gone
    #[command(hide = true)]
    Guard(system::guard::GuardArgs),
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
        Command::Forward(args) => forward::run(args),
        Command::Socks(args) => socks::run(args),
        Command::Connect(args) => match connect::run(args) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Status(args) => remote::status(args),
        Command::Down(args) => remote::down(args),
        Command::Guard(args) => system::guard::run(args),
        Command::Pki(command) => pki::run(command),
    };
    exit::conclude(NAME, result)
}
