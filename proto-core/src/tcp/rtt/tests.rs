//! The estimator by the formulas of RFC 6298.

use super::*;

#[test]
fn the_timeout_follows_the_samples() {
    let mut rtt = Rtt::default();
    assert_eq!((rtt.smoothed(), rtt.timeout()), (None, SECOND));
    rtt.sample(100 * MILLISECOND, 0);
    // SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR.
    assert_eq!(
        (rtt.smoothed(), rtt.timeout()),
        (Some(100 * MILLISECOND), 300 * MILLISECOND)
    );
    rtt.sample(180 * MILLISECOND, 1);
    // RTTVAR = 3/4 50 + 1/4 80 = 57.5, SRTT = 7/8 100 + 1/8 180 = 110.
    assert_eq!(
        (rtt.smoothed(), rtt.timeout()),
        (Some(110 * MILLISECOND), 340 * MILLISECOND)
    );
    rtt.back_off();
    rtt.back_off();
    assert_eq!(rtt.timeout(), 4 * 340 * MILLISECOND);
    (0..40).for_each(|_| rtt.back_off());
    assert_eq!(rtt.timeout(), LONGEST);
    rtt.relax();
    assert_eq!(rtt.timeout(), 340 * MILLISECOND);
}

#[test]
fn a_steady_path_still_leaves_a_margin() {
    let mut rtt = Rtt::default();
    (0..100).for_each(|at| rtt.sample(MILLISECOND, at));
    assert_eq!(rtt.timeout(), MILLISECOND + MARGIN);
}

#[test]
fn the_least_round_trip_is_forgotten_after_a_while() {
    let mut rtt = Rtt::default();
    rtt.sample(5, 1);
    rtt.sample(9, MEMORY + 2);
    assert_eq!(rtt.least(), Some(5));
    rtt.sample(9, 2 * MEMORY + 4);
    assert_eq!(rtt.least(), Some(9));
}
