use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::rng::{Rng, Seed};
use crate::routing::packet;
use crate::test_origin::origin;

const V4: [&str; 2] = ["10.9.0.1:5000", "10.100.0.1:53"];
const V6: [&str; 2] = ["[fd00::1]:5000", "[fd00::2]:53"];

fn whole(ends: [&str; 2], len: usize) -> Vec<u8> {
    let [source, destination] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
    let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    let mut packet = Vec::new();
    assert!(packet::udp(source, destination, &payload, &mut packet));
    packet
}

fn pieces(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    assert!(packet::split(packet, mtu, id, &mut |piece| pieces.push(piece)));
    pieces
}

fn reassembler(limits: ReassemblyLimits) -> Reassembler<u8> {
    Reassembler::new(limits, &mut Rng::new(&Seed([3; 32])))
}

fn take(reassembler: &mut Reassembler<u8>, scope: u8, piece: &[u8], now: Instant) -> Option<Vec<u8>> {
    let parsed = packet::parse(piece).unwrap();
    reassembler.take(scope, piece, &parsed, now)
}

/// What a receiver sees of a packet: the same but for the marks of IPv4 fragmentation.
fn assert_same(back: &[u8], sent: &[u8]) {
    let (one, other) = (packet::parse(back).unwrap(), packet::parse(sent).unwrap());
    assert!(packet::verify_checksums(&one, back));
    assert_eq!(
        (one.flow, one.kind, one.fragment),
        (other.flow, other.kind, Fragment::No)
    );
    assert_eq!(back[one.payload], sent[other.payload]);
}

proptest! {
    /// Any size over any MTU, in any order, every fragment once or twice: the packet comes back, once.
    #[test]
    fn what_was_split_comes_back(
        v6 in any::<bool>(),
        len in 1..20_000_usize,
        mtu in 100..1500_usize,
        order in any::<u64>(),
        twice in any::<bool>(),
    ) {
        let sent = whole(if v6 { V6 } else { V4 }, len);
        prop_assume!(sent.len() > mtu);
        let mut pieces = pieces(&sent, mtu, 77);
        for piece in &pieces {
            prop_assert!(piece.len() <= mtu);
            prop_assert!(packet::verify_checksums(&packet::parse(piece).unwrap(), piece));
        }
        if twice {
            pieces.extend(pieces.clone());
        }
        let mut rng = Rng::new(&Seed([order as u8; 32]));
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, (rng.next_u64() % (at as u64 + 1)) as usize);
        }
        let mut reassembler = reassembler(ReassemblyLimits::default());
        let now = origin();
        let back: Vec<_> = pieces.iter().filter_map(|piece| take(&mut reassembler, 0, piece, now)).collect();
        prop_assert!(!back.is_empty());
        for back in &back {
            assert_same(back, &sent);
        }
        while reassembler.pop_expired(now + WAIT).is_some() {}
        prop_assert_eq!((reassembler.waiting(), reassembler.bytes, reassembler.holders.len()), (0, 0, 0));
    }

    /// Bytes that only look like fragments change nothing for ever, and never panic.
    #[test]
    fn damaged_fragments_do_no_harm(flips in proptest::collection::vec((0..60_usize, any::<u8>()), 1..8), v6 in any::<bool>()) {
        let limits = ReassemblyLimits { packets: 4, per_source: 4, bytes: 6_000 };
        let mut reassembler = reassembler(limits);
        let now = origin();
        for mut piece in pieces(&whole(if v6 { V6 } else { V4 }, 3000), 600, 5) {
            for (at, value) in &flips {
                piece[*at] ^= value;
            }
            if let Ok(parsed) = packet::parse(&piece) {
                let _ = reassembler.take(0, &piece, &parsed, now);
            }
            // One fragment more than the limit, wherever in its packet it says it stands.
            prop_assert!(reassembler.bytes <= 6_000 + 66_000 && reassembler.waiting() <= 4);
        }
        while reassembler.pop_expired(now + WAIT).is_some() {}
        prop_assert_eq!((reassembler.bytes, reassembler.holders.len()), (0, 0));
    }
}

#[test]
fn packets_of_two_scopes_are_not_mixed() {
    let now = origin();
    let mut reassembler = reassembler(ReassemblyLimits::default());
    let sent = whole(V4, 2000);
    let pieces = pieces(&sent, 1280, 9);
    assert_eq!(take(&mut reassembler, 0, &pieces[0], now), None);
    assert_eq!(take(&mut reassembler, 1, &pieces[1], now), None);
    assert_same(&take(&mut reassembler, 0, &pieces[1], now).unwrap(), &sent);
}

#[test]
fn overlapping_fragments_end_their_packet() {
    let now = origin();
    for ends in [V4, V6] {
        let mut reassembler = reassembler(ReassemblyLimits::default());
        // The same identification, cut elsewhere: the second overlaps the first with other bytes.
        let good = pieces(&whole(ends, 3000), 1280, 9);
        let evil = pieces(&whole(ends, 2900), 600, 9);
        assert_eq!(take(&mut reassembler, 0, &good[0], now), None);
        assert_eq!(take(&mut reassembler, 0, &evil[0], now), None);
        assert_eq!((reassembler.stats().inconsistent, reassembler.waiting()), (1, 0));
        for piece in &good[1..] {
            assert_eq!(
                take(&mut reassembler, 0, piece, now),
                None,
                "what followed is no packet"
            );
        }
    }
}

#[test]
fn a_packet_that_waits_too_long_is_given_back_for_an_answer() {
    let now = origin();
    let mut reassembler = reassembler(ReassemblyLimits::default());
    let pieces = pieces(&whole(V4, 2000), 1280, 9);
    take(&mut reassembler, 4, &pieces[0], now);
    let at = reassembler.poll_timeout().unwrap();
    assert_eq!(at, now + WAIT);
    assert_eq!(reassembler.pop_expired(at - Duration::from_millis(1)), None);
    let (scope, first) = reassembler.pop_expired(at).unwrap();
    assert_eq!((scope, first.as_deref()), (4, Some(&pieces[0][..])));
    let (first, mut answer) = (first.unwrap(), Vec::new());
    assert!(packet::reassembly_timed_out(
        &first,
        &packet::parse(&first).unwrap(),
        &mut answer
    ));
    assert_eq!(answer[20..22], [11, 1]);
    assert_eq!(reassembler.stats().timed_out, 1);
}

#[test]
fn memory_and_one_sources_share_are_bounded() {
    let now = origin();
    let limits = ReassemblyLimits {
        packets: 8,
        per_source: 3,
        bytes: 10_000,
    };
    let mut reassembler = reassembler(limits);
    let sent = whole(V4, 2000);
    for id in 0..10 {
        take(&mut reassembler, 0, &pieces(&sent, 1280, id)[0], now);
    }
    assert_eq!((reassembler.waiting(), reassembler.stats().evicted), (3, 7));
    let other = whole(["10.9.0.2:5000", V4[1]], 60_000);
    for piece in &pieces(&other, 1280, 1)[1..] {
        take(&mut reassembler, 0, piece, now);
        assert!(reassembler.bytes <= 10_000 + 66_000);
    }
}
