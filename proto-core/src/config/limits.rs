//! Every size of a queue or table, with its argument.

use crate::channel::ChannelLimits;
use crate::registration::RegistryLimits;
use crate::routing::flow::FlowLimits;

/// DATAGRAMs that wait to be sent on one connection: 20,000 a second for 50 ms, the longest that a busy two-core host
/// keeps a process waiting. 1.3 MB at most.
pub const SEND_QUEUE: usize = 1024;

/// DATAGRAMs that wait to be read on one connection; they are read in the same turn, so this bounds one receive batch.
pub const RECEIVE_QUEUE: usize = 1024;

/// The largest UDP payload that is sent and taken: what an IPv6 packet of 1,500 bytes holds. How much of it a path carries is
/// found out when a connection begins (RFC 8899).
pub const MAX_UDP_PAYLOAD: usize = 1_452;

/// Events that wait for the program; beyond it the oldest is dropped and counted.
pub const EVENT_QUEUE: usize = 1024;

/// Frames of relay channels that came inside a control connection and wait to be sent bare: one batch of each of some ten clients.
pub const FRAME_QUEUE: usize = 1024;

/// Queue lengths of an agent or connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelLimits {
    /// IP packets that wait for the host.
    pub inbound_packets: usize,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            inbound_packets: 4096,
        }
    }
}

/// Table sizes of an intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntermediateLimits {
    /// Clients at one time; a connection with its TLS state is some 30 KiB.
    pub connections: usize,
    /// Clients in their handshake: the work that a stranger with a valid address can cause.
    pub handshakes: usize,
    /// Services that one client registers for.
    pub services_per_connection: usize,
    /// Registrations of all clients.
    pub registrations: usize,
    /// Flows of one agent; the agent's own oldest goes first.
    pub flows_per_agent: usize,
    /// Flows of all agents, some 250 bytes each. A busy host holds some hundred.
    pub flows: usize,
    /// Relay channels of v2.
    pub channels: ChannelLimits,
}

impl Default for IntermediateLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: 1_000,
            services_per_connection: 256,
            registrations: 100_000,
            flows_per_agent: 4_096,
            flows: 1_000_000,
            channels: ChannelLimits::default(),
        }
    }
}

impl IntermediateLimits {
    /// The sizes of the registry. A service's name costs up to 255 bytes, a registration some 100.
    pub fn registry(&self) -> RegistryLimits {
        RegistryLimits {
            services_per_connection: self.services_per_connection,
            services: self.registrations,
            registrations: self.registrations,
        }
    }

    /// The sizes of the flow table.
    pub fn flow_table(&self) -> FlowLimits {
        FlowLimits {
            per_agent: self.flows_per_agent,
            total: self.flows,
        }
    }
}
