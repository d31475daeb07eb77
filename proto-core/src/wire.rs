//! The bytes of `ztna-v1` and `ztna-v2`: what travels where, and nothing about what it means.
//!
//! Every file here is a pair of inverses, parse and write, over plain values. Who may say what, and what follows from
//! it, is decided by the machines above.
//!
//! | where | what | file |
//! |---|---|---|
//! | UDP payload | a QUIC packet, or beside it a raw message of a v1 peer | [`classify`], [`v1`] |
//! | UDP payload | a frame of a relay channel; a connectivity check (v2) | [`channel`], [`check`] |
//! | DATAGRAM | registration, its answers, IP packets bare or routed by service | [`datagram`] |
//! | DATAGRAM | the observed address (QAD) | [`observed`] |
//! | stream | frames, each with a length before it | [`framing`] |
//! | frame | signalling between agent and connector; control and session messages of v2 | [`control`] |
//!
//! Numbers are big-endian, except in [`control`] and in the raw binding messages of [`v1`], which v1 peers write with
//! bincode (little-endian).

pub mod channel;
pub mod check;
pub mod control;
pub mod datagram;
pub mod framing;
pub mod observed;
pub mod v1;

#[cfg(test)]
mod tests;

use std::fmt;

/// What the first byte of a UDP payload says about the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UdpPayload {
    /// `40..FF` but `5A`: the fixed bit of QUIC is set (RFC 9000 §17). Find the connection by its destination id.
    Quic,
    /// `5A`: a legal first byte of a QUIC short header *and* of the raw messages in [`v1`]. Look the destination
    /// connection id up first; only a payload that matches no connection may be a raw message.
    QuicOrRaw,
    /// `21`: a frame of a relay channel, see [`channel`].
    Channel,
    /// `22`: a connectivity check, see [`check`].
    Check,
    /// The rest of `00..3F`, or no byte at all: nothing that anybody speaks here. Drop and count.
    Foreign,
}

/// Reads the first byte of a UDP payload.
pub fn classify(payload: &[u8]) -> UdpPayload {
    match payload.first() {
        Some(&v1::MAGIC) => UdpPayload::QuicOrRaw,
        Some(0x40..) => UdpPayload::Quic,
        Some(&channel::CHANNEL) => UdpPayload::Channel,
        Some(&check::CHECK) => UdpPayload::Check,
        Some(_) | None => UdpPayload::Foreign,
    }
}

/// Why bytes are not a message. It is dropped and counted; the connection that carried it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// No byte at all.
    Empty,
    /// Shorter than its fields say.
    Truncated,
    /// A first byte (for [`v1`]: a kind after the magic byte) that this direction does not know.
    UnknownType(u8),
    /// A service-routed packet that is not an IP packet. Forwarded, its bytes would read as a control message, so any
    /// peer could forge one.
    NotAnIpPacket,
    /// A field holds a value that its type does not have.
    InvalidValue,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty message"),
            Self::Truncated => f.write_str("message shorter than its fields say"),
            Self::UnknownType(kind) => write!(f, "unknown message type {kind:#04x}"),
            Self::NotAnIpPacket => f.write_str("routed payload is not an IP packet"),
            Self::InvalidValue => f.write_str("field value out of range"),
        }
    }
}

impl std::error::Error for Malformed {}

/// A cursor over received bytes; every read past the end is [`Malformed::Truncated`].
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// The first byte of a message, which says its type.
    fn expect(&mut self, kind: u8) -> Result<(), Malformed> {
        match self.byte() {
            Ok(byte) if byte == kind => Ok(()),
            Ok(other) => Err(Malformed::UnknownType(other)),
            Err(_) => Err(Malformed::Empty),
        }
    }

    /// A field with a length byte before it.
    fn short_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.byte()?;
        self.bytes(usize::from(len))
    }
}
