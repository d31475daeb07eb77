//! Small packets with correct checksums, computed the slow way.

use std::net::IpAddr;

use crate::routing::packet::{ICMP, ICMPV6, TCP, UDP, parse};

/// TCP flags (RFC 9293 §3.1).
#[derive(Clone, Copy)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const FIN: Self = Self(0x11);
    pub(super) const SYN: Self = Self(0x02);
    pub(super) const RST: Self = Self(0x04);
    pub(super) const ACK: Self = Self(0x10);
}

pub(super) fn udp(ends: [&str; 2], source: u16, destination: u16) -> Vec<u8> {
    let mut transport = ports(source, destination);
    transport.extend([0, 13, 0, 0]);
    transport.extend(b"hello");
    packet(ends, UDP, transport, Some(6))
}

pub(super) fn tcp(ends: [&str; 2], source: u16, destination: u16, flags: Flags) -> Vec<u8> {
    let mut transport = ports(source, destination);
    transport.extend([1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags.0, 0xFF, 0xFF, 0, 0, 0, 0]);
    packet(ends, TCP, transport, Some(16))
}

/// An echo request.
pub(super) fn echo(ends: [&str; 2], id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let kind = if ends[0].contains(':') { 128 } else { 8 };
    packet(
        ends,
        icmp(ends),
        vec![kind, 0, 0, 0, high, low, 0, 1, b'p'],
        Some(2),
    )
}

/// A packet of a protocol without ports; 58 stands for other ICMP.
pub(super) fn other(ends: [&str; 2], protocol: u8) -> Vec<u8> {
    if protocol == ICMPV6 {
        return packet(ends, icmp(ends), vec![200, 0, 0, 0, 0, 0, 0, 0], Some(2));
    }
    packet(ends, protocol, vec![7; 24], None)
}

/// A later fragment of a UDP packet, IPv4.
pub(super) fn fragment(ends: [&str; 2]) -> Vec<u8> {
    let mut packet = packet(ends, UDP, vec![7; 16], None);
    packet[7] = 2;
    packet[10..12].fill(0);
    let header = sum(&packet[..20]);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet
}

/// The packet that a connector answers with: ends and ports swapped, a request turned into a reply.
pub(super) fn reply(sent: &[u8]) -> Vec<u8> {
    let parsed = parse(sent).unwrap();
    let ends = [
        parsed.flow.destination.to_string(),
        parsed.flow.source.to_string(),
    ];
    let ends = [ends[0].as_str(), ends[1].as_str()];
    let protocol = parsed.flow.protocol;
    let mut transport = sent[parsed.transport].to_vec();
    let checksum = match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    };
    if matches!(protocol, TCP | UDP) {
        transport[..4].rotate_left(2);
    }
    match transport[0] {
        8 if protocol == ICMP => transport[0] = 0,
        128 if protocol == ICMPV6 => transport[0] = 129,
        _ => {}
    }
    packet(ends, protocol, transport, checksum)
}

fn icmp(ends: [&str; 2]) -> u8 {
    if ends[0].contains(':') { ICMPV6 } else { ICMP }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The internet checksum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xFFFF);
    !(((sum >> 16) + sum) as u16)
}

fn packet(ends: [&str; 2], protocol: u8, mut transport: Vec<u8>, checksum: Option<usize>) -> Vec<u8> {
    let [source, destination] = ends.map(|end| octets(end.parse().unwrap()));
    let len = transport.len() as u16;
    if let Some(at) = checksum {
        transport[at..at + 2].fill(0);
        let mut covered = Vec::new();
        if protocol != ICMP {
            covered.extend([&source[..], &destination].concat());
            covered.extend([0, protocol]);
            covered.extend(len.to_be_bytes());
        }
        covered.extend(&transport);
        transport[at..at + 2].copy_from_slice(&sum(&covered).to_be_bytes());
    }
    let mut packet = if source.len() == 4 {
        let [high, low] = (len + 20).to_be_bytes();
        vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0]
    } else {
        let [high, low] = len.to_be_bytes();
        vec![0x60, 0, 0, 0, high, low, protocol, 64]
    };
    packet.extend([source, destination].concat());
    if packet.len() == 20 {
        let header = sum(&packet);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
    }
    packet.extend(transport);
    packet
}
