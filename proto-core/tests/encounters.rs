//! Generated encounters of two ends behind translators: thousands that nobody wrote, each judged by the theory.
//!
//! `cargo xtask worlds --count 1000000` runs more of them; one that ends badly is named, and `SIM_SEED=<its number> cargo test
//! -p proto-core --test encounters` tells it again with every packet.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proto_core::sim::encounter::{Outcome, meet, meet_numbered};

/// How many there are by default.
const COUNT: u64 = 10_000;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
    )
}

#[derive(Default)]
struct Sum {
    direct: u64,
    relayed: u64,
    sent: u64,
    arrived: u64,
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.direct += u64::from(outcome.direct);
        self.relayed += u64::from(!outcome.direct);
        self.sent += u64::from(outcome.sent);
        self.arrived += u64::from(outcome.arrived);
    }
}

/// Runs encounters by their numbers, on as many threads as there are processors.
fn run(first: u64, count: u64) -> Sum {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count {
                return sum;
            }
            match catch_unwind(AssertUnwindSafe(|| meet_numbered(number))) {
                Ok(outcome) => sum.add(outcome),
                Err(_) => panic!("encounter {number} ends badly: SIM_SEED={number} tells it again"),
            }
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = Sum::default();
        for part in all {
            let part = part.join().expect("no encounter ends badly");
            sum.direct += part.direct;
            sum.relayed += part.relayed;
            sum.sent += part.sent;
            sum.arrived += part.arrived;
        }
        sum
    })
}

#[test]
fn thousands_of_encounters_end_as_the_theory_says() {
    if let Some(number) = variable("SIM_SEED") {
        meet_numbered(number);
        return;
    }
    let count = variable("SIM_WORLDS").unwrap_or(COUNT);
    let sum = run(variable("SIM_FIRST").unwrap_or(0), count);
    // Guards the generator: encounters in which nothing happens would prove nothing.
    assert!(
        sum.direct > count / 4 && sum.relayed > count / 10,
        "{} and {}",
        sum.direct,
        sum.relayed
    );
    assert!(
        sum.arrived < sum.sent && sum.arrived > sum.sent / 2,
        "{} of {}",
        sum.arrived,
        sum.sent
    );
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_encounter_ends_as_the_theory_says(bytes in proptest::collection::vec(any::<u8>(), 8..200)) {
        let outcome = meet(&bytes);
        prop_assert_eq!(meet(&bytes), outcome, "the same bytes make the same encounter");
    }
}
