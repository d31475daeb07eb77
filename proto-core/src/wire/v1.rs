//! Raw UDP messages beside QUIC, on the port of a v1 connector.
//!
//! | message | bytes |
//! |---|---|
//! | binding request | `5A 00000000 txn[12] priority u64 LE, use_candidate u8` = 26 |
//! | binding response | `5A 01000000 txn[12] success u8, Option<SocketAddr>` = 29 (v4), 41 (v6), 19 (none) |
//! | keepalive | `5A [10 request, 11 response] [sequence u32]` = 6 |
//!
//! They carry no authentication. Whom to answer, and how often, is decided by the caller: only addresses that the
//! signalling named or that have a live direct connection, and never with more bytes than came in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Malformed, Reader};

/// The first byte of every raw message.
pub const MAGIC: u8 = 0x5A;

const BINDING_REQUEST: [u8; 4] = 0u32.to_le_bytes();
const BINDING_RESPONSE: [u8; 4] = 1u32.to_le_bytes();
const KEEPALIVE_REQUEST: u8 = 0x10;
const KEEPALIVE_RESPONSE: u8 = 0x11;
const ADDRESS_V4: [u8; 4] = 0u32.to_le_bytes();
const ADDRESS_V6: [u8; 4] = 1u32.to_le_bytes();

/// Ties a binding response to its request.
pub type TransactionId = [u8; 12];

/// A raw message of a v1 peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawMessage {
    /// Asks whether a path works, and at which address the sender is seen.
    BindingRequest {
        /// Chosen by the sender.
        transaction: TransactionId,
        /// The priority of the sender's candidate.
        priority: u64,
        /// Whether the sender nominates this pair.
        use_candidate: bool,
    },
    /// Answers a binding request.
    BindingResponse {
        /// The id of the request.
        transaction: TransactionId,
        /// Whether the request was accepted.
        success: bool,
        /// Where the request came from; `None` on failure. Flow label and scope do not travel.
        observed: Option<SocketAddr>,
    },
    /// Asks the peer for a sign of life.
    KeepaliveRequest {
        /// Chosen by the sender.
        sequence: u32,
    },
    /// Answers a keepalive.
    KeepaliveResponse {
        /// The number of the request.
        sequence: u32,
    },
}

impl RawMessage {
    /// Reads a UDP payload that matches no QUIC connection. Bytes after the message are ignored, as v1 peers do.
    ///
    /// # Errors
    /// If it is none of these messages.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(payload);
        reader.expect(MAGIC)?;
        match reader.0.first() {
            Some(&KEEPALIVE_REQUEST) => Ok(Self::KeepaliveRequest {
                sequence: parse_sequence(reader)?,
            }),
            Some(&KEEPALIVE_RESPONSE) => Ok(Self::KeepaliveResponse {
                sequence: parse_sequence(reader)?,
            }),
            Some(_) | None => Self::parse_binding(reader),
        }
    }

    fn parse_binding(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        match reader.array()? {
            BINDING_REQUEST => Ok(Self::BindingRequest {
                transaction: reader.array()?,
                priority: u64::from_le_bytes(reader.array()?),
                use_candidate: parse_bool(&mut reader)?,
            }),
            BINDING_RESPONSE => Ok(Self::BindingResponse {
                transaction: reader.array()?,
                success: parse_bool(&mut reader)?,
                observed: if parse_bool(&mut reader)? {
                    Some(parse_address(&mut reader)?)
                } else {
                    None
                },
            }),
            [kind, ..] => Err(Malformed::UnknownType(kind)),
        }
    }

    /// Writes the message.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![MAGIC];
        match self {
            Self::BindingRequest {
                transaction,
                priority,
                use_candidate,
            } => {
                out.extend_from_slice(&BINDING_REQUEST);
                out.extend_from_slice(transaction);
                out.extend_from_slice(&priority.to_le_bytes());
                out.push(u8::from(*use_candidate));
            }
            Self::BindingResponse {
                transaction,
                success,
                observed,
            } => {
                out.extend_from_slice(&BINDING_RESPONSE);
                out.extend_from_slice(transaction);
                out.push(u8::from(*success));
                out.push(u8::from(observed.is_some()));
                if let Some(address) = observed {
                    write_address(&mut out, *address);
                }
            }
            Self::KeepaliveRequest { sequence } => write_keepalive(&mut out, KEEPALIVE_REQUEST, *sequence),
            Self::KeepaliveResponse { sequence } => write_keepalive(&mut out, KEEPALIVE_RESPONSE, *sequence),
        }
        out
    }
}

fn parse_sequence(mut reader: Reader<'_>) -> Result<u32, Malformed> {
    let _kind = reader.byte()?;
    reader.array().map(u32::from_be_bytes)
}

fn write_keepalive(out: &mut Vec<u8>, kind: u8, sequence: u32) {
    out.push(kind);
    out.extend_from_slice(&sequence.to_be_bytes());
}

fn parse_bool(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::InvalidValue),
    }
}

fn parse_address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let ip: IpAddr = match reader.array()? {
        ADDRESS_V4 => Ipv4Addr::from(reader.array::<4>()?).into(),
        ADDRESS_V6 => Ipv6Addr::from(reader.array::<16>()?).into(),
        _ => return Err(Malformed::InvalidValue),
    };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(reader.array()?)))
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.extend_from_slice(&ADDRESS_V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.extend_from_slice(&ADDRESS_V6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}
