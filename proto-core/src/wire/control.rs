//! Signalling between an agent and a connector, through the intermediate (v1 peers only): bincode 1.3.3 inside frames.
//!
//! The only file that names bincode. The encoding is that of its free functions: little-endian fixed-size integers,
//! enum index u32, `Vec` and `String` length u64, `Option` and `bool` one byte; bytes after a message are ignored. A
//! `SocketAddr` is its variant, the octets in network order and the port; flow label and scope id do not travel.
//!
//! Decoding is bounded by the frame: a length that promises more than the frame holds is an error before anything is
//! allocated for it.

use std::fmt;
use std::net::SocketAddr;

use bincode::Options as _;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::framing::{MAX_FRAME_LEN, write_frame};

/// Where a candidate address comes from (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of an own interface.
    Host,
    /// An address that the intermediate observed.
    ServerReflexive,
    /// An address that the peer observed during the checks.
    PeerReflexive,
    /// An address of a relay.
    Relay,
}

/// An address at which a peer may be reachable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address itself.
    pub address: SocketAddr,
    /// The higher the better (RFC 8445 §5.1.2).
    pub priority: u32,
    /// Equal for candidates of the same kind and base; v1 peers write `host_<ip>` or `srflx_<ip>`.
    pub foundation: String,
    /// The base of a reflexive candidate.
    pub related: Option<SocketAddr>,
}

/// Why signalling failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum ErrorCode {
    /// No closer reason.
    Unknown,
    /// The service is not known here, or not to this client.
    ServiceNotFound,
    /// No connector holds the service at the moment.
    NoConnectorAvailable,
    /// The session is over or never was.
    SessionNotFound,
    /// The peer did not answer in time.
    SessionTimeout,
    /// The message could not be read or does not fit the state.
    InvalidMessage,
    /// The sender is not one of the two peers of the session.
    PeerRejected,
    /// A code of a later version.
    Other(u32),
}

impl From<u32> for ErrorCode {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::ServiceNotFound,
            2 => Self::NoConnectorAvailable,
            3 => Self::SessionNotFound,
            4 => Self::SessionTimeout,
            5 => Self::InvalidMessage,
            6 => Self::PeerRejected,
            other => Self::Other(other),
        }
    }
}

impl From<ErrorCode> for u32 {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unknown => 0,
            ErrorCode::ServiceNotFound => 1,
            ErrorCode::NoConnectorAvailable => 2,
            ErrorCode::SessionNotFound => 3,
            ErrorCode::SessionTimeout => 4,
            ErrorCode::InvalidMessage => 5,
            ErrorCode::PeerRejected => 6,
            ErrorCode::Other(other) => other,
        }
    }
}

/// A message between an agent and a connector that look for a direct path. The order of the variants is the wire's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalingMessage {
    /// An agent's addresses, for the connector of a service.
    CandidateOffer {
        /// 64 random bits chosen by the agent.
        session: u64,
        /// The service id.
        service: String,
        /// The agent's addresses.
        #[serde(deserialize_with = "candidates")]
        candidates: Vec<Candidate>,
    },
    /// The connector's addresses.
    CandidateAnswer {
        /// The session of the offer.
        session: u64,
        /// The connector's addresses.
        #[serde(deserialize_with = "candidates")]
        candidates: Vec<Candidate>,
    },
    /// The intermediate tells both sides to begin.
    StartPunching {
        /// The session of the offer.
        session: u64,
        /// How long to wait, in milliseconds.
        start_delay_ms: u64,
        /// The other side's addresses.
        #[serde(deserialize_with = "candidates")]
        peer_candidates: Vec<Candidate>,
    },
    /// What came of it.
    PunchingResult {
        /// The session of the offer.
        session: u64,
        /// Whether a path was found.
        success: bool,
        /// The path.
        working: Option<SocketAddr>,
    },
    /// Signalling failed.
    Error {
        /// The session it belongs to, if any.
        session: Option<u64>,
        /// Why.
        code: ErrorCode,
        /// For people.
        text: String,
    },
}

/// The payload of a frame is no message of this version. The stream goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a signalling message of this version")
    }
}

impl std::error::Error for Undecodable {}

impl SignalingMessage {
    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// If it is no message, or longer than a frame.
    pub fn parse(payload: &[u8]) -> Result<Self, Undecodable> {
        encoding()
            .allow_trailing_bytes()
            .deserialize(payload)
            .map_err(|_| Undecodable)
    }

    /// Writes the message with its frame; `None` if it is longer than a frame.
    pub fn write(&self) -> Option<Vec<u8>> {
        write_frame(&encoding().serialize(self).ok()?)
    }
}

fn encoding() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MAX_FRAME_LEN as u64)
}

/// Reads a list that grows with the bytes really there: serde's own reader trusts the length field up to 1 MiB.
fn candidates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Candidate>, D::Error> {
    struct Candidates;

    impl<'de> Visitor<'de> for Candidates {
        type Value = Vec<Candidate>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of candidates")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(candidate) = seq.next_element()? {
                list.push(candidate);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Candidates)
}
