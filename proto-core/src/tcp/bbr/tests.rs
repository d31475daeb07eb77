//! The bounds and filters, one at a time.

use super::bounds::{Ambient, Round};
use super::model::Model;
use super::*;

const MSS: u64 = 1000;

fn ack(delivered: u64, rate: u64, now: Micros) -> Ack {
    Ack {
        bytes: MSS,
        sample: Sample {
            rate,
            delivered: 10 * MSS,
            lost: 0,
            prior: delivered.saturating_sub(10 * MSS),
            in_flight: 10 * MSS,
            app_limited: false,
        },
        round_trip: Some(10_000),
        smoothed: Some(10_000),
        pipe: 10 * MSS,
        delivered,
        lost: 0,
        limited: true,
        now,
    }
}

#[test]
fn two_cycles_of_the_greatest_rate_are_remembered() {
    let mut model = Model::default();
    model.on_delivered(&ack(1000, 5_000_000, 0), 10 * MSS, true);
    model.advance_bandwidth();
    model.on_delivered(&ack(2000, 3_000_000, 1000), 10 * MSS, true);
    assert_eq!(model.bandwidth(), 5_000_000);
    model.advance_bandwidth();
    assert_eq!(model.bandwidth(), 3_000_000);
    // A cycle in which nothing was measured forgets nothing.
    model.advance_bandwidth();
    model.advance_bandwidth();
    assert_eq!(model.bandwidth(), 3_000_000);
}

#[test]
fn an_owner_with_little_to_send_only_raises_the_rate() {
    let mut model = Model::default();
    model.on_delivered(&ack(1000, 3_000_000, 0), 10 * MSS, true);
    model.advance_bandwidth();
    let mut limited = ack(2000, 1_000_000, 1000);
    limited.sample.app_limited = true;
    model.on_delivered(&limited, 10 * MSS, true);
    model.advance_bandwidth();
    assert_eq!(model.bandwidth(), 3_000_000);
    limited.sample.rate = 4_000_000;
    model.on_delivered(&limited, 10 * MSS, true);
    assert_eq!(model.bandwidth(), 4_000_000);
}

#[test]
fn the_least_round_trip_is_forgotten_after_ten_seconds() {
    let mut model = Model::default();
    model.on_delivered(&ack(1000, 1_000_000, 0), 10 * MSS, true);
    model.on_round_trip(Some(10_000), 0);
    assert!(!model.on_round_trip(Some(30_000), 5 * SECOND));
    assert_eq!(model.product(1_000_000), Some(10_000));
    // Time for a rest; what it shows is believed once the old one is too old.
    assert!(model.on_round_trip(Some(30_000), 5 * SECOND + 1));
    assert_eq!(model.product(1_000_000), Some(10_000));
    model.on_round_trip(Some(30_000), 10 * SECOND + 2);
    assert_eq!(model.product(1_000_000), Some(30_000));
}

#[test]
fn acknowledgements_in_heaps_widen_the_window() {
    let mut model = Model::default();
    for round in 1..20_u64 {
        let mut heap = ack(round * 20 * MSS, 2_000_000, round * 10_000);
        heap.bytes = 20 * MSS;
        model.on_delivered(&heap, 100 * MSS, true);
    }
    assert_eq!(model.extra_acked(), 20 * MSS);
}

#[test]
fn two_percent_of_a_flight_may_be_lost_and_what_the_path_loses_anyway() {
    let mut ambient = Ambient::default();
    assert!(!ambient.is_too_high(20, 1000));
    assert!(ambient.is_too_high(21, 1000));
    for _ in 0..100 {
        ambient.observe(Round {
            delivered: 970,
            lost: 30,
            events: 1,
        });
    }
    assert!(!ambient.is_too_high(75, 1000));
    assert!(ambient.is_too_high(81, 1000));
    // However bad a path seems, a third of a flight lost is too much.
    for _ in 0..100 {
        ambient.observe(Round {
            delivered: 500,
            lost: 500,
            events: 1,
        });
    }
    assert!(ambient.is_too_high(300, 1000));
}

#[test]
fn the_flight_at_the_limit_is_what_had_been_sent_by_then() {
    let ambient = Ambient::default();
    // Of 100 segments the third lost one is the one too many; 2 % are reached between 98 and 100 others.
    let sample = Sample {
        lost: 3 * MSS,
        in_flight: 100 * MSS,
        ..Sample::default()
    };
    let flight = ambient.flight_at_limit(sample, MSS);
    assert!((98 * MSS..=100 * MSS).contains(&flight), "{flight}");
}

#[test]
fn startup_doubles_until_three_rounds_bring_no_more() {
    let mut bbr = Bbr::new(MSS, Some(10_000), 7);
    let (mut delivered, mut now) = (0, 0);
    for (rate, phase) in [
        (1_500_000, Phase::Startup),
        (2_000_000, Phase::Startup),
        (4_000_000, Phase::Startup),
        (4_100_000, Phase::Startup),
        (4_100_000, Phase::Startup),
    ] {
        delivered += 20 * MSS;
        now += 10_000;
        bbr.on_delivered(ack(delivered, rate, now));
        assert_eq!(bbr.phase(), phase, "{rate}");
        assert_eq!(bbr.pace().rate, bbr.model.bandwidth() * 277 * 99 / 10_000);
    }
    bbr.on_delivered(ack(delivered + 20 * MSS, 4_100_000, now + 10_000));
    assert_ne!(bbr.phase(), Phase::Startup);
    assert!(bbr.pace().rate < bbr.model.bandwidth());
}

#[test]
fn a_timeout_leaves_one_segment_until_something_comes() {
    let mut bbr = Bbr::new(MSS, Some(10_000), 7);
    bbr.on_delivered(ack(20 * MSS, 1_000_000, 10_000));
    let before = bbr.window();
    bbr.on_timeout(false);
    bbr.on_timeout(true);
    assert_eq!(bbr.window(), MSS);
    bbr.on_recovered();
    assert_eq!(bbr.window(), before);
}
