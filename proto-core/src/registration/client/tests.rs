use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{REGISTER_RETRIES, Registrar, RegistrationEvent};
use crate::id::{ServiceId, ServiceIndex};
use crate::test_origin::origin;
use crate::wire::datagram::{NackStatus, Role};

const FIRST: ServiceIndex = ServiceIndex(0);
const SECOND: ServiceIndex = ServiceIndex(1);

fn registrar(names: &[&str]) -> Registrar {
    let services = names
        .iter()
        .map(|name| ServiceId::parse(name.as_bytes()).unwrap())
        .collect();
    Registrar::new(Role::Connector, services)
}

fn sends(registrar: &mut Registrar) -> Vec<ServiceIndex> {
    std::iter::from_fn(|| registrar.poll_send()).collect()
}

fn events(registrar: &mut Registrar) -> Vec<RegistrationEvent> {
    std::iter::from_fn(|| registrar.poll_event()).collect()
}

/// Lets time pass until the next deadline; if something is sent then, says how long that took.
fn until_next_send(registrar: &mut Registrar, now: &mut Instant) -> Option<Duration> {
    let start = *now;
    assert!(
        sends(registrar).is_empty() && events(registrar).is_empty(),
        "drain first"
    );
    *now = registrar.poll_timeout()?;
    registrar.handle_timeout(*now);
    (!sends(registrar).is_empty()).then(|| *now - start)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn nothing_is_asked_before_a_connection() {
    let mut registrar = registrar(&["b", "a"]);
    registrar.handle_registered(b"a", origin());
    registrar.handle_refused(b"a", NackStatus::NotAuthorised, origin());
    assert_eq!(registrar.poll_send(), None);
    assert_eq!(registrar.poll_event(), None);
    assert_eq!(registrar.poll_timeout(), None);
    assert!(!registrar.all_registered());
}

#[test]
fn every_service_is_asked_once_and_answered_by_name() {
    let now = origin();
    let mut registrar = registrar(&["b", "a"]);
    registrar.handle_connected(now);
    assert_eq!(registrar.poll_timeout(), Some(now), "something is queued");
    assert_eq!(sends(&mut registrar), [FIRST, SECOND]);
    assert_eq!(registrar.service(FIRST).unwrap().as_str(), "b");
    registrar.handle_registered(b"a", now);
    assert_eq!(events(&mut registrar), [RegistrationEvent::Registered(SECOND)]);
    assert!(
        registrar.is_registered(SECOND) && !registrar.is_registered(FIRST) && !registrar.all_registered()
    );
    registrar.handle_registered(b"b", now);
    assert!(registrar.all_registered());
    assert_eq!(events(&mut registrar), [RegistrationEvent::Registered(FIRST)]);
    assert_eq!(registrar.poll_timeout(), None);
}

#[test]
fn an_unanswered_registration_is_repeated_three_times_and_then_reported() {
    let mut now = origin();
    let mut registrar = registrar(&["a"]);
    registrar.handle_connected(now);
    assert_eq!(sends(&mut registrar), [FIRST]);
    for _ in 0..REGISTER_RETRIES {
        assert_eq!(until_next_send(&mut registrar, &mut now), Some(seconds(2)));
        assert_eq!(events(&mut registrar), []);
    }
    now = registrar.poll_timeout().unwrap();
    registrar.handle_timeout(now);
    assert_eq!(events(&mut registrar), [RegistrationEvent::Unanswered(FIRST)]);
    assert_eq!((registrar.poll_send(), registrar.poll_timeout()), (None, None));

    // The answer comes after all: the registration holds, so it counts.
    registrar.handle_registered(b"a", now);
    assert!(registrar.all_registered());
}

#[test]
fn a_refusal_for_good_lasts_until_the_next_connection() {
    for status in [NackStatus::InvalidId, NackStatus::NotAuthorised] {
        let now = origin();
        let mut registrar = registrar(&["a"]);
        registrar.handle_connected(now);
        sends(&mut registrar);
        registrar.handle_refused(b"a", status, now);
        assert_eq!(events(&mut registrar), [RegistrationEvent::Denied(FIRST, status)]);
        assert_eq!((registrar.poll_send(), registrar.poll_timeout()), (None, None));
        registrar.handle_registered(b"a", now);
        registrar.handle_refused(b"a", NackStatus::Taken, now);
        assert!(!registrar.is_registered(FIRST));
        assert_eq!((registrar.poll_event(), registrar.poll_timeout()), (None, None));

        registrar.handle_disconnected();
        registrar.handle_connected(now);
        assert_eq!(sends(&mut registrar), [FIRST]);
        registrar.handle_registered(b"a", now);
        assert!(registrar.all_registered());
    }
}

#[test]
fn a_refusal_that_may_pass_is_asked_again_with_growing_waits() {
    for status in [NackStatus::Taken, NackStatus::AtCapacity, NackStatus::Other(9)] {
        let mut now = origin();
        let mut registrar = registrar(&["a"]);
        registrar.handle_connected(now);
        sends(&mut registrar);
        for wait in [2, 4, 8, 16, 30, 30] {
            registrar.handle_refused(b"a", status, now);
            assert_eq!(events(&mut registrar), [RegistrationEvent::Denied(FIRST, status)]);
            // A second answer, to a repetition, neither reports again nor prolongs the wait.
            registrar.handle_refused(b"a", status, now);
            assert_eq!(events(&mut registrar), []);
            assert_eq!(until_next_send(&mut registrar, &mut now), Some(seconds(wait)));
        }
        registrar.handle_registered(b"a", now);
        registrar.handle_refused(b"a", status, now);
        assert!(!registrar.is_registered(FIRST), "taken back");
        assert_eq!(events(&mut registrar).len(), 1);
        assert_eq!(
            until_next_send(&mut registrar, &mut now),
            Some(seconds(2)),
            "success starts the waits over"
        );
    }
}

#[test]
fn repeated_and_late_answers_are_harmless() {
    let mut now = origin();
    let mut registrar = registrar(&["a"]);
    registrar.handle_connected(now);
    registrar.handle_registered(b"a", now);
    assert_eq!(registrar.poll_event(), None, "not even asked yet");
    sends(&mut registrar);
    now += seconds(2);
    registrar.handle_timeout(now);
    // The answer to the first one arrives while the repetition waits to be sent.
    registrar.handle_registered(b"a", now);
    registrar.handle_registered(b"a", now);
    registrar.handle_registered(b"other", now);
    registrar.handle_registered(b"", now);
    assert_eq!(sends(&mut registrar), []);
    assert_eq!(events(&mut registrar), [RegistrationEvent::Registered(FIRST)]);
    assert_eq!(registrar.poll_timeout(), None);
}

#[test]
fn a_lost_connection_loses_everything() {
    let mut now = origin();
    let mut registrar = registrar(&["a", "b"]);
    registrar.handle_connected(now);
    sends(&mut registrar);
    registrar.handle_registered(b"a", now);
    registrar.handle_disconnected();
    assert!(!registrar.is_registered(FIRST) && !registrar.all_registered());
    assert_eq!(
        (
            registrar.poll_send(),
            registrar.poll_event(),
            registrar.poll_timeout()
        ),
        (None, None, None)
    );
    now += seconds(3600);
    registrar.handle_timeout(now);
    registrar.handle_registered(b"b", now);
    assert_eq!((registrar.poll_send(), registrar.poll_event()), (None, None));
}

#[test]
fn hours_in_one_step_and_a_clock_that_runs_backwards() {
    let start = origin() + seconds(100_000);
    let mut registrar = registrar(&["a"]);
    registrar.handle_connected(start);
    sends(&mut registrar);
    registrar.handle_timeout(start - seconds(50_000));
    assert_eq!(sends(&mut registrar), []);
    let later = start + seconds(36_000);
    registrar.handle_timeout(later);
    registrar.handle_timeout(later);
    assert_eq!(sends(&mut registrar), [FIRST], "one repetition, not thousands");
    assert_eq!(registrar.poll_timeout(), Some(later + seconds(2)));
}

#[test]
fn a_service_named_twice_and_a_registrar_without_services() {
    let now = origin();
    let mut twice = registrar(&["a", "a"]);
    twice.handle_connected(now);
    assert_eq!(sends(&mut twice).len(), 2);
    twice.handle_registered(b"a", now);
    assert!(twice.all_registered());

    let mut none = registrar(&[]);
    assert!(!none.all_registered(), "not connected");
    none.handle_connected(now);
    assert!(none.all_registered());
}

#[derive(Clone, Copy, Debug)]
enum Input {
    Connected,
    Disconnected,
    Registered(u8),
    Refused(u8, u8),
    Pass(u16),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => Just(Input::Connected),
        1 => Just(Input::Disconnected),
        4 => (0..5u8).prop_map(Input::Registered),
        4 => (0..5u8, 0..6u8).prop_map(|(service, status)| Input::Refused(service, status)),
        6 => (0..40_000u16).prop_map(Input::Pass),
    ]
}

proptest! {
    /// Whatever comes: deadlines lie in the future after a drain, nothing piles up, and a registration that is neither
    /// held nor given up is asked for again by itself.
    #[test]
    fn the_contract_holds(inputs in prop::collection::vec(input(), 0..200)) {
        let mut registrar = registrar(&["0", "1", "2", "3"]);
        let mut now = origin();
        for input in inputs {
            match input {
                Input::Connected => registrar.handle_connected(now),
                Input::Disconnected => registrar.handle_disconnected(),
                Input::Registered(service) => registrar.handle_registered(service.to_string().as_bytes(), now),
                Input::Refused(service, status) => {
                    registrar.handle_refused(service.to_string().as_bytes(), NackStatus::from_code(status), now);
                }
                Input::Pass(millis) => now += Duration::from_millis(millis.into()),
            }
            registrar.handle_timeout(now);
            prop_assert!(sends(&mut registrar).len() <= 4);
            prop_assert!(events(&mut registrar).len() <= 4);
            prop_assert!(registrar.poll_timeout().is_none_or(|due| due > now));
            let held = (0..4).filter(|index| registrar.is_registered(ServiceIndex(*index))).count();
            prop_assert_eq!(registrar.all_registered(), held == 4);
        }
    }
}

#[test]
fn a_successor_keeps_what_is_registered_and_asks_for_the_rest() {
    let now = origin();
    let mut before = registrar(&["gone", "kept", "unanswered"]);
    before.handle_connected(now);
    sends(&mut before);
    before.handle_registered(b"gone", now);
    before.handle_registered(b"kept", now);
    let mut after = registrar(&["kept", "new", "unanswered"]);
    after.succeed(&before, now);
    assert!(after.is_registered(FIRST) && !after.is_registered(SECOND));
    assert_eq!(events(&mut after), [RegistrationEvent::Registered(FIRST)]);
    assert_eq!(sends(&mut after), [SECOND, ServiceIndex(2)]);
    // An answer to its predecessor comes late and is good for both.
    after.handle_registered(b"unanswered", now);
    after.handle_registered(b"new", now);
    assert!(after.all_registered());

    // Nothing is held without a connection.
    before.handle_disconnected();
    let mut after = registrar(&["kept"]);
    after.succeed(&before, now);
    assert!(!after.is_registered(FIRST) && sends(&mut after).is_empty());
    after.handle_connected(now);
    assert_eq!(sends(&mut after), [FIRST]);
}

#[test]
fn a_successor_renews_when_its_predecessor_would_have() {
    let now = origin();
    let mut before = registrar(&["kept"]);
    before.handle_connected(now);
    sends(&mut before);
    before.handle_leased(b"kept", Some(seconds(120)), now);
    let mut after = registrar(&["kept", "new"]);
    after.succeed(&before, now + seconds(10));
    events(&mut after);
    assert_eq!(sends(&mut after), [SECOND], "what is held is not asked for");
    after.handle_leased(b"new", Some(seconds(120)), now + seconds(10));
    events(&mut after);
    assert_eq!(after.poll_timeout(), Some(now + seconds(60)));
    after.handle_timeout(now + seconds(60));
    assert_eq!(sends(&mut after), [FIRST]);
}
