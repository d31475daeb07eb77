//! How a connector's services are served: which backends they have, which of them take sessions, and who may come.
//!
//! It decides, for every new flow, whether somebody listens on its port and which backend gets it (`targets`); when a
//! backend is asked whether it is well and what the answers mean ([`health`]); when a host name is looked up again
//! (`names`); what a backend is told about the agent ([`proxy`]) and who is let in ([`access`]). It opens no socket and
//! asks no resolver: what there is to ask is handed to the shell as an [`Ask`](crate::backend::Ask), and the shell
//! answers. Nothing here is on the path of a packet whose flow is known.

pub mod access;
pub mod health;
mod names;
pub mod proxy;
mod registry;
mod targets;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::backend::{Protocol, Transport};
use access::AllowList;
use health::HealthCheck;

pub use registry::Services;
pub use targets::TargetId;

/// Addresses used of one host name: a name with more has them by turns anyway.
pub const ADDRESSES_PER_NAME: usize = 16;

/// The host of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, looked up by the shell and again when its answer expires.
    Name(Box<str>),
}

/// Where a service really listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// The host.
    pub host: Host,
    /// The port; `None` is the port that the agent asked for.
    pub port: Option<u16>,
}

/// Some ports of a service, and the backends behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The ports that agents may ask for.
    pub ports: RangeInclusive<u16>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is spoken; at least one.
    pub backends: Vec<Backend>,
}

/// How a service is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its ports. No two of them share a port of one transport.
    pub listeners: Vec<Listener>,
    /// How its backends are checked; without, every backend that has an address counts as well.
    pub health: Option<HealthCheck>,
    /// Whether a TCP backend is told about the agent in a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Who may use it; `None` is everyone whom the intermediate lets in.
    pub allow: Option<AllowList>,
}

impl Offer {
    /// Every port leads to this one backend.
    pub fn single(backend: SocketAddr, protocol: Protocol) -> Self {
        let backend = Backend {
            host: Host::Address(backend.ip()),
            port: Some(backend.port()),
        };
        Self {
            listeners: vec![Listener {
                ports: 0..=u16::MAX,
                protocol,
                backends: vec![backend],
            }],
            health: None,
            proxy_protocol: false,
            allow: None,
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.host, self.port) {
            (Host::Address(ip), Some(port)) => write!(f, "{}", SocketAddr::new(*ip, port)),
            (Host::Address(ip), None) => write!(f, "{ip}"),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => write!(f, "{name}"),
        }
    }
}

impl Protocol {
    /// Whether it includes a transport.
    pub fn speaks(self, transport: Transport) -> bool {
        match (self, transport) {
            (Self::Both, _) | (Self::Tcp, Transport::Tcp) | (Self::Udp, Transport::Udp) => true,
            (Self::Tcp, Transport::Udp) | (Self::Udp, Transport::Tcp) => false,
        }
    }
}

/// The backend of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// For [`Services::release`], when the flow ends.
    pub target: TargetId,
    /// Where to connect.
    pub address: SocketAddr,
    /// Whether another backend could have taken it.
    pub alternative: bool,
}

/// Why a flow gets no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// The service does not listen on that port.
    NotListened,
    /// It does, and no backend is well.
    NoneHealthy,
}

/// What is to be said about the backends of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// A backend takes sessions, after its first check or after it was down.
    BackendUp {
        /// As configured, with its address if it is a name.
        backend: Box<str>,
    },
    /// A backend takes no new sessions.
    BackendDown {
        /// As configured, with its address if it is a name.
        backend: Box<str>,
        /// What its check said.
        why: health::Ailment,
    },
    /// A backend's name could not be looked up; what was known before stays in use.
    NameUnknown {
        /// The name.
        name: Box<str>,
    },
    /// A name that could not be looked up is known again.
    NameKnown {
        /// The name.
        name: Box<str>,
    },
    /// An agent was not let in; said now and then, counted always.
    Denied {
        /// The name in its certificate, if the intermediate introduced it.
        name: Option<Box<str>>,
    },
    /// A backend is well, so the service is published.
    Available,
    /// No backend is well, so the service is withdrawn.
    Withdrawn,
}

/// One backend, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    /// As configured, with its address if it is a name.
    pub backend: String,
    /// Whether it takes new sessions.
    pub up: bool,
    /// Its flows now.
    pub flows: u32,
}
