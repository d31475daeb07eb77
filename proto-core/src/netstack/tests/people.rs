//! Who is let in, who takes whose place, and what a change of the services ends.

use super::*;
use crate::backend::Refusal;
use crate::quic::identity::Fingerprint;
use crate::service::access::{AllowList, Allowed};
use crate::service::{Backend, Host};

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

fn stack_for(service: NetstackService, now: Instant) -> Netstack {
    let config = NetstackConfig {
        services: vec![service],
        limits: NetstackLimits::default(),
    };
    with_lane(config, now)
}

/// What the stack says to the agent.
fn answers(stack: &mut Netstack, now: Instant) -> Vec<Kind> {
    while stack.poll_ready().is_some() {}
    let packets = std::iter::from_fn(|| stack.poll_packet(LANE, now));
    packets
        .map(|packet| packet::parse(&packet).unwrap().kind)
        .collect()
}

pub(super) fn syn(port: u16) -> Datagram {
    syn_at(port, 9)
}

pub(super) fn syn_at(port: u16, number: u32) -> Datagram {
    let mut packet = vec![
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 100, 0, 1, 0, 0, 0, 80, 0, 0, 0, 9, 0,
        0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ];
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&number.to_be_bytes());
    // The checksums come with the addresses.
    packet::rewrite_source(&mut packet, "10.9.0.2".parse().unwrap()).unwrap();
    let sum = |bytes: &[u8], start: u32| {
        let words = bytes
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let mut sum = words.sum::<u32>() + start;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    };
    packet[10..12].fill(0);
    packet[36..38].fill(0);
    let header = sum(&packet[..20], 0).to_be_bytes();
    packet[10..12].copy_from_slice(&header);
    let pseudo: u32 = 6
        + 20
        + packet[12..20]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum::<u32>();
    let transport = sum(&packet[20..], pseudo).to_be_bytes();
    packet[36..38].copy_from_slice(&transport);
    packet.into()
}

#[test]
fn a_list_lets_in_whom_it_names_and_nobody_whom_nobody_introduced() {
    let now = origin();
    let mut stack = stack_for(offer(Some("alice")), now);
    for (who, let_in) in [(Some(ALICE), true), (Some(BOB), false), (None, false)] {
        let packet = udp(AGENT, VIRTUAL, b"question");
        match who {
            Some(who) => stack.handle_introduced(LANE, who, packet, now),
            None => stack.handle_packet(LANE, udp("10.9.0.7:1", VIRTUAL, b"x"), now),
        }
        let (opened, sent) = requests(&mut stack);
        assert_eq!(
            (opened.len(), sent.len()),
            (usize::from(let_in), usize::from(let_in)),
            "{who:?}"
        );
        let expected = if let_in { Vec::new() } else { vec![Kind::IcmpError] };
        assert_eq!(answers(&mut stack, now), expected, "{who:?}");
    }
    // The same by TCP: a reset, and no backend is bothered.
    stack.handle_introduced(LANE, BOB, syn(5000), now);
    assert!(matches!(answers(&mut stack, now)[..], [Kind::Tcp(flags)] if flags.rst));
    assert!(stack.poll_backend().is_none());
    assert_eq!(stack.stats().denied, 3);
}

#[test]
fn an_introduction_may_come_ahead_of_its_packet() {
    let now = origin();
    let mut stack = stack_for(offer(Some("alice")), now);
    let whole = udp(AGENT, VIRTUAL, &[7; 900]);
    let ahead = Datagram::from(whole[..128].to_vec());
    stack.handle_introduced(LANE, ALICE, ahead, now);
    assert!(stack.poll_backend().is_none(), "a beginning is no packet");
    // Another flow in between is nobody's.
    stack.handle_packet(LANE, udp("10.9.0.7:1", VIRTUAL, b"x"), now);
    assert!(stack.poll_backend().is_none());
    stack.handle_packet(LANE, whole, now);
    assert_eq!(requests(&mut stack).0.len(), 1);
    assert_eq!(stack.stats().denied, 1);
}

#[test]
fn another_agent_behind_the_same_addresses_does_not_inherit_the_flow() {
    let now = origin();
    let mut stack = stack_for(offer(None), now);
    stack.handle_introduced(LANE, ALICE, udp(AGENT, VIRTUAL, b"a"), now);
    let hers = requests(&mut stack).0[0];
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"a"), now);
    assert!(requests(&mut stack).0.is_empty(), "still hers");
    stack.handle_introduced(LANE, BOB, udp(AGENT, VIRTUAL, b"b"), now);
    let mut closed = Vec::new();
    let mut opened = Vec::new();
    while let Some(request) = stack.poll_backend() {
        if let ToBackend::Close { flow } = request {
            closed.push(flow);
        } else if let ToBackend::Open { flow, .. } = request {
            opened.push(flow);
        }
    }
    assert_eq!(closed, [hers]);
    assert!(opened.len() == 1 && opened[0] != hers);
    assert!(answers(&mut stack, now).is_empty(), "he hears nothing of hers");
}

#[test]
fn a_list_that_loses_a_name_ends_its_flows_and_a_service_that_goes_ends_all() {
    let now = origin();
    let mut stack = stack_for(offer(None), now);
    stack.handle_introduced(LANE, ALICE, udp(AGENT, VIRTUAL, b"a"), now);
    stack.handle_introduced(LANE, BOB, udp("10.9.0.5:5000", VIRTUAL, b"b"), now);
    stack.handle_introduced(LANE, BOB, syn(5001), now);
    requests_of_any(&mut stack);
    assert_eq!(stack.flows(), 3);
    stack.install(SERVICE, offer(Some("alice")), now);
    assert_eq!((stack.flows(), stack.stats().ended), (1, 2));
    assert_eq!(answers(&mut stack, now).len(), 2, "both hear of it");
    stack.handle_packet(LANE, udp(AGENT, VIRTUAL, b"a"), now);
    assert!(requests_of_any(&mut stack) > 0, "hers goes on");
    stack.remove(SERVICE, now);
    assert_eq!(stack.flows(), 0);
    stack.handle_introduced(LANE, ALICE, syn(5002), now);
    assert!(matches!(answers(&mut stack, now)[..], [Kind::IcmpError, Kind::Tcp(flags)] if flags.rst));
}

fn requests_of_any(stack: &mut Netstack) -> usize {
    let mut count = 0;
    while stack.poll_backend().is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_flow_is_tried_over_once_before_its_agent_hears() {
    let now = origin();
    let backend = |last| Backend {
        host: Host::Address([192, 0, 2, last].into()),
        port: Some(7),
    };
    let mut service = offer(None);
    service.offer.listeners[0].backends = (1..=3).map(backend).collect();
    service.offer.proxy_protocol = true;
    let mut stack = stack_for(service, now);
    stack.handle_introduced(LANE, ALICE, syn(5000), now);
    let mut tried = Vec::new();
    for attempt in 0..2 {
        let Some(ToBackend::Open { flow, address, .. }) = stack.poll_backend() else {
            panic!("attempt {attempt}");
        };
        assert!(!tried.contains(&address));
        tried.push(address);
        assert!(answers(&mut stack, now).is_empty(), "not yet");
        let reason = Refusal::Refused;
        stack.handle_backend(FromBackend::Refused { flow, reason }, now);
    }
    assert!(matches!(answers(&mut stack, now)[..], [Kind::Tcp(flags)] if flags.rst));
    assert_eq!((stack.flows(), stack.stats().retried), (0, 1));
    let flows: u32 = stack
        .services()
        .backends(SERVICE)
        .iter()
        .map(|backend| backend.flows)
        .sum();
    assert_eq!(flows, 0, "nobody counts it any more");

    // One that takes it is told who comes, before anything else.
    stack.handle_introduced(LANE, ALICE, syn(5001), now);
    let Some(ToBackend::Open { flow, .. }) = stack.poll_backend() else {
        panic!("opened");
    };
    stack.handle_backend(FromBackend::Opened { flow }, now);
    let mut told = Vec::new();
    // A socket that takes ten bytes at a time.
    while stack.drain_stream(flow, now, &mut |bytes| {
        let count = bytes.len().min(10);
        told.extend_from_slice(&bytes[..count]);
        count
    }) > 0
    {}
    let peer = Peer {
        fingerprint: ALICE.0,
        name: ALICE.1.into(),
    };
    let (source, destination) = ("10.9.0.2:5001".parse().unwrap(), "10.100.0.1:80".parse().unwrap());
    assert_eq!(
        told,
        crate::service::proxy::header(source, destination, Some(&peer))
    );
}
