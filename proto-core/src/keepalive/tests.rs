use std::time::Duration;

use super::*;
use crate::test_origin::origin;

#[test]
fn a_silent_connection_is_pinged_and_lives_while_answers_come() {
    let mut now = origin();
    let mut keepalive = Keepalive::new(now);
    for received in 0..10 {
        assert_eq!(keepalive.next(), now + KEEPALIVE);
        now = keepalive.next();
        assert_eq!(keepalive.poll(received, now), Some(Action::Ping));
        // The answer raises the count before patience ends.
        assert_eq!(keepalive.poll(received + 1, now + PATIENCE), None);
    }
}

#[test]
fn an_unanswered_packet_ends_it_after_patience() {
    let now = origin();
    let mut keepalive = Keepalive::new(now);
    keepalive.on_sent(|| 5, now + Duration::from_secs(1));
    keepalive.on_sent(
        || unreachable!("only the first is noted"),
        now + Duration::from_secs(3),
    );
    let end = now + Duration::from_secs(1) + PATIENCE;
    // Silence after the last packet asks once more, which changes nothing about the first.
    assert_eq!(keepalive.next(), now + Duration::from_secs(3) + LISTENING);
    assert_eq!(keepalive.poll(5, keepalive.next()), Some(Action::Ping));
    assert_eq!(keepalive.next(), end);
    assert_eq!(keepalive.poll(5, end - Duration::from_millis(1)), None);
    assert_eq!(keepalive.poll(5, end), Some(Action::GiveUp));
}

#[test]
fn traffic_in_both_directions_needs_no_ping() {
    let mut now = origin();
    let mut keepalive = Keepalive::new(now);
    for received in 0..100 {
        now += LISTENING - Duration::from_millis(1);
        assert_eq!(keepalive.poll(received, now), None);
        keepalive.on_sent(|| received, now);
    }
}

#[test]
fn a_wake_after_hours_pings_before_it_gives_up() {
    let now = origin();
    let mut keepalive = Keepalive::new(now);
    let later = now + Duration::from_secs(7200);
    assert_eq!(keepalive.poll(0, later), Some(Action::Ping));
    assert_eq!(keepalive.poll(0, later), None);
}

#[test]
fn a_client_that_only_listens_asks_soon_after_the_last_packet() {
    let start = origin();
    let mut keepalive = Keepalive::new(start);
    let mut now = start;
    for _ in 0..100 {
        now += Duration::from_millis(7);
        keepalive.on_heard(now);
    }
    assert_eq!(
        keepalive.next(),
        start + Duration::from_millis(7) + LISTENING,
        "one question a second, not one a packet"
    );
    assert_eq!(keepalive.poll(100, keepalive.next()), Some(Action::Ping));
    // Nothing more is heard: back to the slow pace.
    let asked = start + Duration::from_millis(7) + LISTENING;
    assert_eq!(keepalive.poll(101, asked + PATIENCE), None);
    assert_eq!(keepalive.next(), asked + KEEPALIVE);
}
