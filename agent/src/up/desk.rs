//! What the control socket of a `ztna up` is answered with.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use program::station::Snapshot as _;
use proto_core::config::AgentService;
use runtime_io::CommandSender;

use super::Machine;
use super::names::Names;
use crate::config::{Config, DnsMode};
use crate::control::Station;
use crate::dns::zone;
use crate::report::{Dns, Report};
use crate::snapshot::AgentSnapshot;

/// How long the packet loop may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a reload changes.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The services that are configured now.
    pub(super) services: Vec<AgentService>,
    /// This host's addresses on the interface.
    pub(super) addresses: Vec<IpAddr>,
}

/// What does not change, or is known without the packet loop.
#[derive(Debug)]
pub(super) struct Desk {
    started: Instant,
    intermediate: String,
    interface: String,
    current: Arc<Mutex<Current>>,
    names: Names,
}

/// A desk with a line to the packet loop.
pub(super) struct OpenDesk {
    desk: Desk,
    commands: CommandSender<Machine>,
}

impl Current {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            services: config.services.clone(),
            addresses: config.tunnel_addresses.clone(),
        }
    }
}

impl Desk {
    pub(super) fn new(config: &Config, names: &Names) -> Self {
        Self {
            started: Instant::now(),
            intermediate: config.server.endpoint.to_string(),
            interface: config.tun_name.clone(),
            current: Arc::new(Mutex::new(Current::of(config))),
            names: names.clone(),
        }
    }

    /// To be replaced when it changes.
    pub(super) fn current(&self) -> Arc<Mutex<Current>> {
        Arc::clone(&self.current)
    }

    pub(super) fn with(self, commands: CommandSender<Machine>) -> OpenDesk {
        OpenDesk { desk: self, commands }
    }

    /// Adds to the numbers of the machine what it does not know.
    fn complete(&self, mut report: Report) -> Report {
        report.version = env!("CARGO_PKG_VERSION").to_owned();
        report.pid = std::process::id();
        report.uptime_seconds = self.started.elapsed().as_secs();
        report.intermediate.name.clone_from(&self.intermediate);
        report.interface.name.clone_from(&self.interface);
        let Current { services, addresses } = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        report.interface.addresses = addresses;
        let is_on = self.names.mode != DnsMode::Off;
        for service in &mut report.services {
            let Some(own) = services.iter().find(|own| own.id.as_str() == service.id) else {
                continue;
            };
            service.addresses.clone_from(&own.virtual_addresses);
            service.name = is_on.then(|| zone::name_of(&own.id)).flatten();
        }
        let upstreams = self.names.shared.upstreams();
        report.dns = Dns {
            mode: self.names.mode.word().to_owned(),
            listen: is_on.then(|| self.names.listen.to_string()),
            upstreams: upstreams.iter().map(ToString::to_string).collect(),
            questions: self.names.shared.questions(),
        };
        report
    }
}

impl Station for OpenDesk {
    fn status(&self) -> Result<Report, String> {
        let snapshot = self
            .commands
            .ask(PATIENCE, |context| {
                AgentSnapshot::take(context.machine, context.stats)
            })
            .map_err(|error| error.to_string())?;
        Ok(self.desk.complete(snapshot.report()))
    }

    fn end(&self) -> Result<(), String> {
        log::info!("asked to end by `ztna down`");
        self.commands.shut_down().map_err(|error| error.to_string())
    }
}
