//! Properties over arbitrary packets: no panic, exact inverses, checksums that an independent computation accepts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The checksum as RFC 1071 words it, one 16-bit word after the other.
fn naive(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// Whether the packet's checksums fit, computed without any of the code under test.
fn naive_ok(packet: &[u8]) -> bool {
    let (protocol, start, addresses) = match packet[0] >> 4 {
        4 => (packet[9], 20, &packet[12..20]),
        _ => (packet[6], 40, &packet[8..40]),
    };
    let transport = &packet[start..];
    let pseudo = [addresses, &[0, protocol], &(transport.len() as u16).to_be_bytes()].concat();
    let covered: &[u8] = if protocol == 1 { &[] } else { &pseudo };
    (packet[0] >> 4 == 6 || naive(&[&packet[..20]]) == 0xffff) && naive(&[covered, transport]) == 0xffff
}

fn address(v4: bool, bits: u128) -> IpAddr {
    // Never multicast, loopback, or unspecified.
    if v4 {
        Ipv4Addr::from_bits(10 << 24 | bits as u32 & 0xff_ffff).into()
    } else {
        Ipv6Addr::from_bits(0xfd << 120 | bits & (u128::MAX >> 8)).into()
    }
}

/// A packet of every kind that is answered or translated, with correct checksums.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let ends = (any::<bool>(), any::<[u128; 2]>(), any::<[u16; 2]>());
    (ends, 0..6_u8, vec(any::<u8>(), 0..1400)).prop_map(|((v4, addresses, ports), kind, payload)| {
        let [source, destination] = addresses.map(|bits| address(v4, bits));
        let mut plain = Vec::new();
        let mut out = Vec::new();
        let from = SocketAddr::new(source, ports[0]);
        let to = SocketAddr::new(destination, ports[1]);
        assert!(udp(from, to, &payload, &mut plain));
        let parsed = parse(&plain).unwrap();
        match kind {
            0 => assert!(unreachable(&plain, &parsed, Unreachable::Port, &mut out)),
            1 => assert!(too_big(&plain, &parsed, 1400, &mut out)),
            2 => tcp(&plain, v4, &mut out),
            3 => {
                let mut segment = Vec::new();
                tcp(&plain, v4, &mut segment);
                let parsed = parse(&segment).unwrap();
                assert!(unreachable(&segment, &parsed, Unreachable::Host, &mut out));
            }
            4 => {
                tcp(&plain, v4, &mut out);
                let segment = out.clone();
                if !tcp_reset(&segment, &parse(&segment).unwrap(), &mut out) {
                    out = segment;
                }
            }
            _ => out = plain,
        }
        out
    })
}

/// Turns a UDP packet into a TCP one with the same ends, whose checksum the naive computation makes.
fn tcp(udp: &[u8], v4: bool, out: &mut Vec<u8>) {
    *out = udp.to_vec();
    let start = if v4 { 20 } else { 40 };
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&udp[start..start + 4]);
    segment[12] = 0x50;
    segment[13] = 0x10;
    segment.extend_from_slice(&udp[start + 8..]);
    out.truncate(start);
    out.extend_from_slice(&segment);
    if v4 {
        let len = out.len() as u16;
        out[2..4].copy_from_slice(&len.to_be_bytes());
        out[9] = 6;
        out[10..12].copy_from_slice(&[0, 0]);
        let checksum = !naive(&[&out[..20]]);
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        out[4..6].copy_from_slice(&(segment.len() as u16).to_be_bytes());
        out[6] = 6;
    }
    let addresses = if v4 { &out[12..20] } else { &out[8..40] };
    let pseudo = [addresses, &[0, 6], &(segment.len() as u16).to_be_bytes()].concat();
    let checksum = !naive(&[&pseudo, &segment]);
    out[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
}

proptest! {
    #[test]
    fn built_packets_satisfy_an_independent_checksum(packet in packet()) {
        prop_assert!(naive_ok(&packet));
        prop_assert!(verify_checksums(&parse(&packet).unwrap(), &packet));
    }

    #[test]
    fn rewriting_keeps_checksums_and_rewriting_back_is_the_identity(
        packet in packet(), bits in any::<u128>(), source in any::<bool>(),
    ) {
        let before = parse(&packet).unwrap();
        let new = address(before.flow.source.is_ipv4(), bits);
        let rewrite = if source { rewrite_source } else { rewrite_destination };
        let old = if source { before.flow.source } else { before.flow.destination };
        let mut rewritten = packet.clone();
        rewrite(&mut rewritten, new).unwrap();
        prop_assert!(naive_ok(&rewritten));
        let after = parse(&rewritten).unwrap();
        prop_assert!(verify_checksums(&after, &rewritten));
        let mut expected = before.flow;
        if source { expected.source = new } else { expected.destination = new }
        prop_assert_eq!(after.flow, expected);
        if after.kind == Kind::IcmpError && after.flow.source.is_ipv4() {
            prop_assert_eq!(naive(&[&rewritten[28..48]]), 0xffff, "the quoted header");
        }
        if after.kind == Kind::IcmpError && rewritten[after.payload.clone()].len() < 500 {
            prop_assert!(naive_ok(&rewritten[after.payload]), "the quoted packet");
        }
        rewrite(&mut rewritten, old).unwrap();
        prop_assert_eq!(rewritten, packet);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), address in any::<IpAddr>()) {
        touch(&mut bytes, address);
    }

    #[test]
    fn damaged_packets_never_panic(
        mut packet in packet(), damage in vec((any::<usize>(), any::<u8>()), 0..6), cut in any::<usize>(),
        address in any::<IpAddr>(),
    ) {
        packet.truncate(80 + cut % 1400);
        for (at, value) in damage {
            let at = at % packet.len().min(100);
            packet[at] = value;
        }
        touch(&mut packet, address);
    }
}

/// Calls everything that reads the bytes.
fn touch(bytes: &mut [u8], address: IpAddr) {
    let mut out = Vec::new();
    if let Ok(parsed) = parse(bytes) {
        assert!(parsed.len <= bytes.len() && parsed.transport.end <= parsed.len);
        assert!(parsed.payload.start >= parsed.transport.start && parsed.payload.end <= parsed.transport.end);
        let _valid = verify_checksums(&parsed, bytes);
        assert_eq!(echo_reply(bytes, &parsed, &mut out), !out.is_empty());
        assert_eq!(
            unreachable(bytes, &parsed, Unreachable::Port, &mut out),
            !out.is_empty()
        );
        assert_eq!(too_big(bytes, &parsed, 1280, &mut out), !out.is_empty());
        assert_eq!(tcp_reset(bytes, &parsed, &mut out), !out.is_empty());
    }
    let _rewritten = rewrite_source(bytes, address).is_ok();
    let _rewritten = rewrite_destination(bytes, address).is_ok();
}
