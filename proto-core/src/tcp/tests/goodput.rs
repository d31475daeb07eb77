//! How much a path carries, in virtual time.

use std::time::Duration;

use super::harness::{Application, MILLI, Net, Pairing, SECOND, Weather, pattern};
use crate::tcp::{Config, Stats};

/// How a transfer went.
struct Outcome {
    elapsed: Duration,
    stats: Stats,
    lost: u64,
}

/// Carries `len` bytes from a side, until both ends are closed and everything is checked; the time is that of the bytes.
fn transfer(len: usize, from: usize, weather: Weather) -> Outcome {
    let mut applications = [Application::default(), Application::default()].map(|mut application| {
        application.closes = true;
        application
    });
    applications[from] = Application::sends(pattern(len, 3));
    let mut net = Net::new(Pairing::Ours, Config::default(), weather, applications);
    net.run(1000 * SECOND, |net| {
        net.ends[1 - from].application().received.len() == len
    });
    let elapsed = net.elapsed();
    net.finish(100 * SECOND);
    let stats = net.ours(from).connection.as_ref().unwrap().stats();
    let lost = net.links[from].lost;
    Outcome { elapsed, stats, lost }
}

fn megabits(bytes: usize, elapsed: Duration) -> f64 {
    bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e6
}

#[test]
fn the_window_grows_to_fill_a_long_path() {
    let weather = Weather {
        delay: 25 * MILLI,
        rate: Some(120_000_000 / 8),
        queue: 750_000,
        ..Weather::default()
    };
    for from in 0..2 {
        for holds_back in [false, true] {
            let outcome = transfer(
                60_000_000,
                from,
                Weather {
                    holds_back,
                    ..weather
                },
            );
            let rate = megabits(60_000_000, outcome.elapsed);
            assert!(rate >= 100.0, "{rate} Mbit/s");
            // What the full queue dropped, and nothing else, was repeated; what held back lost nothing.
            let Stats {
                retransmits,
                timeouts,
                ..
            } = outcome.stats;
            assert_eq!((retransmits, timeouts), (outcome.lost, 0));
            assert_eq!(outcome.lost > 0, !holds_back);
        }
    }
}

#[test]
fn a_fast_path_is_filled() {
    let weather = Weather {
        delay: MILLI / 10,
        rate: Some(1_000_000_000 / 8),
        queue: 256_000,
        ..Weather::default()
    };
    let outcome = transfer(60_000_000, 0, weather);
    let rate = megabits(60_000_000, outcome.elapsed);
    assert!(rate >= 900.0, "{rate} Mbit/s");
}

#[test]
fn loss_costs_seconds_not_minutes() {
    for (loss, burst, most) in [(30, 1, 8), (100, 1, 25), (10, 4, 10)] {
        for seed in 0..5 {
            let weather = Weather {
                delay: 10 * MILLI,
                loss,
                burst,
                seed,
                ..Weather::default()
            };
            let outcome = transfer(2_000_000, 1, weather);
            assert!(outcome.elapsed < most * SECOND, "{loss} {:?}", outcome.elapsed);
        }
    }
}

#[test]
fn a_lossy_path_carries_what_theory_says() {
    // At this round trip CUBIC is as aggressive as Reno (RFC 9438 §4.3), whose average window is sqrt(3/2p) segments
    // (Mathis et al.; RFC 5681 without delayed acknowledgements, since bytes are counted).
    let rates = (0..5).map(|seed| {
        let weather = Weather {
            delay: 10 * MILLI,
            loss: 10,
            seed,
            ..Weather::default()
        };
        megabits(10_000_000, transfer(10_000_000, 1, weather).elapsed)
    });
    let rate = rates.sum::<f64>() / 5.0;
    let mss = f64::from(1280 - 20 - 20 - 12);
    let theory = (1.5_f64 / 0.01).sqrt() * mss * 8.0 / 0.020 / 1e6;
    assert!(rate >= 0.9 * theory, "{rate} of {theory} Mbit/s");
}
