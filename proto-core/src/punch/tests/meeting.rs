//! Who meets whom, how fast, and with how many packets.

use proptest::prelude::*;

use super::{Lab, ms, origin};
use crate::punch::PunchEvent;
use crate::sim::nat::{NatConfig, can_meet};

const KINDS: usize = NatConfig::ALL.len();

fn kind(index: usize) -> Option<NatConfig> {
    NatConfig::ALL.get(index).map(|(_, config)| *config)
}

fn name(index: usize) -> &'static str {
    NatConfig::ALL.get(index).map_or("none", |(name, _)| *name)
}

/// The oracle of the whole: direct exactly where the theory of translators allows it.
#[test]
fn every_pair_of_translators_meets_exactly_when_it_can() {
    for a in 0..=KINDS {
        for b in 0..=KINDS {
            for seed in 0..20 {
                let mut lab = Lab::new(kind(a), kind(b), seed);
                lab.introduce();
                lab.start(ms(0), ms(0));
                lab.run(ms(3000));
                let expected = can_meet(kind(a).as_ref(), kind(b).as_ref());
                assert_eq!(lab.met(), expected, "{} and {}, seed {seed}", name(a), name(b));
                let failed = |side| {
                    lab.when(side, |event| matches!(event, PunchEvent::Failed))
                        .is_some()
                };
                assert_eq!(
                    [failed(0), failed(1)],
                    [!expected; 2],
                    "who fails says so: {} and {}",
                    name(a),
                    name(b)
                );
            }
        }
    }
}

/// What measurements in the laboratory of real translators found, as a table of its own: the theory above must not drift.
#[test]
fn the_theory_agrees_with_what_was_measured() {
    let hard = |index: usize| ["address-dependent", "symmetric", "sequential"].contains(&name(index));
    let strict = |index: usize| ["port-restricted", "linux"].contains(&name(index));
    for a in 0..=KINDS {
        for b in 0..=KINDS {
            let apart = (hard(a) && (hard(b) || strict(b))) || (hard(b) && strict(a));
            assert_eq!(
                can_meet(kind(a).as_ref(), kind(b).as_ref()),
                !apart,
                "{} and {}",
                name(a),
                name(b)
            );
        }
    }
}

/// Two port-restricted translators, both sides at once: one trip opens the hole, and the answer comes back. A side whose
/// packets arrive before the other has sent loses one request.
#[test]
fn a_path_is_found_within_a_round_trip() {
    let mut lab = Lab::new(
        Some(NatConfig::PORT_RESTRICTED),
        Some(NatConfig::PORT_RESTRICTED),
        1,
    );
    lab.introduce();
    lab.start(ms(0), ms(0));
    lab.run(ms(1000));
    let start = origin();
    let heard = lab
        .when(0, |event| matches!(event, PunchEvent::Heard(_)))
        .unwrap();
    assert_eq!(heard - start, lab.delay, "the first word comes after one way");
    let works = lab
        .when(0, |event| matches!(event, PunchEvent::Works { .. }))
        .unwrap();
    assert_eq!(works - start, 2 * lab.delay);
    let nominated = lab
        .when(0, |event| matches!(event, PunchEvent::Nominated(_)))
        .unwrap();
    assert_eq!(
        nominated - start,
        4 * lab.delay,
        "one more round trip tells the connector"
    );
    let told = lab
        .when(1, |event| matches!(event, PunchEvent::Nominated(_)))
        .unwrap();
    assert_eq!(told - start, 3 * lab.delay);
}

#[test]
fn a_linux_router_without_guard_is_met_if_both_begin_together() {
    for skew in [0, 5, 9] {
        let mut lab = Lab::new(Some(NatConfig::LINUX), Some(NatConfig::LINUX), 3);
        lab.introduce();
        lab.start(ms(0), ms(skew));
        lab.run(ms(3000));
        assert!(lab.met(), "{skew} ms apart, with 10 ms on the way");
    }
    // The other way round the router remembers the stranger, and gives its own host another port: what the instant is for.
    let mut lab = Lab::new(Some(NatConfig::LINUX), Some(NatConfig::LINUX), 3);
    lab.introduce();
    lab.start(ms(0), ms(15));
    lab.run(ms(3000));
    assert!(!lab.met());
}

#[test]
fn few_packets_go_to_an_address_that_never_answers() {
    let mut lab = Lab::new(Some(NatConfig::SYMMETRIC), Some(NatConfig::SYMMETRIC), 5);
    lab.introduce();
    for _ in 0..10 {
        lab.start(ms(0), ms(0));
        lab.run(ms(5000));
    }
    for end in &lab.ends {
        for (_, to) in &end.sent {
            let count = end.sent.iter().filter(|(_, other)| other == to).count();
            assert!(count <= 10, "{count} to {to}");
        }
    }
}

#[test]
fn a_found_path_ends_the_other_attempts() {
    let mut lab = Lab::new(None, None, 6);
    lab.introduce();
    let nowhere: Vec<_> = (1..=8)
        .map(|last| {
            super::candidate(
                crate::wire::control::CandidateKind::ServerReflexive,
                format!("192.0.2.{last}:9").parse().unwrap(),
            )
        })
        .collect();
    let now = lab.now;
    lab.ends[0].puncher.add_candidates(&nowhere, now);
    lab.start(ms(0), ms(0));
    lab.run(ms(4000));
    assert!(lab.met());
    let wasted = lab.ends[0]
        .sent
        .iter()
        .filter(|(_, to)| to.ip().to_string().starts_with("192.0.2"))
        .count();
    assert!(wasted <= 2 * nowhere.len(), "{wasted} packets to worse addresses");
}

/// Consent (RFC 7675): a path that is silent is asked, one that stays silent is given up, and traffic is answer enough.
#[test]
fn consent_is_kept_and_lost() {
    let mut lab = Lab::new(Some(NatConfig::FULL_CONE), None, 7);
    lab.introduce();
    lab.start(ms(0), ms(0));
    lab.run(ms(3000));
    assert!(lab.met());
    let path = lab.ends[0].puncher.nominated().unwrap();
    let before = lab.ends[0].sent.len();
    lab.run(ms(60_000));
    let asked = lab.ends[0].sent.len() - before;
    assert!(
        (8..40).contains(&asked),
        "{asked} packets in a minute, answers to the other side included"
    );
    assert!(lab.met(), "an idle path stays");

    // With traffic there is nothing to ask.
    let before = lab.ends[0].puncher.stats().requests;
    for _ in 0..60 {
        let now = lab.now;
        lab.ends[0].puncher.on_heard(path, now);
        lab.run(ms(1000));
    }
    assert_eq!(lab.ends[0].puncher.stats().requests, before);

    lab.cut = true;
    lab.run(ms(20_000));
    assert!(lab.met());
    lab.run(ms(17_000));
    for side in 0..2 {
        assert!(
            lab.when(side, |event| matches!(event, PunchEvent::ConsentLost(_)))
                .is_some()
        );
        assert_eq!(lab.ends[side].puncher.nominated(), None);
        assert_eq!(
            lab.ends[side].puncher.poll_timeout(),
            None,
            "nothing is left to do"
        );
    }
}

/// A host that is found first is left for a better one that works a moment later.
#[test]
fn a_better_pair_is_taken_when_it_works_soon_after() {
    let mut lab = Lab::new(None, None, 8);
    let (agent, connector) = (lab.ends[0].inner, lab.ends[1].inner);
    let now = lab.now;
    // The same host under a second, worse address is not there: only the order of news is under test.
    lab.ends[0].puncher.add_candidates(
        &[super::candidate(
            crate::wire::control::CandidateKind::ServerReflexive,
            connector,
        )],
        now,
    );
    lab.ends[1].puncher.add_candidates(&[super::host(agent)], now);
    lab.start(ms(0), ms(0));
    lab.run(ms(3000));
    assert!(lab.met());
    assert_eq!(
        lab.ends[0]
            .events
            .iter()
            .filter(|(_, event)| matches!(event, PunchEvent::Nominated(_)))
            .count(),
        1
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Loss delays, and decides nothing; who cannot meet never claims to.
    #[test]
    fn loss_does_not_change_who_meets(a in 0..=KINDS, b in 0..=KINDS, seed: u8, loss in 0u64..25, delay in 1u64..60) {
        // Strangers' packets poison a router when ours are lost first: that pair is for another method.
        let poisoned = |kind: Option<NatConfig>| kind.is_some_and(|kind| kind.poisoned);
        prop_assume!(loss == 0 || !(poisoned(kind(a)) || poisoned(kind(b))));
        let mut lab = Lab::new(kind(a), kind(b), seed);
        lab.delay = ms(delay);
        lab.loss = loss;
        lab.introduce();
        lab.start(ms(0), ms(0));
        lab.run(ms(3000));
        let possible = can_meet(kind(a).as_ref(), kind(b).as_ref());
        if loss == 0 {
            prop_assert_eq!(lab.met(), possible);
        } else if lab.met() {
            prop_assert!(possible, "{} and {}", name(a), name(b));
        }
    }
}
