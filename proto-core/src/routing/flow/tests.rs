//! Stories of agents that use the same addresses, and a model of who must get which packet.

mod fragments;
mod limits;
mod model;
mod packets;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{FlowLimits, FlowRefusal, FlowTable, alias};
use crate::id::ConnId;
use crate::rng::{Rng, Seed};
use crate::routing::packet::{FiveTuple, Unreachable, parse, unreachable, verify_checksums};
use crate::test_origin::origin;
use packets::{Flags, echo, fragment, other, reply, tcp, udp};

const A: ConnId = ConnId {
    index: 0,
    generation: 1,
};
const B: ConnId = ConnId {
    index: 1,
    generation: 1,
};
const C: ConnId = ConnId {
    index: 2,
    generation: 1,
};
const CONNECTOR: ConnId = ConnId {
    index: 9,
    generation: 4,
};
const OTHER_CONNECTOR: ConnId = ConnId {
    index: 10,
    generation: 1,
};

const V4: [&str; 2] = ["100.64.0.1", "10.100.0.5"];
const V6: [&str; 2] = ["fd00::1", "fd00:5::5"];

fn table(limits: FlowLimits) -> FlowTable {
    FlowTable::new(limits, &mut Rng::new(&Seed([8; 32])))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tuple(packet: &[u8]) -> FiveTuple {
    parse(packet).unwrap().flow
}

/// Sends a packet of an agent through, and gives it back as the connector sees it.
fn forward(
    table: &mut FlowTable,
    agent: ConnId,
    packet: &[u8],
    now: Instant,
) -> Result<Vec<u8>, FlowRefusal> {
    let mut forwarded = packet.to_vec();
    let verdict = table.outbound(agent, CONNECTOR, &mut forwarded, now);
    if verdict.is_err() {
        assert_eq!(forwarded, packet, "a refused packet is left alone");
    }
    assert!(verify_checksums(&parse(&forwarded).unwrap(), &forwarded));
    verdict.map(|()| forwarded)
}

/// Sends a packet of the connector back; gives the agent, and the packet as it sees it.
fn back(table: &mut FlowTable, packet: &[u8], now: Instant) -> Option<(ConnId, Vec<u8>)> {
    let mut returned = packet.to_vec();
    let agent = table.inbound(CONNECTOR, &mut returned, now)?;
    assert!(verify_checksums(&parse(&returned).unwrap(), &returned));
    Some((agent, returned))
}

/// Whether the answer to a forwarded packet reaches exactly `agent`, addressed as the agent's own packet asks.
fn answered(table: &mut FlowTable, agent: ConnId, sent: &[u8], forwarded: &[u8], now: Instant) -> bool {
    let Some((receiver, returned)) = back(table, &reply(forwarded), now) else {
        return false;
    };
    assert_eq!(receiver, agent);
    assert_eq!(tuple(&returned), tuple(sent).reversed());
    assert_eq!(returned, reply(sent), "nothing else of the packet has changed");
    true
}

#[test]
fn a_reply_returns_to_the_agent_that_asked_and_nothing_is_rewritten() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let sent = udp(V4, 40000, 53);
    let forwarded = forward(&mut table, A, &sent, now).unwrap();
    assert_eq!(forwarded, sent);
    assert!(answered(&mut table, A, &sent, &forwarded, now));
    assert_eq!(
        (table.len(), table.stats().opened, table.stats().translated),
        (1, 1, 0)
    );
}

#[test]
fn three_agents_with_one_flow_each_get_their_own_replies() {
    let cases = [V4, V6].into_iter().flat_map(|ends| {
        [
            udp(ends, 40000, 53),
            tcp(ends, 40000, 80, Flags::SYN),
            echo(ends, 0x1234),
            other(ends, 58),
        ]
    });
    for sent in cases {
        let (mut table, now) = (
            table(crate::config::IntermediateLimits::default().flow_table()),
            origin(),
        );
        let forwarded = [A, B, C].map(|agent| forward(&mut table, agent, &sent, now).unwrap());
        assert_eq!(forwarded[0], sent, "the first keeps its addresses");
        assert_ne!(forwarded[1], forwarded[0]);
        assert_ne!(forwarded[1], forwarded[2]);
        for _ in 0..2 {
            for (agent, forwarded) in [C, A, B]
                .into_iter()
                .zip([&forwarded[2], &forwarded[0], &forwarded[1]])
            {
                assert_eq!(
                    &forward(&mut table, agent, &sent, now).unwrap(),
                    forwarded,
                    "and stays the same"
                );
                assert!(answered(&mut table, agent, &sent, forwarded, now));
            }
        }
        assert_eq!((table.len(), table.stats().translated), (3, 2));
    }
}

#[test]
fn a_translated_flow_stays_translated_when_the_first_holder_has_left() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let sent = tcp(V4, 40000, 80, Flags::ACK);
    let of_a = forward(&mut table, A, &sent, now).unwrap();
    let of_b = forward(&mut table, B, &sent, now).unwrap();
    table.remove(A);
    assert_eq!(back(&mut table, &reply(&of_a), now), None);
    assert_eq!(forward(&mut table, B, &sent, now).unwrap(), of_b);
    assert!(answered(&mut table, B, &sent, &of_b, now));
    assert_eq!(forward(&mut table, C, &sent, now).unwrap(), sent, "free again");
    table.remove(B);
    table.remove(C);
    assert!(table.is_empty());
}

#[test]
fn one_flow_towards_two_connectors_is_two_flows() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let sent = udp(V4, 40000, 53);
    let mut packet = sent.clone();
    table.outbound(A, CONNECTOR, &mut packet, now).unwrap();
    table.outbound(B, OTHER_CONNECTOR, &mut packet, now).unwrap();
    assert_eq!(packet, sent);
    assert_eq!(table.inbound(CONNECTOR, &mut reply(&sent), now), Some(A));
    assert_eq!(table.inbound(OTHER_CONNECTOR, &mut reply(&sent), now), Some(B));
    assert_eq!(table.inbound(C, &mut reply(&sent), now), None);
}

#[test]
fn a_connector_opens_no_flow() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    forward(&mut table, A, &udp(V4, 40000, 53), now).unwrap();
    let swapped = [V4[1], V4[0]];
    for packet in [
        udp(swapped, 53, 40001),
        udp(swapped, 54, 40000),
        tcp(swapped, 53, 40000, Flags::SYN),
    ] {
        assert_eq!(back(&mut table, &packet, now), None);
    }
    assert_eq!(table.inbound(CONNECTOR, &mut [0x45; 3], now), None);
    assert_eq!((table.len(), table.stats().unmatched), (1, 4));
}

#[test]
fn an_icmp_error_goes_to_the_agent_whose_packet_it_quotes() {
    for ends in [V4, V6] {
        let (mut table, now) = (
            table(crate::config::IntermediateLimits::default().flow_table()),
            origin(),
        );
        let sent = udp(ends, 40000, 53);
        forward(&mut table, A, &sent, now).unwrap();
        let forwarded = forward(&mut table, B, &sent, now).unwrap();
        let error_about = |packet: &[u8]| {
            let mut error = Vec::new();
            assert!(unreachable(
                packet,
                &parse(packet).unwrap(),
                Unreachable::Port,
                &mut error
            ));
            error
        };
        let (agent, returned) = back(&mut table, &error_about(&forwarded), now).unwrap();
        assert_eq!(
            (agent, returned),
            (B, error_about(&sent)),
            "as if it had never been translated"
        );
        let (agent, returned) = back(&mut table, &error_about(&sent), now).unwrap();
        assert_eq!((agent, returned), (A, error_about(&sent)));
        assert_eq!(back(&mut table, &error_about(&udp(ends, 40001, 53)), now), None);
    }
}

#[test]
fn an_agents_icmp_error_belongs_to_its_own_flow_or_is_refused() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let sent = udp(V4, 40000, 53);
    forward(&mut table, A, &sent, now).unwrap();
    let forwarded = forward(&mut table, B, &sent, now).unwrap();
    let mut error = Vec::new();
    let answer = reply(&sent);
    assert!(unreachable(
        &answer,
        &parse(&answer).unwrap(),
        Unreachable::Port,
        &mut error
    ));
    assert_eq!(forward(&mut table, A, &error, now).unwrap(), error);
    let of_b = forward(&mut table, B, &error, now).unwrap();
    assert_eq!(tuple(&of_b), tuple(&forwarded));
    assert_eq!(forward(&mut table, C, &error, now), Err(FlowRefusal::NoFlow));
    assert_eq!((table.len(), table.stats().no_flow), (2, 1));

    // It does not keep the flow alive either.
    assert!(forward(&mut table, A, &error, now + seconds(299)).is_ok());
    assert_eq!(
        forward(&mut table, A, &error, now + seconds(300)),
        Err(FlowRefusal::NoFlow)
    );
}

#[test]
fn later_fragments_and_junk_are_refused_and_counted() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    // Ports 0 are what a later fragment looks like.
    forward(&mut table, A, &udp(V4, 0, 0), now).unwrap();
    let mut later = fragment(V4);
    assert_eq!(
        table.outbound(A, CONNECTOR, &mut later, now),
        Err(FlowRefusal::Fragment)
    );
    assert_eq!(table.inbound(CONNECTOR, &mut fragment([V4[1], V4[0]]), now), None);
    for junk in [&mut [][..], &mut [0x12, 0, 0], &mut [0x45; 19]] {
        assert_eq!(
            table.outbound(A, CONNECTOR, junk, now),
            Err(FlowRefusal::Malformed)
        );
    }
    assert_eq!(
        (
            table.stats().fragments,
            table.stats().malformed,
            table.stats().unmatched
        ),
        (1, 3, 1)
    );
}

#[test]
fn nobody_can_occupy_the_alias_of_another() {
    for ends in [V4, V6] {
        let (mut table, now) = (
            table(crate::config::IntermediateLimits::default().flow_table()),
            origin(),
        );
        let of_b = alias::of(B, ip(ends[0])).unwrap().to_string();
        let squat = udp([&of_b, ends[1]], 40000, 53);
        let squatted = forward(&mut table, C, &squat, now).unwrap();
        assert_eq!(tuple(&squatted).source, alias::of(C, ip(ends[0])).unwrap());
        assert!(answered(&mut table, C, &squat, &squatted, now));

        let sent = udp(ends, 40000, 53);
        forward(&mut table, A, &sent, now).unwrap();
        let forwarded = forward(&mut table, B, &sent, now).unwrap();
        assert_eq!(tuple(&forwarded).source, ip(&of_b));
        assert!(answered(&mut table, B, &sent, &forwarded, now));
        assert!(answered(&mut table, C, &squat, &squatted, now));
        // Two own addresses of C meet under its alias: refused, not guessed.
        assert_eq!(forward(&mut table, C, &sent, now), Err(FlowRefusal::Taken));
        assert_eq!(table.stats().taken, 1);
    }
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let dccp = other(V4, 33);
    forward(&mut table, A, &dccp, now).unwrap();
    assert_eq!(
        forward(&mut table, B, &dccp, now),
        Err(FlowRefusal::Taken),
        "its checksum covers the addresses"
    );
    let far = ConnId {
        index: 1 << 17,
        generation: 0,
    };
    assert_eq!(alias::of(far, ip(V4[0])), None);
    assert!(alias::of(far, ip(V6[0])).is_some());
}

#[test]
fn aliases_are_reserved_and_different_for_all_live_agents() {
    for source in [ip(V4[0]), ip(V6[0])] {
        let mut seen = std::collections::BTreeSet::new();
        for index in [0, 1, 2, 254, 255, 256, 65_535, 131_071] {
            for generation in 0..16 {
                let alias = alias::of(ConnId { index, generation }, source).unwrap();
                assert!(alias::is_reserved(alias) && alias.is_ipv4() == source.is_ipv4());
                assert!(seen.insert(alias));
            }
        }
    }
    for free in [
        "100.64.0.1",
        "100.95.255.255",
        "100.128.0.0",
        "10.0.0.1",
        "fd00::1",
        "fdb1:6d2e:94c7::1",
    ] {
        assert!(!alias::is_reserved(ip(free)), "{free}");
    }
}
