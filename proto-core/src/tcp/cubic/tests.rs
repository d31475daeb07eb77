//! CUBIC by the formulas of RFC 9438, HyStart++ by the rules of RFC 9406.

use super::*;

const MSS: u64 = 1000;
const SECOND: Micros = 1_000_000;

/// A round trip in which the whole window is delivered.
fn round(cubic: &mut Cubic, sample: Micros, una: &mut u64, now: &mut Micros) {
    let segments = cubic.window() / MSS;
    let next = *una + segments * MSS;
    for _ in 0..segments {
        *una += MSS;
        cubic.on_acked(Acked {
            bytes: MSS,
            sample: Some(sample),
            smoothed: sample,
            una: *una,
            next: next + segments * MSS,
            now: *now,
        });
    }
    *now += sample;
}

#[test]
fn slow_start_doubles_until_the_delay_grows() {
    let mut cubic = Cubic::new(MSS);
    let (mut una, mut now) = (0, 0);
    for window in [10, 20, 40, 80] {
        assert_eq!(cubic.window(), window * MSS);
        round(&mut cubic, 50_000, &mut una, &mut now);
    }
    assert!(cubic.in_slow_start());
    // An eighth more delay: growth is a quarter from then on, and slow start ends some rounds later.
    for _ in 0..12 {
        round(&mut cubic, 58_000, &mut una, &mut now);
    }
    assert!(!cubic.in_slow_start());
    assert!(cubic.window() < 1000 * MSS, "{}", cubic.window());
}

#[test]
fn the_window_is_back_at_its_old_size_after_k() {
    // 1,000 segments: down to 700, and K = cbrt(300 / 0.4) = 9.086 s to come back.
    let mut cubic = Cubic::new(MSS);
    cubic.set_window(1000 * MSS);
    cubic.on_loss(1000 * MSS);
    assert_eq!(cubic.threshold(), 700 * MSS);
    cubic.set_window(700 * MSS);
    let (mut una, mut now) = (0, 0);
    while now < 9 * SECOND {
        round(&mut cubic, 200_000, &mut una, &mut now);
    }
    let window = cubic.window() / MSS;
    assert!((990..=1001).contains(&window), "{window}");
    // A plateau, and then the search for more: C (t - K)^3 above it.
    while now < 14 * SECOND {
        round(&mut cubic, 200_000, &mut una, &mut now);
    }
    let above = cubic.window() / MSS - 1000;
    assert!((40..=70).contains(&above), "{above}");
}

#[test]
fn a_small_window_grows_like_renos() {
    // With a round trip of 10 ms the cubic term is far below what Reno has: 3 (1 - 0.7) / (1 + 0.7) segments a round.
    let mut cubic = Cubic::new(MSS);
    cubic.set_window(20 * MSS);
    cubic.on_loss(20 * MSS);
    cubic.set_window(cubic.threshold());
    let (mut una, mut now) = (0, 0);
    let before = cubic.window();
    (0..8).for_each(|_| round(&mut cubic, 10_000, &mut una, &mut now));
    let grown = cubic.window() - before;
    assert!((3500..=4600).contains(&grown), "{grown}");
}

#[test]
fn a_second_loss_below_the_first_gives_way_to_others() {
    let mut cubic = Cubic::new(MSS);
    cubic.set_window(100 * MSS);
    cubic.on_loss(100 * MSS);
    cubic.set_window(80 * MSS);
    cubic.on_loss(80 * MSS);
    assert!((cubic.w_max - 80.0 * 0.85).abs() < 1e-9, "{}", cubic.w_max);
    assert_eq!(cubic.threshold(), 56 * MSS);
    // A window that was not used says nothing.
    cubic.set_window(1000 * MSS);
    cubic.on_loss(10 * MSS);
    assert_eq!(cubic.threshold(), 7 * MSS);
    cubic.on_timeout(10 * MSS);
    assert_eq!(cubic.window(), MSS);
}

#[test]
fn rest_leaves_the_initial_window() {
    let mut cubic = Cubic::new(MSS);
    cubic.set_window(400 * MSS);
    cubic.threshold = 50 * MSS;
    cubic.on_idle();
    assert_eq!((cubic.window(), cubic.threshold()), (10 * MSS, 300 * MSS));
}
