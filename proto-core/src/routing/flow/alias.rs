//! The source addresses that tell agents apart which use the same one.
//!
//! An alias belongs to one live agent connection, because it is made of nothing but its id. In IPv6 there is room for
//! the whole id. In IPv4 it comes from the upper half of the shared address space (RFC 6598), numbered from the top,
//! while people number their hosts from the bottom: 17 bits of the index, 4 of the generation. A generation that comes
//! round after 16 uses of a slot is harmless: one slot has one live connection. An agent whose index does not fit has no
//! IPv4 alias.
//!
//! Services must not have addresses in these ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::ConnId;
use crate::routing::packet::{ICMP, ICMPV6, Kind, Parsed, TCP, UDP};

const V4_LAST: u32 = Ipv4Addr::new(100, 127, 255, 255).to_bits();
const V4_BITS: u32 = 21;
const V4_INDEX_BITS: u32 = 17;
const V4_GENERATIONS: u32 = 1 << (V4_BITS - V4_INDEX_BITS);

/// A unique local prefix (RFC 4193 §3), drawn once; the id follows in the low 64 bits.
const V6_PREFIX: u128 = 0xfdb1_6d2e_94c7_0001 << 64;
const V6_BITS: u32 = 64;

/// The alias of an agent, of the same family as `source`.
pub(super) fn of(agent: ConnId, source: IpAddr) -> Option<IpAddr> {
    if source.is_ipv6() {
        let id = u128::from(agent.generation) << 32 | u128::from(agent.index);
        return Some(Ipv6Addr::from_bits(V6_PREFIX | id).into());
    }
    if agent.index >> V4_INDEX_BITS != 0 {
        return None;
    }
    let id = (agent.generation % V4_GENERATIONS) << V4_INDEX_BITS | agent.index;
    Some(Ipv4Addr::from_bits(V4_LAST - id).into())
}

/// Whether an address is somebody's alias, or could be.
pub(super) fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits() >> V4_BITS == V4_LAST >> V4_BITS,
        IpAddr::V6(address) => address.to_bits() >> V6_BITS == V6_PREFIX >> V6_BITS,
    }
}

/// Whether the addresses of a packet can be rewritten without breaking a checksum unknown to us.
pub(super) fn is_translatable(parsed: &Parsed) -> bool {
    match parsed.kind {
        Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::EchoReply => true,
        Kind::IcmpError | Kind::Other => matches!(parsed.flow.protocol, TCP | UDP | ICMP | ICMPV6),
    }
}
