//! Transfers over generated networks: bytes out equal bytes in, in order and once, both ends close, no memory is left.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::{Application, Net, Pairing, SECOND, Weather, flow, pattern};
use crate::tcp::{Algorithm, Config};

fn weather() -> impl Strategy<Value = Weather> {
    let rates = prop_oneof![Just(None), (100_000_u64..20_000_000).prop_map(Some)];
    (
        (0_u64..60, rates, 5_000_u64..200_000, any::<bool>()),
        (
            0_u64..100,
            1_u64..4,
            0_u64..50,
            0_u64..100,
            0_u64..30,
            any::<u8>(),
        ),
    )
        .prop_map(
            |((delay, rate, queue, holds_back), (loss, burst, repeat, reorder, late, seed))| Weather {
                delay: Duration::from_millis(delay),
                rate,
                queue,
                holds_back,
                loss: loss / burst,
                repeat,
                reorder,
                late: Duration::from_millis(late),
                burst,
                seed,
            },
        )
}

fn application() -> impl Strategy<Value = Application> {
    let appetite = prop_oneof![
        3 => Just(None),
        1 => (1_000_usize..50_000, 1_u64..50).prop_map(|(bytes, each)| Some((bytes, Duration::from_millis(each)))),
    ];
    (0_usize..200_000, any::<u64>(), any::<bool>(), appetite).prop_map(
        |(len, seed, closes_last, appetite)| Application {
            closes_last,
            appetite,
            ..Application::sends(pattern(len, seed))
        },
    )
}

fn config() -> impl Strategy<Value = Config> {
    let congestion = prop_oneof![Just(Algorithm::Cubic), Just(Algorithm::Bbr)];
    (8_usize..1000, 8_usize..1000, congestion).prop_map(|(send, receive, congestion)| Config {
        send_buffer: send * 1024,
        receive_buffer: receive * 1024,
        keep_alive: Some(Duration::from_secs(45)),
        congestion,
    })
}

fn pairing() -> impl Strategy<Value = Pairing> {
    prop_oneof![
        3 => Just(Pairing::Ours),
        1 => Just(Pairing::SmolCalls),
        1 => Just(Pairing::SmolAnswers),
    ]
}

/// The MTU changes after so many milliseconds.
fn narrowing() -> impl Strategy<Value = Vec<(u64, usize)>> {
    proptest::collection::vec((1_u64..500, 600_usize..1280), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn bytes_out_are_bytes_in(
        (pairing, config, weather) in (pairing(), config(), weather()),
        (mut first, mut second) in (application(), application()),
        (narrowing, v6) in (narrowing(), any::<bool>()),
    ) {
        // One has to end first.
        second.closes_last &= !first.closes_last;
        if pairing != Pairing::Ours {
            // smoltcp repeats after a second and more, one segment at a time.
            first.sent.truncate(50_000);
            second.sent.truncate(50_000);
        }
        let mut net = Net::with(pairing, config, weather, [first, second], flow(v6));
        for (after, mtu) in narrowing {
            net.pass(Duration::from_millis(after));
            net.mtu = mtu;
            net.links.iter_mut().for_each(|link| link.largest = 0);
        }
        net.finish(4000 * SECOND);
    }

    #[test]
    fn a_reset_ends_both_at_any_time(
        (config, weather) in (config(), weather()),
        (first, second) in (application(), application()),
        (after, side) in (0_u64..1000, 0_usize..2),
    ) {
        let mut net = Net::new(Pairing::Ours, config, weather, [first, second]);
        net.pass(Duration::from_millis(after));
        net.abort(side);
        // The reset may be lost: what the other repeats then is of no connection.
        for _ in 0..3 {
            net.pass(SECOND);
            net.abort(0);
            net.abort(1);
        }
        net.assert_nothing_left();
    }
}
