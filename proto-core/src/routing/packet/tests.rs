//! Golden packets, made by an independent program, and properties of everything that reads or writes bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::*;

mod properties;

/// From 100.64.0.1 or fd00::1 (port 40000) to 10.100.0.5 or fd00:5::5, and what that host answers.
const UDP4: &str = "45000021000040004011cc22644000010a6400059c400035000db0e268656c6c6f";
const UDP6: &str = concat!(
    "60000000000d1140fd000000000000000000000000000001fd0000050000000000000000000000059c400035000d2580",
    "68656c6c6f",
);
const SYN4: &str = "45000028000040004006cc26644000010a6400059c40005001020304000000005002ffffa0a20000";
const SYN6: &str = concat!(
    "6000000000140640fd000000000000000000000000000001fd0000050000000000000000000000059c40005001020304",
    "000000005002ffff15400000",
);
const RST4: &str = "45000028000040004006cc260a6400056440000100509c40000000000102030550140000a08f0000";
const RST6: &str = concat!(
    "6000000000140640fd000005000000000000000000000005fd00000000000000000000000000000100509c4000000000",
    "0102030550140000152d0000",
);
const PING4: &str = "45000020000040004001cc33644000010a640005080006fa1234000170696e67";
const PONG4: &str = "45000020000040004001cc330a6400056440000100000efa1234000170696e67";
const PING6: &str = concat!(
    "60000000000c3a40fd000000000000000000000000000001fd000005000000000000000000000005800094a612340001",
    "70696e67",
);
const PONG6: &str = concat!(
    "60000000000c3a40fd000005000000000000000000000005fd000000000000000000000000000001810093a612340001",
    "70696e67",
);
const PORT4: &str = concat!(
    "4500003d000040004001cc160a6400056440000103036bc50000000045000021000040004011cc22644000010a640005",
    "9c400035000db0e268656c6c6f",
);
const PORT6: &str = concat!(
    "60000000003d3a40fd000005000000000000000000000005fd0000000000000000000000000000010104934800000000",
    "60000000000d1140fd000000000000000000000000000001fd0000050000000000000000000000059c400035000d2580",
    "68656c6c6f",
);
const BIG4: &str = concat!(
    "4500003d000040004001cc160a64000564400001030466c40000050045000021000040004011cc22644000010a640005",
    "9c400035000db0e268656c6c6f",
);
const BIG6: &str = concat!(
    "60000000003d3a40fd000005000000000000000000000005fd00000000000000000000000000000102008d4c00000500",
    "60000000000d1140fd000000000000000000000000000001fd0000050000000000000000000000059c400035000d2580",
    "68656c6c6f",
);

const AGENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1));
const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 100, 0, 5));
const AGENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 5));

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn flow(
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    protocol: u8,
) -> FiveTuple {
    FiveTuple {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
    }
}

#[test]
fn golden_packets_are_read() {
    let syn = Kind::Tcp(TcpFlags {
        syn: true,
        ..TcpFlags::default()
    });
    for (hex, kind, expected) in [
        (UDP4, Kind::Udp, flow(AGENT4, 40000, HOST4, 53, UDP)),
        (UDP6, Kind::Udp, flow(AGENT6, 40000, HOST6, 53, UDP)),
        (SYN4, syn, flow(AGENT4, 40000, HOST4, 80, TCP)),
        (SYN6, syn, flow(AGENT6, 40000, HOST6, 80, TCP)),
        (PING4, Kind::EchoRequest, flow(AGENT4, 0x1234, HOST4, 0, ICMP)),
        (PONG4, Kind::EchoReply, flow(HOST4, 0, AGENT4, 0x1234, ICMP)),
        (PING6, Kind::EchoRequest, flow(AGENT6, 0x1234, HOST6, 0, ICMPV6)),
        (PONG6, Kind::EchoReply, flow(HOST6, 0, AGENT6, 0x1234, ICMPV6)),
        (PORT4, Kind::IcmpError, flow(HOST4, 53, AGENT4, 40000, UDP)),
        (BIG6, Kind::IcmpError, flow(HOST6, 53, AGENT6, 40000, UDP)),
    ] {
        let packet = bytes(hex);
        let parsed = parse(&packet).unwrap();
        assert_eq!((parsed.kind, parsed.flow), (kind, expected));
        assert_eq!(
            (parsed.len, parsed.hop_limit, parsed.fragment),
            (packet.len(), 64, Fragment::No)
        );
        assert_eq!(parsed.ecn, Ecn::NotEct);
        assert!(verify_checksums(&parsed, &packet));
        let mut damaged = packet.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let parsed = parse(&damaged).unwrap();
        assert!(!verify_checksums(&parsed, &damaged), "{hex}");
    }
    let packet = bytes(UDP6);
    assert_eq!(&packet[parse(&packet).unwrap().payload], b"hello");
}

#[test]
fn a_reply_has_the_reversed_flow_of_its_request() {
    for (request, reply) in [
        (PING4, PONG4),
        (PING6, PONG6),
        (SYN4, RST4),
        (UDP4, PORT4),
        (UDP6, BIG6),
    ] {
        let request = parse(&bytes(request)).unwrap().flow;
        assert_eq!(request.reversed(), parse(&bytes(reply)).unwrap().flow);
        assert_eq!(request.reversed().reversed(), request);
    }
}

#[test]
fn golden_answers_are_built() {
    let mut out = Vec::new();
    for (request, answer) in [(PING4, PONG4), (PING6, PONG6)] {
        let request = bytes(request);
        assert!(echo_reply(&request, &parse(&request).unwrap(), &mut out));
        assert_eq!(out, bytes(answer));
    }
    for (request, answer) in [(SYN4, RST4), (SYN6, RST6)] {
        let request = bytes(request);
        assert!(tcp_reset(&request, &parse(&request).unwrap(), &mut out));
        assert_eq!(out, bytes(answer));
        let reset = out.clone();
        assert!(
            !tcp_reset(&reset, &parse(&reset).unwrap(), &mut out),
            "no reset about a reset"
        );
    }
    for (original, port, big) in [(UDP4, PORT4, BIG4), (UDP6, PORT6, BIG6)] {
        let original = bytes(original);
        let parsed = parse(&original).unwrap();
        assert!(unreachable(&original, &parsed, Unreachable::Port, &mut out));
        assert_eq!(out, bytes(port));
        assert!(too_big(&original, &parsed, 1280, &mut out));
        assert_eq!(out, bytes(big));
        let error = out.clone();
        let parsed = parse(&error).unwrap();
        assert!(
            !unreachable(&error, &parsed, Unreachable::Host, &mut out),
            "no error about an error"
        );
        assert!(out.is_empty());
    }
    for (golden, source, destination) in [(UDP4, AGENT4, HOST4), (UDP6, AGENT6, HOST6)] {
        let (source, destination) = (SocketAddr::new(source, 40000), SocketAddr::new(destination, 53));
        assert!(udp(source, destination, b"hello", &mut out));
        assert_eq!(out, bytes(golden));
    }
    assert!(!udp(
        SocketAddr::new(AGENT4, 1),
        SocketAddr::new(HOST6, 1),
        b"",
        &mut out
    ));
    assert!(!udp(
        SocketAddr::new(AGENT4, 1),
        SocketAddr::new(HOST4, 1),
        &[0; 65_508],
        &mut out
    ));
    assert!(udp(
        SocketAddr::new(AGENT4, 1),
        SocketAddr::new(HOST4, 1),
        &[0; 65_507],
        &mut out
    ));
    assert_eq!((out.len(), out.capacity()), (65_535, 65_535));
}

#[test]
fn an_error_about_size_is_read_again() {
    let mut out = Vec::new();
    for (original, sequence) in [(SYN4, true), (SYN6, true), (UDP4, false), (UDP6, false)] {
        let mut original = bytes(original);
        if original[0] >> 4 == 4 {
            original[6] |= 0x40;
        }
        let parsed = parse(&original).unwrap();
        assert!(too_big(&original, &parsed, 1300, &mut out));
        let read = TooBig::read(&out, &parse(&out).unwrap()).unwrap();
        let at = parsed.transport.start + 4;
        let wanted = u32::from_be_bytes(original[at..at + 4].try_into().unwrap());
        assert_eq!(read.mtu, 1300);
        assert_eq!(read.sequence, sequence.then_some(wanted));
        // RFC 1191 §5: an old router says nothing of size.
        let message = parse(&out).unwrap().transport.start;
        out[message + 4..message + 8].fill(0);
        assert_eq!(TooBig::read(&out, &parse(&out).unwrap()), None);
        assert!(unreachable(&original, &parsed, Unreachable::Port, &mut out));
        assert_eq!(TooBig::read(&out, &parse(&out).unwrap()), None);
    }
}

#[test]
fn a_reset_acknowledges_what_the_segment_spans() {
    // A segment with ACK is answered with its own acknowledgement number as sequence number.
    let mut ack = bytes(SYN4);
    ack[33] = 0x10;
    ack[28..32].copy_from_slice(&[0xa, 0xb, 0xc, 0xd]);
    let mut out = Vec::new();
    assert!(tcp_reset(&ack, &parse(&ack).unwrap(), &mut out));
    assert_eq!(&out[24..34], &[0xa, 0xb, 0xc, 0xd, 0, 0, 0, 0, 0x50, 0x04]);
    assert!(verify_checksums(&parse(&out).unwrap(), &out));
    // FIN and three bytes count too.
    let mut fin = bytes(SYN4);
    fin.extend_from_slice(b"abc");
    fin[3] += 3;
    fin[33] = 0x01;
    assert!(tcp_reset(&fin, &parse(&fin).unwrap(), &mut out));
    assert_eq!(&out[24..32], &[0, 0, 0, 0, 1, 2, 3, 8]);
}

#[test]
fn lengths_must_agree() {
    for hex in [UDP4, UDP6, SYN4, SYN6, PING4, PING6, PORT4, PORT6] {
        let packet = bytes(hex);
        for cut in 0..packet.len() {
            assert_eq!(parse(&packet[..cut]), Err(Malformed));
        }
        let mut longer = packet.clone();
        longer.extend_from_slice(&[0xff; 7]);
        assert_eq!(parse(&longer), parse(&packet));
        assert!(verify_checksums(&parse(&longer).unwrap(), &longer));
    }
    let mut packet = bytes(UDP4);
    packet[25] = 14;
    assert_eq!(parse(&packet), Err(Malformed), "UDP longer than IP");
    packet[25] = 7;
    assert_eq!(parse(&packet), Err(Malformed), "UDP shorter than its header");
    packet[25] = 12;
    assert_eq!(
        &packet[parse(&packet).unwrap().payload],
        b"hell",
        "UDP may be shorter than IP"
    );
    let mut packet = bytes(SYN4);
    packet[32] = 0x60;
    assert_eq!(parse(&packet), Err(Malformed), "TCP options past the end");
}

/// A UDP packet with extension headers in front of it.
fn extended(first: u8, extensions: &[u8]) -> Vec<u8> {
    let plain = bytes(UDP6);
    let mut packet = plain[..40].to_vec();
    packet[5] += extensions.len() as u8;
    packet[6] = first;
    packet.extend_from_slice(extensions);
    packet.extend_from_slice(&plain[40..]);
    packet
}

#[test]
fn extension_headers_are_walked() {
    let hop_by_hop_then_options = [60, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0];
    let packet = extended(0, &hop_by_hop_then_options);
    let parsed = parse(&packet).unwrap();
    assert_eq!(
        (parsed.kind, parsed.flow.destination_port, parsed.transport.start),
        (Kind::Udp, 53, 56)
    );
    assert!(verify_checksums(&parsed, &packet));

    let atomic = extended(44, &[UDP, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(parse(&atomic).unwrap().fragment, Fragment::No);
    let first = extended(44, &[UDP, 0, 0, 1, 0, 0, 0, 9]);
    let parsed = parse(&first).unwrap();
    assert_eq!(
        (parsed.fragment, parsed.kind, parsed.flow.source_port),
        (Fragment::First, Kind::Udp, 40000)
    );
    let later = extended(44, &[UDP, 0, 0, 8, 0, 0, 0, 9]);
    let parsed = parse(&later).unwrap();
    assert_eq!((parsed.fragment, parsed.kind), (Fragment::Later, Kind::Other));
    assert_eq!((parsed.flow.protocol, parsed.flow.source_port), (UDP, 0));

    assert!(parse(&extended(43, &[UDP, 0, 0, 0, 0, 0, 0, 0])).is_ok());
    assert_eq!(
        parse(&extended(43, &[UDP, 0, 0, 1, 0, 0, 0, 0])),
        Err(Malformed),
        "segments left"
    );
    let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
    assert_eq!(parse(&extended(60, &endless)), Err(Malformed));
    assert_eq!(parse(&extended(59, &[])).unwrap().kind, Kind::Other);
}

#[test]
fn fragments_of_v4_are_told_apart() {
    let mut packet = bytes(UDP4);
    packet[6..8].copy_from_slice(&[0x20, 0]);
    packet[25] = 200;
    let parsed = parse(&packet).unwrap();
    assert_eq!(
        (parsed.fragment, parsed.kind, parsed.flow.source_port),
        (Fragment::First, Kind::Udp, 40000)
    );
    packet[6..8].copy_from_slice(&[0, 1]);
    let parsed = parse(&packet).unwrap();
    assert_eq!(
        (parsed.fragment, parsed.kind, parsed.flow.source_port),
        (Fragment::Later, Kind::Other, 0)
    );
    let mut out = Vec::new();
    assert!(
        !unreachable(&packet, &parsed, Unreachable::Port, &mut out),
        "no error about a later fragment"
    );
}

#[test]
fn errors_go_to_single_hosts_only_and_are_bounded() {
    let mut out = Vec::new();
    for source in [
        [0, 0, 0, 0],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [127, 0, 0, 1],
        [240, 0, 0, 1],
    ] {
        for at in [12, 16] {
            let mut packet = bytes(UDP4);
            packet[at..at + 4].copy_from_slice(&source);
            let parsed = parse(&packet).unwrap();
            assert!(!unreachable(&packet, &parsed, Unreachable::Host, &mut out));
        }
    }
    for source in [
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::LOCALHOST,
        "ff02::1".parse().unwrap(),
    ] {
        let mut packet = bytes(UDP6);
        packet[8..24].copy_from_slice(&source.octets());
        let parsed = parse(&packet).unwrap();
        assert!(!unreachable(
            &packet,
            &parsed,
            Unreachable::AdminProhibited,
            &mut out
        ));
    }
    let payload = [7; 4000];
    for (source, destination, limit) in [(AGENT4, HOST4, 576), (AGENT6, HOST6, 1280)] {
        let mut packet = Vec::new();
        assert!(udp(
            SocketAddr::new(source, 1),
            SocketAddr::new(destination, 2),
            &payload,
            &mut packet
        ));
        let parsed = parse(&packet).unwrap();
        assert!(too_big(&packet, &parsed, 1300, &mut out));
        assert_eq!((out.len(), out.capacity()), (limit, limit));
        let answer = parse(&out).unwrap();
        assert_eq!(answer.flow, parsed.flow.reversed());
        assert!(verify_checksums(&answer, &out));
    }
    let mut packet = bytes(UDP4);
    packet[6] = 0;
    assert!(
        !too_big(&packet, &parse(&packet).unwrap(), 1280, &mut out),
        "it may be fragmented"
    );
}

#[test]
fn a_udp_checksum_of_zero_stays_absent_and_is_never_made() {
    let mut packet = bytes(UDP4);
    packet[26..28].copy_from_slice(&[0, 0]);
    assert!(verify_checksums(&parse(&packet).unwrap(), &packet));
    rewrite_source(&mut packet, "100.64.9.9".parse().unwrap()).unwrap();
    assert_eq!(&packet[26..28], &[0, 0]);
    assert!(verify_checksums(&parse(&packet).unwrap(), &packet));
    let mut packet = bytes(UDP6);
    packet[46..48].copy_from_slice(&[0, 0]);
    assert!(
        !verify_checksums(&parse(&packet).unwrap(), &packet),
        "not allowed in IPv6"
    );
}

#[test]
fn rewriting_refuses_the_other_family_and_leaves_the_packet_alone() {
    let mut packet = bytes(UDP4);
    assert_eq!(rewrite_source(&mut packet, AGENT6), Err(Malformed));
    assert_eq!(packet, bytes(UDP4));
    assert_eq!(rewrite_destination(&mut [0x45; 12], AGENT4), Err(Malformed));
}

#[test]
fn an_error_must_quote_a_packet_of_its_receiver() {
    for (hex, at) in [(PORT4, 28 + 12), (PORT6, 48 + 8)] {
        let mut packet = bytes(hex);
        packet[at] ^= 1;
        assert_eq!(parse(&packet), Err(Malformed));
    }
    // An error that quotes eight bytes of transport is enough; one that quotes an error is not.
    let mut out = Vec::new();
    let original = bytes(SYN4);
    assert!(unreachable(
        &original,
        &parse(&original).unwrap(),
        Unreachable::Host,
        &mut out
    ));
    out.truncate(28 + 28);
    out[3] = 56;
    assert_eq!(parse(&out).unwrap().flow, flow(HOST4, 80, AGENT4, 40000, TCP));
    out[28 + 9] = ICMP;
    out[28 + 20..28 + 22].copy_from_slice(&[3, 0]);
    assert_eq!(parse(&out), Err(Malformed));
}
