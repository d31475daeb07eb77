//! What a controller makes of a path, in virtual time: chance losses, queues shallow and deep, paths that change.

use std::time::Duration;

use super::harness::{Application, MILLI, Net, Pairing, SECOND, Shared, Weather, pattern};
use crate::tcp::bbr::Phase;
use crate::tcp::congestion::Congestion;
use crate::tcp::{Algorithm, Config, Connection};

const MEGABIT: u64 = 1_000_000 / 8;

fn path(megabits: u64, round_trip: Duration) -> Weather {
    let rate = megabits * MEGABIT;
    let product = rate as f64 * round_trip.as_secs_f64();
    Weather {
        delay: round_trip / 2,
        rate: Some(rate),
        queue: product as u64,
        ..Weather::default()
    }
}

/// The second end sends so many bytes to the first.
fn sender(algorithm: Algorithm, weather: Weather, len: usize) -> Net {
    let config = Config {
        congestion: algorithm,
        ..Config::default()
    };
    let applications = [
        Application::sends(Vec::new()),
        Application::sends(pattern(len, 3)),
    ];
    let mut net = Net::new(Pairing::Ours, config, weather, applications);
    // Chance losses are those of the data.
    net.links[0].weather.loss = 0;
    net
}

fn connection(net: &mut Net) -> &Connection {
    net.ours(1).connection.as_ref().unwrap()
}

fn phase(net: &mut Net) -> Phase {
    match &connection(net).congestion {
        Congestion::Bbr(bbr) => bbr.phase(),
        Congestion::Cubic(_) => panic!("the other kind"),
    }
}

/// Megabits in a second of the bytes that come to the first end in a time.
fn goodput(net: &mut Net, time: Duration) -> f64 {
    let before = net.ends[0].application().received.len();
    net.pass(time);
    let came = net.ends[0].application().received.len() - before;
    came as f64 * 8.0 / time.as_secs_f64() / 1e6
}

#[test]
fn chance_losses_cost_bbr_little_and_cubic_nearly_everything() {
    use Algorithm::{Bbr, Cubic};
    // Percents of the link's rate, at least with BBR, and at most with CUBIC.
    for (loss, least, most) in [(0, 88, 100), (10, 80, 40), (30, 60, 20), (100, 15, 10)] {
        for round_trip in [20 * MILLI, 50 * MILLI] {
            let run = |algorithm| {
                let weather = Weather {
                    loss,
                    ..path(40, round_trip)
                };
                let mut net = sender(algorithm, weather, 60_000_000);
                goodput(&mut net, 8 * SECOND) / 40.0 * 100.0
            };
            let (bbr, cubic) = (run(Bbr), run(Cubic));
            assert!(bbr >= f64::from(least), "{loss} {round_trip:?} {bbr} %");
            assert!(cubic <= f64::from(most), "{loss} {round_trip:?} {cubic} %");
        }
    }
}

#[test]
fn a_short_transfer_over_a_lossy_path_is_fast_too() {
    let weather = Weather {
        loss: 10,
        seed: 3,
        ..path(60, 20 * MILLI)
    };
    let mut net = sender(Algorithm::Bbr, weather, 2_000_000);
    net.run(SECOND, |net| {
        net.ends[0].application().received.len() == 2_000_000
    });
    net.finish(SECOND);
}

#[test]
fn queues_shallow_and_deep_are_not_overrun() {
    for (share, least) in [(0.1, 0.8), (0.5, 0.85), (1.0, 0.88), (8.0, 0.88)] {
        let weather = path(40, 20 * MILLI);
        let queue = (weather.queue as f64 * share) as u64;
        let mut net = sender(Algorithm::Bbr, Weather { queue, ..weather }, 60_000_000);
        goodput(&mut net, 2 * SECOND);
        let lost = net.links[1].lost;
        let rate = goodput(&mut net, 8 * SECOND) / 40.0;
        assert!(rate >= least, "{share} {rate}");
        let lost = net.links[1].lost - lost;
        let segments = (rate * 8.0 * 40e6 / 8.0 / 1228.0) as u64;
        assert!(lost * 100 <= segments * 3, "{share}: {lost} of {segments}");
        if share > 2.0 {
            // What CUBIC would fill is left empty: 160 ms.
            let round_trip = connection(&mut net).round_trip().unwrap();
            assert!(round_trip < 50 * MILLI, "{round_trip:?}");
        }
    }
}

#[test]
fn two_share_a_bottleneck_and_neither_starves() {
    use Algorithm::{Bbr, Cubic};
    for share in [0.1, 1.0, 8.0] {
        for (first, second, least) in [(Bbr, Bbr, 0.3), (Bbr, Cubic, 0.15), (Cubic, Bbr, 0.15)] {
            let weather = path(40, 20 * MILLI);
            let queue = (weather.queue as f64 * share) as u64;
            let mut net = Shared::new(Weather { queue, ..weather });
            net.begin(first);
            net.pass(3 * SECOND);
            net.begin(second);
            net.pass(8 * SECOND);
            let came = net.pass(12 * SECOND);
            let sum: f64 = came.iter().sum();
            let smallest = came.iter().copied().fold(f64::INFINITY, f64::min);
            let all = format!("{share} {first:?} {second:?} {came:?}");
            assert!(smallest >= least * sum, "{all}");
            assert!(sum * 8.0 >= 0.8 * 40e6 * 12.0, "{all}");
        }
    }
}

#[test]
fn an_owner_with_little_to_send_does_not_make_the_path_look_slow() {
    let mut net = sender(Algorithm::Bbr, path(40, 20 * MILLI), 10_000_000);
    net.ends[1].application_mut().closes = false;
    net.run(20 * SECOND, |net| {
        net.ends[0].application().received.len() == 10_000_000
    });
    // A segment each tenth of a second, for longer than any filter remembers in round trips.
    for _ in 0..100 {
        net.ends[1].application_mut().sent.extend([1; 1000]);
        net.pass(SECOND / 10);
    }
    // Then a rush: the rate is known still.
    net.ends[1].application_mut().sent.extend(pattern(2_000_000, 9));
    let begun = net.now;
    net.run(SECOND, |net| {
        net.ends[0].application().received.len() == 12_100_000
    });
    assert!(net.now - begun < 600 * MILLI, "{:?}", net.now - begun);
    assert_eq!(connection(&mut net).stats().timeouts, 0);
}

#[test]
fn a_path_that_changes_is_followed() {
    let mut net = sender(Algorithm::Bbr, path(40, 20 * MILLI), 200_000_000);
    assert!(goodput(&mut net, 5 * SECOND) > 34.0);
    // Half the rate.
    net.links[1].weather.rate = Some(20 * MEGABIT);
    goodput(&mut net, 3 * SECOND);
    let lost = net.links[1].lost;
    assert!(goodput(&mut net, 4 * SECOND) > 17.0);
    assert!(net.links[1].lost - lost < 200);
    // And back: it is found within some probes.
    net.links[1].weather.rate = Some(40 * MEGABIT);
    goodput(&mut net, 8 * SECOND);
    let rate = goodput(&mut net, 4 * SECOND);
    assert!(rate > 33.0, "{rate}");
    // Three times the round trip: the old one is forgotten.
    for link in &mut net.links {
        link.weather.delay = 30 * MILLI;
    }
    goodput(&mut net, 12 * SECOND);
    let rate = goodput(&mut net, 5 * SECOND);
    assert!(rate > 32.0, "{rate}");
    assert_eq!(connection(&mut net).stats().timeouts, 0);
}

#[test]
fn reordering_costs_bbr_little() {
    let weather = Weather {
        reorder: 50,
        late: 3 * MILLI,
        ..path(40, 20 * MILLI)
    };
    let mut net = sender(Algorithm::Bbr, weather, 60_000_000);
    let rate = goodput(&mut net, 8 * SECOND);
    assert!(rate > 34.0, "{rate}");
}

#[test]
fn a_closed_window_does_not_make_the_path_look_slow() {
    let mut net = sender(Algorithm::Bbr, path(40, 20 * MILLI), 60_000_000);
    assert!(goodput(&mut net, 4 * SECOND) > 34.0);
    net.ends[0].application_mut().appetite = Some((0, SECOND));
    net.pass(20 * SECOND);
    net.ends[0].application_mut().appetite = None;
    net.ends[0].application_mut().next_meal = None;
    net.pass(SECOND);
    let rate = goodput(&mut net, 3 * SECOND);
    assert!(rate > 34.0, "{rate}");
}

#[test]
fn a_least_round_trip_that_is_not_seen_any_more_is_looked_for() {
    let mut net = sender(Algorithm::Bbr, path(20, 20 * MILLI), 60_000_000);
    // As long as the queue empties by itself there is no need to.
    net.pass(12 * SECOND);
    for link in &mut net.links {
        link.weather.delay = 25 * MILLI;
    }
    let mut rests = 0;
    let mut before = Phase::Startup;
    for _ in 0..1500 {
        net.pass(10 * MILLI);
        let now = phase(&mut net);
        rests += u32::from(now == Phase::Rest && before != Phase::Rest);
        before = now;
    }
    assert!((1..=3).contains(&rests), "{rests}");
}

#[test]
fn pacing_never_exceeds_the_rate_by_more_than_a_quantum() {
    // No bottleneck but the sender's own pace shows in the log of the link: the first window aside, no millisecond has more
    // than what the fastest phase may send in it, and a quantum.
    let mut net = sender(Algorithm::Bbr, path(40, 20 * MILLI), 60_000_000);
    goodput(&mut net, 2 * SECOND);
    let mut carried = net.links[1].carried;
    for _ in 0..3000 {
        net.pass(MILLI);
        let now = net.links[1].carried;
        let most = 40 * MEGABIT / 1000 * 130 / 100;
        let quantum = most + 2 * 1280;
        assert!(now - carried <= most + quantum, "{}", now - carried);
        carried = now;
    }
}

#[test]
fn chance_losses_are_never_taken_back() {
    // Nothing is late on this path, so every loss was one.
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        for (loss, seed) in [(10, 0), (10, 1), (30, 0), (30, 1)] {
            let weather = Weather {
                loss,
                seed,
                ..path(40, 20 * MILLI)
            };
            let mut net = sender(algorithm, weather, 60_000_000);
            goodput(&mut net, 4 * SECOND);
            let stats = connection(&mut net).stats();
            assert_eq!(stats.undone, 0, "{algorithm:?} {loss} {seed} {stats:?}");
        }
    }
}
