//! Clock reads of std follow the virtual clock of their own thread, and of no other.

#![cfg(target_os = "linux")]

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use virtual_clock::VirtualClock;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn instants_follow_the_virtual_clock() {
    let clock = VirtualClock::start();
    let start = Instant::now();
    assert_eq!(start.elapsed(), Duration::ZERO, "time stands still");
    clock.advance(Duration::from_nanos(1));
    assert_eq!(start.elapsed(), Duration::from_nanos(1));
    clock.advance(HOUR);
    assert_eq!(start.elapsed(), HOUR + Duration::from_nanos(1));
    assert_eq!(clock.now(), Instant::now());
    assert_eq!(clock.elapsed(), start.elapsed());
    assert!(
        start.checked_sub(24 * HOUR).is_some(),
        "there is room before the start"
    );
}

#[test]
fn the_wall_clock_follows_too() {
    let clock = VirtualClock::start();
    let start = SystemTime::now();
    clock.advance(HOUR);
    assert_eq!(SystemTime::now().duration_since(start).ok(), Some(HOUR));
}

#[test]
fn other_threads_keep_real_time() {
    let clock = VirtualClock::start();
    let virtual_start = Instant::now();
    clock.advance(1000 * HOUR);
    let (before, after) = thread::spawn(|| {
        let own = VirtualClock::start();
        let before = Instant::now();
        own.advance(HOUR);
        (before, Instant::now())
    })
    .join()
    .expect("the thread runs");
    assert_eq!(after - before, HOUR);
    assert_eq!(virtual_start.elapsed(), 1000 * HOUR);
    let real = thread::spawn(SystemTime::now).join().expect("the thread runs");
    assert_ne!(
        real,
        SystemTime::now(),
        "a thread without a virtual clock asks the kernel"
    );
}

#[test]
fn dropping_the_clock_returns_to_real_time() {
    let real = SystemTime::now();
    let clock = VirtualClock::start();
    clock.advance(1_000_000 * HOUR);
    drop(clock);
    let gap = SystemTime::now()
        .duration_since(real)
        .expect("real time moves forward");
    assert!(gap < 1000 * HOUR);
}

#[test]
#[should_panic(expected = "virtual already")]
fn a_second_clock_on_one_thread_is_refused() {
    let _first = VirtualClock::start();
    let _second = VirtualClock::start();
}
