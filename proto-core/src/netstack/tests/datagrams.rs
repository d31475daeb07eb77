//! UDP and ICMP at their edges: fragments, shares of the flow table, errors both ways.

use super::*;
use crate::backend::BackendUnreachable;

/// The fragments of a packet from an agent.
fn fragments(packet: &[u8], id: u32) -> Vec<Datagram> {
    let mut fragments = Vec::new();
    assert!(packet::split(packet, 1280, id, &mut |piece| fragments.push(piece.into())));
    fragments
}

/// What a host puts together from the packets of the stack.
fn put_together(stack: &mut Netstack, now: Instant) -> Vec<Vec<u8>> {
    let mut host = Reassembler::new(ReassemblyLimits::default(), &mut Rng::new(&Seed([9; 32])));
    let mut whole = Vec::new();
    while let Some(piece) = stack.poll_packet(LANE, now) {
        assert!(piece.len() <= 1280);
        whole.extend(host.take((), &piece, &packet::parse(&piece).unwrap(), now));
    }
    whole
}

#[test]
fn datagrams_larger_than_the_tunnel_pass_both_ways() {
    for (agent, service) in [(AGENT, VIRTUAL), ("[fd00::9]:5000", "[fd00::1]:9999")] {
        let now = origin();
        let mut stack = stack(Protocol::Udp, now);
        stack.addresses[0].clear();
        let question = udp(agent, service, &[7; 9000]);
        for fragment in fragments(&question, 3).into_iter().rev() {
            stack.handle_packet(LANE, fragment, now);
        }
        let (opened, sent) = requests(&mut stack);
        assert_eq!(sent, [(opened[0], vec![7; 9000])]);
        let (flow, payload) = (opened[0], &[8; 5000][..]);
        stack.handle_backend(FromBackend::Datagram { flow, payload }, now);
        let answers = put_together(&mut stack, now);
        assert_eq!(answers.len(), 1);
        let parsed = packet::parse(&answers[0]).unwrap();
        assert!(packet::verify_checksums(&parsed, &answers[0]));
        assert_eq!(&answers[0][parsed.payload.clone()], payload);
        assert_eq!(parsed.flow, packet::parse(&question).unwrap().flow.reversed());
        let stats = stack.stats();
        assert_eq!((stats.reassembled, stats.fragmented, stats.fragments), (1, 1, 0));
    }
}

#[test]
fn a_large_ping_is_answered_whole() {
    let now = origin();
    let mut stack = stack(Protocol::Tcp, now);
    let mut request = echo_request([10, 9, 0, 1], [10, 100, 0, 1]);
    // Zeros change no checksum but that of the header.
    let len = 3000_usize;
    request.resize(len, 0);
    let old = u16::from_be_bytes([request[2], request[3]]);
    request[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let checksum = u16::from_be_bytes([request[10], request[11]]) - (len as u16 - old);
    request[10..12].copy_from_slice(&checksum.to_be_bytes());
    for fragment in fragments(&request, 3) {
        stack.handle_packet(LANE, fragment, now);
    }
    let answers = put_together(&mut stack, now);
    assert_eq!(answers.len(), 1);
    let parsed = packet::parse(&answers[0]).unwrap();
    assert_eq!((parsed.kind, answers[0].len()), (Kind::EchoReply, len));
}

#[test]
fn a_fragment_that_stays_alone_is_answered_in_the_end() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(
        LANE,
        fragments(&udp(AGENT, VIRTUAL, &[7; 9000]), 3).remove(0),
        now,
    );
    assert!(stack.poll_packet(LANE, now).is_none());
    let later = stack.poll_timeout().unwrap();
    assert_eq!(later, now + crate::routing::reassembly::WAIT);
    stack.handle_timeout(later);
    let answer = stack.poll_packet(LANE, later).unwrap();
    assert_eq!(answer[20..22], [11, 1], "reassembly time exceeded");
    assert_eq!((stack.stats().fragments, stack.poll_timeout()), (1, None));
}

#[test]
fn an_agent_with_many_flows_pushes_out_its_own() {
    let now = origin();
    // Four flows in all.
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(LANE, udp("10.9.0.2:1", VIRTUAL, b"quiet"), now);
    for port in 1..=20 {
        stack.handle_packet(LANE, udp(&format!("10.9.0.1:{port}"), VIRTUAL, b"loud"), now);
    }
    let (opened, _) = requests(&mut stack);
    let flow = opened[0];
    stack.handle_backend(
        FromBackend::Datagram {
            flow,
            payload: b"still here",
        },
        now,
    );
    let answer = stack.poll_packet(LANE, now).unwrap();
    assert_eq!(
        packet::parse(&answer).unwrap().flow.destination.to_string(),
        "10.9.0.2"
    );
    assert_eq!((stack.flows(), stack.stats().udp_evicted), (4, 17));
}

#[test]
fn what_icmp_says_of_a_backend_the_agent_hears() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"hello"), now);
    let flow = requests(&mut stack).0[0];
    for (why, code) in [
        (BackendUnreachable::Host, 1),
        (BackendUnreachable::Port, 3),
        (BackendUnreachable::Prohibited, 13),
    ] {
        stack.handle_backend(FromBackend::Unreachable { flow, why }, now);
        let answer = stack.poll_packet(LANE, now).unwrap();
        assert_eq!(answer[20..22], [3, code]);
    }
    assert_eq!(stack.flows(), 1, "the flow lives on");
}

#[test]
fn an_agent_that_stopped_listening_ends_its_flow() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"hello"), now);
    let flow = requests(&mut stack).0[0];
    stack.handle_backend(
        FromBackend::Datagram {
            flow,
            payload: b"late",
        },
        now,
    );
    let late = stack.poll_packet(LANE, now).unwrap();
    let error = |why| {
        let mut error = Vec::new();
        assert!(packet::unreachable(
            &late,
            &packet::parse(&late).unwrap(),
            why,
            &mut error
        ));
        Datagram::from(error)
    };
    stack.handle_packet(LANE, error(Unreachable::Host), now);
    assert_eq!(stack.flows(), 1, "a router on the way may err");
    stack.handle_packet(LANE, error(Unreachable::Port), now);
    assert_eq!((stack.flows(), stack.stats().icmp_errors), (0, 1));
    assert_eq!(stack.poll_backend(), Some(ToBackend::Close { flow }));
    stack.handle_packet(LANE, error(Unreachable::Port), now);
    assert_eq!(stack.stats().unsupported, 2);
}

#[test]
fn errors_are_rationed_and_the_ration_comes_back() {
    let now = origin();
    let mut stack = stack(Protocol::Tcp, now);
    let errors = |stack: &mut Netstack, now| {
        for _ in 0..1000 {
            stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"scan"), now);
        }
        std::iter::from_fn(|| stack.poll_packet(LANE, now)).count()
    };
    assert_eq!(errors(&mut stack, now), 200);
    assert_eq!(errors(&mut stack, now), 0);
    assert_eq!(errors(&mut stack, now + Duration::from_millis(50)), 50);
    assert_eq!(stack.stats().icmp_limited, 3000 - 250);
}

#[test]
fn a_packet_without_hops_left_goes_nowhere() {
    let now = origin();
    let mut stack = stack(Protocol::Udp, now);
    let mut packet = udp(AGENT, VIRTUAL, b"hello");
    let checksum = u16::from_be_bytes([packet[10], packet[11]]) + (u16::from(packet[8]) << 8);
    packet[8] = 0;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    stack.handle_packet(LANE, packet, now);
    assert_eq!((stack.stats().hop_limit, stack.flows()), (1, 0));
}
