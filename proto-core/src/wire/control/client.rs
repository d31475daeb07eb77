//! Between a client and its intermediate: stream 0 of a connection that agreed on `ztna-v2`, opened by the client.
//!
//! What a client may do is decided by the intermediate for each message, by the client's certificate.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Undecodable, list, parse_family, write_family};
use crate::wire::datagram::Role;

/// The index of the first message of this family.
const BASE: u32 = 5;

/// A capability of a client: it takes part in channels. A connector without it is reached as one of v1 is.
pub const TAKES_CHANNELS: u64 = 1;

/// Why something that a client asked for was refused. What a client does about it follows from the reason alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum Refusal {
    /// 0: no closer reason. May pass.
    Unknown,
    /// 1: the service id is empty or too long. Final.
    InvalidId,
    /// 2: the certificate does not name the service in this role. Final on this connection.
    NotAuthorised,
    /// 3: another connector holds the service. May pass.
    Taken,
    /// 4: a limit of the intermediate. May pass.
    AtCapacity,
    /// 5: no connector holds the service at the moment. May pass.
    NoConnector,
    /// 6: the connector that holds the service speaks v1 only: its packets go wrapped, readable for the intermediate.
    PeerIsV1,
    /// A reason of a later version; treat it as one that may pass.
    Other(u32),
}

impl From<u32> for Refusal {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::InvalidId,
            2 => Self::NotAuthorised,
            3 => Self::Taken,
            4 => Self::AtCapacity,
            5 => Self::NoConnector,
            6 => Self::PeerIsV1,
            other => Self::Other(other),
        }
    }
}

impl From<Refusal> for u32 {
    fn from(reason: Refusal) -> Self {
        match reason {
            Refusal::Unknown => 0,
            Refusal::InvalidId => 1,
            Refusal::NotAuthorised => 2,
            Refusal::Taken => 3,
            Refusal::AtCapacity => 4,
            Refusal::NoConnector => 5,
            Refusal::PeerIsV1 => 6,
            Refusal::Other(other) => other,
        }
    }
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum ChannelEnd {
    /// 0: no closer reason.
    Unknown,
    /// 1: the client itself closed it.
    Closed,
    /// 2: the other end's connection to the intermediate is gone.
    PeerGone,
    /// 3: no service is left for which both ends are authorised and registered.
    NoService,
    /// 4: nothing was forwarded for the idle time.
    Idle,
    /// 5: the intermediate is leaving.
    Draining,
    /// A reason of a later version.
    Other(u32),
}

impl From<u32> for ChannelEnd {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::Closed,
            2 => Self::PeerGone,
            3 => Self::NoService,
            4 => Self::Idle,
            5 => Self::Draining,
            other => Self::Other(other),
        }
    }
}

impl From<ChannelEnd> for u32 {
    fn from(reason: ChannelEnd) -> Self {
        match reason {
            ChannelEnd::Unknown => 0,
            ChannelEnd::Closed => 1,
            ChannelEnd::PeerGone => 2,
            ChannelEnd::NoService => 3,
            ChannelEnd::Idle => 4,
            ChannelEnd::Draining => 5,
            ChannelEnd::Other(other) => other,
        }
    }
}

/// Who is at the other end of a channel, as the intermediate authenticated it. The ends check it again themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// SHA-256 of its certificate, DER.
    pub fingerprint: [u8; 32],
    /// What its certificate calls it, for people; see `docs/wire.md`, section 3.6.
    pub name: String,
}

/// Another intermediate that serves the same clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The name in its certificate.
    pub name: String,
    /// Where it is.
    #[serde(deserialize_with = "list")]
    pub addresses: Vec<SocketAddr>,
}

/// A message between a client and its intermediate. The order of the variants is the wire's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// 5, client: the first message of the stream; anything before it is refused.
    Hello {
        /// As what the client comes; for the life of the connection.
        role: Role,
        /// 64 random bits drawn when the process started: two connections of one process, or a restart.
        instance: u64,
        /// What it can do beyond this table; 0 today, unknown bits are ignored.
        capabilities: u64,
    },
    /// 6, intermediate: answers the hello.
    Welcome {
        /// What the intermediate can do beyond this table; 0 today.
        capabilities: u64,
    },
    /// 7, client: asks for a service, or renews its lease.
    Register {
        /// The service id.
        service: String,
    },
    /// 8, intermediate: the client holds the service for so long; it asks again after half of it.
    Registered {
        /// The service id.
        service: String,
        /// The lease in milliseconds.
        lease_ms: u32,
    },
    /// 9, intermediate: the registration was refused, or is taken back.
    Refused {
        /// The service id.
        service: String,
        /// Why.
        reason: Refusal,
        /// When asking again makes sense, in milliseconds; 0 never.
        retry_ms: u32,
    },
    /// 10, client: gives a service back.
    Unregister {
        /// The service id.
        service: String,
    },
    /// 11, agent: asks for a channel to a connector that holds the service.
    OpenChannel {
        /// Chosen by the agent; repeated in the answer.
        request: u32,
        /// The service id.
        service: String,
    },
    /// 12, intermediate, to both ends: packets of this service's connector (or agent) travel in this channel. Repeated
    /// with the same channel for each further service.
    ChannelOpened {
        /// The request; `None` for the end that did not ask.
        request: Option<u32>,
        /// The number that stands before the packets that *this* end sends and receives.
        channel: u32,
        /// The service id.
        service: String,
        /// Who is at the other end.
        peer: PeerIdentity,
    },
    /// 13, intermediate: no channel.
    ChannelRefused {
        /// The request.
        request: u32,
        /// Why.
        reason: Refusal,
        /// When asking again makes sense, in milliseconds; 0 never.
        retry_ms: u32,
    },
    /// 14, both: a channel is over; frames with its number are dropped from now on.
    ChannelClosed {
        /// The channel, as this end knows it.
        channel: u32,
        /// Why.
        reason: ChannelEnd,
    },
    /// 15, client: how frames of this channel shall reach this end.
    Carriage {
        /// The channel, as this end knows it.
        channel: u32,
        /// As DATAGRAMs of this connection (`true`), because bare UDP frames do not get through, or bare.
        datagram: bool,
    },
    /// 16, intermediate: where it sees the client; sent again whenever QUIC has validated another address.
    ObservedAddress {
        /// The address, of either family.
        address: SocketAddr,
    },
    /// 17, intermediate: others that serve the same clients.
    Neighbours {
        /// The others; empty if there is none.
        #[serde(deserialize_with = "list")]
        neighbours: Vec<Neighbour>,
    },
    /// 18, intermediate: it is about to stop; move to another.
    GoingAway {
        /// How long it still serves, in milliseconds.
        within_ms: u32,
    },
    /// 19, both: asks for a sign of life of the program behind the connection.
    Ping {
        /// Chosen by the sender.
        nonce: u64,
    },
    /// 20, both: answers a ping.
    Pong {
        /// The nonce of the ping.
        nonce: u64,
    },
    /// 21, intermediate, to a connector: who makes the v1 offer that follows.
    OfferFrom {
        /// The session of the offer.
        session: u64,
        /// Its agent.
        agent: PeerIdentity,
    },
}

impl ControlMessage {
    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// If it is no message of this family, or longer than a frame.
    pub fn parse(payload: &[u8]) -> Result<Self, Undecodable> {
        parse_family(BASE, payload)
    }

    /// Writes the message with its frame; `None` if it is longer than a frame.
    pub fn write(&self) -> Option<Vec<u8>> {
        write_family(BASE, self)
    }
}
