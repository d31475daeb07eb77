//! The settings of `ztna up`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use program::args::{self, Common, CommonArgs};
use program::endpoint::IntermediateServer;
use program::services::{self, Service};
use program::settings::{Flags, Input, Schema, Settings, SettingsError};
use proto_core::config::SessionConfig;
use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::config::{AgentConfig, AgentService, IntermediateEndpoint, TunnelLimits};

/// Where the configuration is, if nothing else is said.
pub(crate) const DEFAULT_PATH: &str = "/etc/ztna/agent.json";

/// The interface, if no name is given.
const DEFAULT_TUN: &str = "ztna0";

/// The addresses of this host in the tunnel, if none is given; the second only where a service has an IPv6 address.
const DEFAULT_V4: Ipv4Addr = Ipv4Addr::new(10, 100, 255, 1);
const DEFAULT_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x746e, 0x6100, 0, 0, 0, 0, 1);

/// What a DATAGRAM carries at most: the largest UDP payload less what QUIC adds towards connection ids of 8 bytes, which our
/// intermediate gives out. Where a path or a peer with longer ids leaves less, the interface follows.
const DATAGRAM: usize = MAX_UDP_PAYLOAD - 32;

/// Type and length before the service id of a routed packet.
const WRAPPER: usize = 2;

/// The smallest MTU of IPv6 (RFC 8200 §5).
const MTU_V6: usize = 1280;

/// The smallest MTU that hosts work with (RFC 791).
const MTU_V4: usize = 576;

/// Every key that the program knows.
pub const SCHEMA: Schema = Schema::new(
    &[
        args::KEYS,
        &[
            "congestion_control",
            "control",
            "dns.listen",
            "dns.mode",
            "drain",
            "intermediate_server.host",
            "intermediate_server.port",
            "intermediate_server.server_name",
            "intermediate_server",
            "mtu",
            "paths",
            "services[].id",
            "services[].virtualIp",
            "services[].virtual_ip",
            "tun_name",
            "tunnel_address",
        ],
    ],
    args::CLIENT_OUTSIDE,
);

/// The port of DNS; `resolv.conf` can name no other.
const DNS_PORT: u16 = 53;

/// How programs of this host come to ask us about names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsMode {
    /// Through systemd-resolved if it is in charge, else through `resolv.conf`; without names where neither works.
    Auto,
    /// Through systemd-resolved, or not at all.
    Resolved,
    /// Through `resolv.conf`, or not at all.
    ResolvConf,
    /// No names.
    Off,
}

/// The words of [`DnsMode`].
const DNS_MODES: [(&str, DnsMode); 4] = [
    ("auto", DnsMode::Auto),
    ("resolved", DnsMode::Resolved),
    ("resolvconf", DnsMode::ResolvConf),
    ("off", DnsMode::Off),
];

impl DnsMode {
    /// Its word in the settings.
    pub(crate) fn word(self) -> &'static str {
        let words = DNS_MODES.into_iter().find(|(_, mode)| *mode == self);
        words.map_or("", |(word, _)| word)
    }
}

/// How names are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Who asks us.
    pub mode: DnsMode,
    /// Where we answer.
    pub listen: SocketAddr,
}

/// Flags of `ztna up`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub common: CommonArgs,

    /// The intermediate, HOST:PORT [env: ZTNA_INTERMEDIATE_SERVER]
    #[arg(long, value_name = "HOST:PORT")]
    pub intermediate_server: Option<String>,

    /// The name in the intermediate's certificate [default: its host] [env: ZTNA_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,

    /// Name of the tunnel interface [default: ztna0] [env: ZTNA_TUN_NAME]
    #[arg(long, value_name = "NAME")]
    pub tun_name: Option<String>,

    /// This host's address in the tunnel, at most one of each family, separated by a comma [default: 10.100.255.1,
    /// and fd7a:746e:6100::1 if a service has an IPv6 address] [env: ZTNA_TUNNEL_ADDRESS]
    #[arg(long, value_name = "ADDRESS")]
    pub tunnel_address: Option<String>,

    /// Largest packet of the interface [default: 1280, less if a service has a long id] [env: ZTNA_MTU]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,

    /// Who asks for names below .ztna: auto, resolved, resolvconf, off [default: auto] [env: ZTNA_DNS_MODE]
    #[arg(long, value_name = "MODE")]
    pub dns_mode: Option<String>,

    /// Where names are answered, ADDRESS or ADDRESS:PORT [default: port 53 of the tunnel address]
    /// [env: ZTNA_DNS_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    pub dns_listen: Option<String>,

    /// Socket of `ztna status` and `ztna down` [default: /run/ztna/INTERFACE.sock] [env: ZTNA_CONTROL]
    #[arg(long, value_name = "PATH")]
    pub control: Option<String>,
}

impl UpArgs {
    /// The values that were given.
    pub fn flags(&self) -> Flags {
        let mut flags = self.common.flags();
        flags.set("intermediate_server", self.intermediate_server.as_ref());
        flags.set("server_name", self.server_name.as_ref());
        flags.set("tun_name", self.tun_name.as_ref());
        flags.set("tunnel_address", self.tunnel_address.as_ref());
        flags.set("mtu", self.mtu.as_ref());
        flags.set("dns.mode", self.dns_mode.as_ref());
        flags.set("dns.listen", self.dns_listen.as_ref());
        flags.set("control", self.control.as_ref());
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
    /// The services, each with at least one address.
    pub services: Vec<AgentService>,
    /// The interface.
    pub tun_name: String,
    /// This host's addresses in the tunnel.
    pub tunnel_addresses: Vec<IpAddr>,
    /// The largest packet.
    pub mtu: u16,
    /// How names are served.
    pub dns: DnsConfig,
    /// The control socket, if another than the usual one is wanted.
    pub control: Option<PathBuf>,
}

impl Config {
    /// Parses them.
    ///
    /// # Errors
    /// For the first one that is wrong.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let common = Common::read(settings, 0)?;
        let server = IntermediateServer::read(settings)?;
        let services = services::read(settings)?;
        let has_v6 = services
            .iter()
            .flat_map(|s| &s.virtual_addresses)
            .any(IpAddr::is_ipv6);
        let tunnel_addresses = tunnel_addresses(settings, has_v6)?;
        for service in &services {
            check_addresses(service, &tunnel_addresses, &server)?;
        }
        let tun_name = tun_name(settings)?;
        let dns = dns(settings, &tunnel_addresses, &services)?;
        let mtu = mtu(settings, &services, has_v6)?;
        Ok(Self {
            sessions: program::client::sessions(settings, &common)?,
            common,
            server,
            services: services
                .into_iter()
                .map(|service| AgentService {
                    id: service.id,
                    virtual_addresses: service.virtual_addresses,
                })
                .collect(),
            tun_name,
            tunnel_addresses,
            mtu,
            dns,
            control: control(settings)?,
        })
    }

    /// What the machine is configured with.
    pub fn machine(&self, addresses: Vec<SocketAddr>, local: SocketAddr) -> AgentConfig {
        let server_name = (!self.common.insecure_dev).then(|| self.server.server_name.clone());
        AgentConfig {
            intermediate: IntermediateEndpoint {
                addresses,
                server_name,
            },
            local,
            services: self.services.clone(),
            sessions: self.sessions,
            limits: TunnelLimits::default(),
        }
    }
}

/// The name of the interface.
///
/// # Errors
/// If no interface can have it.
pub(crate) fn tun_name(settings: &Settings) -> Result<String, SettingsError> {
    settings.or("tun_name", DEFAULT_TUN.to_owned(), |input| interface_name(input))
}

/// The control socket, if one was given.
///
/// # Errors
/// If it is no path.
pub(crate) fn control(settings: &Settings) -> Result<Option<PathBuf>, SettingsError> {
    settings.optional("control", |input| {
        input.text("/run/ztna/ztna0.sock").map(PathBuf::from)
    })
}

fn dns(settings: &Settings, tunnel: &[IpAddr], services: &[Service<'_>]) -> Result<DnsConfig, SettingsError> {
    let mode = settings.or("dns.mode", DnsMode::Auto, |input| input.choice(&DNS_MODES))?;
    // `tunnel_addresses` puts one in that nobody gave.
    let own = tunnel
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| tunnel.first());
    let default = SocketAddr::new(own.copied().unwrap_or(DEFAULT_V4.into()), DNS_PORT);
    let listen = settings.or("dns.listen", default, |input| listen_address(input))?;
    if let Some(input) = settings.input("dns.listen") {
        if let Some(service) = services
            .iter()
            .find(|s| s.virtual_addresses.contains(&listen.ip()))
        {
            return Err(input.error(
                format!("{} is the virtual address of service {}", listen.ip(), service.id),
                "choose an address of this host, such as 127.0.0.54",
            ));
        }
        if mode == DnsMode::ResolvConf && listen.port() != DNS_PORT {
            return Err(input.error(
                format!("port {} cannot stand in resolv.conf", listen.port()),
                "use port 53, or dns.mode \"resolved\"",
            ));
        }
    }
    Ok(DnsConfig { mode, listen })
}

/// An address of this host, with a port or for port 53.
fn listen_address(input: &Input<'_>) -> Result<SocketAddr, SettingsError> {
    const EXAMPLE: &str = "127.0.0.54";
    let text = input.text(EXAMPLE)?.trim();
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, DNS_PORT)))
        .map_err(|_| {
            input.error(
                format!(
                    "{} is neither an address nor an address with a port",
                    input.shown()
                ),
                format!("write for example {EXAMPLE:?} or \"{EXAMPLE}:53\""),
            )
        })?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(input.error(
            format!("{address} is no address that programs of this host could be given"),
            format!("choose one address of this host, such as {EXAMPLE:?}"),
        ));
    }
    Ok(address)
}

/// This host's addresses in the tunnel.
pub(crate) fn tunnel_addresses(settings: &Settings, has_v6: bool) -> Result<Vec<IpAddr>, SettingsError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some(input) = settings.input("tunnel_address") {
        for value in input.one_or_many() {
            let address = services::virtual_address(&value)?;
            if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(value.error(
                    format!("{address} is a second address of its family"),
                    "give at most one IPv4 and one IPv6 address",
                ));
            }
            addresses.push(address);
        }
    }
    if !addresses.iter().any(IpAddr::is_ipv4) {
        addresses.push(DEFAULT_V4.into());
    }
    if has_v6 && !addresses.iter().any(IpAddr::is_ipv6) {
        addresses.push(DEFAULT_V6.into());
    }
    Ok(addresses)
}

fn check_addresses(
    service: &Service<'_>,
    tunnel: &[IpAddr],
    server: &IntermediateServer,
) -> Result<(), SettingsError> {
    if service.virtual_addresses.is_empty() {
        let what = "the address under which this host reaches the service";
        return Err(match service.input.member("virtualIp", what) {
            Err(missing) => missing,
            Ok(empty) => empty.error("empty", format!("give {what}")),
        });
    }
    let place = service
        .input
        .get("virtualIp")
        .or_else(|| service.input.get("virtual_ip"));
    let place = place.as_ref().unwrap_or(&service.input);
    for address in &service.virtual_addresses {
        if tunnel.contains(address) {
            return Err(place.error(
                format!("{address} is this host's own address in the tunnel"),
                "choose another virtual address, or another tunnel_address",
            ));
        }
        if server.endpoint.ip() == Some(*address) {
            return Err(place.error(
                format!("{address} is the address of the intermediate"),
                "choose another virtual address, or the tunnel would run through itself",
            ));
        }
    }
    Ok(())
}

fn interface_name(input: &Input<'_>) -> Result<String, SettingsError> {
    let name = input.text(DEFAULT_TUN)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 15 || !name.chars().all(plain) || name.chars().all(|c| c == '.') {
        return Err(input.error(
            format!("{} is not the name of an interface", input.shown()),
            "give 1 to 15 letters, digits, hyphens, dots or underscores",
        ));
    }
    Ok(name.to_owned())
}

/// The least MTU that an interface with these protocols may have.
pub(crate) fn least_mtu(has_v6: bool) -> u16 {
    (if has_v6 { MTU_V6 } else { MTU_V4 }) as u16
}

/// What fits into a DATAGRAM behind the longest wrapper.
fn mtu(settings: &Settings, services: &[Service<'_>], has_v6: bool) -> Result<u16, SettingsError> {
    let longest = services.iter().max_by_key(|service| service.id.as_bytes().len());
    let length = longest.map_or(0, |service| service.id.as_bytes().len());
    let room = DATAGRAM - WRAPPER - length;
    if has_v6
        && room < MTU_V6
        && let Some(service) = longest
    {
        let id = service.input.member("id", "the name of the service")?;
        return Err(id.error(
            format!("{length} bytes leave {room} for a packet, and IPv6 needs {MTU_V6}"),
            format!("shorten the id to {} bytes", DATAGRAM - WRAPPER - MTU_V6),
        ));
    }
    let low = usize::from(least_mtu(has_v6));
    let wanted = settings.or("mtu", room, |input| {
        let number = input.number(low as u64, room as u64)?;
        Ok(usize::try_from(number).unwrap_or(room))
    })?;
    Ok(u16::try_from(wanted).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
