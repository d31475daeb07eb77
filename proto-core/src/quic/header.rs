//! The part of a QUIC packet that can be read without keys (RFC 8999, RFC 9000 §17).
//!
//! Enough to find the connection a packet belongs to and to answer it statelessly; everything else is the provider's.

use std::ops::Range;

use super::{Cid, MAX_CID_LEN};

/// QUIC version 1 (RFC 9000 §15).
pub const VERSION_1: u32 = 1;

/// Smallest UDP payload that may carry a client's Initial (RFC 9000 §14.1).
pub const MIN_INITIAL_LEN: usize = 1200;

/// The unprotected header of the first packet in a UDP payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// A 1-RTT packet: nothing but the connection id can be read.
    Short {
        /// The id that we gave out.
        dcid: Cid,
    },
    /// A packet with a long header.
    Long {
        /// Which kind, as far as the version is ours.
        kind: LongKind,
        /// The version; 0 marks Version Negotiation.
        version: u32,
        /// The id of the receiver.
        dcid: Cid,
        /// The id of the sender.
        scid: Cid,
        /// Where the token of an Initial stands in the packet; empty for the other kinds.
        token: Range<usize>,
    },
}

/// The kinds of long header of version 1 (RFC 9000 §17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongKind {
    /// The first flight of either side.
    Initial,
    /// Early data.
    ZeroRtt,
    /// The later flights of the handshake.
    Handshake,
    /// A server's demand for address validation.
    Retry,
    /// A version that is not ours: only the ids are known.
    OtherVersion,
}

/// Why a payload has no QUIC header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotQuic;

impl Header {
    /// Reads the header of `packet`, whose short form carries an id of `local_cid_len` bytes.
    ///
    /// # Errors
    /// If the payload is shorter than its header says, an id is longer than version 1 allows, or the fixed bit is
    /// not set.
    pub fn parse(packet: &[u8], local_cid_len: usize) -> Result<Self, NotQuic> {
        let first = *packet.first().ok_or(NotQuic)?;
        if first & 0x80 == 0 {
            if first & 0x40 == 0 {
                return Err(NotQuic);
            }
            let dcid = packet.get(1..=local_cid_len).and_then(Cid::new).ok_or(NotQuic)?;
            return Ok(Self::Short { dcid });
        }
        let mut reader = Reader { packet, at: 1 };
        let version = u32::from_be_bytes(reader.take(4)?.try_into().map_err(|_| NotQuic)?);
        let dcid = reader.cid()?;
        let scid = reader.cid()?;
        if version != VERSION_1 {
            return Ok(Self::Long {
                kind: LongKind::OtherVersion,
                version,
                dcid,
                scid,
                token: 0..0,
            });
        }
        if first & 0x40 == 0 {
            return Err(NotQuic);
        }
        let kind = match first & 0x30 {
            0x00 => LongKind::Initial,
            0x10 => LongKind::ZeroRtt,
            0x20 => LongKind::Handshake,
            _ => LongKind::Retry,
        };
        let token = if kind == LongKind::Initial {
            reader.token()?
        } else {
            0..0
        };
        Ok(Self::Long {
            kind,
            version,
            dcid,
            scid,
            token,
        })
    }
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotQuic> {
        let end = self.at.checked_add(count).ok_or(NotQuic)?;
        let bytes = self.packet.get(self.at..end).ok_or(NotQuic)?;
        self.at = end;
        Ok(bytes)
    }

    fn cid(&mut self) -> Result<Cid, NotQuic> {
        let len = usize::from(self.take(1)?[0]);
        if len > MAX_CID_LEN {
            return Err(NotQuic);
        }
        Cid::new(self.take(len)?).ok_or(NotQuic)
    }

    /// A variable-length integer (RFC 9000 §16) and as many bytes.
    fn token(&mut self) -> Result<Range<usize>, NotQuic> {
        let first = self.take(1)?[0];
        let more = (1_usize << (first >> 6)) - 1;
        let mut len = u64::from(first & 0x3f);
        for byte in self.take(more)? {
            len = (len << 8) | u64::from(*byte);
        }
        let start = self.at;
        self.take(usize::try_from(len).map_err(|_| NotQuic)?)?;
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests;
