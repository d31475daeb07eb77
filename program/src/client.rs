//! What agents and connectors do alike: their socket, their resolver, and what they say about their link.

mod standing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log::Level;
use proto_core::id::ServiceId;
use proto_core::link::LinkEvent;
use proto_core::wire::datagram::NackStatus;
use runtime_io::{AskError, BindError, CommandSender, LocalAddress, UdpConfig, UdpEndpoint};

use crate::explain;
use crate::redact::Redacted;
use crate::resolve::{Refresh, Resolving};

pub use standing::{ServiceState, Standing};

/// Pause while a shell has too many commands waiting.
const PAUSE: Duration = Duration::from_millis(100);

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
