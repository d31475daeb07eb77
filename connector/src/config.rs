//! The settings of `ztna-connector`.

mod offer;

use std::net::SocketAddr;

use program::args::{self, Common, CommonArgs};
use program::congestion;
use program::endpoint::IntermediateServer;
use program::services::{self, Service};
use program::settings::{Flags, Schema, Settings, SettingsError};
use proto_core::config::SessionConfig;
use proto_core::config::{ConnectorConfig, ConnectorService, IntermediateEndpoint};
use proto_core::netstack::NetstackLimits;
use proto_core::tcp::Algorithm;

/// The port of `/healthz` and `/metrics`, if none is given.
pub const DEFAULT_METRICS_PORT: u16 = 9091;

/// The local UDP port of a connector with direct connections.
const DEFAULT_P2P_PORT: u16 = 4434;

/// Every key that the program knows.
pub const SCHEMA: Schema = Schema::new(
    &[
        args::KEYS,
        &[
            "congestion_control",
            "intermediate_server",
            "intermediate_server.host",
            "intermediate_server.port",
            "intermediate_server.server_name",
            "p2p.cert",
            "p2p.enabled",
            "p2p.key",
            "p2p.port",
            "paths",
            "services[].allow",
            "services[].backend",
            "services[].backends",
            "services[].health.check",
            "services[].health.expect",
            "services[].health.expect_status",
            "services[].health.healthy",
            "services[].health.interval",
            "services[].health.path",
            "services[].health.send",
            "services[].health.timeout",
            "services[].health.unhealthy",
            "services[].id",
            "services[].ports[].backends",
            "services[].ports[].listen",
            "services[].ports[].protocol",
            "services[].protocol",
            "services[].proxy_protocol",
            "services[].virtualIp",
            "services[].virtual_ip",
        ],
    ],
    args::CLIENT_OUTSIDE,
);

/// Publishes private services through the ZTNA overlay.
///
/// Connects to an intermediate and needs no open inbound port. Settings come from flags, from the environment (ZTNA_*),
/// and from /etc/ztna/connector.json, in this order; services are listed in the file.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "ztna-connector",
    version,
    after_help = "Exit codes: 0 ended in order (SIGTERM, SIGINT); 2 something in the settings or on this host has to be put right; 1 anything else."
)]
pub struct Args {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub common: CommonArgs,

    /// The intermediate, HOST:PORT [env: ZTNA_INTERMEDIATE_SERVER]
    #[arg(long, value_name = "HOST:PORT")]
    pub intermediate_server: Option<String>,

    /// The name in the intermediate's certificate [default: its host] [env: ZTNA_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,

    /// Local UDP port, 0 for any [default: 0, or 4434 if the file has "p2p"] [env: ZTNA_P2P_PORT]
    #[arg(long, value_name = "PORT")]
    pub p2p_port: Option<String>,
}

impl Args {
    /// The values that were given.
    pub fn flags(&self) -> Flags {
        let mut flags = self.common.flags();
        flags.set("intermediate_server", self.intermediate_server.as_ref());
        flags.set("server_name", self.server_name.as_ref());
        flags.set("p2p.port", self.p2p_port.as_ref());
        flags
    }
}

/// The settings, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What every program has.
    pub common: Common,
    /// What the other end of a session has to show; `None` has no sessions.
    pub sessions: Option<SessionConfig>,
    /// The intermediate.
    pub server: IntermediateServer,
    /// The services.
    pub services: Vec<ConnectorService>,
    /// The local UDP port; 0 for any.
    pub port: u16,
    /// Whether agents may come directly.
    pub p2p: bool,
    /// What decides how fast TCP towards agents goes.
    pub congestion: Algorithm,
}

impl Config {
    /// Parses them.
    ///
    /// # Errors
    /// For the first one that is wrong.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        Self::read_all(settings).map_err(|error| settings.name_service(error))
    }

    fn read_all(settings: &Settings) -> Result<Self, SettingsError> {
        let common = Common::read(settings, DEFAULT_METRICS_PORT)?;
        let server = IntermediateServer::read(settings)?;
        let services = services::read(settings)?
            .into_iter()
            .map(published)
            .collect::<Result<_, _>>()?;
        let section = settings.from_file("p2p");
        if let Some(section) = &section
            && !section.is_object()
        {
            return Err(section.error(
                format!("{} is not an object", section.shown()),
                "write {\"port\": 4434}",
            ));
        }
        let p2p = settings.or("p2p.enabled", true, |input| input.switch())?;
        // Accepted from existing files: direct connections show the certificate of `cert_path`.
        settings.optional("p2p.cert", |input| input.path())?;
        settings.optional("p2p.key", |input| input.path())?;
        let default_port = if p2p && section.is_some() {
            DEFAULT_P2P_PORT
        } else {
            0
        };
        Ok(Self {
            port: settings.or("p2p.port", default_port, |input| input.port())?,
            congestion: congestion::read(settings)?,
            sessions: program::client::sessions(settings, &common)?.map(|sessions| SessionConfig {
                direct: sessions.direct && p2p,
                ..sessions
            }),
            common,
            server,
            services,
            p2p,
        })
    }

    /// What the machine is configured with.
    pub fn machine(&self, addresses: Vec<SocketAddr>, local: SocketAddr) -> ConnectorConfig {
        let server_name = (!self.common.insecure_dev).then(|| self.server.server_name.clone());
        ConnectorConfig {
            intermediate: IntermediateEndpoint {
                addresses,
                server_name,
            },
            local,
            sessions: self.sessions,
            services: self.services.clone(),
            limits: NetstackLimits {
                congestion: self.congestion,
                ..NetstackLimits::default()
            },
        }
    }
}

fn published(service: Service<'_>) -> Result<ConnectorService, SettingsError> {
    Ok(ConnectorService {
        offer: offer::read(&service.input)?,
        id: service.id,
        virtual_addresses: service.virtual_addresses,
    })
}

#[cfg(test)]
mod tests;
