//! What streams carry: bincode 1.3.3 inside frames.
//!
//! Three families share one space of indices, so that a frame says by itself what it is; each context reads only its own.
//!
//! | index | family | between |
//! |---|---|---|
//! | 0..5 | [`SignalingMessage`] | agent and connector of v1, through the intermediate |
//! | 5..32 | [`ControlMessage`] | a client and its intermediate, v2 |
//! | 32.. | [`SessionMessage`] | agent and connector, v2, inside their own connection |
//!
//! The only file that names bincode. The encoding is that of its free functions: little-endian fixed-size integers,
//! enum index u32, `Vec` and `String` length u64, `Option` and `bool` one byte; bytes after a message are ignored. A
//! `SocketAddr` is its variant, the octets in network order and the port; flow label and scope id do not travel.
//!
//! Decoding is bounded by the frame: a length that promises more than the frame holds is an error before anything is
//! allocated for it.

mod client;
mod session;

pub use client::{ChannelEnd, ControlMessage, Neighbour, PeerIdentity, Refusal, TAKES_CHANNELS};
pub use session::{PathOutcome, SessionMessage};

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use bincode::Options as _;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
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
        #[serde(deserialize_with = "list")]
        candidates: Vec<Candidate>,
    },
    /// The connector's addresses.
    CandidateAnswer {
        /// The session of the offer.
        session: u64,
        /// The connector's addresses.
        #[serde(deserialize_with = "list")]
        candidates: Vec<Candidate>,
    },
    /// The intermediate tells both sides to begin.
    StartPunching {
        /// The session of the offer.
        session: u64,
        /// How long to wait, in milliseconds.
        start_delay_ms: u64,
        /// The other side's addresses.
        #[serde(deserialize_with = "list")]
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

/// Bytes of the index that begins every message.
const INDEX_LEN: usize = 4;

/// Reads a message of a family whose first index is `base`. Control is rare: a copy costs less than a second decoder.
fn parse_family<M: DeserializeOwned>(base: u32, payload: &[u8]) -> Result<M, Undecodable> {
    if payload.len() > MAX_FRAME_LEN {
        return Err(Undecodable);
    }
    let (index, rest) = payload.split_first_chunk::<INDEX_LEN>().ok_or(Undecodable)?;
    let index = u32::from_le_bytes(*index).checked_sub(base).ok_or(Undecodable)?;
    let own = [&index.to_le_bytes(), rest].concat();
    encoding()
        .allow_trailing_bytes()
        .deserialize(&own)
        .map_err(|_| Undecodable)
}

/// Writes a message of a family whose first index is `base`, with its frame.
fn write_family<M: Serialize>(base: u32, message: &M) -> Option<Vec<u8>> {
    let mut payload = encoding().serialize(message).ok()?;
    let index = payload.first_chunk_mut::<INDEX_LEN>()?;
    *index = (u32::from_le_bytes(*index) + base).to_le_bytes();
    write_frame(&payload)
}

fn encoding() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MAX_FRAME_LEN as u64)
}

/// Reads a list that grows with the bytes really there: serde's own reader trusts the length field up to 1 MiB.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List(PhantomData))
}
