//! Fragments: what one says of itself, and cutting a packet into them (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Decides whether a fragment is well formed by itself. Putting fragments together again, and how long to wait for them,
//! is `crate::routing::reassembly`'s.

use std::ops::Range;

use etherparse::ip_number;

use super::checksum::{IPV4_CHECKSUM, Sum, adjust};
use super::{Fragment, MAX_EXTENSIONS, Malformed, Parsed, word};

const IPV4_ID: usize = 4;
const IPV4_FLAGS: usize = 6;
const IPV4_LENGTH: usize = 2;
const IPV4_MORE: u16 = 0x2000;
const IPV4_DONT: u16 = 0x4000;
const IPV6_HEADER: usize = 40;
const IPV6_LENGTH: usize = 4;
const IPV6_NEXT: usize = 6;
const IPV6_FRAGMENT: usize = 8;

/// Fragments are cut at multiples of this.
const UNIT: usize = 8;

/// The part of a packet that one fragment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What all fragments of the packet share; 16 bits in IPv4.
    pub id: u32,
    /// Where its data begins in the data of the whole.
    pub offset: usize,
    /// Whether others follow it.
    pub more: bool,
    /// Its data within the fragment.
    pub data: Range<usize>,
    /// The header that every fragment repeats: all before the data, in IPv6 without the fragment header.
    pub head: usize,
    /// Where the header names the protocol of the data; of IPv6 fragments it names the fragment header.
    next_at: usize,
    /// The protocol of the data.
    next: u8,
}

impl Piece {
    /// Reads a fragment that was parsed; `None` if the packet is none, or contradicts itself.
    pub fn of(packet: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.fragment == Fragment::No {
            return None;
        }
        let piece = match packet.first()? >> 4 {
            4 => Self::v4(packet, parsed)?,
            _ => Self::v6(packet, parsed)?,
        };
        // All but the last are cut at a unit, none is empty, and the whole is no longer than a packet can be.
        let len = piece.data.len();
        let cut = !piece.more || len.is_multiple_of(UNIT);
        let fits = piece.head + piece.offset + len <= usize::from(u16::MAX);
        (cut && len > 0 && fits).then_some(piece)
    }

    fn v4(packet: &[u8], parsed: &Parsed) -> Option<Self> {
        let head = usize::from(packet.first()? & 0x0f) * 4;
        let flags = word(packet, IPV4_FLAGS).ok()?;
        Some(Self {
            id: word(packet, IPV4_ID).ok()?.into(),
            offset: usize::from(flags & 0x1fff) * UNIT,
            more: flags & IPV4_MORE != 0,
            data: head..parsed.len,
            head,
            next_at: 9,
            next: *packet.get(9)?,
        })
    }

    fn v6(packet: &[u8], parsed: &Parsed) -> Option<Self> {
        let (mut next_at, mut head) = (IPV6_NEXT, IPV6_HEADER);
        for _ in 0..=MAX_EXTENSIONS {
            let kind = *packet.get(next_at)?;
            if kind == ip_number::IPV6_FRAGMENTATION_HEADER.0 {
                let flags = word(packet, head + 2).ok()?;
                let (high, low) = (word(packet, head + 4).ok()?, word(packet, head + 6).ok()?);
                return Some(Self {
                    id: u32::from(high) << 16 | u32::from(low),
                    offset: usize::from(flags & !7),
                    more: flags & 1 != 0,
                    data: head + IPV6_FRAGMENT..parsed.len,
                    head,
                    next_at,
                    next: *packet.get(head)?,
                });
            }
            next_at = head;
            head += (usize::from(*packet.get(head + 1)?) + 1) * UNIT;
        }
        None
    }

    /// The packet that this first fragment's header and the data of all make; `None` if it is too long.
    pub fn whole(&self, first: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let head = first.get(..self.head)?;
        let mut packet = Vec::with_capacity(head.len() + data.len());
        packet.extend_from_slice(head);
        packet.extend_from_slice(data);
        if packet.first()? >> 4 == 4 {
            let len = u16::try_from(packet.len()).ok()?;
            put(&mut packet, IPV4_LENGTH, len)?;
            put(&mut packet, IPV4_FLAGS, 0)?;
            seal_v4(packet.get_mut(..self.head)?)?;
        } else {
            let len = u16::try_from(packet.len() - IPV6_HEADER).ok()?;
            put(&mut packet, IPV6_LENGTH, len)?;
            *packet.get_mut(self.next_at)? = self.next;
        }
        Some(packet)
    }
}

/// Gives a fragment another identification, with the header's checksum adjusted.
///
/// # Errors
/// If the packet is no fragment; it is unchanged then.
pub fn set_identification(packet: &mut [u8], parsed: &Parsed, id: u32) -> Result<(), Malformed> {
    let piece = Piece::of(packet, parsed).ok_or(Malformed)?;
    let [_, _, high, low] = id.to_be_bytes();
    if packet.first().is_some_and(|first| first >> 4 == 4) {
        let old = word(packet, IPV4_ID)?;
        let checksum = word(packet, IPV4_CHECKSUM)?;
        let new = u16::from_be_bytes([high, low]);
        put(packet, IPV4_ID, new).ok_or(Malformed)?;
        let checksum = adjust(checksum, &old.to_be_bytes(), &new.to_be_bytes());
        return put(packet, IPV4_CHECKSUM, checksum).ok_or(Malformed);
    }
    packet
        .get_mut(piece.head + 4..piece.head + 8)
        .ok_or(Malformed)?
        .copy_from_slice(&id.to_be_bytes());
    Ok(())
}

/// Cuts a packet into fragments of at most `mtu` bytes and gives them out in order.
///
/// "Don't fragment" is not looked at: that is for packets made here, whose size nobody else can change. `false`, and
/// nothing given out, if it is no packet without extension headers or `mtu` leaves no room for data.
pub fn split(packet: &[u8], mtu: usize, id: u32, out: &mut dyn FnMut(Vec<u8>)) -> bool {
    let v4 = match packet.first() {
        Some(first) => first >> 4 == 4,
        None => return false,
    };
    let head = if v4 {
        usize::from(packet[0] & 0x0f) * 4
    } else {
        IPV6_HEADER
    };
    let overhead = if v4 { head } else { head + IPV6_FRAGMENT };
    let room = mtu.saturating_sub(overhead) / UNIT * UNIT;
    let (Some(header), Some(data)) = (packet.get(..head), packet.get(head..)) else {
        return false;
    };
    if room == 0 || data.is_empty() {
        return false;
    }
    let last = (data.len() - 1) / room;
    for (index, part) in data.chunks(room).enumerate() {
        let more = index < last;
        let offset = (index * room) as u16;
        let mut fragment = Vec::with_capacity(overhead + part.len());
        fragment.extend_from_slice(header);
        if v4 {
            let flags = (offset / UNIT as u16) | if more { IPV4_MORE } else { 0 };
            let fields = [
                (IPV4_LENGTH, (overhead + part.len()) as u16),
                (IPV4_ID, id as u16),
                (IPV4_FLAGS, flags & !IPV4_DONT),
            ];
            for (at, value) in fields {
                let _ = put(&mut fragment, at, value);
            }
            let _ = seal_v4(&mut fragment);
        } else {
            let next = std::mem::replace(&mut fragment[IPV6_NEXT], ip_number::IPV6_FRAGMENTATION_HEADER.0);
            let _ = put(&mut fragment, IPV6_LENGTH, (IPV6_FRAGMENT + part.len()) as u16);
            fragment.extend_from_slice(&[next, 0]);
            fragment.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
            fragment.extend_from_slice(&id.to_be_bytes());
        }
        fragment.extend_from_slice(part);
        out(fragment);
    }
    true
}

/// Computes the checksum of an IPv4 header anew.
fn seal_v4(header: &mut [u8]) -> Option<()> {
    put(header, IPV4_CHECKSUM, 0)?;
    let checksum = Sum::default().add(header).checksum();
    put(header, IPV4_CHECKSUM, checksum)
}

fn put(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&word.to_be_bytes());
    Some(())
}
