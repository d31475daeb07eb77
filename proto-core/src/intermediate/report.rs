//! What an intermediate tells its program, and what it counts.

use std::net::SocketAddr;

use crate::id::ConnId;
use crate::quic::CloseReason;
use crate::wire::control::Refusal;
use crate::wire::datagram::{NackStatus, Role};

/// What the intermediate tells its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntermediateEvent {
    /// A client has authenticated.
    Connected {
        /// The connection.
        client: ConnId,
        /// Its address.
        address: SocketAddr,
    },
    /// A client holds a registration.
    Registered {
        /// The connection.
        client: ConnId,
        /// As agent or connector.
        role: Role,
        /// The service, as text.
        service: String,
    },
    /// A client was refused a registration.
    Refused {
        /// The connection.
        client: ConnId,
        /// As agent or connector.
        role: Role,
        /// The service, as text (invalid UTF-8 replaced).
        service: String,
        /// Why.
        status: NackStatus,
    },
    /// A client of v2 no longer holds a registration, and its channels for the service are over.
    Withdrawn {
        /// The connection.
        client: ConnId,
        /// As agent or connector.
        role: Role,
        /// The service, as text.
        service: String,
        /// Why it was taken back; `None` if the client gave it back.
        reason: Option<Refusal>,
    },
    /// A client is gone, and with it its registrations and flows.
    Gone {
        /// The connection.
        client: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// Counters of an intermediate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntermediateStats {
    /// DATAGRAMs moved from one client to another.
    pub relayed: u64,
    /// Their bytes, as received.
    pub relayed_bytes: u64,
    /// Registrations accepted.
    pub registrations: u64,
    /// Registrations refused.
    pub registrations_refused: u64,
    /// Observed addresses sent.
    pub observed_sent: u64,
    /// Packets that told a connector who opens a flow.
    pub introductions: u64,
    /// Messages on the control streams of v2.
    pub control: ControlStats,
    /// DATAGRAMs dropped, by reason.
    pub dropped: Dropped,
}

/// Messages of v2 clients, and what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlStats {
    /// Clients that introduced themselves.
    pub hello: u64,
    /// Registrations asked for, renewals included.
    pub register: u64,
    /// Leases renewed among them.
    pub renewed: u64,
    /// Registrations given back.
    pub unregister: u64,
    /// Channels asked for.
    pub open_channel: u64,
    /// Channels closed by a client.
    pub channel_closed: u64,
    /// Changes of how frames reach a client.
    pub carriage: u64,
    /// Signs of life asked for.
    pub ping: u64,
    /// Signs of life.
    pub pong: u64,
    /// Frames that are no message of this version.
    pub undecodable: u64,
    /// Messages at a wrong time or in a wrong direction, or about a channel that is not the client's.
    pub unexpected: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Registrations taken back because the authority said so.
    pub revoked: u64,
    /// Connections closed because their client sent messages faster than anybody needs to.
    pub flooded: u64,
    /// Connections closed because their client did not read what it was told.
    pub deaf: u64,
    /// Channels refused, by reason.
    pub refused: ChannelRefusals,
}

/// Channels that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelRefusals {
    /// The id is none.
    pub invalid_id: u64,
    /// The agent is not registered for the service.
    pub not_registered: u64,
    /// The agent's certificate does not name the service any more.
    pub not_authorised: u64,
    /// Nobody publishes the service.
    pub no_connector: u64,
    /// Its connector speaks v1.
    pub peer_is_v1: u64,
    /// A bound is reached.
    pub at_capacity: u64,
}

impl ChannelRefusals {
    /// The counter of a reason.
    pub(super) fn of(&mut self, reason: Refusal) -> &mut u64 {
        match reason {
            Refusal::InvalidId => &mut self.invalid_id,
            Refusal::NotAuthorised => &mut self.not_authorised,
            Refusal::NoConnector => &mut self.no_connector,
            Refusal::PeerIsV1 => &mut self.peer_is_v1,
            Refusal::AtCapacity | Refusal::Taken => &mut self.at_capacity,
            Refusal::Unknown | Refusal::Other(_) => &mut self.not_registered,
        }
    }
}

/// DATAGRAMs that an intermediate dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Empty, truncated or of an unknown type.
    pub malformed: u64,
    /// A wrapped packet that is not IP: forged control at worst.
    pub not_ip: u64,
    /// The sender is not registered for the service.
    pub not_registered: u64,
    /// No connector has the service.
    pub no_connector: u64,
    /// A bare packet of an agent with several services, or of any client of v2.
    pub ambiguous: u64,
    /// A reply that no flow expects.
    pub no_flow: u64,
    /// A packet whose flow could not be told apart from another agent's, or that is a later fragment.
    pub flow_refused: u64,
    /// The receiver's queue was full.
    pub queue_full: u64,
    /// Larger than the receiver's path carries.
    pub too_large: u64,
    /// The receiver was closing.
    pub receiver_gone: u64,
    /// Frames of channels that came inside a control connection, and for which there was no room on their way out.
    pub frame_queue_full: u64,
    /// Stream bytes of v1 signalling, which nobody reads yet.
    pub stream_bytes: u64,
    /// Events that the program did not take.
    pub events: u64,
}
