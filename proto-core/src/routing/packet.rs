//! One inner IP packet: what it says, strictly read.
//!
//! Decides whether bytes are an IPv4 or IPv6 packet whose lengths agree, which flow it belongs to and what of it may be
//! answered. [`rewrite_source`] and [`rewrite_destination`] translate addresses in place; [`udp`], [`echo_reply`],
//! [`unreachable()`], [`too_big`], [`reassembly_timed_out`] and [`tcp_reset`] build packets; [`split`] cuts one into
//! fragments. Nothing is allocated but what a builder reserves in its caller's buffer. Which packets are let through, and
//! where they go, is left to the callers; so is reassembly.

mod build;
mod checksum;
mod fragment;
mod quote;
mod rewrite;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, icmpv4, icmpv6, ip_number,
};

pub(crate) use build::tcp;
pub use build::{
    Unreachable, echo_reply, nobody_there, reassembly_timed_out, tcp_reset, too_big, udp, unreachable,
};
pub use checksum::verify_checksums;
pub use fragment::{Piece, set_identification, split};
pub use quote::TooBig;
pub use rewrite::{rewrite_destination, rewrite_source};

use crate::machine::Ecn;

/// The protocol number of TCP.
pub const TCP: u8 = ip_number::TCP.0;
/// The protocol number of UDP.
pub const UDP: u8 = ip_number::UDP.0;
/// The protocol number of ICMP for IPv4.
pub const ICMP: u8 = ip_number::ICMP.0;
/// The protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = ip_number::IPV6_ICMP.0;

/// The length of the ICMP header that all messages understood here share.
const ICMP_HEADER: usize = 8;

/// The length of a UDP header.
const UDP_HEADER: usize = 8;

/// Most IPv6 extension headers walked; real packets have one or two.
const MAX_EXTENSIONS: usize = 8;

/// The bytes are not one IP packet, or contradict themselves: drop and count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a well-formed IP packet")
    }
}

impl std::error::Error for Malformed {}

/// What identifies a flow, in the direction of one packet.
///
/// Ports are those of TCP and UDP. An ICMP echo request has its identifier as source port, a reply as destination
/// port, and 0 on the other side, so that [`FiveTuple::reversed`] of a request's flow is the flow of its reply.
/// Everything else, later fragments included, has ports 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// Where the packet comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The protocol above IP, past any extension headers.
    pub protocol: u8,
    /// The port or echo identifier of the source.
    pub source_port: u16,
    /// The port or echo identifier of the destination.
    pub destination_port: u16,
}

impl FiveTuple {
    /// The same flow seen by a packet that travels the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// The flags of a TCP segment that decide about connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// Opens a connection.
    pub syn: bool,
    /// The acknowledgement number is valid.
    pub ack: bool,
    /// The sender has no more to send.
    pub fin: bool,
    /// Aborts the connection.
    pub rst: bool,
}

/// What kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(TcpFlags),
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request, v4 or v6.
    EchoRequest,
    /// An ICMP echo reply, v4 or v6.
    EchoReply,
    /// An ICMP error about a packet of [`Parsed::flow`]'s reverse.
    IcmpError,
    /// Any other protocol, other ICMP, or a later fragment.
    Other,
}

/// Which part of a fragmented packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    No,
    /// The first fragment: it holds the transport header, and more follow.
    First,
    /// Another fragment: it holds no transport header.
    Later,
}

/// What a packet says. Ranges count from the packet's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The flow, in the direction the packet travels. For an ICMP error it is the reverse of the flow of the packet that
    /// the error quotes: the flow the error belongs to, in the direction the error travels.
    pub flow: FiveTuple,
    /// What kind of packet it is.
    pub kind: Kind,
    /// The transport header and its payload; for a later fragment, its data.
    pub transport: Range<usize>,
    /// The payload of the transport; for an ICMP error, the quoted packet.
    pub payload: Range<usize>,
    /// The length of the packet; bytes behind it are not part of it.
    pub len: usize,
    /// Which part of a fragmented packet it is.
    pub fragment: Fragment,
    /// How many more hops it may take.
    pub hop_limit: u8,
    /// The congestion notification codepoint.
    pub ecn: Ecn,
}

/// Reads one IP packet. Checksums are not looked at: see [`verify_checksums`].
///
/// # Errors
/// If it is not IPv4 or IPv6, is shorter than its headers say, has a transport header that is cut or contradicts the IP
/// length, has an IPv6 routing header with segments left (RFC 5095), or is an ICMP error that quotes no packet sent by
/// the error's receiver.
pub fn parse(packet: &[u8]) -> Result<Parsed, Malformed> {
    let network = Network::parse(packet, Extent::Whole)?;
    let ports = network.ports(packet)?;
    let start = network.transport.start;
    let transport = start..ports.end.unwrap_or(network.transport.end);
    let mut flow = network.flow(&ports);
    if ports.kind == Kind::IcmpError {
        let quote = packet.get(start + ICMP_HEADER..transport.end).ok_or(Malformed)?;
        let quoted = Network::parse(quote, Extent::Quoted)?;
        let about = quoted.ports(quote)?;
        if quoted.source != network.destination || about.kind == Kind::IcmpError {
            return Err(Malformed);
        }
        flow = quoted.flow(&about).reversed();
    }
    Ok(Parsed {
        flow,
        kind: ports.kind,
        payload: start + ports.header..transport.end,
        transport,
        len: network.len,
        fragment: network.fragment,
        hop_limit: network.hop_limit,
        ecn: network.ecn,
    })
}

/// The flow of a packet of which perhaps only the beginning is there.
///
/// # Errors
/// If the beginning does not say, or the packet is an ICMP error.
pub fn flow_of(beginning: &[u8]) -> Result<FiveTuple, Malformed> {
    let network = Network::parse(beginning, Extent::Quoted)?;
    let ports = network.ports(beginning)?;
    if ports.kind == Kind::IcmpError || network.fragment == Fragment::Later {
        return Err(Malformed);
    }
    Ok(network.flow(&ports))
}

/// How much of a packet is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// Its beginning, quoted by an ICMP error.
    Quoted,
}

/// The IP header, extension headers included.
struct Network {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport: Range<usize>,
    len: usize,
    fragment: Fragment,
    hop_limit: u8,
    ecn: Ecn,
    extent: Extent,
}

/// What the transport header says.
struct Ports {
    kind: Kind,
    source: u16,
    destination: u16,
    /// The length of the transport header.
    header: usize,
    /// Where the transport ends, if it says so itself.
    end: Option<usize>,
}

impl Network {
    fn parse(packet: &[u8], extent: Extent) -> Result<Self, Malformed> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(packet, extent),
            Some(6) => Self::parse_v6(packet, extent),
            Some(_) | None => Err(Malformed),
        }
    }

    fn parse_v4(packet: &[u8], extent: Extent) -> Result<Self, Malformed> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Malformed)?;
        let start = header.slice().len();
        let len = extent.end(packet, usize::from(header.total_len()))?;
        if len < start {
            return Err(Malformed);
        }
        Ok(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            transport: start..len,
            len,
            fragment: Fragment::of(header.fragments_offset().value(), header.more_fragments()),
            hop_limit: header.ttl(),
            ecn: ecn(header.ecn().value()),
            extent,
        })
    }

    fn parse_v6(packet: &[u8], extent: Extent) -> Result<Self, Malformed> {
        let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Malformed)?;
        let mut start = header.slice().len();
        let len = extent.end(packet, start + usize::from(header.payload_length()))?;
        let mut next = header.next_header();
        let mut fragment = Fragment::No;
        for _ in 0..=MAX_EXTENSIONS {
            let rest = packet.get(start..len).ok_or(Malformed)?;
            match next {
                ip_number::IPV6_HEADER_HOP_BY_HOP
                | ip_number::IPV6_DESTINATION_OPTIONS
                | ip_number::IPV6_ROUTE_HEADER => {
                    let extension = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| Malformed)?;
                    let segments_left = extension.payload().get(1).copied().unwrap_or(0);
                    if next == ip_number::IPV6_ROUTE_HEADER && segments_left != 0 {
                        return Err(Malformed);
                    }
                    start += extension.slice().len();
                    next = extension.next_header();
                }
                ip_number::IPV6_FRAGMENTATION_HEADER if fragment == Fragment::No => {
                    let extension = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| Malformed)?;
                    fragment = Fragment::of(extension.fragment_offset().value(), extension.more_fragments());
                    start += extension.slice().len();
                    next = extension.next_header();
                }
                IpNumber(_) => return Ok(Self::v6(&header, next, start..len, fragment, extent)),
            }
            if fragment == Fragment::Later {
                return Ok(Self::v6(&header, next, start..len, fragment, extent));
            }
        }
        Err(Malformed)
    }

    fn v6(
        header: &Ipv6HeaderSlice<'_>,
        protocol: IpNumber,
        transport: Range<usize>,
        fragment: Fragment,
        extent: Extent,
    ) -> Self {
        Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: protocol.0,
            len: transport.end,
            transport,
            fragment,
            hop_limit: header.hop_limit(),
            ecn: ecn(header.ecn().value()),
            extent,
        }
    }

    fn flow(&self, ports: &Ports) -> FiveTuple {
        FiveTuple {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port: ports.source,
            destination_port: ports.destination,
        }
    }

    fn ports(&self, packet: &[u8]) -> Result<Ports, Malformed> {
        let nothing = Ports {
            kind: Kind::Other,
            source: 0,
            destination: 0,
            header: 0,
            end: None,
        };
        if self.fragment == Fragment::Later {
            return Ok(nothing);
        }
        let transport = packet.get(self.transport.clone()).ok_or(Malformed)?;
        match (self.protocol, self.source.is_ipv4()) {
            (TCP, _) => self.tcp(transport),
            (UDP, _) => self.udp(transport),
            (ICMP, true) | (ICMPV6, false) => self.icmp(transport),
            (_, _) => Ok(nothing),
        }
    }

    fn tcp(&self, transport: &[u8]) -> Result<Ports, Malformed> {
        let (source, destination) = (word(transport, 0)?, word(transport, 2)?);
        let mut ports = Ports {
            kind: Kind::Tcp(TcpFlags::default()),
            source,
            destination,
            header: 0,
            end: None,
        };
        if self.extent == Extent::Whole {
            let header = TcpHeaderSlice::from_slice(transport).map_err(|_| Malformed)?;
            let (syn, ack, fin, rst) = (header.syn(), header.ack(), header.fin(), header.rst());
            ports.kind = Kind::Tcp(TcpFlags { syn, ack, fin, rst });
            ports.header = header.slice().len();
        }
        Ok(ports)
    }

    fn udp(&self, transport: &[u8]) -> Result<Ports, Malformed> {
        let (source, destination) = (word(transport, 0)?, word(transport, 2)?);
        let mut ports = Ports {
            kind: Kind::Udp,
            source,
            destination,
            header: UDP_HEADER,
            end: None,
        };
        if self.extent == Extent::Whole {
            let len = usize::from(word(transport, 4)?);
            let whole = self.fragment == Fragment::No;
            if len < UDP_HEADER || transport.len() < UDP_HEADER || (whole && len > transport.len()) {
                return Err(Malformed);
            }
            ports.end = whole.then_some(self.transport.start + len);
        }
        Ok(ports)
    }

    fn icmp(&self, transport: &[u8]) -> Result<Ports, Malformed> {
        if transport.len() < ICMP_HEADER {
            return Err(Malformed);
        }
        let id = word(transport, 4)?;
        let [kind, code] = word(transport, 0)?.to_be_bytes();
        let kind = match (self.source.is_ipv4(), kind, code) {
            (true, icmpv4::TYPE_ECHO_REQUEST, 0) | (false, icmpv6::TYPE_ECHO_REQUEST, 0) => Kind::EchoRequest,
            (true, icmpv4::TYPE_ECHO_REPLY, 0) | (false, icmpv6::TYPE_ECHO_REPLY, 0) => Kind::EchoReply,
            (true, icmpv4::TYPE_DEST_UNREACH | icmpv4::TYPE_SOURCE_QUENCH | icmpv4::TYPE_REDIRECT, _)
            | (true, icmpv4::TYPE_TIME_EXCEEDED | icmpv4::TYPE_PARAMETER_PROBLEM, _)
            | (false, icmpv6::TYPE_DST_UNREACH | icmpv6::TYPE_PACKET_TOO_BIG, _)
            | (false, icmpv6::TYPE_TIME_EXCEEDED | icmpv6::TYPE_PARAMETER_PROBLEM, _) => Kind::IcmpError,
            (_, _, _) => Kind::Other,
        };
        let source = if kind == Kind::EchoRequest { id } else { 0 };
        let destination = if kind == Kind::EchoReply { id } else { 0 };
        Ok(Ports {
            kind,
            source,
            destination,
            header: ICMP_HEADER,
            end: None,
        })
    }
}

impl Extent {
    /// Where a packet ends that says it has `len` bytes.
    fn end(self, packet: &[u8], len: usize) -> Result<usize, Malformed> {
        match self {
            Self::Whole if len > packet.len() => Err(Malformed),
            Self::Whole | Self::Quoted => Ok(len.min(packet.len())),
        }
    }
}

impl Fragment {
    fn of(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::No,
            (0, true) => Self::First,
            (_, _) => Self::Later,
        }
    }
}

fn ecn(bits: u8) -> Ecn {
    match bits & 0b11 {
        0b01 => Ecn::Ect1,
        0b10 => Ecn::Ect0,
        0b11 => Ecn::Ce,
        _ => Ecn::NotEct,
    }
}

/// The 16-bit word at an offset.
fn word(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let word = bytes.get(at..at + 2).ok_or(Malformed)?;
    word.try_into().map(u16::from_be_bytes).map_err(|_| Malformed)
}
