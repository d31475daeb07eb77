//! Generated worlds: hundreds of stories that nobody wrote, each judged by the oracle and told twice.

use proptest::prelude::*;
use proto_core::rng::{Rng, Seed};
use proto_core::sim::story::{self, Outcome};

proptest! {
    // A story that ends badly is worth a few seconds of shortening, not minutes.
    #![proptest_config(ProptestConfig { max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_story_ends_well(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let outcome = story::tell(&bytes);
        prop_assert_eq!(story::tell(&bytes), outcome, "the same bytes tell the same story");
    }
}

/// Guards the generator: a change that makes stories in which nothing happens would make the property above worthless.
#[test]
fn stories_are_eventful() {
    let mut rng = Rng::new(&Seed([1; 32]));
    let mut sum = Outcome::default();
    for _ in 0..30 {
        let mut bytes = [0; 400];
        rng.fill(&mut bytes);
        let outcome = story::tell(&bytes);
        sum.arrived += outcome.arrived;
        sum.answered += outcome.answered;
        sum.errors += outcome.errors;
        sum.disconnections += outcome.disconnections;
    }
    assert!(sum.arrived > sum.answered, "some answers are lost: {sum:?}");
    assert!(sum.answered > 300, "and many are not: {sum:?}");
    assert!(
        sum.errors > 0,
        "there are packets too large, and services without a connector: {sum:?}"
    );
    assert!(sum.disconnections > 30, "connections are lost: {sum:?}");
}
