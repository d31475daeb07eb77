//! The start and the log of an agent without a tunnel interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use log::LevelFilter;
use program::client::{self, LinkLog};
use program::exit::{self, Failure};
use program::resolve::Resolving;
use program::settings::Settings;
use program::station;
use program::tls::{self, End};
use proto_core::forward::{
    DRAIN, ForwardConfig, ForwardEvent, ForwardLimits, Forwarder, Listens, NotReached,
};
use proto_core::id::ServiceId;
use proto_core::link::LinkEvent;
use proto_core::quic::quiche::QuicheProvider;
use runtime_io::{CommandSender, Handler, LocalListener, LocalSide, Notice, RunConfig, Shell};

use super::Config;
use super::snapshot::ForwardSnapshot;
use crate::NAME;
use crate::config::SCHEMA;

/// The machine of these programs.
pub(crate) type Machine = Forwarder<QuicheProvider>;

/// How the one stream of `ztna connect` ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<AtomicU8>);

/// Exit codes beside 0, 1 and 2.
pub(crate) const REFUSED: u8 = 3;
pub(crate) const UNREACHABLE: u8 = 4;
pub(crate) const NOT_PERMITTED: u8 = 5;

impl Ending {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, code: u8) {
        self.0.store(code, Ordering::Relaxed);
    }
}

/// Runs until a signal, or until the one stream ends if there is an `ending` to note.
pub(crate) fn run(
    settings: &Settings,
    config: Config,
    check: bool,
    listeners: impl FnOnce(&Config) -> Result<Vec<(Listens, LocalListener)>, Failure>,
    ending: Option<Ending>,
) -> Result<(), Failure> {
    let mut common = config.common.clone();
    if ending.is_some() {
        // Standard error is the person's who started it.
        common.log_level = common.log_level.or(Some(LevelFilter::Error));
    }
    common.start_logging(settings, &SCHEMA);
    let tls = tls::load(settings, End::Client, common.insecure_dev)?;
    if check {
        exit::say(&format!("{NAME}: the configuration is good"));
        return Ok(());
    }
    let (listens, sockets): (Vec<Listens>, Vec<LocalListener>) = listeners(&config)?.into_iter().unzip();
    let side = LocalSide::new(sockets).map_err(|error| Failure::Run(format!("cannot listen: {error}")))?;
    let monitor = station::listen(&common)?;
    // A person who ends the one stream of `ztna connect` means that stream.
    let by_default = if ending.is_some() { Duration::ZERO } else { DRAIN };
    let drain = config.drain.unwrap_or(by_default);
    let udp = client::bind(common.bind, 0)?;
    let local = udp.local_addr();
    let resolving = Resolving::start(&config.server.endpoint);
    let addresses = client::reachable(resolving.addresses.clone(), local);
    let forward = ForwardConfig {
        agent: config.agent(addresses, local),
        addresses: config.tunnel_addresses().to_vec(),
        listeners: listens,
        limits: ForwardLimits {
            congestion: config.congestion,
            ..ForwardLimits::default()
        },
        drain,
    };
    let ids: Vec<ServiceId> = forward
        .agent
        .services
        .iter()
        .map(|service| service.id.clone())
        .collect();
    runtime_io::raise_descriptor_limit();
    let machine = Machine::new(forward, tls.provider, &runtime_io::seed()?, Instant::now());
    let mut shell = RunConfig::new(Shell::new(machine, udp, side));
    shell.grace += drain;
    station::run::<ForwardSnapshot, LocalSide>(
        &common,
        shell,
        monitor,
        |commands| attend(commands, resolving, local, ids, drain, ending),
        |_| {},
    )
}

fn attend(
    commands: &CommandSender<Machine>,
    resolving: Resolving,
    local: SocketAddr,
    ids: Vec<ServiceId>,
    drain: Duration,
    ending: Option<Ending>,
) -> Handler<Machine> {
    client::watch_interfaces(commands, None, |machine: &mut Machine, interfaces| {
        machine.set_interfaces(interfaces);
    });
    let refresh = client::follow(resolving, local, commands, |machine: &mut Machine, addresses| {
        machine.set_intermediate_addresses(addresses);
    });
    let mut log = LinkLog::new(refresh);
    let mut before = 0;
    let mut over = false;
    Box::new(move |notice, mut context| {
        let event = match notice {
            Notice::Event(event) => event,
            Notice::Ending => {
                over = true;
                let streams = context.machine.streams();
                if streams > 0 && drain > Duration::ZERO {
                    log::info!(
                        "{NAME} lets {streams} connections end, for {drain:?} at most; a second signal ends it at once"
                    );
                }
                return;
            }
            Notice::Reload => return,
        };
        let code = match event {
            ForwardEvent::Link(event) => {
                let about = match &event {
                    LinkEvent::Registered(index)
                    | LinkEvent::Denied(index, _)
                    | LinkEvent::Path(index, _) => ids.get(usize::from(index.0)),
                    LinkEvent::Connected { .. }
                    | LinkEvent::Observed(_)
                    | LinkEvent::Disconnected(_)
                    | LinkEvent::Unreachable { .. } => None,
                };
                log.tell(&event, about);
                let services = context.machine.status().services;
                let registered = services.iter().filter(|service| service.registered).count();
                if std::mem::replace(&mut before, registered) != registered {
                    log::info!("{NAME} registered {registered} of {} services", services.len());
                }
                return;
            }
            ForwardEvent::NotReached { service, why, .. } => {
                let name = service.and_then(|index| ids.get(usize::from(index.0)));
                let name = name.map_or("?", ServiceId::as_str);
                // One program's failure is that program's to report, unless it is us.
                log::debug!("service {name} was not reached: {}", meaning(why));
                if ending.is_some() {
                    exit::complain(NAME, &format!("{name}: {}", meaning(why)));
                }
                code(why)
            }
            ForwardEvent::Ended { orderly, .. } => u8::from(!orderly),
        };
        if let Some(ending) = &ending
            && !over
        {
            ending.set(code);
            context.end();
        }
    })
}

fn code(why: NotReached) -> u8 {
    match why {
        NotReached::Refused => REFUSED,
        NotReached::Unreachable | NotReached::TimedOut | NotReached::NotRegistered => UNREACHABLE,
        NotReached::NotAllowed => NOT_PERMITTED,
        NotReached::Full => 1,
    }
}

fn meaning(why: NotReached) -> &'static str {
    match why {
        NotReached::Refused => "connection refused",
        NotReached::Unreachable => "host unreachable",
        NotReached::TimedOut => "no answer in time",
        NotReached::NotRegistered => "not registered with the intermediate in time",
        NotReached::NotAllowed => "not permitted",
        NotReached::Full => "too many connections",
    }
}
