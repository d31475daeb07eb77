//! Whole transfers: everything comes, in order, once; both ends close; no memory is left.

use super::harness::{Application, MILLI, Net, Pairing, SECOND, Weather, pattern};
use crate::tcp::Config;

const PAIRINGS: [Pairing; 3] = [Pairing::Ours, Pairing::SmolCalls, Pairing::SmolAnswers];

#[test]
fn a_request_is_answered_on_a_clean_path() {
    for pairing in PAIRINGS {
        let applications = [
            Application::sends(pattern(700, 1)),
            Application::sends(pattern(300_000, 2)),
        ];
        let mut net = Net::new(pairing, Config::default(), Weather::default(), applications);
        net.finish(20 * SECOND);
    }
}

#[test]
fn both_ends_send_much_at_once_over_a_bad_path() {
    for pairing in PAIRINGS {
        let weather = Weather {
            loss: 30,
            repeat: 20,
            reorder: 50,
            ..Weather::default()
        };
        let applications = [
            Application::sends(pattern(2_000_000, 1)),
            Application::sends(pattern(2_000_000, 2)),
        ];
        let mut net = Net::new(pairing, Config::default(), weather, applications);
        net.finish(1000 * SECOND);
    }
}

#[test]
fn a_clean_path_is_filled() {
    let weather = Weather {
        delay: 25 * MILLI,
        rate: Some(100_000_000 / 8),
        queue: 400_000,
        ..Weather::default()
    };
    for sides in [[40_000_000, 0], [0, 40_000_000]] {
        let applications = sides.map(|len| Application::sends(pattern(len, 3)));
        let mut net = Net::new(Pairing::Ours, Config::default(), weather, applications);
        net.finish(100 * SECOND);
        eprintln!(
            "{:?} {:?} {:?}",
            net.elapsed(),
            net.ours(0).connection.as_ref().unwrap().stats(),
            net.ours(1).connection.as_ref().unwrap().stats()
        );
    }
}
