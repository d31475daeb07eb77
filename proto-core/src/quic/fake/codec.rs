//! Reading and writing bytes without ever running over: integers, QUIC varints (RFC 9000 §16) and connection ids.

use crate::quic::{Cid, MAX_CID_LEN};

/// A cursor over received bytes; every read fails at the end instead of panicking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        let mut value = u64::from(first & 0x3f);
        for &byte in self.take((1 << (first >> 6)) - 1)? {
            value = value << 8 | u64::from(byte);
        }
        Some(value)
    }

    /// A varint that counts bytes still to come.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    pub(super) fn cid(&mut self) -> Option<Cid> {
        let len = usize::from(self.u8()?);
        if len > MAX_CID_LEN {
            return None;
        }
        Cid::new(self.take(len)?)
    }
}

/// Appends to a fixed buffer; what does not fit is refused and nothing is written.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.at
    }

    pub(super) fn room(&self) -> usize {
        self.out.len() - self.at
    }

    pub(super) fn written(&mut self) -> &mut [u8] {
        &mut self.out[..self.at]
    }

    /// Takes back everything past `len`.
    pub(super) fn rewind(&mut self, len: usize) {
        self.at = self.at.min(len);
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    pub(super) fn zeros(&mut self, count: usize) -> Option<()> {
        let end = self.at.checked_add(count)?;
        self.out.get_mut(self.at..end)?.fill(0);
        self.at = end;
        Some(())
    }

    pub(super) fn u8(&mut self, value: u8) -> Option<()> {
        self.put(&[value])
    }

    pub(super) fn varint(&mut self, value: u64) -> Option<()> {
        let (bytes, len) = varint(value);
        self.put(&bytes[8 - len..])
    }

    /// A varint in its two-byte form, so that a length can be filled in later; values stay below 2^14.
    pub(super) fn varint2(&mut self, value: usize) -> Option<()> {
        debug_assert!(value < 1 << 14);
        self.put(&(value as u16 | 0x4000).to_be_bytes())
    }

    pub(super) fn cid(&mut self, cid: &Cid) -> Option<()> {
        self.u8(cid.as_bytes().len() as u8)?;
        self.put(cid.as_bytes())
    }
}

/// The shortest encoding, right-aligned, and its length.
fn varint(value: u64) -> ([u8; 8], usize) {
    let (len, mark) = match value {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let mut bytes = value.to_be_bytes();
    bytes[8 - len] |= mark;
    (bytes, len)
}

/// Appends a varint to a growing buffer.
pub(super) fn push_varint(out: &mut Vec<u8>, value: u64) {
    let (bytes, len) = varint(value);
    out.extend_from_slice(&bytes[8 - len..]);
}

/// Appends bytes with their length before them.
pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
