//! What agents and connectors do alike: their socket, their resolver, and what they say about their link.

mod standing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log::Level;
use proto_core::config::SessionConfig;
use proto_core::failover::PathKind;
use proto_core::id::ServiceId;
use proto_core::link::LinkEvent;
use proto_core::punch::Interface;
use proto_core::quic::identity::SanAuthority;
use proto_core::wire::datagram::NackStatus;
use runtime_io::{AskError, BindError, CommandSender, LocalAddress, UdpConfig, UdpEndpoint};

use crate::args::Common;
use crate::explain;
use crate::redact::Redacted;
use crate::resolve::{Refresh, Resolving};
use crate::settings::{Settings, SettingsError};

pub use standing::{ServiceState, Standing};

/// Pause while a shell has too many commands waiting.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at the host's addresses.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Binds the socket of a client. Without an address: all of this host, IPv4 only where there is no IPv6.
///
/// # Errors
/// If the address is in use, not permitted or not of this host.
pub fn bind(address: Option<IpAddr>, port: u16) -> Result<UdpEndpoint, BindError> {
    let bind = |ip: IpAddr| {
        let mut config = UdpConfig::new(SocketAddr::new(ip, port));
        config.local = LocalAddress::Bound;
        UdpEndpoint::bind(&config)
    };
    match address {
        Some(ip) => bind(ip),
        None => match bind(Ipv6Addr::UNSPECIFIED.into()) {
            Err(BindError::NotLocal(_) | BindError::Other(..)) => bind(Ipv4Addr::UNSPECIFIED.into()),
            bound => bound,
        },
    }
}

/// The addresses that a socket can send to: one bound to IPv4, or to one IPv6 address, has a single family.
pub fn reachable(mut addresses: Vec<SocketAddr>, local: SocketAddr) -> Vec<SocketAddr> {
    let found = !addresses.is_empty();
    match local.ip() {
        IpAddr::V4(_) => addresses.retain(SocketAddr::is_ipv4),
        IpAddr::V6(ip) if ip.is_unspecified() => {}
        IpAddr::V6(_) => addresses.retain(SocketAddr::is_ipv6),
    }
    if found && addresses.is_empty() {
        log::warn!("the intermediate has no address of the family of bind_addr");
    }
    addresses
}

/// What the other end of a session has to show: a certificate that names the service. Without a certificate of its own a program
/// cannot show any itself, and has no sessions.
///
/// # Errors
/// If `paths` is none of what it may be.
pub fn sessions(settings: &Settings, common: &Common) -> Result<Option<SessionConfig>, SettingsError> {
    const CHOICES: [(&str, Option<bool>); 3] = [
        ("auto", Some(true)),
        ("relay", Some(false)),
        ("insecure-wrapped", None),
    ];
    let Some(direct) = settings.or("paths", Some(true), |input| input.choice(&CHOICES))? else {
        log::warn!("paths: insecure-wrapped is on. The intermediate can read every packet");
        return Ok(None);
    };
    if settings.input("cert_path").is_none() {
        return Ok(None);
    }
    Ok(Some(SessionConfig {
        trust: SanAuthority {
            allow_unnamed: common.insecure_dev,
            insecure_allow_anonymous: common.insecure_dev,
        },
        direct,
    }))
}

/// Tells a machine the addresses of this host, now and whenever they change; `set` runs on the thread of its shell. Addresses of the
/// interface `except` are left out: a tunnel is no way to itself.
pub fn watch_interfaces<M: 'static>(
    commands: &CommandSender<M>,
    except: Option<String>,
    set: fn(&mut M, &[Interface]),
) {
    let commands = commands.clone();
    let watch = move || {
        let mut before = Vec::new();
        loop {
            let mut now = runtime_io::interfaces();
            now.retain(|interface| Some(&interface.name) != except.as_ref());
            if now != before {
                before.clone_from(&now);
                match commands.send(move |context| set(context.machine, &now)) {
                    Ok(()) => {}
                    // Told with the next look.
                    Err(AskError::Full | AskError::TimedOut) => before.clear(),
                    Err(AskError::Closed) => return,
                }
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    };
    let started = std::thread::Builder::new()
        .name("interfaces".to_owned())
        .spawn(watch);
    if let Err(error) = started {
        log::warn!("peers on the same network will not be found: {error}");
    }
}

/// Hands later answers of a resolver to a machine whose socket is bound to `local`; `set` runs on the thread of its
/// shell.
pub fn follow<M: 'static>(
    resolving: Resolving,
    local: SocketAddr,
    commands: &CommandSender<M>,
    set: fn(&mut M, Vec<SocketAddr>),
) -> Refresh {
    let commands = commands.clone();
    resolving.deliver(move |addresses| {
        let addresses = reachable(addresses, local);
        loop {
            let addresses = addresses.clone();
            match commands.send(move |context| set(context.machine, addresses)) {
                Ok(()) => return true,
                Err(AskError::Full | AskError::TimedOut) => std::thread::sleep(PAUSE),
                Err(AskError::Closed) => return false,
            }
        }
    })
}

/// Tells the story of a link in the log: every change once, the same failure again only at DEBUG.
#[derive(Debug)]
pub struct LinkLog {
    refresh: Refresh,
    last: Option<String>,
    /// What was said about each refused service; as many entries as there are services, at most.
    denied: BTreeMap<ServiceId, NackStatus>,
}

impl LinkLog {
    /// Nothing has happened yet.
    pub fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            last: None,
            denied: BTreeMap::new(),
        }
    }

    /// One event; `service` names the link where there are several, or the service that the event is about.
    pub fn tell(&mut self, event: &LinkEvent, service: Option<&ServiceId>) {
        let name = service.map_or("?", ServiceId::as_str);
        match event {
            LinkEvent::Connected { remote } => {
                self.last = None;
                log::debug!("connected to the intermediate at {remote}");
            }
            LinkEvent::Registered(_) => {
                if let Some(id) = service {
                    self.denied.remove(id);
                }
                log::debug!("service {name} is registered");
            }
            LinkEvent::Denied(_, status) => self.deny(service, name, *status),
            LinkEvent::Observed(address) => {
                let ip = Redacted(address.ip());
                log::debug!("the intermediate sees this host as {ip} port {}", address.port());
            }
            LinkEvent::Path(_, path) => {
                let way = match path {
                    Some(PathKind::Direct) => "goes straight to its connector",
                    Some(PathKind::Relayed) => "goes through the intermediate, which cannot read it",
                    None => "has no way to its connector",
                };
                log::info!("service {name} {way}");
            }
            LinkEvent::Disconnected(reason) => {
                self.refresh.wanted();
                self.warn(format!("connection lost: {}", explain::ended(reason)));
            }
            LinkEvent::Unreachable { remote, reason } => {
                self.refresh.wanted();
                log::debug!("no connection to {remote}");
                let why = match reason {
                    Some(reason) => explain::ended(reason),
                    None => "the intermediate does not answer".to_owned(),
                };
                self.warn(format!("cannot connect: {why}"));
            }
        }
    }

    fn deny(&mut self, service: Option<&ServiceId>, name: &str, status: NackStatus) {
        let before = service.and_then(|id| self.denied.insert(id.clone(), status));
        let level = if before == Some(status) {
            Level::Debug
        } else {
            Level::Warn
        };
        log::log!(level, "service {name} is refused: {}", denial(status));
    }

    fn warn(&mut self, text: String) {
        if self.last.as_ref() == Some(&text) {
            log::debug!("{text}; trying on");
            return;
        }
        log::warn!("{text}; trying on");
        self.last = Some(text);
    }
}

/// Why a registration was refused, and what to do.
fn denial(status: NackStatus) -> String {
    match status {
        NackStatus::InvalidId => "the intermediate does not accept its id".to_owned(),
        NackStatus::NotAuthorised => {
            "the certificate does not name it (`ztna pki issue --agent` or `--connector` makes one that does)"
                .to_owned()
        }
        NackStatus::Taken => "another connector has it".to_owned(),
        NackStatus::AtCapacity => "the intermediate is full".to_owned(),
        NackStatus::Other(code) => format!("status {code}"),
    }
}

#[cfg(test)]
mod tests;
