//! Pacing, by the clock of its timer.

use super::super::rtt::SECOND;
use super::*;

const MSS: u64 = 1000;

/// Sends all that may go at each wake-up, which comes so much late; what was sent by when.
fn run(rate: u64, late: Micros, until: Micros) -> Vec<(Micros, u64)> {
    let (pace, mut pacer) = (Pace::new(rate, MSS), Pacer::default());
    let (mut now, mut sent, mut log) = (0, 0, Vec::new());
    while now < until {
        match pacer.ask(pace, now) {
            Ok(()) => {
                pacer.on_sent(MSS, pace, now);
                sent += MSS;
            }
            Err(at) => {
                assert!(at > now);
                log.push((now, sent));
                now = at + late;
            }
        }
    }
    log
}

#[test]
fn no_interval_has_more_than_the_rate_and_a_quantum() {
    for rate in [50_000, 1_000_000, 20_000_000, 200_000_000] {
        let quantum = Pace::new(rate, MSS).quantum + MSS;
        let log = run(rate, 0, SECOND);
        for (at, sent) in log.iter().skip(1).zip(&log).map(|(a, b)| (a.0 - b.0, a.1 - b.1)) {
            assert!(sent <= rate * at / SECOND + quantum);
            assert!(sent + MSS >= quantum.min(2 * MSS), "the quantum goes at once");
        }
        let total = log.last().unwrap().1;
        assert!(
            total <= rate + quantum && total + 2 * quantum >= rate,
            "{rate} {total}"
        );
    }
}

#[test]
fn timers_that_are_late_cost_no_rate() {
    for late in [500, 1000, 3000] {
        let total = run(100_000_000, late, SECOND).last().unwrap().1;
        assert!((98_000_000..=100_500_000).contains(&total), "{late} {total}");
    }
    // A second late is an owner that stood still: it is not made up for.
    let total = run(100_000_000, SECOND / 10, SECOND).last().unwrap().1;
    assert!(total < 6_000_000, "{total}");
}

#[test]
fn an_owner_that_had_nothing_to_send_makes_up_for_nothing() {
    let (pace, mut pacer) = (Pace::new(1_000_000, MSS), Pacer::default());
    let burst = |pacer: &mut Pacer, now| {
        let mut sent = 0;
        while pacer.ask(pace, now).is_ok() {
            pacer.on_sent(MSS, pace, now);
            sent += MSS;
        }
        sent
    };
    assert_eq!(burst(&mut pacer, 0), 2 * MSS);
    pacer.rest();
    assert_eq!(burst(&mut pacer, SECOND), 2 * MSS);
}
