//! The program around `proto_core::connector`: settings in, published services out.
//!
//! It decides nothing about the protocol. It reads the settings, resolves names, sets TLS and sockets up, and says in
//! log, health and metrics what the machine does.

pub mod config;
mod news;
mod reloading;
mod snapshot;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use program::client::{self, LinkLog};
use program::exit::{self, Failure};
use program::lookup::Lookups;
use program::reload::Reload;
use program::resolve::Resolving;
use program::tls::{self, End};
use program::{args, station};
use proto_core::connector::{Connector, ConnectorNews};
use proto_core::quic::quiche::QuicheProvider;
use runtime_io::{BackendLimits, BackendSide, CommandSender, Handler, Notice, RunConfig, Shell};

use config::{Args, Config};
use reloading::Reloading;
use snapshot::ConnectorSnapshot;

/// The program's name, in its messages.
const NAME: &str = "ztna-connector";

/// Where its configuration is, if nothing else is said.
const DEFAULT_PATH: &str = "/etc/ztna/connector.json";

/// The machine of this program.
type Machine = Connector<QuicheProvider>;

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
    let tls = tls::load(&settings, End::Connector, config.common.insecure_dev)?;
    if args.common.check {
        exit::say(&format!("{NAME}: the configuration is good"));
        return Ok(());
    }
    let listener = station::listen(&config.common)?;
    let udp = client::bind(config.common.bind, config.port)?;
    let local = udp.local_addr();
    let resolving = Resolving::start(&config.server.endpoint);
    let addresses = client::reachable(resolving.addresses.clone(), local);
    let machine = Machine::new(
        config.machine(addresses, local),
        tls.provider,
        &runtime_io::seed()?,
        Instant::now(),
    );
    let count = config.services.len();
    let file = settings.file_name().map(PathBuf::from);
    let common = config.common.clone();
    let reloading = Reloading {
        args: args.clone(),
        config,
        local,
    };
    let (resolve, lookups) = Lookups::new();
    let side = BackendSide::new(BackendLimits::default()).with_resolver(resolve);
    station::run::<ConnectorSnapshot, BackendSide>(
        &common,
        RunConfig::new(Shell::new(machine, udp, side)),
        listener,
        |commands| {
            lookups.serve(commands);
            client::watch_interfaces(commands, None, |machine: &mut Machine, interfaces| {
                machine.set_interfaces(interfaces);
            });
            let reload = Reload::start(file, reloading.attempts(commands.clone()));
            attend(commands, resolving, local, reload)
        },
        move |_| log::info!("{NAME} started with {count} services"),
    )
}

fn attend(
    commands: &CommandSender<Machine>,
    resolving: Resolving,
    local: SocketAddr,
    reload: Reload,
) -> Handler<Machine> {
    let refresh = client::follow(resolving, local, commands, |machine: &mut Machine, addresses| {
        machine.set_intermediate_addresses(&addresses);
    });
    let mut log = LinkLog::new(refresh);
    let mut before = 0;
    Box::new(move |notice, context| {
        let happened = match notice {
            Notice::Event(happened) => happened,
            Notice::Reload => return reload.wanted(),
            Notice::Ending => return,
        };
        let machine = &context.machine;
        let service = happened.service.and_then(|service| machine.service_id(service));
        match &happened.event {
            ConnectorNews::Link(event) => log.tell(event, service),
            ConnectorNews::Backends(event) => news::tell(event, service),
        }
        let services = machine.status();
        let registered = services.iter().filter(|service| service.registered).count();
        if std::mem::replace(&mut before, registered) != registered {
            log::info!("{NAME} registered {registered} of {} services", services.len());
        }
    })
}
