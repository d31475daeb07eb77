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
fn a_peer_that_has_gone_does_not_take_back_what_it_sent() {
    // The peer ends last and forgets the connection as soon as its end is acknowledged; what it hears of it then is
    // answered with a reset (RFC 1337).
    let reader = Application {
        appetite: Some((4_000, 30 * MILLI)),
        ..Application::sends(pattern(10_000, 1))
    };
    let writer = Application {
        closes_last: true,
        ..Application::sends(pattern(60_000, 2))
    };
    let config = Config {
        receive_buffer: 25 * 1024,
        ..Config::default()
    };
    // Every packet comes twice, so the peer hears of the connection again after its end.
    let weather = Weather {
        repeat: 1000,
        ..Weather::default()
    };
    let mut net = Net::new(Pairing::SmolCalls, config, weather, [writer, reader]);
    net.finish(60 * SECOND);
}
