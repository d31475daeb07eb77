//! Packet headers as on a real wire (RFC 8999, RFC 9000 §17), so that demultiplexing works on them.
//!
//! Long headers with version 1 and short headers; packet numbers in the clear and always four bytes long.

use std::ops::Range;

use super::codec::{Reader, Writer};
use super::seal::{Key, TAG_LEN};
use crate::quic::Cid;

/// QUIC version 1.
pub(super) const VERSION: u32 = 1;

/// A packet number space (RFC 9000 §12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Initial,
    Handshake,
    Application,
}

impl Space {
    pub(super) const ALL: [Self; 3] = [Self::Initial, Self::Handshake, Self::Application];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// One packet of a datagram, not yet authenticated. Ranges are offsets into the datagram.
#[derive(Debug)]
pub(super) enum Packet {
    /// A packet with a number and frames.
    Protected(Protected),
    /// A Retry (RFC 9000 §17.2.5).
    Retry {
        dcid: Cid,
        scid: Cid,
        token: Range<usize>,
        end: usize,
    },
    /// A Version Negotiation packet (RFC 9000 §17.2.1).
    Negotiation {
        dcid: Cid,
        scid: Cid,
        versions: Range<usize>,
    },
}

/// A packet with a number and frames.
#[derive(Debug)]
pub(super) struct Protected {
    pub(super) space: Space,
    pub(super) dcid: Cid,
    /// Empty in short headers.
    pub(super) scid: Cid,
    pub(super) number: u64,
    pub(super) start: usize,
    pub(super) frames: Range<usize>,
    /// One past the checksum: where the next coalesced packet begins.
    pub(super) end: usize,
}

/// Reads the header at `start`; `local_cid_len` tells where a short header's destination id ends.
pub(super) fn parse(datagram: &[u8], start: usize, local_cid_len: usize) -> Option<Packet> {
    let mut reader = Reader::new(datagram.get(start..)?);
    let at = |reader: &Reader<'_>| datagram.len() - reader.len();
    let first = reader.u8()?;
    if first & 0x80 == 0 {
        if first & 0x40 == 0 {
            return None;
        }
        let dcid = Cid::new(reader.take(local_cid_len)?)?;
        let number = u64::from(reader.u32()?);
        let frames = at(&reader)..datagram.len().checked_sub(TAG_LEN)?;
        let head = Protected {
            space: Space::Application,
            dcid,
            scid: Cid::new(&[])?,
            number,
            start,
            end: datagram.len(),
            frames,
        };
        return (head.frames.start <= head.frames.end).then_some(Packet::Protected(head));
    }
    let version = reader.u32()?;
    let (dcid, scid) = (reader.cid()?, reader.cid()?);
    if version == 0 {
        return Some(Packet::Negotiation {
            dcid,
            scid,
            versions: at(&reader)..datagram.len(),
        });
    }
    if version != VERSION || first & 0x40 == 0 {
        return None;
    }
    let space = match first >> 4 & 3 {
        0 => {
            reader.bytes()?;
            Space::Initial
        }
        2 => Space::Handshake,
        3 => {
            let token = at(&reader)..datagram.len().checked_sub(TAG_LEN)?;
            return (token.start < token.end).then_some(Packet::Retry {
                dcid,
                scid,
                token,
                end: datagram.len(),
            });
        }
        _ => return None,
    };
    let body = reader.bytes()?.len();
    let end = at(&reader);
    let mut body = Reader::new(&datagram[end - body..end]);
    let number = u64::from(body.u32()?);
    let frames = end - body.len()..end.checked_sub(TAG_LEN)?;
    (frames.start <= frames.end).then_some(Packet::Protected(Protected {
        space,
        dcid,
        scid,
        number,
        start,
        frames,
        end,
    }))
}

/// The fields of a header to be written.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) space: Space,
    pub(super) dcid: Cid,
    pub(super) scid: Cid,
    pub(super) token: &'a [u8],
    pub(super) number: u64,
}

/// A packet under construction at the front of a buffer.
#[derive(Debug)]
pub(super) struct PacketWriter<'a> {
    writer: Writer<'a>,
    number: u64,
    /// Where the two-byte length stands, in long headers.
    length_at: Option<usize>,
    frames_at: usize,
}

impl<'a> PacketWriter<'a> {
    /// Writes the header; the room that is left for frames keeps the checksum out.
    pub(super) fn begin(out: &'a mut [u8], head: &Head<'_>) -> Option<Self> {
        let usable = out.len().checked_sub(TAG_LEN)?;
        let mut writer = Writer::new(&mut out[..usable]);
        let length_at = match head.space {
            Space::Application => {
                writer.u8(0x43)?;
                writer.put(head.dcid.as_bytes())?;
                None
            }
            Space::Initial | Space::Handshake => {
                writer.u8(if head.space == Space::Initial { 0xc3 } else { 0xe3 })?;
                writer.put(&VERSION.to_be_bytes())?;
                writer.cid(&head.dcid)?;
                writer.cid(&head.scid)?;
                if head.space == Space::Initial {
                    writer.varint(head.token.len() as u64)?;
                    writer.put(head.token)?;
                }
                writer.varint2(0)?;
                Some(writer.len() - 2)
            }
        };
        writer.put(&(head.number as u32).to_be_bytes())?;
        let frames_at = writer.len();
        Some(Self {
            writer,
            number: head.number,
            length_at,
            frames_at,
        })
    }

    pub(super) fn frames(&mut self) -> &mut Writer<'a> {
        &mut self.writer
    }

    /// Whether no frame has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.writer.len() == self.frames_at
    }

    /// Pads with PADDING frames until the packet is `len` bytes long in all, as far as there is room.
    pub(super) fn pad_to(&mut self, len: usize) {
        let missing = len
            .saturating_sub(self.writer.len() + TAG_LEN)
            .min(self.writer.room());
        // There is room: the count has just been cut to it.
        let _ = self.writer.zeros(missing);
    }

    /// Fills in the length and returns the checksum to append and the packet's size without it.
    pub(super) fn finish(mut self, key: &Key) -> ([u8; TAG_LEN], usize) {
        let len = self.writer.len();
        if let Some(at) = self.length_at {
            let body = (len - at - 2 + TAG_LEN) as u16 | 0x4000;
            self.writer.written()[at..at + 2].copy_from_slice(&body.to_be_bytes());
        }
        (key.tag(self.number, self.writer.written()), len)
    }
}

/// The key of a Retry's checksum: public, like the one of RFC 9001 §5.8, and bound to the original destination id.
pub(super) fn retry_key(original: &Cid) -> Key {
    Key::derive(b"retry", &[original.as_bytes()])
}

/// Writes a Retry; `None` if it does not fit.
pub(super) fn write_retry(
    out: &mut [u8],
    client: &Cid,
    retry: &Cid,
    original: &Cid,
    token: &[u8],
) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.u8(0xf0)?;
    writer.put(&VERSION.to_be_bytes())?;
    writer.cid(client)?;
    writer.cid(retry)?;
    writer.put(token)?;
    let tag = retry_key(original).tag(0, writer.written());
    writer.put(&tag)?;
    Some(writer.len())
}

/// Writes a Version Negotiation packet; `None` if it does not fit.
pub(super) fn write_negotiation(out: &mut [u8], to: &Cid, from: &Cid) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.u8(0xc0)?;
    writer.put(&0u32.to_be_bytes())?;
    writer.cid(to)?;
    writer.cid(from)?;
    writer.put(&VERSION.to_be_bytes())?;
    Some(writer.len())
}
