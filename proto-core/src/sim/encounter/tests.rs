//! The judge of encounters, judged.

use super::*;
use crate::sim::nat::{Dependence, Ports, can_meet};

const DEPENDENCES: [Dependence; 3] = [
    Dependence::Endpoint,
    Dependence::Address,
    Dependence::AddressAndPort,
];

fn every_nat() -> impl Iterator<Item = NatConfig> {
    DEPENDENCES.into_iter().flat_map(|mapping| {
        DEPENDENCES.into_iter().flat_map(move |filtering| {
            [Ports::Preserved, Ports::Random, Ports::Sequential].map(|ports| NatConfig {
                mapping,
                filtering,
                ports,
                ..NatConfig::FULL_CONE
            })
        })
    })
}

fn cast(shared: &[NatConfig], agent: &[NatConfig], connector: &[NatConfig]) -> Cast {
    Cast {
        shared: shared.to_vec(),
        own: [agent.to_vec(), connector.to_vec()],
        delays: [Duration::from_millis(10); 3],
        seed: 1,
    }
}

fn expected(cast: &Cast) -> Option<bool> {
    expectation(cast, &Layout::new(cast))
}

/// What is found by trying everything is what the formula says, for one translator on each side.
#[test]
fn the_formula_and_the_search_agree() {
    for a in every_nat() {
        for b in every_nat() {
            let found = expected(&cast(&[], &[a], &[b]));
            assert_eq!(found, Some(can_meet(Some(&a), Some(&b))), "{a:?} and {b:?}");
        }
        assert_eq!(expected(&cast(&[], &[a], &[])), Some(true), "{a:?} and none");
    }
}

#[test]
fn neighbours_meet_at_home_and_through_a_hairpin() {
    let (plain, hairpin) = (
        NatConfig::PORT_RESTRICTED,
        NatConfig::PORT_RESTRICTED.with_hairpin(),
    );
    // In one home, or one of them where the other's way passes.
    assert_eq!(expected(&cast(&[plain], &[], &[])), Some(true));
    assert_eq!(expected(&cast(&[plain], &[], &[plain])), Some(true));
    // In two homes behind one carrier.
    assert_eq!(expected(&cast(&[plain], &[plain], &[plain])), Some(false));
    assert_eq!(expected(&cast(&[hairpin], &[plain], &[plain])), Some(true));
    assert_eq!(
        expected(&cast(&[NatConfig::SYMMETRIC.with_hairpin()], &[plain], &[plain])),
        Some(false)
    );
}

#[test]
fn the_same_number_is_the_same_encounter() {
    for number in 0..20 {
        assert_eq!(meet_numbered(number), meet_numbered(number));
    }
}
