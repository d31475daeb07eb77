//! What is told of a path, and when it is doubted.

use super::*;
use crate::test_origin::origin;

const MOST: usize = 1_452;
const RTT: Duration = Duration::from_millis(20);

fn after(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A path whose first search is over.
fn settled(limit: usize, now: Instant) -> PathSize {
    let mut size = PathSize::new(MOST);
    size.search(MOST, now);
    size.found(limit, true, now);
    size
}

#[test]
fn nothing_smaller_is_told_before_a_search_is_over() {
    let start = origin();
    let mut size = PathSize::new(MOST);
    size.search(MOST, start);
    for (at, limit) in [(0, BASE), (200, 1_326), (400, 1_357)] {
        assert!(!size.found(limit, false, start + after(at)));
        assert_eq!(
            (size.limit(), size.told(), size.is_searching()),
            (limit, MOST, true)
        );
    }
    assert!(!size.found(1_372, true, start + after(500)));
    assert_eq!(
        (size.limit(), size.told(), size.is_searching()),
        (1_372, 1_372, false)
    );
}

#[test]
fn the_largest_size_ends_a_search_at_once() {
    let start = origin();
    let mut size = PathSize::new(MOST);
    size.search(MOST, start);
    size.found(MOST, false, start);
    assert!(!size.is_searching());
}

#[test]
fn a_search_that_takes_long_is_told_as_far_as_it_is_and_then_step_by_step() {
    let start = origin();
    let mut size = PathSize::new(MOST);
    size.search(MOST, start);
    size.found(1_326, false, start + SEARCH);
    assert_eq!((size.told(), size.is_searching()), (1_326, false));
    size.found(1_389, false, start + SEARCH * 2);
    assert_eq!(size.told(), 1_389);
}

#[test]
fn a_peer_that_takes_less_bounds_what_is_hoped_for() {
    let start = origin();
    let mut size = PathSize::new(MOST);
    size.search(1_350, start);
    assert_eq!(size.told(), 1_350);
    size.found(1_352, false, start);
    assert!(!size.is_searching());
}

#[test]
fn a_doubt_changes_what_is_told_only_once_it_is_proven() {
    let start = origin();
    for (limit, told) in [(MOST, MOST), (1_326, 1_326)] {
        let mut size = settled(MOST, start);
        size.search(size.told(), start);
        assert!(
            size.found(BASE, false, start),
            "what waits has to be looked through"
        );
        assert_eq!((size.limit(), size.told()), (BASE, MOST));
        size.found(limit, limit != MOST, start + after(40));
        assert_eq!(
            (size.limit(), size.told(), size.is_searching()),
            (limit, told, false)
        );
    }
}

/// Sends long packets every 10 ms of which every `one_in`th is lost; how many alarms that gives in how long.
fn alarms(one_in: u64, seconds: u64) -> usize {
    let start = origin();
    let mut size = settled(MOST, start);
    let mut alarms = 0;
    let mut lost = 0;
    for tick in 0..seconds * 100 {
        let now = start + after(10 * tick);
        size.on_sent(MOST, || lost, now);
        size.on_sent(100, || lost, now);
        lost += u64::from(tick % one_in == 0);
        if size.is_judgement_due(now) {
            alarms += usize::from(size.is_black_hole(lost, RTT, now));
        }
    }
    alarms
}

#[test]
fn a_black_hole_is_noticed_within_a_second_and_ordinary_loss_is_none() {
    assert_eq!(alarms(1, 1), 1);
    for one_in in [100, 20, 10, 5, 3, 2] {
        assert_eq!(alarms(one_in, 60), 0, "one in {one_in}");
    }
}

#[test]
fn a_path_that_loses_everything_is_asked_ever_less() {
    let alarms = alarms(1, 600);
    assert!((10..20).contains(&alarms), "{alarms}");
}

#[test]
fn few_long_packets_far_apart_are_enough() {
    let start = origin();
    let mut size = settled(MOST, start);
    // A host that repeats one segment: after 200 ms, 400 ms, 800 ms. Each loss is known when the next one leaves.
    for (lost, at) in [0, 200, 600, 1_400].into_iter().enumerate() {
        let now = start + after(at);
        size.on_sent(MOST, || lost as u64, now);
        assert!(!(size.is_judgement_due(now) && size.is_black_hole(lost as u64, RTT, now)) || lost == 3);
    }
    let mut late = settled(MOST, start);
    late.on_sent(MOST, || 0, start);
    late.on_sent(MOST, || 1, start + after(200));
    late.on_sent(MOST, || 2, start + after(600));
    assert!(
        !late.is_black_hole(2, RTT, start + after(610)),
        "the third may yet arrive"
    );
    assert!(late.is_black_hole(3, RTT, start + after(800)));
}

#[test]
fn short_packets_are_not_watched() {
    let start = origin();
    let mut size = settled(MOST, start);
    for at in 0..1_000 {
        size.on_sent(BASE, || 0, start + after(at));
    }
    assert!(!size.is_judgement_due(start + after(10_000)));
    assert!(!size.is_black_hole(1_000, RTT, start + after(10_000)));
}

#[test]
fn losses_are_waited_for_on_a_slow_path() {
    let start = origin();
    let mut size = settled(MOST, start);
    for at in 0..100_u64 {
        size.on_sent(MOST, || at.saturating_sub(30), start + after(at * 10));
    }
    let slow = after(300);
    assert!(
        !size.is_black_hole(0, slow, start + after(1_000)),
        "too early to tell"
    );
    assert!(size.is_black_hole(100, slow, start + after(2_800)));
}

#[test]
fn a_busy_moment_before_does_not_outweigh_what_vanishes_now() {
    let start = origin();
    let mut size = settled(MOST, start);
    for _ in 0..5_000 {
        size.on_sent(MOST, || 0, start);
    }
    for (lost, at) in [(0, 200), (1, 400), (2, 800)] {
        size.on_sent(MOST, || lost, start + after(at));
    }
    assert!(size.is_black_hole(3, RTT, start + after(850)));
}
