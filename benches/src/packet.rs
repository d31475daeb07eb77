//! The inner packets that measurements send: UDP over IPv4 with a mark (sender, sequence number, time) in its payload.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use proto_core::routing::packet;

/// IPv4 and UDP header.
pub const HEADERS: usize = 28;

/// What identifies a packet, in its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which sender.
    pub sender: u32,
    /// Which round of the sender.
    pub round: u32,
    /// The number of the packet in its round, from 0.
    pub sequence: u64,
    /// When it was sent, in nanoseconds of the sender's clock.
    pub sent_at: u64,
}

impl Mark {
    /// The bytes it takes.
    pub const LEN: usize = 24;

    /// Writes it to the front of a payload of at least [`Mark::LEN`] bytes.
    pub fn write(self, payload: &mut [u8]) {
        let Some((head, _)) = payload.split_first_chunk_mut::<{ Self::LEN }>() else {
            return;
        };
        head[..4].copy_from_slice(&self.sender.to_be_bytes());
        head[4..8].copy_from_slice(&self.round.to_be_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        head[16..].copy_from_slice(&self.sent_at.to_be_bytes());
    }

    /// Reads it from the front of a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let word = |at: usize| payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let long = |at: usize| payload.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        Some(Self {
            sender: word(0)?,
            round: word(4)?,
            sequence: long(8)?,
            sent_at: long(16)?,
        })
    }
}

/// The inner address of an agent.
pub fn agent_address(index: usize) -> SocketAddr {
    let [.., high, low] = (index as u32 + 1).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(10, 90, high, low), 40_000).into()
}

/// The inner address of the service.
pub const SERVICE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 100, 0, 1), 7));

/// An IP packet of `len` bytes in all, with room for a mark. Its UDP checksum is zero (RFC 768: none), so that the mark
/// can change.
///
/// # Panics
/// If `len` is below 52 or above 65,535.
pub fn template(source: SocketAddr, destination: SocketAddr, len: usize) -> Vec<u8> {
    assert!(len >= HEADERS + Mark::LEN, "no room for headers and mark");
    let mut out = Vec::new();
    assert!(
        packet::udp(source, destination, &vec![0x5a; len - HEADERS], &mut out),
        "not a packet"
    );
    out[26..28].fill(0);
    out
}

/// Turns a packet around: addresses and ports change places, so that every checksum stays right.
pub fn turn_around(packet: &mut [u8]) {
    if packet.len() < HEADERS {
        return;
    }
    let (source, destination) = packet[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    let (source, destination) = packet[20..24].split_at_mut(2);
    source.swap_with_slice(destination);
}
