//! Rates of delivery by the clock.

use super::*;

#[test]
fn a_heap_of_acknowledgements_is_no_fast_path() {
    let mut delivery = Delivery::default();
    // Ten segments, one each millisecond; all are acknowledged at once ten milliseconds after the last.
    let stamps: Vec<_> = (0..10_u64)
        .map(|at| (1000 * at, delivery.stamp(1000 * at, 1000, 1000 * at)))
        .collect();
    let (at, stamp) = stamps[9];
    let sample = delivery.on_delivered(10_000, (at, stamp), Some(5000), 19_000);
    assert_eq!(sample.rate, 10_000 * 1_000_000 / 19_000);
    assert_eq!((sample.delivered, sample.in_flight), (10_000, 10_000));
}

#[test]
fn what_is_faster_than_a_round_trip_says_nothing() {
    let mut delivery = Delivery::default();
    let stamp = delivery.stamp(0, 1000, 0);
    assert_eq!(delivery.on_delivered(1000, (0, stamp), Some(5000), 4999).rate, 0);
}

#[test]
fn an_owner_with_too_little_to_send_is_known_by_its_samples() {
    let mut delivery = Delivery::default();
    delivery.on_app_limited(0);
    let first = delivery.stamp(0, 1000, 0);
    let second = delivery.stamp(1000, 1000, 0);
    assert!(delivery.is_app_limited());
    assert!(delivery.on_delivered(1000, (0, first), None, 1000).app_limited);
    assert!(delivery.on_delivered(1000, (0, second), None, 1000).app_limited);
    // What was under way then is through: the next shows the path again.
    let third = delivery.stamp(0, 1000, 2000);
    assert!(!delivery.on_delivered(1000, (2000, third), None, 3000).app_limited);
}

#[test]
fn counters_survive_four_gigabytes() {
    let mut delivery = Delivery::default();
    delivery.on_lost(u64::from(u32::MAX));
    let early = delivery.stamp(0, 1000, 0);
    delivery.on_delivered(u64::from(u32::MAX), (0, early), None, 1_000_000);
    let stamp = delivery.stamp(0, 1000, 1_000_000);
    delivery.on_lost(500);
    let sample = delivery.on_delivered(1000, (1_000_000, stamp), None, 1_010_000);
    assert_eq!((sample.delivered, sample.lost, sample.rate), (1000, 500, 100_000));
    assert_eq!(sample.prior, u64::from(u32::MAX));
}
