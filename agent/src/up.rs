//! `ztna up`: the tunnel of this host.

mod desk;
mod names;
mod reloading;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use program::args;
use program::client::{self, LinkLog};
use program::exit::{self, Failure};
use program::reload::Reload;
use program::resolve::Resolving;
use program::station;
use program::tls::{self, End};
use proto_core::agent::Agent;
use proto_core::link::LinkEvent;
use proto_core::quic::quiche::QuicheProvider;
use runtime_io::{
    CommandSender, Handler, Notice, Prefix, RunConfig, Shell, Tun, TunConfig, TunError, TunSide,
};

use crate::NAME;
use crate::config::{self, Config, DEFAULT_PATH, SCHEMA, UpArgs};
use crate::control::Listening;
use crate::place::{Lock, LockError, Place};
use crate::snapshot::AgentSnapshot;
use crate::system::{self, Changes};
use desk::Desk;
use names::Names;
use reloading::Reloading;

/// How long the guard of a killed process may take to let go.
const GUARD_PATIENCE: Duration = Duration::from_secs(1);

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
    let (place, _lock) = claim(&config)?;
    let listener = station::listen(&config.common)?;
    let udp = client::bind(config.common.bind, 0)?;
    let local = udp.local_addr();
    let resolving = Resolving::start(&config.server.endpoint);
    let addresses = client::reachable(resolving.addresses.clone(), local);
    check_way_out(&config, &addresses)?;
    let control = Listening::at(&place.control)?;
    let tun = interface(&config)?;
    let machine = Machine::new(
        config.machine(addresses, local),
        tls.provider,
        &runtime_io::seed()?,
        Instant::now(),
    );
    let has_v6 = config.tunnel_addresses.iter().any(IpAddr::is_ipv6);
    let name = tun.name().to_owned();
    let tun_name = name.clone();
    let routes = tun.routes()?;
    let side = TunSide::new(tun).following_path(config::least_mtu(has_v6));
    let count = config.services.len();
    // Declared last, so undone first: the host stops asking us before we stop answering.
    let mut changes = Changes::new(place, &config.tun_name);
    let names = Names::start(&config, &mut changes)?;
    let desk = Desk::new(&config, &names);
    let mut socket = None;
    let file = settings.file_name().map(PathBuf::from);
    let reloading = Reloading {
        args: args.clone(),
        config: config.clone(),
        local,
        routes,
        names,
        current: desk.current(),
    };
    let ended = station::run::<AgentSnapshot, TunSide>(
        &config.common,
        RunConfig::new(Shell::new(machine, udp, side)),
        listener,
        |commands| {
            match control.serve(desk.with(commands.clone())) {
                Ok(file) => socket = Some(file),
                Err(error) => log::warn!("no control socket: {error}"),
            }
            let reload = Reload::start(file, reloading.attempts(commands.clone()));
            client::watch_interfaces(commands, Some(tun_name), |machine: &mut Machine, interfaces| {
                machine.set_interfaces(interfaces);
            });
            attend(commands, resolving, local, reload)
        },
        move |_| log::info!("{NAME} up: {name}, {count} services"),
    );
    changes.restore();
    drop(socket);
    ended
}

/// Makes sure that there is no other `ztna up` for the interface, and puts back what one that was killed has left.
fn claim(config: &Config) -> Result<(Place, Lock), Failure> {
    let interface = &config.tun_name;
    let place = Place::make(interface, config.control.as_deref())?;
    // The guard of one that was just killed is as good as through.
    let lock = Lock::within(&place.lock, GUARD_PATIENCE).map_err(|error| match error {
        LockError::Held(Some(pid)) => Failure::Start(format!(
            "a `ztna up` for interface {interface} runs already (process {pid}); end it with `ztna down --tun-name \
             {interface}`, or choose another tun_name"
        )),
        LockError::Held(None) | LockError::File(_) => {
            Failure::Start(format!("cannot lock {}: {error}", place.lock.display()))
        }
    })?;
    let restored = system::restore(&place)?;
    if !restored.is_empty() {
        log::info!("put back what an earlier run had left: {}", restored.join(", "));
    }
    Ok((place, lock))
}

/// The way to the intermediate must not lead through the tunnel.
fn check_way_out(config: &Config, intermediate: &[SocketAddr]) -> Result<(), Failure> {
    for service in &config.services {
        let own = |address: &&SocketAddr| service.virtual_addresses.contains(&address.ip().to_canonical());
        if let Some(address) = intermediate.iter().find(own) {
            return Err(Failure::Start(format!(
                "service {}: its virtual address {} is the address of the intermediate {}, which could then be reached \
                 only through itself; choose another virtual address",
                service.id,
                address.ip(),
                config.server.endpoint
            )));
        }
    }
    Ok(())
}

/// The interface with its addresses, and a route to every virtual address; no other traffic enters the tunnel.
fn interface(config: &Config) -> Result<Tun, Failure> {
    let mut wanted = TunConfig::new(config.tun_name.as_str(), config.mtu);
    wanted.addresses = config.tunnel_addresses.iter().copied().map(host).collect();
    let mut tun = Tun::create(&wanted)?;
    for service in &config.services {
        for address in &service.virtual_addresses {
            tun.add_route(host(*address)).map_err(|error| {
                if let TunError::Conflict(what) = error {
                    Failure::Start(format!(
                        "service {}: {what}; remove that, or choose another virtual address",
                        service.id
                    ))
                } else {
                    error.into()
                }
            })?;
        }
    }
    Ok(tun)
}

fn host(address: IpAddr) -> Prefix {
    Prefix {
        address,
        len: if address.is_ipv4() { 32 } else { 128 },
    }
}

fn attend(
    commands: &CommandSender<Machine>,
    resolving: Resolving,
    local: SocketAddr,
    reload: Reload,
) -> Handler<Machine> {
    let refresh = client::follow(resolving, local, commands, |machine: &mut Machine, addresses| {
        machine.set_intermediate_addresses(addresses);
    });
    let mut log = LinkLog::new(refresh);
    let mut before = 0;
    Box::new(move |notice, context| {
        let event = match notice {
            Notice::Event(event) => event,
            Notice::Reload => return reload.wanted(),
            Notice::Ending => return,
        };
        let services = context.machine.status().services;
        let about = match &event {
            LinkEvent::Registered(index) | LinkEvent::Denied(index, _) | LinkEvent::Path(index, _) => {
                services.get(usize::from(index.0))
            }
            LinkEvent::Connected { .. }
            | LinkEvent::Observed(_)
            | LinkEvent::Disconnected(_)
            | LinkEvent::Unreachable { .. } => None,
        };
        log.tell(&event, about.map(|service| &service.id));
        let registered = services.iter().filter(|service| service.registered).count();
        if std::mem::replace(&mut before, registered) != registered {
            log::info!("{NAME} registered {registered} of {} services", services.len());
        }
    })
}
