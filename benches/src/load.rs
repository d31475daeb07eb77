//! Traffic for measurements of real programs: agents and connectors without tunnel or backends, plain UDP with the same
//! marks, a forwarder to compare a relay with, and the relay in memory.
//!
//! Each subcommand is one process that lives in one namespace. It takes commands as lines on standard input, answers
//! each with one line of JSON, and ends with its input or after `--lifetime`. So one set of processes serves many short
//! rounds, and whoever drives them can interleave what it compares. Nothing here judges a figure.

mod agents;
mod channel;
mod connector;
mod control;
mod forward;
mod identity;
mod link;
mod memory;
mod plain;
mod sender;
mod tally;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::client::Speaks;
use crate::socket::Offload;

#[derive(Debug, Parser)]
#[command(
    name = "ztna-load",
    version,
    about = "Traffic for measurements; commands come as lines on standard input"
)]
struct Cli {
    /// Seconds after which the process ends whatever happens.
    #[arg(long, default_value_t = 900, global = true)]
    lifetime: u64,
    #[command(subcommand)]
    tool: Tool,
}

/// Where the intermediate is and what a client presents.
#[derive(Debug, Parser)]
struct Relay {
    /// The intermediate.
    #[arg(long)]
    relay: SocketAddr,
    /// The local address.
    #[arg(long)]
    bind: IpAddr,
    /// The directory with `ca.pem`, `agent.{pem,key}` and `connector.{pem,key}`, from `ztna pki`.
    #[arg(long)]
    pki: PathBuf,
    /// The service.
    #[arg(long, default_value = "bench")]
    service: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Offloading {
    /// UDP_GRO in, UDP_SEGMENT out.
    Segments,
    /// One datagram a call.
    None,
}

impl From<Offloading> for Offload {
    fn from(offloading: Offloading) -> Self {
        match offloading {
            Offloading::Segments => Self::Segments,
            Offloading::None => Self::None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Agents: `run RATE SECONDS SIZE [TICK]` (rate 0: all that goes; TICK: microseconds between
    /// bursts), `ping COUNT SIZE`, `handshakes SECONDS`, `idle COUNT`.
    Agents {
        #[command(flatten)]
        relay: Relay,
        /// How many that send, each on its own socket.
        #[arg(long, default_value_t = 4)]
        agents: usize,
        /// Speak v2 with the relay.
        #[arg(long)]
        v2: bool,
        /// The service's virtual address and port.
        #[arg(long, default_value_t = crate::packet::SERVICE)]
        target: SocketAddr,
    },
    /// Agents of v2 that send frames of relay channels: `run RATE SECONDS SIZE [TICK]`.
    Channels {
        #[command(flatten)]
        relay: Relay,
        /// How many, each on its own socket and with a channel of its own.
        #[arg(long, default_value_t = 4)]
        agents: usize,
    },
    /// A connector that sends every packet back, or only counts: `take`.
    Connector {
        #[command(flatten)]
        relay: Relay,
        /// Speak v2 with the relay.
        #[arg(long)]
        v2: bool,
        /// Send every packet back.
        #[arg(long)]
        echo: bool,
    },
    /// Plain UDP with the same marks: `run RATE SECONDS SIZE [TICK]`, `ping COUNT SIZE`.
    Udp {
        /// Whom to send to.
        #[arg(long)]
        to: SocketAddr,
        /// The local address.
        #[arg(long)]
        bind: IpAddr,
        /// How many sockets.
        #[arg(long, default_value_t = 4)]
        senders: usize,
        /// How datagrams reach the kernel.
        #[arg(long, value_enum, default_value = "segments")]
        offload: Offloading,
    },
    /// A plain UDP receiver that sends everything back, or only counts: `take`.
    Receiver {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Send every datagram back.
        #[arg(long)]
        echo: bool,
    },
    /// A plain UDP forwarder: to one destination, and back to whoever sent last.
    Forward {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Where to forward to.
        #[arg(long)]
        to: SocketAddr,
        /// How datagrams reach the kernel.
        #[arg(long, value_enum, default_value = "segments")]
        offload: Offloading,
    },
    /// The relay in memory beside bare quiche: `measure MILLISECONDS`; `aead` for the reference alone.
    Memory,
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.tool, Duration::from_secs(cli.lifetime)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use io::Write as _;
            let _ = writeln!(io::stderr(), "ztna-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn speaks(v2: bool) -> Speaks {
    if v2 { Speaks::V2 } else { Speaks::V1 }
}

fn run(tool: Tool, lifetime: Duration) -> io::Result<()> {
    match tool {
        Tool::Agents {
            relay,
            agents,
            v2,
            target,
        } => agents::run(&relay, target, (agents, speaks(v2)), lifetime),
        Tool::Channels { relay, agents } => channel::run(&relay, agents, lifetime),
        Tool::Connector { relay, v2, echo } => connector::run(&relay, (echo, speaks(v2)), lifetime),
        Tool::Udp {
            to,
            bind,
            senders,
            offload,
        } => plain::send(to, bind, senders, offload.into(), lifetime),
        Tool::Receiver { listen, echo } => plain::receive(listen, echo, lifetime),
        Tool::Forward { listen, to, offload } => forward::run(listen, to, offload.into(), lifetime),
        Tool::Memory => memory::run(lifetime),
    }
}
