//! Connectivity checks between an agent and a connector, beside QUIC on the same socket (RFC 8445, but authenticated by a
//! key that only the two have).
//!
//! ```text
//! request   22 flags session:4 sequence:8 nonce:4 phase priority:4                       tag:16    39 bytes
//! response  22 flags session:4 sequence:8 nonce:4 phase priority:4 family address port:2 tag:16    46 or 58 bytes
//! ```
//! `flags`: 01 response, 02 nomination, 04 sent by the agent; other bits are zero or the check is dropped. `session` is the
//! receiver's number. `sequence` counts the sender's requests up, so a window tells what was seen before; a response
//! repeats sequence and nonce. `phase` says with which hop limit a request was sent (0 ordinary), a response repeats it.
//! `family` is 04 or 06. The tag is the first half of HMAC-SHA-256 over everything before it, under the key of the
//! session. The bit for the direction is under the tag, so a check that is thrown back at its sender is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::hmac;

use super::{Malformed, Reader};

/// The first byte of a check.
pub const CHECK: u8 = 0x22;

/// The longest check in bytes: a response about an IPv6 address.
pub const MAX_CHECK_LEN: usize = FIXED_LEN + 19 + TAG_LEN;

const FIXED_LEN: usize = 23;
const TAG_LEN: usize = 16;

const RESPONSE: u8 = 0x01;
const NOMINATE: u8 = 0x02;
const FROM_AGENT: u8 = 0x04;

/// The key of a session, ready for use.
#[derive(Clone)]
pub struct CheckKey(hmac::Key);

impl std::fmt::Debug for CheckKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckKey")
    }
}

impl CheckKey {
    /// Prepares the 32 bytes that the agent sent through the session.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_LEN] {
        let full = hmac::sign(&self.0, bytes);
        full.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Writes the tag behind any bytes, for fuzzers that want to come past it.
    #[cfg(any(test, feature = "sim"))]
    pub fn seal<'a>(&self, body: &'a mut Vec<u8>) -> &'a [u8] {
        let tag = self.tag(body);
        body.extend_from_slice(&tag);
        body
    }

    /// Whether the tag belongs to the bytes; takes the same time for every wrong one.
    fn accepts(&self, bytes: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        u128::from_be_bytes(self.tag(bytes)) ^ u128::from_be_bytes(*tag) == 0
    }
}

/// Ties a response to its request, and tells repeated requests from new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction {
    /// Counts the sender's requests of the session.
    pub sequence: u64,
    /// Random, so that nobody off the path can answer in advance.
    pub nonce: u32,
}

/// A request or its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Asks whether this path works.
    Request {
        /// Whether the agent chooses this pair.
        nominate: bool,
    },
    /// It does.
    Response {
        /// Where the request came from.
        observed: SocketAddr,
    },
}

/// A connectivity check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The receiver's number of the session.
    pub session: u32,
    /// Whether the agent sent it.
    pub from_agent: bool,
    /// Which request.
    pub transaction: Transaction,
    /// With which hop limit the request was sent; 0 ordinary.
    pub phase: u8,
    /// The priority that the sender's address would have as a peer-reflexive candidate (RFC 8445 §7.1.1).
    pub priority: u32,
    /// Request or response.
    pub kind: CheckKind,
}

/// The session that a check names, before anything about it is believed.
///
/// # Errors
/// If the bytes are too short for a check, or begin otherwise.
pub fn claimed_session(payload: &[u8]) -> Result<u32, Malformed> {
    let mut reader = Reader(payload);
    reader.expect(CHECK)?;
    reader.byte()?;
    let session = u32::from_be_bytes(reader.array()?);
    if payload.len() < FIXED_LEN + TAG_LEN {
        return Err(Malformed::Truncated);
    }
    Ok(session)
}

/// Why a payload is no check of this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unacceptable {
    /// The bytes are no check.
    Malformed(Malformed),
    /// The tag is not that of the key.
    Forged,
}

impl Check {
    /// Reads and authenticates a UDP payload.
    ///
    /// # Errors
    /// If it is no check, or was not written with this key.
    pub fn parse(payload: &[u8], key: &CheckKey) -> Result<Self, Unacceptable> {
        let (body, tag) = payload
            .split_last_chunk::<TAG_LEN>()
            .ok_or(Unacceptable::Malformed(Malformed::Truncated))?;
        if !key.accepts(body, tag) {
            return Err(Unacceptable::Forged);
        }
        Self::parse_body(body).map_err(Unacceptable::Malformed)
    }

    fn parse_body(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        reader.expect(CHECK)?;
        let flags = reader.byte()?;
        if flags & !(RESPONSE | NOMINATE | FROM_AGENT) != 0
            || flags & (RESPONSE | NOMINATE) == (RESPONSE | NOMINATE)
        {
            return Err(Malformed::InvalidValue);
        }
        let session = u32::from_be_bytes(reader.array()?);
        let transaction = Transaction {
            sequence: u64::from_be_bytes(reader.array()?),
            nonce: u32::from_be_bytes(reader.array()?),
        };
        let phase = reader.byte()?;
        let priority = u32::from_be_bytes(reader.array()?);
        let kind = if flags & RESPONSE == 0 {
            CheckKind::Request {
                nominate: flags & NOMINATE != 0,
            }
        } else {
            CheckKind::Response {
                observed: parse_address(&mut reader)?,
            }
        };
        if !reader.0.is_empty() {
            return Err(Malformed::InvalidValue);
        }
        Ok(Self {
            session,
            from_agent: flags & FROM_AGENT != 0,
            transaction,
            phase,
            priority,
            kind,
        })
    }

    /// Writes the check with its tag into `out` and returns its length; `None` if `out` is shorter than
    /// [`MAX_CHECK_LEN`].
    pub fn write(&self, key: &CheckKey, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..MAX_CHECK_LEN)?;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(target) = out.get_mut(at..at + bytes.len()) {
                target.copy_from_slice(bytes);
                at += bytes.len();
            }
        };
        let (response, nominate) = match self.kind {
            CheckKind::Request { nominate } => (false, nominate),
            CheckKind::Response { .. } => (true, false),
        };
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        put(&[
            CHECK,
            bit(response, RESPONSE) | bit(nominate, NOMINATE) | bit(self.from_agent, FROM_AGENT),
        ]);
        put(&self.session.to_be_bytes());
        put(&self.transaction.sequence.to_be_bytes());
        put(&self.transaction.nonce.to_be_bytes());
        put(&[self.phase]);
        put(&self.priority.to_be_bytes());
        if let CheckKind::Response { observed } = self.kind {
            match observed.ip() {
                IpAddr::V4(ip) => {
                    put(&[4]);
                    put(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    put(&[6]);
                    put(&ip.octets());
                }
            }
            put(&observed.port().to_be_bytes());
        }
        let tag = key.tag(out.get(..at)?);
        out.get_mut(at..at + TAG_LEN)?.copy_from_slice(&tag);
        Some(at + TAG_LEN)
    }
}

fn parse_address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let ip = match reader.byte()? {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)),
        6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)),
        _ => return Err(Malformed::InvalidValue),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(reader.array()?)))
}
