use std::time::Duration;

use proptest::prelude::*;

use super::Backoff;
use crate::rng::{Rng, Seed};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn doubles_up_to_the_cap_and_starts_over_after_success() {
    let mut rng = Rng::new(&Seed([1; 32]));
    let mut backoff = Backoff::new(SECOND, 30 * SECOND);
    for ceiling in [1, 2, 4, 8, 16, 30, 30, 30] {
        let delay = backoff.next_delay(&mut rng);
        assert!(
            delay >= ceiling * SECOND / 2 && delay <= ceiling * SECOND,
            "{delay:?} for {ceiling}"
        );
    }
    backoff.reset();
    assert!(backoff.next_delay(&mut rng) <= SECOND);
}

#[test]
fn clients_that_failed_together_spread() {
    let delays: std::collections::BTreeSet<_> = (0..100)
        .map(|client| Backoff::new(SECOND, 30 * SECOND).next_delay(&mut Rng::new(&Seed([client; 32]))))
        .collect();
    assert!(delays.len() > 90);
}

proptest! {
    #[test]
    fn never_longer_than_the_cap(initial in any::<u64>(), cap in any::<u64>(), seed in any::<[u8; 32]>()) {
        let (initial, cap) = (Duration::from_nanos(initial), Duration::from_nanos(cap));
        let mut rng = Rng::new(&Seed(seed));
        let mut backoff = Backoff::new(initial, cap);
        for _ in 0..100 {
            prop_assert!(backoff.next_delay(&mut rng) <= cap);
        }
    }
}
