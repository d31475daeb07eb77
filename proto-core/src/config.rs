//! What the roles are configured with: already parsed, invalid states unrepresentable where a type can say so.
//!
//! Programs read files and flags and build these values; the core never sees text.

pub mod limits;
pub mod timing;

use std::net::{IpAddr, SocketAddr};

use crate::id::ServiceId;
use crate::netstack::{NetstackConfig, NetstackLimits, NetstackService};
use crate::quic::identity::SanAuthority;
use crate::service::Offer;

pub use crate::backend::Protocol;
pub use limits::{IntermediateLimits, TunnelLimits};

/// Where an intermediate is reached and what its certificate must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntermediateEndpoint {
    /// Its addresses, tried in turn; at least one.
    pub addresses: Vec<SocketAddr>,
    /// The host name or address that its certificate must carry; `None` checks no name (development only).
    pub server_name: Option<String>,
}

/// A service as an agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentService {
    /// Its name.
    pub id: ServiceId,
    /// The addresses under which this host reaches it.
    pub virtual_addresses: Vec<IpAddr>,
}

/// How an agent and a connector deal with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// What the other end has to show.
    pub trust: SanAuthority,
    /// Look for a way straight to it.
    pub direct: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            trust: SanAuthority::default(),
            direct: true,
        }
    }
}

/// The configuration of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The intermediate.
    pub intermediate: IntermediateEndpoint,
    /// The local address of the socket, as bound.
    pub local: SocketAddr,
    /// The services, each with its virtual addresses. Two services never share an address.
    pub services: Vec<AgentService>,
    /// Sessions with connectors; `None` has none: packets go through the intermediate, which reads them.
    pub sessions: Option<SessionConfig>,
    /// Queue lengths.
    pub limits: TunnelLimits,
}

/// The configuration of an intermediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntermediateConfig {
    /// Demand proof of address from every client (RFC 9000 §8.1.2).
    pub retry: bool,
    /// The key of stateless reset tokens, the same after every restart.
    pub reset_key: Option<[u8; 32]>,
    /// Table sizes.
    pub limits: IntermediateLimits,
}

/// A service as a connector publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorService {
    /// Its name.
    pub id: ServiceId,
    /// How it is served.
    pub offer: Offer,
    /// The addresses under which agents reach it; empty accepts any, because the intermediate has already chosen the
    /// service and each agent has its own virtual address for it.
    pub virtual_addresses: Vec<IpAddr>,
}

/// The configuration of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// The intermediate.
    pub intermediate: IntermediateEndpoint,
    /// The local address of the socket, as bound.
    pub local: SocketAddr,
    /// The services.
    pub services: Vec<ConnectorService>,
    /// Sessions with agents, beside the lists of the services; `None` has none.
    pub sessions: Option<SessionConfig>,
    /// Table sizes of the network stack.
    pub limits: NetstackLimits,
}

impl ConnectorService {
    /// What the network stack knows of it.
    pub(crate) fn netstack(&self) -> NetstackService {
        NetstackService {
            offer: self.offer.clone(),
            virtual_addresses: self.virtual_addresses.clone(),
        }
    }
}

impl ConnectorConfig {
    /// What its network stack is configured with.
    pub(crate) fn netstack(&self) -> NetstackConfig {
        let services = self.services.iter().map(ConnectorService::netstack);
        NetstackConfig {
            services: services.collect(),
            limits: self.limits,
        }
    }
}
