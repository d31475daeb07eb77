//! What `ztna forward`, `ztna socks` and `ztna connect` share: the settings of an agent without a tunnel interface, its
//! listeners, and its start.
//!
//! Everything comes from the same layers as for `ztna up`, with the same file; the tunnel interface's keys mean nothing
//! here. Services may also be named by targets and `--service` alone, so that no file is needed.

mod listen;
mod run;
mod snapshot;
mod target;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use program::args::{self, Common, CommonArgs};
use program::congestion;
use program::endpoint::IntermediateServer;
use program::services::{self, Service};
use program::settings::{Flags, Settings, SettingsError};
use proto_core::config::SessionConfig;
use proto_core::config::{AgentConfig, AgentService, IntermediateEndpoint, TunnelLimits};
use proto_core::forward::internal_address;
use proto_core::id::{ServiceId, ServiceIndex};
use proto_core::tcp::Algorithm;

use crate::config::{DEFAULT_PATH, SCHEMA, tunnel_addresses};

pub(crate) use listen::{Listening, address as check_listen, listen_datagrams, listen_streams, warn_beyond};
pub(crate) use run::{Ending, run};
pub(crate) use target::{Target, Transport};

/// The longest end that can be asked for.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// Flags of every agent without a tunnel interface.
#[derive(Clone, Debug, clap::Args)]
pub struct RootlessArgs {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub common: CommonArgs,

    /// The intermediate, HOST:PORT [env: ZTNA_INTERMEDIATE_SERVER]
    #[arg(long, value_name = "HOST:PORT")]
    pub intermediate_server: Option<String>,

    /// The name in the intermediate's certificate [default: its host] [env: ZTNA_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,

    /// This host's address in the tunnel, at most one of each family, separated by a comma [default: 10.100.255.1 and
    /// fd7a:746e:6100::1] [env: ZTNA_TUNNEL_ADDRESS]
    #[arg(long, value_name = "ADDRESS")]
    pub tunnel_address: Option<String>,

    /// A service that the file does not have, with its virtual address if there is one; may be repeated
    #[arg(long, value_name = "ID[=ADDRESS]")]
    pub service: Vec<String>,

    /// How long connections may go on after the first SIGTERM or SIGINT, 500ms, 5s, 2m; 0 resets them at once
    /// [default: 5s; of ztna connect: 0] [env: ZTNA_DRAIN]
    #[arg(long, value_name = "TIME")]
    pub drain: Option<String>,
}

impl RootlessArgs {
    fn flags(&self) -> Flags {
        let mut flags = self.common.flags();
        flags.set("intermediate_server", self.intermediate_server.as_ref());
        flags.set("server_name", self.server_name.as_ref());
        flags.set("tunnel_address", self.tunnel_address.as_ref());
        flags.set("drain", self.drain.as_ref());
        flags
    }

    /// Reads all layers.
    pub(crate) fn load(&self) -> Result<(Settings, Config), SettingsError> {
        let settings = args::load(&SCHEMA, DEFAULT_PATH, self.flags())?;
        let config = Config::read(&settings, &self.service)?;
        Ok((settings, config))
    }
}

/// The settings, parsed.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) sessions: Option<SessionConfig>,
    pub(crate) common: Common,
    pub(crate) server: IntermediateServer,
    /// Services with the addresses that are configured for them, if any.
    services: Vec<AgentService>,
    tunnel_addresses: Vec<IpAddr>,
    /// How long running streams may go on after the end was asked for, if anything was said about it.
    pub(crate) drain: Option<Duration>,
    pub(crate) congestion: Algorithm,
}

impl Config {
    fn read(settings: &Settings, extra: &[String]) -> Result<Self, SettingsError> {
        let common = Common::read(settings, 0)?;
        let server = IntermediateServer::read(settings)?;
        let tunnel_addresses = tunnel_addresses(settings, true)?;
        let listed = match settings.from_file("services") {
            Some(_) => services::read(settings)?,
            None => Vec::new(),
        };
        let mut config = Self {
            sessions: program::client::sessions(settings, &common)?,
            common,
            server,
            services: listed.into_iter().map(of_file).collect(),
            tunnel_addresses,
            drain: settings.optional("drain", |input| input.duration(Duration::ZERO, LONGEST_DRAIN))?,
            congestion: congestion::read(settings)?,
        };
        for text in extra {
            config.add(text)?;
        }
        Ok(config)
    }

    /// Adds a service of the command line.
    fn add(&mut self, text: &str) -> Result<(), SettingsError> {
        let wrong =
            |problem: &str, fix: &str| SettingsError::new("--service", format!("\"{text}\" {problem}"), fix);
        let (id, address) = match text.split_once('=') {
            Some((id, address)) => (id, Some(address)),
            None => (text, None),
        };
        let id = ServiceId::parse(id.as_bytes())
            .map_err(|error| wrong(&format!("has no usable id: {error}"), "write for example web-app"))?;
        if self.position(id.as_str()).is_some() {
            return Err(wrong("is there already", "name each service once"));
        }
        let address: Option<IpAddr> = address.map(str::parse).transpose().map_err(|_| {
            wrong(
                "has no IP address behind the =",
                "write for example web-app=10.100.0.1",
            )
        })?;
        let taken = self
            .services
            .iter()
            .flat_map(|service| &service.virtual_addresses);
        if address.is_some_and(|address| taken.clone().any(|other| *other == address)) {
            return Err(wrong("has the address of another service", "give each its own"));
        }
        self.services.push(AgentService {
            id,
            virtual_addresses: address.into_iter().collect(),
        });
        Ok(())
    }

    fn position(&self, id: &str) -> Option<usize> {
        let id = id.to_lowercase();
        let is = |service: &AgentService| service.id.as_str().to_lowercase() == id;
        self.services.iter().position(is)
    }

    /// The service that a target names, added if no layer has it yet.
    pub(crate) fn service(&mut self, host: &str) -> Result<ServiceId, SettingsError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            let has = |service: &&AgentService| service.virtual_addresses.contains(&address);
            return self
                .services
                .iter()
                .find(has)
                .map(|service| service.id.clone())
                .ok_or_else(|| {
                    SettingsError::new(
                        host,
                        "no service has this address",
                        "name the service, or give it the address with --service ID=ADDRESS",
                    )
                });
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let bare = host.strip_suffix(".ztna").unwrap_or(host);
        let known = self.position(host).or_else(|| self.position(bare));
        if let Some(service) = known.and_then(|position| self.services.get(position)) {
            return Ok(service.id.clone());
        }
        let id = ServiceId::parse(bare.as_bytes()).map_err(|error| {
            SettingsError::new(
                host,
                format!("no service: {error}"),
                "write for example web-app:8080",
            )
        })?;
        self.services.push(AgentService {
            id: id.clone(),
            virtual_addresses: Vec::new(),
        });
        Ok(id)
    }

    /// Leaves only these services: nothing else needs to be registered.
    pub(crate) fn keep(&mut self, wanted: &[ServiceId]) {
        let wanted: BTreeSet<&ServiceId> = wanted.iter().collect();
        self.services.retain(|service| wanted.contains(&service.id));
    }

    /// The position of a service in the machine's configuration.
    pub(crate) fn index(&self, id: &ServiceId) -> Option<ServiceIndex> {
        let position = self.services.iter().position(|service| service.id == *id)?;
        u16::try_from(position).ok().map(ServiceIndex)
    }

    pub(crate) fn services(&self) -> &[AgentService] {
        &self.services
    }

    /// What the machine is configured with; a service without an address gets an internal one.
    pub(crate) fn agent(&self, addresses: Vec<SocketAddr>, local: SocketAddr) -> AgentConfig {
        let server_name = (!self.common.insecure_dev).then(|| self.server.server_name.clone());
        let mut taken: BTreeSet<IpAddr> = self
            .services
            .iter()
            .flat_map(|service| service.virtual_addresses.iter().copied())
            .chain(self.tunnel_addresses.iter().copied())
            .collect();
        let services = self.services.iter().cloned().map(|mut service| {
            if service.virtual_addresses.is_empty() {
                let free = (0..u16::MAX)
                    .map(internal_address)
                    .find(|address| taken.insert(*address));
                service.virtual_addresses.extend(free);
            }
            service
        });
        AgentConfig {
            intermediate: IntermediateEndpoint {
                addresses,
                server_name,
            },
            local,
            services: services.collect(),
            sessions: self.sessions,
            limits: TunnelLimits::default(),
        }
    }

    pub(crate) fn tunnel_addresses(&self) -> &[IpAddr] {
        &self.tunnel_addresses
    }
}

fn of_file(service: Service<'_>) -> AgentService {
    AgentService {
        id: service.id,
        virtual_addresses: service.virtual_addresses,
    }
}

#[cfg(test)]
mod tests;
