//! Lanes with equal addresses and ports: they are kept apart, whatever comes and goes.

mod property;

use super::*;
use crate::quic::identity::Fingerprint;
use crate::service::access::{AllowList, Allowed};

const ALICE: (Fingerprint, &str) = (Fingerprint([1; 32]), "alice");
const BOB: (Fingerprint, &str) = (Fingerprint([2; 32]), "bob");

fn offer(allow: Option<&str>) -> NetstackService {
    let mut offer = Offer::single("192.0.2.9:7".parse().unwrap(), Protocol::Both);
    offer.allow = allow.map(|name| AllowList::new([Allowed::Name(name.into())]));
    NetstackService {
        offer,
        virtual_addresses: Vec::new(),
    }
}

/// A stack with a lane of Alice's and one of Bob's, both from the same addresses.
fn two(service: NetstackService, limits: NetstackLimits, now: Instant) -> (Netstack, [LaneId; 2]) {
    let config = NetstackConfig {
        services: vec![service],
        limits,
    };
    let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
    let lanes = [ALICE, BOB].map(|agent| stack.open_lane(SERVICE, Some(agent), 1280));
    (stack, lanes)
}

fn opened(stack: &mut Netstack) -> Vec<FlowId> {
    let mut flows = Vec::new();
    while let Some(request) = stack.poll_backend() {
        if let ToBackend::Open { flow, .. } = request {
            flows.push(flow);
        }
    }
    flows
}

fn closed(stack: &mut Netstack) -> Vec<FlowId> {
    let mut flows = Vec::new();
    while let Some(request) = stack.poll_backend() {
        if let ToBackend::Close { flow } | ToBackend::Reset { flow } = request {
            flows.push(flow);
        }
    }
    flows
}

fn payloads(stack: &mut Netstack, lane: LaneId, now: Instant) -> Vec<Vec<u8>> {
    let packets = std::iter::from_fn(|| stack.poll_packet(lane, now));
    packets
        .map(|packet| packet[packet::parse(&packet).unwrap().payload].to_vec())
        .collect()
}

#[test]
fn udp_flows_with_equal_addresses_are_two() {
    let now = origin();
    let (mut stack, lanes) = two(offer(None), NetstackLimits::default(), now);
    for lane in lanes {
        stack.handle_packet(lane, udp(AGENT, VIRTUAL, b"question"), now);
    }
    let flows = opened(&mut stack);
    assert_eq!(
        (flows.len(), stack.lane_flows(lanes[0]), stack.flows()),
        (2, 1, 2)
    );
    for (flow, payload) in flows.iter().zip([&b"alice's"[..], b"bob's"]) {
        let flow = *flow;
        stack.handle_backend(FromBackend::Datagram { flow, payload }, now);
    }
    assert_eq!(
        [stack.poll_ready(), stack.poll_ready(), stack.poll_ready()],
        [Some(lanes[0]), Some(lanes[1]), None]
    );
    assert_eq!(payloads(&mut stack, lanes[1], now), [b"bob's"]);
    assert_eq!(payloads(&mut stack, lanes[0], now), [b"alice's"]);

    stack.close_lane(lanes[0], now);
    assert_eq!(closed(&mut stack), [flows[0]]);
    assert_eq!((stack.flows(), stack.stats().ended), (1, 1));
    let (flow, payload) = (flows[1], &b"more"[..]);
    stack.handle_backend(FromBackend::Datagram { flow, payload }, now);
    assert_eq!(payloads(&mut stack, lanes[1], now), [b"more"]);
    // A lane that is closed takes nothing, and its number does not come back.
    stack.handle_packet(lanes[0], udp(AGENT, VIRTUAL, b"question"), now);
    assert!(opened(&mut stack).is_empty() && stack.poll_packet(lanes[0], now).is_none());
    let next = stack.open_lane(SERVICE, Some(ALICE), 1280);
    assert!(next.index == lanes[0].index && next != lanes[0]);
    assert_eq!(
        (stack.lane_service(lanes[0]), stack.lane_service(next)),
        (None, Some(SERVICE))
    );
}

#[test]
fn tcp_sessions_with_equal_addresses_are_two() {
    let now = origin();
    let (mut stack, lanes) = two(offer(None), NetstackLimits::default(), now);
    for lane in lanes {
        stack.handle_packet(lane, people::syn(5000), now);
    }
    let flows = opened(&mut stack);
    assert_eq!(flows.len(), 2);
    // One backend accepts, the other refuses: each agent hears of its own.
    stack.handle_backend(FromBackend::Opened { flow: flows[0] }, now);
    let (flow, reason) = (flows[1], crate::backend::Refusal::Refused);
    stack.handle_backend(FromBackend::Refused { flow, reason }, now);
    let flags = |bytes: &[u8]| {
        let Kind::Tcp(flags) = packet::parse(bytes).unwrap().kind else {
            panic!("{bytes:?}");
        };
        (flags.syn, flags.rst)
    };
    assert_eq!(flags(&stack.poll_packet(lanes[0], now).unwrap()), (true, false));
    assert_eq!(flags(&stack.poll_packet(lanes[1], now).unwrap()), (false, true));
    assert_eq!([0, 1].map(|lane| stack.lane_flows(lanes[lane])), [1, 0]);
    stack.handle_packet(lanes[1], people::syn(5000), now);
    let again = opened(&mut stack);
    stack.close_lane(lanes[0], now);
    assert_eq!(closed(&mut stack), [flows[0]]);
    stack.handle_backend(FromBackend::Opened { flow: again[0] }, now);
    assert_eq!(flags(&stack.poll_packet(lanes[1], now).unwrap()), (true, false));
    stack.close_lane(lanes[1], now);
    assert_eq!(
        (stack.flows(), stack.poll_timeout(), stack.stats().ended),
        (0, None, 2)
    );
    assert!(stack.tcp.is_empty() && stack.tcp_pending.is_empty());
}

#[test]
fn pings_are_answered_where_they_came_in() {
    let now = origin();
    let (mut stack, lanes) = two(offer(Some("alice")), NetstackLimits::default(), now);
    let request = echo_request([10, 9, 0, 1], [10, 100, 0, 1]);
    for _ in 0..3 {
        for (lane, kind) in lanes.into_iter().zip([Kind::EchoReply, Kind::IcmpError]) {
            stack.handle_packet(lane, request.clone().into(), now);
            let answer = stack.poll_packet(lane, now).unwrap();
            assert_eq!(packet::parse(&answer).unwrap().kind, kind);
            assert!(lanes.iter().all(|lane| stack.poll_packet(*lane, now).is_none()));
        }
    }
    assert_eq!((stack.stats().denied, stack.stats().echoes), (3, 3));
}

#[test]
fn fragments_of_two_lanes_never_meet() {
    let now = origin();
    let (mut stack, lanes) = two(offer(None), NetstackLimits::default(), now);
    let cut = |byte: u8| {
        let mut pieces: Vec<Datagram> = Vec::new();
        let whole = udp(AGENT, VIRTUAL, &[byte; 2000]);
        assert!(packet::split(&whole, 1280, 3, &mut |piece| pieces.push(piece.into())));
        pieces
    };
    let (alice, bob) = (cut(1), cut(2));
    stack.handle_packet(lanes[0], alice[0].clone(), now);
    stack.handle_packet(lanes[1], bob[1].clone(), now);
    assert_eq!((stack.fragments.waiting(), stack.flows()), (2, 0));
    stack.close_lane(lanes[0], now);
    assert_eq!((stack.fragments.waiting(), stack.stats().fragments), (1, 1));
    stack.handle_packet(lanes[1], bob[0].clone(), now);
    let (_, sent) = requests(&mut stack);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, [2; 2000]);
}

#[test]
fn the_agent_of_a_lane_needs_no_introduction_and_gets_none() {
    let now = origin();
    let mut service = offer(Some("alice"));
    service.offer.proxy_protocol = true;
    let (mut stack, lanes) = two(service, NetstackLimits::default(), now);
    assert!(stack.is_permitted(SERVICE, ALICE) && !stack.is_permitted(SERVICE, BOB));
    assert!(!stack.is_permitted(ServiceIndex(7), ALICE));
    // Who is introduced on Bob's lane is Bob.
    stack.handle_introduced(lanes[1], ALICE, people::syn(5000), now);
    assert!(opened(&mut stack).is_empty());
    stack.handle_introduced(lanes[0], BOB, people::syn(5000), now);
    let flow = opened(&mut stack)[0];
    stack.handle_backend(FromBackend::Opened { flow }, now);
    let mut told = Vec::new();
    stack.drain_stream(flow, now, &mut |bytes| {
        told.extend_from_slice(bytes);
        bytes.len()
    });
    let peer = Peer {
        fingerprint: ALICE.0,
        name: ALICE.1.into(),
    };
    let (source, destination) = ("10.9.0.2:5000".parse().unwrap(), "10.100.0.1:80".parse().unwrap());
    assert_eq!(
        told,
        crate::service::proxy::header(source, destination, Some(&peer))
    );
}

#[test]
fn a_list_that_changes_ends_the_lanes_it_no_longer_names() {
    let now = origin();
    let (mut stack, lanes) = two(offer(None), NetstackLimits::default(), now);
    for lane in lanes {
        stack.handle_packet(lane, udp(AGENT, VIRTUAL, b"question"), now);
        stack.handle_packet(lane, people::syn(5000), now);
    }
    assert_eq!(opened(&mut stack).len(), 4);
    stack.install(SERVICE, offer(Some("alice")), now);
    assert_eq!(lanes.map(|lane| stack.lane_flows(lane)), [2, 0]);
    assert_eq!(stack.poll_ready(), Some(lanes[1]), "Bob hears of it");
    assert_eq!(std::iter::from_fn(|| stack.poll_packet(lanes[1], now)).count(), 2);
    assert!(stack.poll_packet(lanes[0], now).is_none() && stack.poll_ready().is_none());
    stack.remove(SERVICE, now);
    assert_eq!((stack.flows(), stack.stats().ended), (0, 4));
    assert_eq!(std::iter::from_fn(|| stack.poll_packet(lanes[0], now)).count(), 2);
}

#[test]
fn the_agent_of_a_lane_has_one_share_whatever_addresses_it_uses() {
    let now = origin();
    let limits = NetstackLimits {
        udp_flows: 8,
        udp_flows_per_source: 3,
        tcp_pending_per_source: 3,
        reassembly: ReassemblyLimits {
            packets: 8,
            per_source: 3,
            bytes: 1 << 20,
        },
        ..NetstackLimits::default()
    };
    let (mut stack, [alice, bob]) = two(offer(None), limits, now);
    let mut pieces: Vec<Datagram> = Vec::new();
    for number in 1..=6 {
        let source = format!("10.9.0.{number}:5000");
        stack.handle_packet(alice, udp(&source, VIRTUAL, b"x"), now);
        stack.handle_packet(alice, people::syn(5000 + number), now);
        let whole = udp(&source, VIRTUAL, &[7; 2000]);
        packet::split(&whole, 1280, 3, &mut |piece| pieces.push(piece.into()));
    }
    for piece in pieces.into_iter().step_by(2) {
        stack.handle_packet(alice, piece, now);
    }
    let stats = stack.stats();
    assert_eq!((stats.udp_evicted, stats.tcp_backlog, stats.fragments), (3, 3, 3));
    // The other has its own, also for the same addresses.
    stack.handle_packet(bob, udp("10.9.0.6:5000", VIRTUAL, b"x"), now);
    stack.handle_packet(bob, people::syn(5001), now);
    assert_eq!([alice, bob].map(|lane| stack.lane_flows(lane)), [6, 2]);
}

#[test]
fn lanes_that_take_nothing_share_the_room() {
    let now = origin();
    let limits = NetstackLimits {
        tunnel_queue: 100,
        tunnel_packets: 256,
        ..NetstackLimits::default()
    };
    let config = NetstackConfig {
        services: vec![offer(None)],
        limits,
    };
    let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
    let lanes: Vec<LaneId> = (0..50)
        .map(|_| stack.open_lane(SERVICE, Some(ALICE), 1280))
        .collect();
    let ping = echo_request([10, 9, 0, 1], [10, 100, 0, 1]);
    let mut most = Vec::new();
    for lane in &lanes {
        for _ in 0..200 {
            stack.handle_packet(*lane, ping.clone().into(), now);
        }
        most.push(stack.lanes.waiting() - most.iter().sum::<usize>());
    }
    assert_eq!(most[..5], [85, 57, 38, 25, 17], "none has more than it leaves");
    assert!(most.iter().all(|waiting| *waiting >= 4) && stack.lanes.waiting() < 256 + 50 * 4);
    for lane in &lanes {
        stack.close_lane(*lane, now);
    }
    assert_eq!(
        (stack.lanes.waiting(), stack.poll_ready(), stack.has_output()),
        (0, None, false)
    );
}

#[test]
fn sessions_that_end_while_their_lane_is_blocked_leave_nothing_behind() {
    let now = origin();
    let (mut stack, [alice, _]) = two(offer(None), NetstackLimits::default(), now);
    let mut reset = people::syn(5000);
    let checksum = u16::from_be_bytes([reset[36], reset[37]]);
    reset[33] = 0x04;
    reset[27] = 10;
    // SYN is gone, RST has come, and the number is the next one.
    reset[36..38].copy_from_slice(&(checksum - 2 - 1).to_be_bytes());
    assert!(packet::verify_checksums(&packet::parse(&reset).unwrap(), &reset));
    for _ in 0..1000 {
        stack.handle_packet(alice, people::syn(5000), now);
        let flow = opened(&mut stack)[0];
        stack.handle_backend(FromBackend::Opened { flow }, now);
        stack.handle_packet(alice, reset.clone(), now);
        assert_eq!(stack.flows(), 0);
    }
    assert!(stack.lanes.entered(alice) <= 64, "{}", stack.lanes.entered(alice));
    stack.handle_packet(alice, people::syn(5000), now);
    let flow = opened(&mut stack)[0];
    stack.handle_backend(FromBackend::Opened { flow }, now);
    assert!(
        stack.poll_packet(alice, now).is_some(),
        "the one that lives has its turn"
    );
    assert!(stack.poll_packet(alice, now).is_none());
    assert_eq!(stack.lanes.entered(alice), 0);
}

#[test]
fn ten_thousand_lanes_cost_little_before_and_after_their_traffic() {
    let mut now = origin();
    let (mut stack, _) = two(offer(None), NetstackLimits::default(), now);
    let lanes: Vec<LaneId> = (0..10_000)
        .map(|_| stack.open_lane(SERVICE, Some(ALICE), 1280))
        .collect();
    let fresh = stack.lanes.memory() / lanes.len();
    assert!(fresh <= 300, "{fresh} bytes");
    for lane in lanes.iter().take(100) {
        stack.handle_packet(*lane, udp(AGENT, VIRTUAL, b"question"), now);
        let flow = opened(&mut stack)[0];
        let payload = &b"answer"[..];
        for _ in 0..500 {
            stack.handle_backend(FromBackend::Datagram { flow, payload }, now);
        }
        while stack.poll_packet(*lane, now).is_some() {}
    }
    now += UDP_IDLE;
    stack.handle_timeout(now);
    let rested = stack.lanes.memory() / lanes.len();
    assert!(rested <= fresh, "{rested} bytes where {fresh} were");
}
