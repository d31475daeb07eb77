//! The settings of `ztna-intermediate`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use program::args::{self, Common, CommonArgs};
use program::settings::{Flags, Schema, Settings, SettingsError};
use proto_core::channel::{ChannelLimits, MAX_CHANNELS};
use proto_core::config::{IntermediateConfig, IntermediateLimits};

/// The port, if none is given.
pub const DEFAULT_PORT: u16 = program::endpoint::INTERMEDIATE_PORT;

/// The port of `/healthz` and `/metrics`, if none is given.
pub const DEFAULT_METRICS_PORT: u16 = 9090;

/// A table larger than this would not fit any host; the number is a slip.
const MAX_LIMIT: u64 = 100_000_000;

/// A channel rests at least as long as a connection may be silent, or sessions would lose it between two signs of life.
const LEAST_IDLE: Duration = Duration::from_secs(60);

/// Longer than this no channel need be kept.
const MOST_IDLE: Duration = Duration::from_secs(24 * 3600);

/// Every key that the program knows.
pub const SCHEMA: Schema = Schema::new(
    &[
        args::KEYS,
        &[
            "allow_unnamed_clients",
            "disable_retry",
            "external_ip",
            "limits.channel_idle",
            "limits.channel_rate",
            "limits.channels",
            "limits.channels_per_client",
            "limits.connections",
            "limits.flows",
            "limits.flows_per_agent",
            "limits.handshakes",
            "limits.registrations",
            "limits.services_per_connection",
            "port",
            "require_client_cert",
        ],
    ],
    args::OUTSIDE,
);

/// Relay and rendezvous of the ZTNA overlay.
///
/// Agents and connectors connect to it; it never connects to anybody. Settings come from flags, from the environment
/// (ZTNA_*), and from /etc/ztna/intermediate.json, in this order.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "ztna-intermediate",
    version,
    after_help = "Exit codes: 0 ended in order (SIGTERM, SIGINT); 2 something in the settings or on this host has to be put right; 1 anything else."
)]
pub struct Args {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub common: CommonArgs,

    /// UDP port, 0 for any [default: 4433] [env: ZTNA_PORT]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// The public address, for information; replies always leave from the address a client wrote to [env: ZTNA_EXTERNAL_IP]
    #[arg(long, value_name = "ADDRESS")]
    pub external_ip: Option<String>,

    /// Do not ask strangers to prove their address before a handshake [env: ZTNA_DISABLE_RETRY]
    #[arg(long)]
    pub disable_retry: bool,

    /// Let certificates without any agent.* or connector.* name use and publish every service [env: ZTNA_ALLOW_UNNAMED_CLIENTS]
    #[arg(long)]
    pub allow_unnamed_clients: bool,
}

impl Args {
    /// The values that were given.
    pub fn flags(&self) -> Flags {
        let mut flags = self.common.flags();
        flags.set("port", self.port.as_ref());
        flags.set("external_ip", self.external_ip.as_ref());
        flags.switch("disable_retry", self.disable_retry);
        flags.switch("allow_unnamed_clients", self.allow_unnamed_clients);
        flags
    }
}

/// The settings, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What every program has.
    pub common: Common,
    /// Where to listen.
    pub bind: SocketAddr,
    /// The public address; nothing depends on it.
    pub external_ip: Option<IpAddr>,
    /// Whether strangers need not prove their address.
    pub disable_retry: bool,
    /// Whether a certificate without names is good for every service.
    pub allow_unnamed_clients: bool,
    /// Table sizes.
    pub limits: IntermediateLimits,
}

impl Config {
    /// Parses them.
    ///
    /// # Errors
    /// For the first one that is wrong.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let common = Common::read(settings, DEFAULT_METRICS_PORT)?;
        let ip = common.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let port = settings.or("port", DEFAULT_PORT, |input| input.port())?;
        if let Some(input) = settings.input("require_client_cert")
            && !input.switch()?
            && !common.insecure_dev
        {
            return Err(input.error(
                "false lets anybody in",
                "remove the key, or for development only start with --insecure-dev",
            ));
        }
        let switch = |key| settings.or(key, false, |input| input.switch());
        Ok(Self {
            bind: SocketAddr::new(ip, port),
            external_ip: settings.optional("external_ip", |input| input.ip("203.0.113.9"))?,
            disable_retry: switch("disable_retry")?,
            allow_unnamed_clients: switch("allow_unnamed_clients")?,
            limits: limits(settings)?,
            common,
        })
    }

    /// What the machine is configured with.
    pub fn machine(&self, reset_key: Option<[u8; 32]>) -> IntermediateConfig {
        IntermediateConfig {
            retry: !self.disable_retry,
            reset_key,
            limits: self.limits,
        }
    }
}

fn limits(settings: &Settings) -> Result<IntermediateLimits, SettingsError> {
    let default = IntermediateLimits::default();
    let limit = |key: &str, default: usize| {
        settings.or(key, default, |input| {
            let number = input.number(1, MAX_LIMIT)?;
            Ok(usize::try_from(number).unwrap_or(usize::MAX))
        })
    };
    Ok(IntermediateLimits {
        connections: limit("limits.connections", default.connections)?,
        handshakes: limit("limits.handshakes", default.handshakes)?,
        services_per_connection: limit("limits.services_per_connection", default.services_per_connection)?,
        registrations: limit("limits.registrations", default.registrations)?,
        flows_per_agent: limit("limits.flows_per_agent", default.flows_per_agent)?,
        flows: limit("limits.flows", default.flows)?,
        channels: channels(settings)?,
    })
}

fn channels(settings: &Settings) -> Result<ChannelLimits, SettingsError> {
    let default = ChannelLimits::default();
    let limit = |key: &str, default: usize| {
        settings.or(key, default, |input| {
            let number = input.number(1, MAX_CHANNELS as u64)?;
            Ok(usize::try_from(number).unwrap_or(usize::MAX))
        })
    };
    let rate = settings.or("limits.channel_rate", 0, |input| input.number(0, u64::MAX >> 8))?;
    Ok(ChannelLimits {
        channels: limit("limits.channels", default.channels)?,
        per_client: limit("limits.channels_per_client", default.per_client)?,
        rate: Some(rate).filter(|rate| *rate > 0),
        idle: settings.or("limits.channel_idle", default.idle, |input| {
            input.duration(LEAST_IDLE, MOST_IDLE)
        })?,
        ..default
    })
}

#[cfg(test)]
mod tests;
