//! The frames that the fake speaks, encoded as in RFC 9000 §19 and RFC 9221 §4.

use super::codec::{Reader, Writer};
use super::ranges::Ranges;
use crate::quic::Cid;

/// One received frame.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Padding,
    Ping,
    Ack(Ack<'a>),
    Crypto {
        offset: u64,
        data: &'a [u8],
    },
    Stream {
        stream: u64,
        offset: u64,
        data: &'a [u8],
    },
    MaxStreamData {
        stream: u64,
        limit: u64,
    },
    NewCid {
        sequence: u64,
        cid: Cid,
        token: [u8; 16],
    },
    RetireCid {
        sequence: u64,
    },
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    Close {
        application: bool,
        code: u64,
        reason: &'a [u8],
    },
    HandshakeDone,
    Datagram(&'a [u8]),
}

impl Frame<'_> {
    /// Whether its packet has to be acknowledged (RFC 9002 §2).
    pub(super) fn is_eliciting(&self) -> bool {
        !matches!(self, Self::Padding | Self::Ack(_) | Self::Close { .. })
    }
}

/// The ranges of an ACK frame, read where they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack<'a> {
    pub(super) largest: u64,
    first: u64,
    more: u64,
    ranges: Reader<'a>,
}

impl Ack<'_> {
    /// Inclusive ranges, highest first; ends early where the frame makes no sense.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut reader = self.ranges;
        let mut low = self.largest.checked_sub(self.first);
        let first = low.map(|low| (low, self.largest));
        let rest = (0..self.more).map_while(move |_| {
            let (gap, len) = (reader.varint()?, reader.varint()?);
            let high = low?.checked_sub(gap)?.checked_sub(2)?;
            low = high.checked_sub(len);
            Some((low?, high))
        });
        first.into_iter().chain(rest)
    }
}

/// Reads the next frame; `None` if it is cut short or of an unknown kind.
pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Option<Frame<'a>> {
    Some(match reader.varint()? {
        0x00 => Frame::Padding,
        0x01 => Frame::Ping,
        0x02 => Frame::Ack(read_ack(reader)?),
        0x06 => Frame::Crypto {
            offset: reader.varint()?,
            data: reader.bytes()?,
        },
        // The lowest bits: ended, with a length, with an offset. The fake never ends a stream.
        kind @ 0x08..=0x0f => {
            let stream = reader.varint()?;
            let offset = if kind & 4 != 0 { reader.varint()? } else { 0 };
            let data = if kind & 2 != 0 {
                reader.bytes()?
            } else {
                reader.take(reader.len())?
            };
            Frame::Stream { stream, offset, data }
        }
        0x11 => Frame::MaxStreamData {
            stream: reader.varint()?,
            limit: reader.varint()?,
        },
        0x18 => {
            let sequence = reader.varint()?;
            // "Retire prior to": the fake never sends anything but zero.
            reader.varint()?;
            Frame::NewCid {
                sequence,
                cid: reader.cid()?,
                token: reader.array()?,
            }
        }
        0x19 => Frame::RetireCid {
            sequence: reader.varint()?,
        },
        0x1a => Frame::PathChallenge(reader.array()?),
        0x1b => Frame::PathResponse(reader.array()?),
        0x1c => {
            let code = reader.varint()?;
            reader.varint()?;
            Frame::Close {
                application: false,
                code,
                reason: reader.bytes()?,
            }
        }
        0x1d => Frame::Close {
            application: true,
            code: reader.varint()?,
            reason: reader.bytes()?,
        },
        0x1e => Frame::HandshakeDone,
        0x30 => {
            let data = reader.rest();
            reader.take(data.len())?;
            Frame::Datagram(data)
        }
        0x31 => Frame::Datagram(reader.bytes()?),
        _ => return None,
    })
}

fn read_ack<'a>(reader: &mut Reader<'a>) -> Option<Ack<'a>> {
    let largest = reader.varint()?;
    reader.varint()?;
    let more = reader.varint()?;
    let first = reader.varint()?;
    let ranges = *reader;
    for _ in 0..more {
        reader.varint()?;
        reader.varint()?;
    }
    Some(Ack {
        largest,
        first,
        more,
        ranges,
    })
}

/// Writes an ACK of all that was received.
pub(super) fn write_ack(writer: &mut Writer<'_>, received: &Ranges) -> Option<()> {
    let mut ranges = received.descending();
    let more = ranges.len().checked_sub(1)?;
    let (mut low, end) = ranges.next()?;
    writer.u8(0x02)?;
    writer.varint(end - 1)?;
    writer.varint(0)?;
    writer.varint(more as u64)?;
    writer.varint(end - 1 - low)?;
    for (start, end) in ranges {
        writer.varint(low - end - 1)?;
        writer.varint(end - 1 - start)?;
        low = start;
    }
    Some(())
}

pub(super) fn write_ping(writer: &mut Writer<'_>) -> Option<()> {
    writer.u8(0x01)
}

pub(super) fn write_crypto(writer: &mut Writer<'_>, offset: u64, data: &[u8]) -> Option<()> {
    writer.u8(0x06)?;
    writer.varint(offset)?;
    writer.varint2(data.len())?;
    writer.put(data)
}

/// The most bytes that a STREAM frame adds to its data.
pub(super) const STREAM_OVERHEAD: usize = 12;

pub(super) fn write_stream(writer: &mut Writer<'_>, stream: u64, offset: u64, data: &[u8]) -> Option<()> {
    writer.u8(0x0e)?;
    writer.varint(stream)?;
    writer.varint(offset)?;
    writer.varint2(data.len())?;
    writer.put(data)
}

pub(super) fn write_max_stream_data(writer: &mut Writer<'_>, stream: u64, limit: u64) -> Option<()> {
    writer.u8(0x11)?;
    writer.varint(stream)?;
    writer.varint(limit)
}

pub(super) fn write_new_cid(
    writer: &mut Writer<'_>,
    sequence: u64,
    cid: &Cid,
    token: &[u8; 16],
) -> Option<()> {
    writer.u8(0x18)?;
    writer.varint(sequence)?;
    writer.varint(0)?;
    writer.cid(cid)?;
    writer.put(token)
}

pub(super) fn write_retire_cid(writer: &mut Writer<'_>, sequence: u64) -> Option<()> {
    writer.u8(0x19)?;
    writer.varint(sequence)
}

pub(super) fn write_path_challenge(writer: &mut Writer<'_>, data: &[u8; 8]) -> Option<()> {
    writer.u8(0x1a)?;
    writer.put(data)
}

pub(super) fn write_path_response(writer: &mut Writer<'_>, data: &[u8; 8]) -> Option<()> {
    writer.u8(0x1b)?;
    writer.put(data)
}

pub(super) fn write_close(
    writer: &mut Writer<'_>,
    application: bool,
    code: u64,
    reason: &[u8],
) -> Option<()> {
    writer.u8(if application { 0x1d } else { 0x1c })?;
    writer.varint(code)?;
    if !application {
        writer.varint(0)?;
    }
    writer.varint(reason.len() as u64)?;
    writer.put(reason)
}

pub(super) fn write_handshake_done(writer: &mut Writer<'_>) -> Option<()> {
    writer.u8(0x1e)
}

/// The bytes that a DATAGRAM frame adds to its payload.
pub(super) const DATAGRAM_OVERHEAD: usize = 3;

pub(super) fn write_datagram(writer: &mut Writer<'_>, data: &[u8]) -> Option<()> {
    writer.u8(0x31)?;
    writer.varint2(data.len())?;
    writer.put(data)
}
