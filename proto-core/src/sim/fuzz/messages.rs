//! Parsers: nothing panics, what was read and is written again reads the same, and streams do not depend on how they
//! are cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::forward::{Negotiation, Step, datagram_header, split_datagram};
use crate::id::{ConnId, ServiceId};
use crate::quic::header::Header;
use crate::quic::{LOCAL_CID_LEN, identity::Identity};
use crate::rng::{Rng, Seed};
use crate::routing::flow::{FlowLimits, FlowTable};
use crate::routing::packet::{self, Unreachable};
use crate::routing::table::endpoints;
use crate::sim::{Clock as _, ManualClock};
use crate::wire::channel::{channel_prefix, parse_channel, parse_twice, set_channel, twice_prefix};
use crate::wire::check::{Check, CheckKey, MAX_CHECK_LEN, claimed_session};
use crate::wire::control::{ControlMessage, SessionMessage, SignalingMessage};
use crate::wire::datagram::{
    FromClient, FromIntermediate, in_session_prefix, introduction, parse_from_client,
    parse_from_intermediate, routed_prefix, write_observed, write_refused, write_register, write_registered,
};
use crate::wire::framing::{Frames, MAX_FRAME_LEN};
use crate::wire::v1::RawMessage;

/// Everything that arrives in one piece: DATAGRAMs of both directions, raw UDP, QUIC headers, certificates.
///
/// # Panics
/// If a parser does, or contradicts its writer.
pub fn datagram(bytes: &[u8]) {
    match parse_from_client(bytes) {
        Ok(FromClient::Register {
            role,
            service,
            introduce,
        }) => {
            if let Ok(service) = ServiceId::parse(service) {
                let written = write_register(role, &service);
                let bare = 2 + service.as_bytes().len();
                assert!(bytes.starts_with(&written[..bare]));
                assert!(!introduce || bytes.starts_with(&written));
            }
        }
        Ok(FromClient::Routed { service, packet_at }) => {
            assert!(matches!(bytes[packet_at] >> 4, 4 | 6), "only IP goes on");
            if let Ok(service) = ServiceId::parse(service) {
                assert_eq!(routed_prefix(&service).as_ref(), &bytes[..packet_at]);
            }
        }
        Ok(FromClient::InSession { session, packet_at }) => {
            assert_eq!(&bytes[..packet_at], in_session_prefix(session));
            assert!(matches!(bytes[packet_at] >> 4, 4 | 6));
        }
        Ok(FromClient::Packet) => assert!(matches!(bytes[0] >> 4, 4 | 6)),
        Err(_) => {}
    }
    match parse_from_intermediate(bytes) {
        Ok(FromIntermediate::Observed(address)) => assert!(bytes.starts_with(&write_observed(address))),
        Ok(FromIntermediate::Registered { service }) => {
            assert!(bytes[2..].starts_with(&write_registered(service)[2..]));
        }
        Ok(FromIntermediate::Refused { status, service }) => {
            assert!(bytes.starts_with(&write_refused(status, service)));
        }
        Ok(FromIntermediate::Introduced {
            fingerprint,
            name,
            packet_at,
        }) => {
            assert!(matches!(bytes[packet_at] >> 4, 4 | 6), "only IP is handed on");
            if let Ok(name) = std::str::from_utf8(name) {
                assert_eq!(introduction(fingerprint, name).as_ref(), &bytes[..packet_at]);
            }
        }
        Ok(FromIntermediate::Packet) => assert!(matches!(bytes[0] >> 4, 4 | 6)),
        Err(_) => {}
    }
    if let Ok(message) = RawMessage::parse(bytes) {
        assert_eq!(RawMessage::parse(&message.write()), Ok(message));
    }
    prefixed(bytes);
    let _ = Header::parse(bytes, LOCAL_CID_LEN);
    let _ = Identity::from_certificate(bytes);
}

/// What v2 sends beside QUIC, and before packets that travel twice.
fn prefixed(bytes: &[u8]) {
    if let Some(channel) = parse_channel(bytes) {
        let mut frame = channel_prefix(channel).to_vec();
        frame.extend_from_slice(&bytes[frame.len()..]);
        assert_eq!(frame, bytes);
        set_channel(&mut frame, !channel);
        assert_eq!(parse_channel(&frame), Some(!channel));
        assert_eq!(frame[5..], bytes[5..], "a relay changes nothing but the number");
    }
    if let Some(sequence) = parse_twice(bytes) {
        assert!(bytes.starts_with(&twice_prefix(sequence)));
    }
    // The key is known here: a fuzzer finds its way behind the tag only if it is given one.
    let key = CheckKey::new(&[0; 32]);
    let mut sealed = bytes.to_vec();
    let _ = claimed_session(bytes);
    for candidate in [bytes, key.seal(&mut sealed)] {
        if let Ok(check) = Check::parse(candidate, &key) {
            let mut out = [0; MAX_CHECK_LEN];
            let len = check.write(&key, &mut out).expect("the buffer has the size");
            assert_eq!(&out[..len], candidate);
        }
    }
}

/// The signalling stream: the first byte says how it is cut, the rest is the stream.
///
/// # Panics
/// If a parser does, contradicts its writer, holds more than a frame, or depends on how the stream is cut.
pub fn signaling(bytes: &[u8]) {
    let (cut, stream) = bytes.split_first().map_or((1, bytes), |(cut, rest)| (*cut, rest));
    let read = |size: usize| {
        let mut frames = Frames::new();
        let mut payloads = Vec::new();
        for mut chunk in stream.chunks(size) {
            while let Some(payload) = frames.read(&mut chunk) {
                payloads.push(payload.to_vec());
            }
            assert!(frames.buffered() <= MAX_FRAME_LEN);
        }
        (payloads, frames.skipped())
    };
    let whole = read(stream.len().max(1));
    assert_eq!(read(usize::from(cut).max(1)), whole);
    for payload in whole.0.iter().map(Vec::as_slice).chain([stream]) {
        let families = [
            SignalingMessage::parse(payload).is_ok(),
            ControlMessage::parse(payload).is_ok(),
            SessionMessage::parse(payload).is_ok(),
        ];
        assert!(
            families.iter().filter(|read| **read).count() <= 1,
            "a message of two families"
        );
        if let Some((message, frame)) = ControlMessage::parse(payload)
            .ok()
            .and_then(|m| Some((m.clone(), m.write()?)))
        {
            assert_eq!(ControlMessage::parse(&frame[4..]), Ok(message));
        }
        if let Some((message, frame)) = SessionMessage::parse(payload)
            .ok()
            .and_then(|m| Some((m.clone(), m.write()?)))
        {
            assert_eq!(SessionMessage::parse(&frame[4..]), Ok(message));
        }
        let Ok(message) = SignalingMessage::parse(payload) else {
            continue;
        };
        // Addresses with a flow label or scope are the one thing that does not survive, and v1 cannot say them.
        let Some(frame) = message.write() else { continue };
        assert_eq!(SignalingMessage::parse(&frame[4..]), Ok(message));
    }
}

/// Writes an answer to the packet in hand; whether there is one.
type Answer<'a> = dyn Fn(&mut Vec<u8>) -> bool + 'a;

/// One inner IP packet, through everything that reads, rewrites, answers or routes it.
///
/// # Panics
/// If anything does, or makes a packet that is malformed.
pub fn packet(bytes: &[u8]) {
    let _ = endpoints(bytes);
    forward(bytes);
    let Ok(parsed) = packet::parse(bytes) else {
        return;
    };
    let genuine = packet::verify_checksums(&parsed, bytes);
    for address in [
        IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        for rewrite in [packet::rewrite_source, packet::rewrite_destination] {
            let mut copy = bytes.to_vec();
            if rewrite(&mut copy, address).is_err() {
                assert_eq!(copy, bytes, "a refused packet is unchanged");
                continue;
            }
            let after = packet::parse(&copy).expect("a rewritten packet is one");
            assert_eq!((after.kind, after.len), (parsed.kind, parsed.len));
            assert_eq!(packet::verify_checksums(&after, &copy), genuine);
        }
    }
    let mut out = Vec::new();
    let answers: [&Answer<'_>; 6] = [
        &|out| packet::echo_reply(bytes, &parsed, out),
        &|out| packet::tcp_reset(bytes, &parsed, out),
        &|out| packet::too_big(bytes, &parsed, 1280, out),
        &|out| packet::unreachable(bytes, &parsed, Unreachable::Port, out),
        &|out| packet::unreachable(bytes, &parsed, Unreachable::Host, out),
        &|out| packet::unreachable(bytes, &parsed, Unreachable::AdminProhibited, out),
    ];
    for answer in answers {
        if !answer(&mut out) {
            assert!(out.is_empty());
            continue;
        }
        let answer = packet::parse(&out).expect("an answer is a packet");
        // The checksum of an echo is carried over: a packet that was broken stays broken.
        assert!(packet::verify_checksums(&answer, &out) || !genuine);
        assert_eq!(answer.flow, parsed.flow.reversed());
    }
}

/// Two agents send the packet through a small flow table, and it comes back.
fn forward(bytes: &[u8]) {
    let id = |index| ConnId { index, generation: 1 };
    let now = ManualClock::new().now();
    let limits = FlowLimits {
        per_agent: 2,
        total: 3,
    };
    let mut flows = FlowTable::new(limits, &mut Rng::new(&Seed([1; 32])));
    for agent in [id(1), id(2)] {
        let mut outbound = bytes.to_vec();
        if flows.outbound(agent, id(0), &mut outbound, now).is_err() {
            continue;
        }
        let parsed = packet::parse(&outbound).expect("what goes out is a packet");
        let mut answer = Vec::new();
        if packet::echo_reply(&outbound, &parsed, &mut answer)
            || packet::unreachable(&outbound, &parsed, Unreachable::Host, &mut answer)
        {
            assert_eq!(
                flows.inbound(id(0), &mut answer, now),
                Some(agent),
                "an answer returns to who asked"
            );
        }
    }
    let _ = flows.inbound(id(0), &mut bytes.to_vec(), now);
    assert!(flows.len() <= limits.total);
    flows.remove(id(1));
    flows.remove(id(2));
    assert!(flows.is_empty());
}

/// What a program says to a SOCKS proxy, whole and byte by byte, and the datagrams of one.
///
/// # Panics
/// If the two ways end differently, or a negotiation asks for more than its messages can have.
pub fn socks(bytes: &[u8]) {
    let negotiate = |piece: usize| {
        let (mut negotiation, mut rest, mut said) = (Negotiation::default(), bytes, Vec::new());
        loop {
            let count = negotiation.wants().min(rest.len()).min(piece);
            assert!(negotiation.wants() <= 262);
            if count == 0 {
                return (said, Step::More, rest.len());
            }
            let (now, behind) = rest.split_at(count);
            rest = behind;
            match negotiation.feed(now) {
                Step::More => {}
                Step::Say(words) => said.extend_from_slice(words),
                last @ (Step::Asked(_) | Step::Refuse(_) | Step::Alien) => return (said, last, rest.len()),
            }
        }
    };
    assert_eq!(negotiate(1), negotiate(usize::MAX));
    if let Some((crate::forward::Host::Address(address), port, payload)) = split_datagram(bytes) {
        let again = [&datagram_header((address, port).into()), payload].concat();
        assert_eq!(
            split_datagram(&again),
            Some((crate::forward::Host::Address(address), port, payload))
        );
    }
}
