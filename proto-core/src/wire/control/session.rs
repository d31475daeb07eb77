//! Between an agent and a connector: stream 0 of their own connection (ALPN `ztna-e2e-v2`), opened by the agent. The
//! intermediate carries its packets and cannot read them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::client::Refusal;
use super::{Candidate, Undecodable, list, parse_family, write_family};

/// The index of the first message of this family.
const BASE: u32 = 32;

/// What came of a search for a direct path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathOutcome {
    /// A direct connection stands on this path, seen from the sender of the message.
    Direct {
        /// The sender's address.
        local: SocketAddr,
        /// The receiver's address.
        remote: SocketAddr,
    },
    /// No pair of candidates worked.
    NoPath,
    /// A pair worked, and the connection on it did not come to be.
    HandshakeFailed,
    /// The direct path that stood is gone.
    Lost,
}

/// A message between an agent and a connector. The order of the variants is the wire's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionMessage {
    /// 32, agent: it is going to use this service. Repeated to change the addresses.
    UseService {
        /// The service id.
        service: String,
        /// The virtual addresses under which the agent knows it; packets to them are for this service.
        #[serde(deserialize_with = "list")]
        addresses: Vec<IpAddr>,
    },
    /// 33, connector: packets for the service are taken.
    ServiceAccepted {
        /// The service id.
        service: String,
    },
    /// 34, connector: packets for the service are dropped, from now on if they were taken before.
    ServiceRefused {
        /// The service id.
        service: String,
        /// Why.
        reason: Refusal,
    },
    /// 35, agent: it is done with the service.
    ReleaseService {
        /// The service id.
        service: String,
    },
    /// 36, agent: a search for a direct path begins. Candidates follow.
    PathOffer {
        /// The number that checks *to the agent* carry.
        session: u32,
        /// The key under which both sides authenticate checks, drawn anew for each offer.
        key: [u8; 32],
    },
    /// 37, connector: agreed. Candidates follow.
    PathAnswer {
        /// The session of the offer.
        session: u32,
        /// The number that checks *to the connector* carry.
        own_session: u32,
    },
    /// 38, both: addresses of the sender, as they become known (trickle, RFC 8838).
    Candidates {
        /// The agent's session.
        session: u32,
        /// Addresses not told before.
        #[serde(deserialize_with = "list")]
        candidates: Vec<Candidate>,
        /// Whether no more are expected until the network changes.
        complete: bool,
    },
    /// 39, agent: both sides begin to check at the same instant.
    PunchAt {
        /// The agent's session.
        session: u32,
        /// Counts the attempts of a session.
        round: u32,
        /// How long the connector waits after it received this, in microseconds.
        delay_us: u32,
    },
    /// 40, both: what came of it.
    PathResult {
        /// The agent's session.
        session: u32,
        /// The attempt.
        round: u32,
        /// What came of it.
        outcome: PathOutcome,
    },
}

impl SessionMessage {
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
