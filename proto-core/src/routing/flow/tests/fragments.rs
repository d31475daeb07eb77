//! Fragmented packets through the table, put together at their receivers as those do.

use super::*;
use crate::routing::packet;
use crate::routing::reassembly::{Reassembler, ReassemblyLimits};

fn large(ends: [&str; 2], fill: u8) -> Vec<u8> {
    let [source, destination] = ends.map(|end| std::net::SocketAddr::new(ip(end), 5000));
    let mut whole = Vec::new();
    assert!(packet::udp(source, destination, &[fill; 3000], &mut whole));
    whole
}

fn pieces(whole: &[u8], id: u32) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    assert!(packet::split(whole, 1280, id, &mut |piece| pieces.push(piece)));
    pieces
}

fn payload(packet: &[u8]) -> &[u8] {
    let parsed = packet::parse(packet).unwrap();
    assert!(packet::verify_checksums(&parsed, packet));
    &packet[parsed.payload]
}

fn fresh() -> (FlowTable, Reassembler<()>, std::time::Instant) {
    let limits = crate::config::IntermediateLimits::default().flow_table();
    let reassembler = Reassembler::new(ReassemblyLimits::default(), &mut Rng::new(&Seed([1; 32])));
    (table(limits), reassembler, origin())
}

#[test]
fn fragments_of_agents_that_look_alike_are_not_mixed() {
    for ends in [V4, V6] {
        let (mut table, mut connector, now) = fresh();
        let [of_a, of_b] = [pieces(&large(ends, 0xAA), 9), pieces(&large(ends, 0xBB), 9)];
        let mut arrived = Vec::new();
        for (a, b) in of_a.iter().zip(&of_b) {
            for (agent, piece) in [(A, a), (B, b)] {
                let mut piece = piece.clone();
                table.outbound(agent, CONNECTOR, &mut piece, now).unwrap();
                let parsed = packet::parse(&piece).unwrap();
                arrived.extend(connector.take((), &piece, &parsed, now));
            }
        }
        assert_eq!(arrived.len(), 2, "{ends:?}");
        // The same ports: B's is under its alias. Each answer, cut as well, goes back to its own agent.
        for (agent, whole) in [A, B].into_iter().zip(&arrived) {
            let fill = if agent == A { 0xAA } else { 0xBB };
            assert!(payload(whole).iter().all(|byte| *byte == fill));
            let flow = tuple(whole);
            let ends = [flow.destination.to_string(), flow.source.to_string()];
            let answer = large([&ends[0], &ends[1]], fill);
            let mut host = Reassembler::<()>::new(ReassemblyLimits::default(), &mut Rng::new(&Seed([2; 32])));
            let mut back = Vec::new();
            for mut piece in pieces(&answer, 4) {
                assert_eq!(table.inbound(CONNECTOR, &mut piece, now), Some(agent));
                back.extend(host.take((), &piece, &packet::parse(&piece).unwrap(), now));
            }
            assert_eq!(back.len(), 1);
            assert!(payload(&back[0]).iter().all(|byte| *byte == fill));
        }
    }
}

#[test]
fn later_fragments_of_nothing_known_are_refused() {
    let (mut table, _, now) = fresh();
    let all = pieces(&large(V4, 1), 9);
    let outbound = |table: &mut FlowTable, agent, at: usize, now| {
        table.outbound(agent, CONNECTOR, &mut all[at].clone(), now)
    };
    assert_eq!(
        outbound(&mut table, A, 1, now),
        Err(FlowRefusal::Fragment),
        "the first is missing"
    );
    assert_eq!(outbound(&mut table, A, 0, now), Ok(()));
    assert_eq!(outbound(&mut table, A, 1, now), Ok(()));
    assert_eq!(
        outbound(&mut table, B, 2, now),
        Err(FlowRefusal::Fragment),
        "another agent's"
    );
    let later = now + crate::routing::reassembly::WAIT;
    assert_eq!(outbound(&mut table, B, 0, later), Ok(()));
    assert_eq!(
        outbound(&mut table, A, 2, later),
        Err(FlowRefusal::Fragment),
        "too late"
    );
}

#[test]
fn fragments_do_not_reach_an_agent_that_has_gone() {
    let (mut table, _, now) = fresh();
    for mut piece in pieces(&large(V4, 1), 9) {
        table.outbound(A, CONNECTOR, &mut piece, now).unwrap();
    }
    let back = pieces(&large([V4[1], V4[0]], 1), 9);
    assert_eq!(table.inbound(CONNECTOR, &mut back[0].clone(), now), Some(A));
    table.remove(A);
    assert_eq!(table.inbound(CONNECTOR, &mut back[1].clone(), now), None);
}
