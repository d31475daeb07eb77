//! Whole transfers: everything comes, in order, once; both ends close; no memory is left.

use super::harness::{Application, Net, Pairing, SECOND, Weather, pattern};
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
