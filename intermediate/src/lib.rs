//! The program around `proto_core::intermediate`: settings in, a running relay out.
//!
//! It decides nothing about the protocol. It reads the settings, sets TLS and sockets up, and says in log, health and
//! metrics what the machine does.

pub mod config;
mod events;
mod snapshot;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use program::exit::{self, Failure};
use program::tls::{self, End};
use program::{args, station};
use proto_core::intermediate::Intermediate;
use proto_core::quic::identity::SanAuthority;
use proto_core::quic::quiche::QuicheProvider;
use runtime_io::{RunConfig, Shell, UdpConfig, UdpEndpoint};

use config::{Args, Config};

/// The program's name, in its messages.
const NAME: &str = "ztna-intermediate";

/// Where its configuration is, if nothing else is said.
const DEFAULT_PATH: &str = "/etc/ztna/intermediate.json";

/// The machine of this program.
type Machine = Intermediate<QuicheProvider>;

/// The whole program; returns when it has ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Args::try_parse_from(arguments) {
        Ok(args) => exit::conclude(NAME, run(&args)),
        Err(error) => exit::usage(&error),
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = args::load(&config::SCHEMA, DEFAULT_PATH, args.flags())?;
    let config = Config::read(&settings)?;
    config.common.start_logging(&settings, &config::SCHEMA);
    let tls = tls::load(&settings, End::Server, config.common.insecure_dev)?;
    if args.common.check {
        exit::say(&format!("{NAME}: the configuration is good"));
        return Ok(());
    }
    let listener = station::listen(&config.common)?;
    let udp = UdpEndpoint::bind(&UdpConfig::new(config.bind))?;
    let address = udp.local_addr();
    let authority = SanAuthority {
        allow_unnamed: config.allow_unnamed_clients,
        insecure_allow_anonymous: config.common.insecure_dev,
    };
    if config.allow_unnamed_clients {
        log::warn!(
            "--allow-unnamed-clients is on: a certificate of the CA without a name of the form agent.<service>.ztna may \
             use and publish every service"
        );
    }
    let machine = Machine::new(
        &config.machine(tls.reset_key),
        tls.provider,
        Box::new(authority),
        &runtime_io::seed()?,
        Instant::now(),
    );
    station::run::<snapshot::IntermediateSnapshot, ()>(
        &config.common,
        RunConfig::new(Shell::new(machine, udp, ())),
        listener,
        |_| Box::new(events::tell),
        move |_| log::info!("{NAME} ready on {address}"),
    )
}
