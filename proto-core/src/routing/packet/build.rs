//! Packets made here: UDP towards an agent, and the answers that RFC 792, 4443, 1122 and 9293 ask of a host.
//!
//! Every builder clears `out`, reserves exactly what the packet needs and returns whether there is a packet. `false`
//! means that the rules forbid one, or that the arguments do not make one; `out` is empty then. Packets carry hop limit
//! 64, and in IPv4 identification 0 with "don't fragment" (RFC 6864 §4.1).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpPacket, TcpRepr};

use super::checksum::{ICMP_CHECKSUM, Sum, TCP_CHECKSUM, UDP_CHECKSUM, adjust, udp_transmitted};
use super::{
    Extent, FiveTuple, Fragment, ICMP, ICMP_HEADER, ICMPV6, Kind, Network, Parsed, TCP, TcpFlags, UDP,
    UDP_HEADER, parse, word,
};

const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// The length of an ICMP error at most: RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
const MAX_ERROR_V4: usize = 576;
const MAX_ERROR_V6: usize = 1280;

/// TCP flags (RFC 9293 §3.1).
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Why a packet is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The host cannot be reached.
    Host,
    /// A rule forbids it.
    AdminProhibited,
}

impl Unreachable {
    /// Type and code of the ICMP message (RFC 792, RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    fn message(self, v4: bool) -> [u8; 2] {
        match (self, v4) {
            (Self::Host, true) => [3, 1],
            (Self::Port, true) => [3, 3],
            (Self::AdminProhibited, true) => [3, 13],
            (Self::AdminProhibited, false) => [1, 1],
            (Self::Host, false) => [1, 3],
            (Self::Port, false) => [1, 4],
        }
    }
}

/// A UDP packet. `false` if the families differ or the payload does not fit into an IP packet.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8], out: &mut Vec<u8>) -> bool {
    let len = UDP_HEADER + payload.len();
    let Some(start) = header(source.ip(), destination.ip(), UDP, len, out) else {
        return false;
    };
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let sum = Sum::pseudo(source.ip(), destination.ip(), UDP, len).add(&out[start..]);
    put(out, start + UDP_CHECKSUM, udp_transmitted(sum.checksum()));
    true
}

/// The answer to an echo request, with its identifier, sequence number and payload (RFC 792, RFC 4443 §4.2).
///
/// `false` if it is no request, is fragmented, or either end is no single host. The checksum is adjusted, not
/// recomputed: a request that was damaged on its way is answered with a reply that shows it.
pub fn echo_reply(request: &[u8], parsed: &Parsed, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(message) = request.get(parsed.transport.clone()) else {
        return false;
    };
    let whole = parsed.kind == Kind::EchoRequest && parsed.fragment == Fragment::No;
    if !whole || !is_host(parsed.flow.source) || !is_host(parsed.flow.destination) {
        return false;
    }
    let (Ok(head), Ok(checksum)) = (word(message, 0), word(message, ICMP_CHECKSUM)) else {
        return false;
    };
    let flow = parsed.flow.reversed();
    let Some(start) = header(flow.source, flow.destination, flow.protocol, message.len(), out) else {
        return false;
    };
    out.extend_from_slice(message);
    let reply: u16 = if flow.source.is_ipv4() { 0 } else { 0x8100 };
    put(out, start, reply);
    put(
        out,
        start + ICMP_CHECKSUM,
        adjust(checksum, &head.to_be_bytes(), &reply.to_be_bytes()),
    );
    true
}

/// "Destination unreachable" about a packet, in the name of its destination.
///
/// `false` if RFC 1122 §3.2.2 or RFC 4443 §2.4 (e) forbid an error: about ICMP other than an echo request, a later
/// fragment, or a packet that is not from one host to one host.
pub fn unreachable(original: &[u8], parsed: &Parsed, why: Unreachable, out: &mut Vec<u8>) -> bool {
    let message = why.message(parsed.flow.source.is_ipv4());
    error(original, parsed, message, 0, out)
}

/// The same about a packet that nobody is there to take; `None` where it is no packet, or no error may be sent. A UDP socket hears
/// only of ports; TCP and ping hear of hosts.
pub fn nobody_there(original: &[u8]) -> Option<Vec<u8>> {
    let parsed = parse(original).ok()?;
    let why = if parsed.kind == Kind::Udp {
        Unreachable::Port
    } else {
        Unreachable::Host
    };
    let mut answer = Vec::new();
    unreachable(original, &parsed, why, &mut answer).then_some(answer)
}

/// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443 §3.2) with the MTU that the packet should have kept
/// to, in the name of its destination.
///
/// `false` for an IPv4 packet that may be fragmented, and where [`unreachable()`] says so.
pub fn too_big(original: &[u8], parsed: &Parsed, mtu: u16, out: &mut Vec<u8>) -> bool {
    out.clear();
    let v4 = parsed.flow.source.is_ipv4();
    if v4 && original.get(6).is_none_or(|flags| flags & 0x40 == 0) {
        return false;
    }
    error(
        original,
        parsed,
        if v4 { [3, 4] } else { [2, 0] },
        u32::from(mtu),
        out,
    )
}

/// "Fragment reassembly time exceeded" about the first fragment of a packet (RFC 792, RFC 4443 §3.3).
///
/// `false` where [`unreachable()`] says so.
pub fn reassembly_timed_out(original: &[u8], parsed: &Parsed, out: &mut Vec<u8>) -> bool {
    let v4 = parsed.flow.source.is_ipv4();
    error(original, parsed, if v4 { [11, 1] } else { [3, 1] }, 0, out)
}

/// A reset that answers a segment to no connection (RFC 9293 §3.10.7.1).
///
/// `false` if the segment is itself a reset, is fragmented or no TCP, or either end is no single host.
pub fn tcp_reset(original: &[u8], parsed: &Parsed, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Kind::Tcp(TcpFlags { syn, ack, fin, rst }) = parsed.kind else {
        return false;
    };
    let hosts = is_host(parsed.flow.source) && is_host(parsed.flow.destination);
    if rst || parsed.fragment != Fragment::No || !hosts {
        return false;
    }
    let Some(segment) = original.get(parsed.transport.clone()) else {
        return false;
    };
    let (Ok(sequence), Ok(acknowledged)) = (long(segment, 4), long(segment, 8)) else {
        return false;
    };
    let (sequence, acknowledged, flags) = if ack {
        (acknowledged, 0, RST)
    } else {
        let len = parsed.payload.len() as u32 + u32::from(syn) + u32::from(fin);
        (0, sequence.wrapping_add(len), RST | ACK)
    };
    let flow = parsed.flow.reversed();
    let Some(start) = header(flow.source, flow.destination, TCP, TCP_HEADER, out) else {
        return false;
    };
    out.extend_from_slice(&flow.source_port.to_be_bytes());
    out.extend_from_slice(&flow.destination_port.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&acknowledged.to_be_bytes());
    // Data offset in words, flags, no window, no checksum yet, no urgent pointer.
    out.extend_from_slice(&[(TCP_HEADER as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    let sum = Sum::pseudo(flow.source, flow.destination, TCP, TCP_HEADER).add(&out[start..]);
    put(out, start + TCP_CHECKSUM, sum.checksum());
    true
}

/// A TCP segment with a header of smoltcp's, which has no payload of its own, and a payload in two pieces.
///
/// `false` if the families differ or the payload does not fit into an IP packet.
pub(crate) fn tcp(flow: &FiveTuple, repr: &TcpRepr<'_>, payload: (&[u8], &[u8]), out: &mut Vec<u8>) -> bool {
    let header_len = repr.header_len();
    let len = header_len + payload.0.len() + payload.1.len();
    let Some(start) = header(flow.source, flow.destination, TCP, len, out) else {
        return false;
    };
    out.resize(start + header_len, 0);
    let mut segment = TcpPacket::new_unchecked(&mut out[start..]);
    // The addresses serve only a checksum, which is computed below, over the payload as well.
    let unspecified = IpAddress::Ipv4(Ipv4Addr::UNSPECIFIED);
    repr.emit(
        &mut segment,
        &unspecified,
        &unspecified,
        &ChecksumCapabilities::ignored(),
    );
    out.extend_from_slice(payload.0);
    out.extend_from_slice(payload.1);
    let sum = Sum::pseudo(flow.source, flow.destination, TCP, len).add(&out[start..]);
    put(out, start + TCP_CHECKSUM, sum.checksum());
    true
}

/// Whether an address is that of one host: errors and resets go to no other (RFC 1122 §3.2.2).
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            // 0/8 is "this network", 224/4 multicast, 240/4 class E with the broadcast address.
            (1..224).contains(&first) && !address.is_loopback()
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast() && !address.is_loopback(),
    }
}

fn error(original: &[u8], parsed: &Parsed, message: [u8; 2], rest: u32, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Ok(network) = Network::parse(original, Extent::Whole) else {
        return false;
    };
    let (agent, host) = (network.source, network.destination);
    let is_icmp = network.protocol == ICMP || network.protocol == ICMPV6;
    if (is_icmp && parsed.kind != Kind::EchoRequest)
        || network.fragment == Fragment::Later
        || !is_host(agent)
        || !is_host(host)
    {
        return false;
    }
    let (protocol, limit) = if agent.is_ipv4() {
        (ICMP, MAX_ERROR_V4 - IPV4_HEADER - ICMP_HEADER)
    } else {
        (ICMPV6, MAX_ERROR_V6 - IPV6_HEADER - ICMP_HEADER)
    };
    let quote = &original[..network.len.min(limit)];
    let len = ICMP_HEADER + quote.len();
    let Some(start) = header(host, agent, protocol, len, out) else {
        return false;
    };
    out.extend_from_slice(&message);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&rest.to_be_bytes());
    out.extend_from_slice(quote);
    let pseudo = match protocol {
        ICMPV6 => Sum::pseudo(host, agent, protocol, len),
        _ => Sum::default(),
    };
    let checksum = pseudo.add(&out[start..]).checksum();
    put(out, start + ICMP_CHECKSUM, checksum);
    true
}

/// Writes an IP header for a transport of `len` bytes, with room reserved for them; returns where they start.
fn header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.clear();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(IPV4_HEADER + len).ok()?.to_be_bytes();
            out.reserve_exact(IPV4_HEADER + len);
            out.extend_from_slice(&[
                0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0,
            ]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            let checksum = Sum::default().add(out).checksum();
            put(out, super::checksum::IPV4_CHECKSUM, checksum);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(len).ok()?;
            out.reserve_exact(IPV6_HEADER + usize::from(len));
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[protocol, HOP_LIMIT]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(out.len())
}

/// Writes a word into bytes that a builder has just written.
fn put(out: &mut [u8], at: usize, word: u16) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// The 32-bit word at an offset.
fn long(bytes: &[u8], at: usize) -> Result<u32, super::Malformed> {
    let (high, low) = (word(bytes, at)?, word(bytes, at + 2)?);
    Ok(u32::from(high) << 16 | u32::from(low))
}
