//! Address translation in place, with every checksum that covers an address adjusted (RFC 1624).

use std::net::IpAddr;

use super::checksum::{
    ICMP_CHECKSUM, IPV4_CHECKSUM, Sum, TCP_CHECKSUM, UDP_CHECKSUM, addresses, adjust, udp_transmitted,
};
use super::{Extent, Fragment, ICMP_HEADER, ICMPV6, Kind, Malformed, Network, Parsed, TCP, UDP, parse, word};

/// How far into a transport header a checksum that covers addresses reaches.
const CHECKED_TRANSPORT: usize = TCP_CHECKSUM + 2;

/// Which address of a header.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Gives the packet another source address.
///
/// In an ICMP error the destination of the quoted packet becomes that address too: the error then belongs to the
/// translated flow. (An error sent by a router on the way, rather than by the end of the flow, thereby appears to come from
/// that end.) A transport checksum that is cut off in the quote is not needed and not missed.
///
/// # Errors
/// If [`parse`] refuses the packet, or the address is of the other family; the packet is unchanged then.
pub fn rewrite_source(packet: &mut [u8], address: IpAddr) -> Result<(), Malformed> {
    rewrite(packet, Side::Source, address)
}

/// Gives the packet another destination address; in an ICMP error, the quoted packet another source.
///
/// # Errors
/// If [`parse`] refuses the packet, or the address is of the other family; the packet is unchanged then.
pub fn rewrite_destination(packet: &mut [u8], address: IpAddr) -> Result<(), Malformed> {
    rewrite(packet, Side::Destination, address)
}

fn rewrite(packet: &mut [u8], side: Side, address: IpAddr) -> Result<(), Malformed> {
    let parsed = parse(packet)?;
    if parsed.flow.source.is_ipv4() != address.is_ipv4() {
        return Err(Malformed);
    }
    let mut protocol = parsed.flow.protocol;
    if parsed.kind == Kind::IcmpError {
        rewrite_quote(packet, &parsed, side.other(), address)?;
        protocol = if address.is_ipv4() { super::ICMP } else { ICMPV6 };
    }
    let checked = (parsed.fragment != Fragment::Later).then_some(protocol);
    replace(packet, parsed.transport.start, checked, side, address)
}

/// Rewrites the packet that an error quotes, and adjusts the checksum of the error.
fn rewrite_quote(packet: &mut [u8], parsed: &Parsed, side: Side, address: IpAddr) -> Result<(), Malformed> {
    let (head, quote) = packet
        .get_mut(parsed.transport.start..parsed.transport.end)
        .and_then(|transport| transport.split_at_mut_checked(ICMP_HEADER))
        .ok_or(Malformed)?;
    let quoted = Network::parse(quote, Extent::Quoted)?;
    // The part of the quote that can change starts and ends at an even offset, or ends where the error ends.
    let end = quote.len().min(quoted.transport.start + CHECKED_TRANSPORT);
    let checked = (quoted.fragment != Fragment::Later).then_some(quoted.protocol);
    let before = Sum::default().add(&quote[..end]).checksum();
    replace(quote, quoted.transport.start, checked, side, address)?;
    let after = Sum::default().add(&quote[..end]).checksum();
    let checksum = word(head, ICMP_CHECKSUM)?;
    let checksum = adjust(checksum, &(!before).to_be_bytes(), &(!after).to_be_bytes());
    put(head, ICMP_CHECKSUM, checksum)
}

/// Replaces one address of a header and adjusts the header's checksum, and the transport's if it is there.
fn replace(
    packet: &mut [u8],
    transport: usize,
    checked: Option<u8>,
    side: Side,
    address: IpAddr,
) -> Result<(), Malformed> {
    let (source, destination) = addresses(packet).ok_or(Malformed)?;
    let old = match side {
        Side::Source => source,
        Side::Destination => destination,
    };
    let (old, new, at) = match (old, address, side) {
        (IpAddr::V4(old), IpAddr::V4(new), Side::Source) => (Octets::v4(old), Octets::v4(new), 12),
        (IpAddr::V4(old), IpAddr::V4(new), Side::Destination) => (Octets::v4(old), Octets::v4(new), 16),
        (IpAddr::V6(old), IpAddr::V6(new), Side::Source) => (Octets::v6(old), Octets::v6(new), 8),
        (IpAddr::V6(old), IpAddr::V6(new), Side::Destination) => (Octets::v6(old), Octets::v6(new), 24),
        (IpAddr::V4(_), IpAddr::V6(_), _) | (IpAddr::V6(_), IpAddr::V4(_), _) => return Err(Malformed),
    };
    let (old, new) = (old.as_slice(), new.as_slice());
    packet
        .get_mut(at..at + new.len())
        .ok_or(Malformed)?
        .copy_from_slice(new);
    if address.is_ipv4() {
        let checksum = word(packet, IPV4_CHECKSUM)?;
        put(packet, IPV4_CHECKSUM, adjust(checksum, old, new))?;
    }
    let at = match (checked, address.is_ipv4()) {
        (Some(TCP), _) => TCP_CHECKSUM,
        (Some(UDP), _) => UDP_CHECKSUM,
        (Some(ICMPV6), false) => ICMP_CHECKSUM,
        (_, _) => return Ok(()),
    };
    // In a quote, or a first fragment that is very short, the checksum may be cut off.
    let Ok(checksum) = word(packet, transport + at) else {
        return Ok(());
    };
    let adjusted = adjust(checksum, old, new);
    let adjusted = match (checked, checksum) {
        (Some(UDP), 0) => 0,
        (Some(UDP), _) => udp_transmitted(adjusted),
        (_, _) => adjusted,
    };
    put(packet, transport + at, adjusted)
}

fn put(bytes: &mut [u8], at: usize, word: u16) -> Result<(), Malformed> {
    bytes
        .get_mut(at..at + 2)
        .ok_or(Malformed)?
        .copy_from_slice(&word.to_be_bytes());
    Ok(())
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// The octets of an address, without allocation.
struct Octets([u8; 16], usize);

impl Octets {
    fn v4(address: std::net::Ipv4Addr) -> Self {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&address.octets());
        Self(octets, 4)
    }

    fn v6(address: std::net::Ipv6Addr) -> Self {
        Self(address.octets(), 16)
    }

    fn as_slice(&self) -> &[u8] {
        &self.0[..self.1]
    }
}
