//! The internet checksum (RFC 1071): computed, verified, and adjusted without recomputation (RFC 1624).

use std::net::IpAddr;

use super::{Fragment, ICMP, ICMPV6, Kind, Parsed, TCP, UDP, word};

/// Where the checksum of a transport stands in its header.
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;
pub(super) const ICMP_CHECKSUM: usize = 2;

/// Where the checksum of an IPv4 header stands.
pub(super) const IPV4_CHECKSUM: usize = 10;

/// A ones' complement sum under way. Every part but the last must have an even length.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes, padded with a zero byte if their number is odd.
    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        // 32-bit words sum to the same residue as 16-bit words, since 2^16 is 1 modulo 2^16 - 1, and the sum of swapped
        // words is the swapped sum (RFC 1071 §2 (B)), so that the loop takes words as the machine has them. At most 2^14
        // of them come from one packet, far from the range of the accumulator.
        let mut native = Self::default();
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            if let Ok(word) = word.try_into() {
                native.0 += u64::from(u32::from_ne_bytes(word));
            }
        }
        self.0 += u64::from(u16::from_be(native.fold()));
        for (at, byte) in words.remainder().iter().enumerate() {
            self.0 += u64::from(*byte) << (8 * ((at + 1) % 2));
        }
        self
    }

    /// Adds one 16-bit word.
    pub(super) fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds the address.
    pub(super) fn add_address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.add(&address.octets()),
            IpAddr::V6(address) => self.add(&address.octets()),
        }
    }

    /// The pseudo header of a transport of `len` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(super) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        let sum = Self::default().add_address(source).add_address(destination);
        Self(sum.0 + u64::from(protocol) + len as u64)
    }

    /// The sum, folded.
    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum: the complement of the sum.
    pub(super) fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether the sum includes a checksum that fits.
    fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum after `old` became `new` in what it covers (RFC 1624, equation 3). Both have the same even length and
/// start at an even offset.
pub(super) fn adjust(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut sum = Sum::default().add_word(!checksum).add(new);
    for old in old.chunks_exact(2) {
        sum = sum.add_word(!u16::from_be_bytes([old[0], old[1]]));
    }
    sum.checksum()
}

/// A UDP checksum as it is transmitted: zero would mean that there is none (RFC 768).
pub(super) fn udp_transmitted(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Whether every checksum that the packet carries fits: IPv4 header, TCP, UDP, ICMP.
///
/// Of a fragment only the IP header is looked at, since its transport checksum covers the whole. A UDP checksum of zero
/// is good in IPv4 and bad in IPv6 (RFC 8200 §8.1). `parsed` must come from [`super::parse`] of the same bytes.
pub fn verify_checksums(parsed: &Parsed, packet: &[u8]) -> bool {
    check(parsed, packet).unwrap_or(false)
}

fn check(parsed: &Parsed, packet: &[u8]) -> Option<bool> {
    let v4 = packet.first()? >> 4 == 4;
    let transport = packet.get(parsed.transport.clone())?;
    if v4
        && !Sum::default()
            .add(packet.get(..parsed.transport.start)?)
            .is_valid()
    {
        return Some(false);
    }
    if parsed.fragment != Fragment::No {
        return Some(true);
    }
    // The flow of an error has the protocol of the packet it quotes.
    let protocol = match parsed.kind {
        Kind::IcmpError if v4 => ICMP,
        Kind::IcmpError => ICMPV6,
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::EchoReply | Kind::Other => parsed.flow.protocol,
    };
    let (source, destination) = addresses(packet)?;
    let pseudo = || {
        Sum::pseudo(source, destination, protocol, transport.len())
            .add(transport)
            .is_valid()
    };
    Some(match (protocol, v4) {
        (TCP, _) | (ICMPV6, false) => pseudo(),
        (UDP, _) => match word(transport, UDP_CHECKSUM) {
            Ok(0) => v4,
            Ok(_) | Err(_) => pseudo(),
        },
        (ICMP, true) => Sum::default().add(transport).is_valid(),
        (_, _) => true,
    })
}

/// The addresses of the outer header: those of [`Parsed::flow`] may be those of a quoted one.
pub(super) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn octets<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
        packet.get(at..at + N)?.try_into().ok()
    }
    match packet.first()? >> 4 {
        4 => Some((octets::<4>(packet, 12)?.into(), octets::<4>(packet, 16)?.into())),
        _ => Some((octets::<16>(packet, 8)?.into(), octets::<16>(packet, 24)?.into())),
    }
}
