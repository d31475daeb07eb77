//! What a DATAGRAM carries, by its first byte, in both directions.
//!
//! | from | bytes | meaning |
//! |---|---|---|
//! | client | `[10 or 11][n][id]` | register as agent / connector |
//! | client | `[11][n][id][01]` | register as a connector to whom agents are introduced |
//! | client | `[2F][n][id][IP packet]` | IP packet for a service |
//! | connector, v2 | `[15][session u64][IP packet]` | IP packet for the agent of a session of v1 signalling |
//! | intermediate | `[01][IPv4][port]` | observed address, see [`super::observed`] |
//! | intermediate | `[12][00][n][id]` | registration accepted |
//! | intermediate | `[13][status][n][id]` | registration refused |
//! | intermediate | `[14][fingerprint, 32 bytes][n][name][IP packet or its beginning]` | who opens this flow |
//! | both | `4x…` / `6x…` | bare IP packet |
//!
//! Bytes after a control message are ignored.
//!
//! Control and data share one byte space. A routed packet whose inner first nibble is not 4 or 6 is therefore refused
//! here, in the only place that strips the wrapper: forwarded, it would be read as a control message of the
//! intermediate. Whether the sender may use the service is not decided here.

use std::net::SocketAddrV4;

use super::{Malformed, Reader, observed};
use crate::id::ServiceId;

const REGISTER_AGENT: u8 = 0x10;
const REGISTER_CONNECTOR: u8 = 0x11;
const REGISTERED: u8 = 0x12;
const REFUSED: u8 = 0x13;
const INTRODUCED: u8 = 0x14;
const IN_SESSION: u8 = 0x15;
const ROUTED: u8 = 0x2F;

/// Behind a connector's registration: agents are to be introduced. A v1 intermediate ignores it.
const INTRODUCE: u8 = 0x01;

/// On which side of a service a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// It uses the service.
    Agent,
    /// It publishes the service.
    Connector,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NackStatus {
    /// `01`: the service id is empty or not UTF-8.
    InvalidId,
    /// `02`: the client's certificate does not name this service in this role.
    NotAuthorised,
    /// `03`: another connector holds the service.
    Taken,
    /// `04`: the intermediate has no room for it.
    AtCapacity,
    /// A status of a later version; treat it as one that may pass.
    Other(u8),
}

impl NackStatus {
    /// Reads the status byte.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::InvalidId,
            2 => Self::NotAuthorised,
            3 => Self::Taken,
            4 => Self::AtCapacity,
            other => Self::Other(other),
        }
    }

    /// The status byte.
    pub fn code(self) -> u8 {
        match self {
            Self::InvalidId => 1,
            Self::NotAuthorised => 2,
            Self::Taken => 3,
            Self::AtCapacity => 4,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for NackStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidId => f.write_str("the service id is empty or not UTF-8"),
            Self::NotAuthorised => f.write_str("the certificate does not name this service in this role"),
            Self::Taken => f.write_str("another connector holds the service"),
            Self::AtCapacity => f.write_str("the intermediate is at capacity"),
            Self::Other(code) => write!(f, "status {code:#04x}"),
        }
    }
}

/// A DATAGRAM from an agent or a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// The client asks to be registered for one service. The id is unchecked, possibly empty: the registry answers.
    Register {
        /// As what.
        role: Role,
        /// The service id, 0 to 255 bytes of anything.
        service: &'a [u8],
        /// Whether a connector asks to be told who opens a flow.
        introduce: bool,
    },
    /// An IP packet for a service, wrapped.
    Routed {
        /// The service id, 0 to 255 bytes of anything.
        service: &'a [u8],
        /// Where the inner packet begins; it holds at least one byte, and its first nibble is 4 or 6.
        packet_at: usize,
    },
    /// An IP packet of a connector for the agent of a session of v1 signalling.
    InSession {
        /// The session.
        session: u64,
        /// Where the inner packet begins; it holds at least one byte, and its first nibble is 4 or 6.
        packet_at: usize,
    },
    /// A bare IP packet: the whole DATAGRAM.
    Packet,
}

/// A DATAGRAM from the intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromIntermediate<'a> {
    /// The address at which the intermediate sees this client.
    Observed(SocketAddrV4),
    /// The registration for this service is accepted.
    Registered {
        /// The service id as the client sent it.
        service: &'a [u8],
    },
    /// The registration for this service is refused.
    Refused {
        /// Why.
        status: NackStatus,
        /// The service id as the client sent it.
        service: &'a [u8],
    },
    /// An IP packet and the agent whose it is. If the packet is longer by its own account than what is there, it is only
    /// the beginning of one that follows bare.
    Introduced {
        /// The SHA-256 of the agent's certificate.
        fingerprint: &'a [u8; 32],
        /// The name in it, 0 to 255 bytes, meant to be UTF-8.
        name: &'a [u8],
        /// Where the packet begins; it holds at least one byte, and its first nibble is 4 or 6.
        packet_at: usize,
    },
    /// A bare IP packet: the whole DATAGRAM.
    Packet,
}

/// Reads a DATAGRAM from a client.
///
/// # Errors
/// If it is none of v1; drop and count it.
pub fn parse_from_client(datagram: &[u8]) -> Result<FromClient<'_>, Malformed> {
    let mut reader = Reader(datagram);
    let Ok(kind) = reader.byte() else {
        return Err(Malformed::Empty);
    };
    match kind {
        REGISTER_AGENT => Ok(FromClient::Register {
            role: Role::Agent,
            service: reader.short_bytes()?,
            introduce: false,
        }),
        REGISTER_CONNECTOR => Ok(FromClient::Register {
            role: Role::Connector,
            service: reader.short_bytes()?,
            introduce: reader.0.first() == Some(&INTRODUCE),
        }),
        ROUTED => {
            let service = reader.short_bytes()?;
            let first = reader.0.first().ok_or(Malformed::Truncated)?;
            if !is_ip_first_byte(*first) {
                return Err(Malformed::NotAnIpPacket);
            }
            Ok(FromClient::Routed {
                service,
                packet_at: datagram.len() - reader.0.len(),
            })
        }
        IN_SESSION => {
            let session = u64::from_be_bytes(reader.array()?);
            let first = reader.0.first().ok_or(Malformed::Truncated)?;
            if !is_ip_first_byte(*first) {
                return Err(Malformed::NotAnIpPacket);
            }
            Ok(FromClient::InSession {
                session,
                packet_at: datagram.len() - reader.0.len(),
            })
        }
        _ if is_ip_first_byte(kind) => Ok(FromClient::Packet),
        _ => Err(Malformed::UnknownType(kind)),
    }
}

/// Reads a DATAGRAM from the intermediate.
///
/// # Errors
/// If it is none of v1; drop and count it.
pub fn parse_from_intermediate(datagram: &[u8]) -> Result<FromIntermediate<'_>, Malformed> {
    let mut reader = Reader(datagram);
    let Ok(kind) = reader.byte() else {
        return Err(Malformed::Empty);
    };
    match kind {
        observed::TYPE => observed::parse(datagram).map(FromIntermediate::Observed),
        REGISTERED => {
            // Always zero in v1. A reader has no use for it, and refusing other values would only lose an answer.
            let _status = reader.byte()?;
            Ok(FromIntermediate::Registered {
                service: reader.short_bytes()?,
            })
        }
        REFUSED => {
            let status = NackStatus::from_code(reader.byte()?);
            Ok(FromIntermediate::Refused {
                status,
                service: reader.short_bytes()?,
            })
        }
        INTRODUCED => {
            let (fingerprint, rest) = reader.0.split_first_chunk().ok_or(Malformed::Truncated)?;
            reader.0 = rest;
            let name = reader.short_bytes()?;
            let first = reader.0.first().ok_or(Malformed::Truncated)?;
            if !is_ip_first_byte(*first) {
                return Err(Malformed::NotAnIpPacket);
            }
            Ok(FromIntermediate::Introduced {
                fingerprint,
                name,
                packet_at: datagram.len() - reader.0.len(),
            })
        }
        _ if is_ip_first_byte(kind) => Ok(FromIntermediate::Packet),
        _ => Err(Malformed::UnknownType(kind)),
    }
}

/// What stands before a packet for the agent of a session of v1 signalling.
pub fn in_session_prefix(session: u64) -> [u8; 9] {
    let mut prefix = [IN_SESSION; 9];
    if let Some((_, number)) = prefix.split_first_chunk_mut::<1>() {
        number.copy_from_slice(&session.to_be_bytes());
    }
    prefix
}

/// An IP packet for one of a connector's services, as it comes on a `ztna-v2` connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForService<'a> {
    /// The SHA-256 of the certificate and the name of the agent whose it is, if that is said.
    pub agent: Option<(&'a [u8; 32], &'a [u8])>,
    /// The service id, 0 to 255 bytes of anything.
    pub service: &'a [u8],
    /// Where the packet begins; it holds at least one byte, and its first nibble is 4 or 6.
    pub packet_at: usize,
}

/// Reads `[14][fingerprint][n][name]` if it is there, then `[2F][n][service id][IP packet]`.
///
/// # Errors
/// If it is anything else; drop and count it.
pub fn parse_for_service(datagram: &[u8]) -> Result<ForService<'_>, Malformed> {
    let mut reader = Reader(datagram);
    let mut agent = None;
    if datagram.first() == Some(&INTRODUCED) {
        let _kind = reader.byte()?;
        let (fingerprint, rest) = reader.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        reader.0 = rest;
        agent = Some((fingerprint, reader.short_bytes()?));
    }
    match reader.byte() {
        Ok(ROUTED) => {}
        Ok(other) => return Err(Malformed::UnknownType(other)),
        Err(_) => return Err(Malformed::Empty),
    }
    let service = reader.short_bytes()?;
    let first = reader.0.first().ok_or(Malformed::Truncated)?;
    if !is_ip_first_byte(*first) {
        return Err(Malformed::NotAnIpPacket);
    }
    Ok(ForService {
        agent,
        service,
        packet_at: datagram.len() - reader.0.len(),
    })
}

/// Writes a registration; a connector always asks to be told who opens a flow.
pub fn write_register(role: Role, service: &ServiceId) -> Vec<u8> {
    match role {
        Role::Agent => with_short_bytes(&[REGISTER_AGENT], service.as_bytes()),
        Role::Connector => {
            let mut message = with_short_bytes(&[REGISTER_CONNECTOR], service.as_bytes());
            message.push(INTRODUCE);
            message
        }
    }
}

/// Writes what stands before a packet that opens an agent's flow; made once per agent. A name of more than 255 bytes is
/// cut between two characters.
pub fn introduction(fingerprint: &[u8; 32], name: &str) -> Box<[u8]> {
    let mut end = name.len().min(255);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut head = Vec::with_capacity(34 + end);
    head.push(INTRODUCED);
    head.extend_from_slice(fingerprint);
    with_short_bytes(&head, name.get(..end).unwrap_or_default().as_bytes()).into()
}

/// Writes the acceptance of a registration; `service` is what the client sent.
pub fn write_registered(service: &[u8]) -> Vec<u8> {
    with_short_bytes(&[REGISTERED, 0], service)
}

/// Writes the refusal of a registration; `service` is what the client sent.
pub fn write_refused(status: NackStatus, service: &[u8]) -> Vec<u8> {
    with_short_bytes(&[REFUSED, status.code()], service)
}

/// Writes the address at which a client is seen.
pub fn write_observed(address: SocketAddrV4) -> Vec<u8> {
    observed::write(address).to_vec()
}

/// The bytes that stand before every packet routed to `service`; made once per service.
pub fn routed_prefix(service: &ServiceId) -> Box<[u8]> {
    with_short_bytes(&[ROUTED], service.as_bytes()).into()
}

/// Whether a first byte is that of an IPv4 or IPv6 packet.
fn is_ip_first_byte(first: u8) -> bool {
    matches!(first >> 4, 4 | 6)
}

/// `head`, then `field` with its length before it. A field of the wire has at most 255 bytes; more cannot come out of
/// a [`ServiceId`] or a parser, and would be cut rather than contradict its length.
fn with_short_bytes(head: &[u8], field: &[u8]) -> Vec<u8> {
    let len = u8::try_from(field.len()).unwrap_or(u8::MAX);
    let mut message = Vec::with_capacity(head.len() + 1 + usize::from(len));
    message.extend_from_slice(head);
    message.push(len);
    message.extend(field.iter().take(usize::from(len)));
    message
}
