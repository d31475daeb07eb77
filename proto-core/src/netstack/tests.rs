//! The stack without TCP transfers, packet by packet.

mod datagrams;
mod junk;
mod lanes;
mod people;

use std::net::SocketAddr;

use super::*;
use crate::backend::Transport;
use crate::config::Protocol;
use crate::rng::Seed;
use crate::test_origin::origin;

const SERVICE: ServiceIndex = ServiceIndex(0);
/// The first lane that a stack opens.
const LANE: LaneId = LaneId {
    index: 0,
    generation: 1,
};
const AGENT: &str = "10.9.0.1:5000";
const VIRTUAL: &str = "10.100.0.1:9999";

fn stack(protocol: Protocol, now: Instant) -> Netstack {
    let service = NetstackService {
        offer: Offer::single("192.0.2.9:7".parse().unwrap(), protocol),
        virtual_addresses: vec!["10.100.0.1".parse().unwrap()],
    };
    let limits = NetstackLimits {
        udp_flows: 4,
        ..NetstackLimits::default()
    };
    let config = NetstackConfig {
        services: vec![service],
        limits,
    };
    with_lane(config, now)
}

/// A stack with the lane of a relay link.
fn with_lane(config: NetstackConfig, now: Instant) -> Netstack {
    let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
    assert_eq!(stack.open_lane(SERVICE, None, 1280), LANE);
    stack
}

fn udp(source: &str, destination: &str, payload: &[u8]) -> Datagram {
    let mut packet = Vec::new();
    assert!(packet::udp(
        source.parse().unwrap(),
        destination.parse().unwrap(),
        payload,
        &mut packet
    ));
    packet.into()
}

/// The flows opened and payloads sent, in order.
fn requests(stack: &mut Netstack) -> (Vec<FlowId>, Vec<(FlowId, Vec<u8>)>) {
    let (mut opened, mut sent) = (Vec::new(), Vec::new());
    while let Some(request) = stack.poll_backend() {
        match request {
            ToBackend::Open {
                flow,
                transport: Transport::Udp,
                address,
            } => {
                assert_eq!(address, "192.0.2.9:7".parse().unwrap());
                opened.push(flow);
            }
            ToBackend::Datagram { flow, payload } => sent.push((flow, payload.to_vec())),
            ToBackend::Close { .. } => {}
            other @ (ToBackend::Open { .. }
            | ToBackend::Readable { .. }
            | ToBackend::Resume { .. }
            | ToBackend::HalfClose { .. }
            | ToBackend::Ask(_)
            | ToBackend::Reset { .. }) => panic!("{other:?}"),
        }
    }
    (opened, sent)
}

#[test]
fn a_udp_answer_comes_from_the_address_the_agent_spoke_to() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"question"), now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b""), now);
    let (opened, sent) = requests(&mut stack);
    assert_eq!(opened.len(), 1);
    assert_eq!(sent, [(opened[0], b"question".to_vec()), (opened[0], Vec::new())]);
    stack.handle_backend(FromBackend::Opened { flow: opened[0] }, now);
    stack.handle_backend(
        FromBackend::Datagram {
            flow: opened[0],
            payload: b"answer",
        },
        now,
    );
    assert_eq!(stack.poll_ready(), Some(LANE));
    assert_eq!(
        stack.poll_packet(LANE, now).unwrap().as_ref(),
        udp(VIRTUAL, AGENT, b"answer").as_ref()
    );
    assert!(stack.poll_packet(LANE, now).is_none());
    assert_eq!(stack.poll_ready(), None);
}

#[test]
fn agents_that_share_a_port_have_flows_of_their_own() {
    let now = origin();
    let mut stack = stack(Protocol::Both, now);
    for source in [AGENT, "10.9.0.2:5000"] {
        stack.handle_packet(LANE, udp(source, VIRTUAL, b"hello"), now);
    }
    let (opened, _) = requests(&mut stack);
    assert_eq!(opened.len(), 2);
    stack.handle_backend(
        FromBackend::Datagram {
            flow: opened[1],
            payload: b"second",
        },
        now,
    );
    assert_eq!(
        stack.poll_packet(LANE, now).unwrap().as_ref(),
        udp(VIRTUAL, "10.9.0.2:5000", b"second").as_ref()
    );
}

#[test]
fn silent_flows_are_forgotten_and_the_oldest_gives_way() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    for port in 1..=5 {
        stack.handle_packet(LANE, udp(&format!("10.9.0.1:{port}"), VIRTUAL, b"hello"), now);
    }
    assert_eq!((stack.flows(), stack.stats().udp_evicted), (4, 1));
    let (opened, _) = requests(&mut stack);
    stack.handle_backend(
        FromBackend::Datagram {
            flow: opened[0],
            payload: b"stale",
        },
        now,
    );
    assert!(
        stack.poll_packet(LANE, now).is_none(),
        "the flow that gave way is dead"
    );
    let later = stack.poll_timeout().unwrap();
    assert_eq!(later, now + UDP_IDLE);
    stack.handle_timeout(later);
    assert_eq!((stack.flows(), stack.poll_timeout()), (0, None));
}

#[test]
fn nobody_at_the_backend_is_said_with_icmp() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"hello"), now);
    let (opened, _) = requests(&mut stack);
    let flow = opened[0];
    let reason = crate::backend::Refusal::Exhausted;
    // Code 3 is the port; then the socket is lost for good, and code 1 is the host.
    for (report, code) in [
        (
            FromBackend::Unreachable {
                flow,
                why: crate::backend::BackendUnreachable::Port,
            },
            3,
        ),
        (FromBackend::Refused { flow, reason }, 1),
    ] {
        stack.handle_backend(report, now);
        let answer = stack.poll_packet(LANE, now).unwrap();
        let parsed = packet::parse(&answer).unwrap();
        assert_eq!((parsed.kind, answer[21]), (Kind::IcmpError, code));
        assert_eq!(
            parsed.flow,
            packet::parse(&udp(VIRTUAL, AGENT, b"")).unwrap().flow
        );
    }
    assert_eq!(stack.flows(), 0);
}

#[test]
fn a_service_speaks_only_its_protocol_at_its_address() {
    let now = origin();
    let mut stack = stack(Protocol::Tcp, now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"hello"), now);
    let answer = stack.poll_packet(LANE, now).unwrap();
    assert_eq!(packet::parse(&answer).unwrap().kind, Kind::IcmpError);
    stack.handle_packet(LANE, udp(AGENT, "10.100.0.2:9999", b"hello"), now);
    stack.handle_packet(LANE, b"junk".to_vec().into(), now);
    let mut broken = udp(AGENT, VIRTUAL, b"hello");
    *broken.last_mut().unwrap() ^= 1;
    stack.handle_packet(LANE, broken, now);
    assert!(stack.poll_packet(LANE, now).is_none());
    let stats = stack.stats();
    assert_eq!(
        (
            stats.wrong_address,
            stats.malformed,
            stats.bad_checksum,
            stats.unsupported
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(stack.flows(), 0);
}

#[test]
fn echo_is_answered_for_the_services_addresses_only() {
    let now = origin();
    let mut stack = stack(Protocol::Tcp, now);
    for (destination, answered) in [([10, 100, 0, 1], true), ([10, 100, 0, 2], false)] {
        let request = echo_request([10, 9, 0, 1], destination);
        stack.handle_packet(LANE, request.clone().into(), now);
        let answer = stack.poll_packet(LANE, now);
        assert_eq!(answer.is_some(), answered);
        let Some(answer) = answer else { continue };
        let parsed = packet::parse(&answer).unwrap();
        assert_eq!(parsed.kind, Kind::EchoReply);
        assert_eq!(parsed.flow, packet::parse(&request).unwrap().flow.reversed());
        assert_eq!(&answer[parsed.payload], b"ping");
    }
    let mut damaged = echo_request([10, 9, 0, 1], [10, 100, 0, 1]);
    damaged[30] ^= 1;
    stack.handle_packet(LANE, damaged.into(), now);
    assert!(stack.poll_packet(LANE, now).is_none());
    assert_eq!((stack.stats().echoes, stack.stats().bad_checksum), (1, 1));
}

fn echo_request(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    // Of a UDP packet between the same ends only the protocol and its checksum change: 17 becomes 1.
    let at = |octets: [u8; 4]| SocketAddr::new(octets.into(), 0);
    let mut packet = Vec::new();
    assert!(packet::udp(at(source), at(destination), b"ping", &mut packet));
    packet[9] = packet::ICMP;
    let checksum = u16::from_be_bytes([packet[10], packet[11]]) + 16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Type 8, identifier 0x1234, sequence number 1.
    let sum = 0x0800_u32 + 0x1234 + 1 + 0x7069 + 0x6e67;
    let checksum = !(sum as u16 + (sum >> 16) as u16);
    packet[20..24].copy_from_slice(&[8, 0, (checksum >> 8) as u8, checksum as u8]);
    packet[24..28].copy_from_slice(&[0x12, 0x34, 0, 1]);
    assert!(packet::verify_checksums(
        &packet::parse(&packet).unwrap(),
        &packet
    ));
    packet
}

#[test]
fn a_tunnel_that_takes_nothing_bounds_the_queue() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    let limit = NetstackLimits::default().tunnel_queue;
    for _ in 0..limit + 7 {
        stack.handle_packet(LANE, echo_request([10, 9, 0, 1], [10, 100, 0, 1]).into(), now);
    }
    assert_eq!(stack.stats().tunnel_full, 7);
    let mut sent = 0;
    while stack.poll_packet(LANE, now).is_some() {
        sent += 1;
    }
    assert_eq!(sent, limit);
}
