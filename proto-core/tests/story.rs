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

/// Real quiche in virtual time: fewer stories, and nobody can tell one twice, because quiche draws its own entropy.
#[cfg(target_os = "linux")]
mod quiche {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;
    use proto_core::quic::quiche::{QuicheConfig, QuicheProvider};
    use proto_core::quic::testing::TestPki;
    use proto_core::rng::Rng;
    use proto_core::sim::cast::Casting;
    use proto_core::sim::{Clock, story};
    use virtual_clock::VirtualClock;

    #[derive(Default)]
    struct Real {
        pki: TestPki,
        /// One identity for each set of names.
        known: BTreeMap<Vec<String>, QuicheConfig>,
    }

    impl Casting for Real {
        type Provider = QuicheProvider;
        type Clock = ThreadClock;

        // After a move that fails at first and succeeds in the end, quiche 0.30 has two active paths and adds up their
        // windows, of which a probing one counts as endless: harmless, but an overflow where those are checked.
        const MOVES: bool = false;

        fn clock(&mut self) -> ThreadClock {
            ThreadClock(VirtualClock::start())
        }

        fn provider(&mut self, server: bool, names: &[&str], protocols: &[&[u8]], _: Rng) -> QuicheProvider {
            let key = names.iter().map(|name| (*name).to_owned()).collect();
            let config = self
                .known
                .entry(key)
                .or_insert_with(|| self.pki.config(server, names));
            config.alpn = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            QuicheProvider::new(config).expect("a usable configuration")
        }
    }

    /// The virtual time of the test's thread, which is also the one that quiche reads.
    struct ThreadClock(VirtualClock);

    impl Clock for ThreadClock {
        fn now(&self) -> Instant {
            self.0.now()
        }

        fn advance_to(&mut self, at: Instant) {
            self.0.advance(at.saturating_duration_since(self.0.now()));
        }
    }

    /// A handshake on a path so bad that its probes meet a full congestion window.
    const FULL_WINDOW: &[u8] = &[
        237, 3, 180, 95, 61, 190, 146, 113, 165, 188, 237, 251, 159, 106, 95, 140, 248, 69, 180, 120, 106,
        10, 103, 192, 54, 154, 254, 69, 168, 2, 102, 109, 52, 162, 88, 171, 220, 48, 52, 31, 207, 185, 174,
        23, 4, 126, 137, 221, 150, 39, 233, 98, 93, 30, 150, 207, 158, 27, 252, 228, 105, 157, 94, 251, 174,
        16, 85, 32, 171, 102, 35, 6, 116, 241, 228, 157, 125, 94, 154, 210, 51, 138, 129, 243, 16, 127, 179,
        157, 204, 189, 91, 227, 207, 10, 241, 198, 167, 167, 117, 164, 171, 26, 35, 185, 25, 244, 212, 139,
        122, 176,
    ];

    #[test]
    fn a_full_window_brings_no_packets_without_end() {
        for _ in 0..5 {
            story::tell_with(Real::default(), FULL_WINDOW);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 100, ..ProptestConfig::default() })]

        #[test]
        fn every_story_ends_well(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            story::tell_with(Real::default(), &bytes);
        }
    }
}
