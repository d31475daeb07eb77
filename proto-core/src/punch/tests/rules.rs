//! What a single puncher does with what comes: forged direction, repetition, junk, too much.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::{host, ms, origin};
use crate::punch::{Limits, PunchEvent, Puncher, Side};
use crate::rng::{Rng, Seed};
use crate::wire::check::{Check, CheckKind, Transaction};

const PEER: &str = "203.0.113.20:51000";

fn puncher(side: Side) -> Puncher {
    Puncher::new(side, 7, Limits::default(), Rng::new(&Seed([3; 32])))
}

fn request(from_agent: bool, sequence: u64) -> Check {
    Check {
        session: 1,
        from_agent,
        transaction: Transaction { sequence, nonce: 5 },
        phase: 0,
        priority: 100,
        kind: CheckKind::Request { nominate: false },
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn drain(puncher: &mut Puncher) -> (Vec<(SocketAddr, Check)>, Vec<PunchEvent>) {
    let checks = std::iter::from_fn(|| puncher.poll_check(origin())).collect();
    let events = std::iter::from_fn(|| puncher.poll_event()).collect();
    (checks, events)
}

#[test]
fn a_request_is_answered_once_whoever_repeats_it() {
    let mut agent = puncher(Side::Agent);
    agent.handle_check(&request(false, 1), at(PEER), origin());
    let (answers, events) = drain(&mut agent);
    assert_eq!(events, [PunchEvent::Heard(at(PEER))]);
    let [(to, answer)] = answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(to, at(PEER));
    assert_eq!(answer.session, 7);
    assert!(answer.from_agent);
    assert_eq!(answer.transaction, request(false, 1).transaction);
    assert_eq!(answer.kind, CheckKind::Response { observed: at(PEER) });

    // Captured and sent again from elsewhere: no packet to the third party, no address learned.
    agent.handle_check(&request(false, 1), at("192.0.2.99:53"), origin());
    assert_eq!(drain(&mut agent), (vec![], vec![]));
    assert_eq!(agent.stats().replayed, 1);
}

#[test]
fn a_check_of_the_own_side_is_nothing() {
    let mut agent = puncher(Side::Agent);
    agent.handle_check(&request(true, 1), at(PEER), origin());
    assert_eq!(drain(&mut agent), (vec![], vec![]));
    assert_eq!(agent.stats().misdirected, 1);
}

#[test]
fn only_the_address_that_was_asked_can_answer() {
    let mut agent = puncher(Side::Agent);
    agent.add_candidates(&[host(at(PEER))], origin());
    agent.start(origin());
    let (checks, _) = drain(&mut agent);
    let [(_, asked)] = checks[..] else {
        panic!("{checks:?}")
    };
    let response = Check {
        from_agent: false,
        kind: CheckKind::Response {
            observed: at("203.0.113.10:50000"),
        },
        ..asked
    };
    agent.handle_check(&response, at("192.0.2.99:53"), origin());
    assert_eq!(agent.stats().unasked, 1);
    let other = Check {
        transaction: Transaction {
            nonce: asked.transaction.nonce ^ 1,
            ..asked.transaction
        },
        ..response
    };
    agent.handle_check(&other, at(PEER), origin());
    assert_eq!(agent.stats().unasked, 2);
    assert_eq!(drain(&mut agent), (vec![], vec![]));

    agent.handle_check(&response, at(PEER), origin() + ms(12));
    let (_, events) = drain(&mut agent);
    assert_eq!(
        events,
        [
            PunchEvent::Observed(at("203.0.113.10:50000")),
            PunchEvent::Heard(at(PEER)),
            PunchEvent::Works {
                remote: at(PEER),
                rtt: ms(12)
            },
        ]
    );
    // The same answer again answers nothing.
    agent.handle_check(&response, at(PEER), origin());
    assert_eq!(agent.stats().unasked, 3);
}

#[test]
fn the_connector_does_not_nominate_and_follows_only_what_works() {
    let mut connector = puncher(Side::Connector);
    connector.add_candidates(&[host(at(PEER))], origin());
    connector.start(origin());
    let (checks, _) = drain(&mut connector);
    assert!(
        checks
            .iter()
            .all(|(_, check)| check.kind == CheckKind::Request { nominate: false })
    );
    let nomination = Check {
        kind: CheckKind::Request { nominate: true },
        ..request(true, 1)
    };
    connector.handle_check(&nomination, at(PEER), origin());
    assert_eq!(connector.nominated(), None, "our packets may not arrive there");
    let response = Check {
        from_agent: true,
        kind: CheckKind::Response { observed: at(PEER) },
        ..checks[0].1
    };
    connector.handle_check(&response, at(PEER), origin() + ms(1));
    assert_eq!(connector.nominated(), Some(at(PEER)));
}

#[test]
fn a_peer_names_and_shows_only_so_many_addresses() {
    let limits = Limits::default();
    let mut agent = puncher(Side::Agent);
    let named: Vec<_> = (1..=100)
        .map(|last| host(at(&format!("198.51.100.{last}:9"))))
        .collect();
    agent.add_candidates(&named, origin());
    agent.start(origin());
    for last in 1..=100 {
        agent.handle_check(&request(false, last), at(&format!("192.0.2.{last}:9")), origin());
    }
    let stats = agent.stats();
    let refused = (100 - limits.named) + (100 - limits.discovered);
    assert_eq!(stats.refused_candidates, refused as u64);
    assert!(stats.answers_dropped >= 80, "answers wait in a short queue");
}

#[test]
fn candidates_that_point_nowhere_or_at_the_host_itself_are_not_tried() {
    let mut agent = puncher(Side::Agent);
    let bad = [
        "0.0.0.0:9",
        "127.0.0.1:9",
        "224.0.0.1:9",
        "255.255.255.255:9",
        "240.0.0.1:9",
        "169.254.1.1:9",
        "0.1.2.3:9",
        "192.0.2.1:0",
        "[::]:9",
        "[::1]:9",
        "[ff02::1]:9",
        "[fe80::1]:9",
        "[::ffff:127.0.0.1]:9",
    ];
    agent.add_candidates(&bad.map(|address| host(at(address))), origin());
    assert_eq!(agent.stats().refused_candidates, bad.len() as u64);
    // The same address twice, once in IPv6 clothes, is one.
    agent.add_candidates(
        &[host(at("192.0.2.1:9")), host(at("[::ffff:192.0.2.1]:9"))],
        origin(),
    );
    agent.start(origin());
    assert_eq!(drain(&mut agent).0.len(), 1);
}

#[test]
fn a_round_without_candidates_fails_in_time() {
    let mut agent = puncher(Side::Agent);
    agent.start(origin());
    let mut now = origin();
    for _ in 0..10 {
        let Some(at) = agent.poll_timeout() else { break };
        now = at;
        agent.handle_timeout(now);
        if agent.poll_event() == Some(PunchEvent::Failed) {
            assert!(!agent.is_running());
            return;
        }
    }
    panic!("still running {:?} later", now - origin());
}

#[test]
fn late_candidates_join_the_round() {
    let mut agent = puncher(Side::Agent);
    agent.start(origin());
    assert_eq!(drain(&mut agent).0, []);
    agent.add_candidates(&[host(at(PEER))], origin() + ms(100));
    assert_eq!(
        agent.poll_check(origin() + ms(100)).map(|(to, _)| to),
        Some(at(PEER))
    );
}

#[test]
fn requests_are_paced_behind_the_burst() {
    let mut agent = puncher(Side::Agent);
    let named: Vec<_> = (1..=16)
        .map(|last| host(at(&format!("198.51.100.{last}:9"))))
        .collect();
    agent.add_candidates(&named, origin());
    agent.start(origin());
    assert_eq!(drain(&mut agent).0.len(), 8);
    assert_eq!(agent.poll_timeout(), Some(origin() + ms(5)));
    assert!(agent.poll_check(origin() + ms(5)).is_some());
    assert!(agent.poll_check(origin() + ms(5)).is_none());
}

proptest! {
    /// Whatever an authentic peer sends, the machine stays small, and never asks to be woken for nothing.
    #[test]
    fn any_checks_leave_the_contract_whole(
        side: bool,
        steps in prop::collection::vec(
            (any::<bool>(), 0u64..50, any::<bool>(), any::<bool>(), 1u8..20, 0u64..400, any::<bool>()), 1..200),
    ) {
        let mut puncher = puncher(if side { Side::Agent } else { Side::Connector });
        let mut now = origin();
        let mut sent = Vec::new();
        for (from_agent, sequence, is_request, flag, last, wait, restart) in steps {
            now += ms(wait);
            let remote = at(&format!("192.0.2.{last}:9"));
            let kind = if is_request {
                CheckKind::Request { nominate: flag }
            } else {
                CheckKind::Response { observed: at("203.0.113.9:9") }
            };
            // Answers to what was really asked are rare unless made.
            let transaction = match sent.get(sequence as usize) {
                Some((_, asked)) if flag => asked_of(asked),
                Some(_) | None => Transaction { sequence, nonce: 1 },
            };
            if restart && last % 5 == 0 {
                puncher.start(now);
            }
            puncher.add_candidates(&[host(remote)], now);
            puncher.handle_check(&Check { session: 1, from_agent, transaction, phase: 0, priority: 9, kind }, remote, now);
            puncher.handle_timeout(now);
            for _ in 0..1000 {
                match puncher.poll_check(now) {
                    Some(check) => sent.push(check),
                    None => break,
                }
            }
            while puncher.poll_event().is_some() {}
            prop_assert!(!puncher.has_output());
            prop_assert!(puncher.poll_timeout().is_none_or(|at| at > now));
        }
    }
}

fn asked_of(check: &Check) -> Transaction {
    check.transaction
}
