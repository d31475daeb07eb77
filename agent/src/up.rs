//! `ztna up`: the tunnel of this host.

use std::net::SocketAddr;
use std::time::Instant;

use program::args;
use program::client::{self, LinkLog};
use program::exit::{self, Failure};
use program::resolve::Resolving;
use program::station;
use program::tls::{self, End};
use proto_core::agent::Agent;
use proto_core::link::LinkEvent;
use proto_core::quic::quiche::QuicheProvider;
use runtime_io::{CommandSender, Handler, Notice, Prefix, Shell, Tun, TunConfig, TunError, TunSide};

use crate::NAME;
use crate::config::{Config, DEFAULT_PATH, SCHEMA, UpArgs};
use crate::snapshot::AgentSnapshot;

/// The machine of this program.
pub(crate) type Machine = Agent<QuicheProvider>;

pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let settings = args::load(&SCHEMA, DEFAULT_PATH, args.flags())?;
    let config = Config::read(&settings)?;
    config.common.start_logging(&settings, &SCHEMA);
    let tls = tls::load(&settings, End::Client, config.common.insecure_dev)?;
    if args.common.check {
        exit::say(&format!("{NAME}: the configuration is good"));
        return Ok(());
    }
    let listener = station::listen(&config.common)?;
    let udp = client::bind(config.common.bind, 0)?;
    let tun = interface(&config)?;
    let local = udp.local_addr();
    let resolving = Resolving::start(&config.server.endpoint);
    let addresses = client::reachable(resolving.addresses.clone(), local);
    let machine = Machine::new(
        config.machine(addresses, local),
        tls.provider,
        &runtime_io::seed()?,
        Instant::now(),
    );
    let name = tun.name().to_owned();
    let count = config.services.len();
    station::run::<AgentSnapshot, TunSide>(
        &config.common,
        Shell::new(machine, udp, TunSide::new(tun)),
        listener,
        |commands| attend(commands, resolving, local),
        move |_| log::info!("{NAME} up: {name}, {count} services"),
    )
}

/// The interface with its addresses, and a route to every virtual address; no other traffic enters the tunnel.
fn interface(config: &Config) -> Result<Tun, TunError> {
    let mut wanted = TunConfig::new(config.tun_name.as_str(), config.mtu);
    wanted.addresses = config.tunnel_addresses.iter().copied().map(host).collect();
    let mut tun = Tun::create(&wanted)?;
    for service in &config.services {
        for address in &service.virtual_addresses {
            tun.add_route(host(*address))?;
        }
    }
    Ok(tun)
}

fn host(address: std::net::IpAddr) -> Prefix {
    Prefix {
        address,
        len: if address.is_ipv4() { 32 } else { 128 },
    }
}

fn attend(commands: &CommandSender<Machine>, resolving: Resolving, local: SocketAddr) -> Handler<Machine> {
    let refresh = client::follow(resolving, local, commands, |machine: &mut Machine, addresses| {
        machine.set_intermediate_addresses(addresses);
    });
    let mut log = LinkLog::new(refresh);
    let mut before = 0;
    Box::new(move |notice, context| {
        let Notice::Event(event) = notice else {
            return;
        };
        let services = context.machine.status().services;
        let about = match &event {
            LinkEvent::Registered(index) | LinkEvent::Denied(index, _) => services.get(usize::from(index.0)),
            LinkEvent::Connected { .. }
            | LinkEvent::Observed(_)
            | LinkEvent::Disconnected(_)
            | LinkEvent::Unreachable { .. } => None,
        };
        log.tell(&event, about.map(|(id, _)| id));
        let registered = services.iter().filter(|(_, registered)| *registered).count();
        if std::mem::replace(&mut before, registered) != registered {
            log::info!("{NAME} registered {registered} of {} services", services.len());
        }
    })
}
