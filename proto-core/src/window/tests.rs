use proptest::prelude::*;

use super::{Freshness, Once, SequenceWindow};

#[test]
fn a_window_knows_what_it_saw() {
    let mut window = SequenceWindow::default();
    assert_eq!(window.note(5), Freshness::Fresh);
    assert_eq!(window.note(5), Freshness::Seen);
    assert_eq!(window.note(4), Freshness::Fresh);
    assert_eq!(window.note(5 + 1023), Freshness::Fresh);
    assert_eq!(window.note(5), Freshness::Seen);
    assert_eq!(window.note(4), Freshness::TooOld);
    assert_eq!(window.note(6), Freshness::Fresh);
    assert_eq!(window.note(u64::MAX - 1), Freshness::Fresh);
    assert_eq!(window.note(u64::MAX - 1), Freshness::Seen);
    assert_eq!(
        window.note(u64::MAX),
        Freshness::TooOld,
        "nothing could follow it"
    );
    assert_eq!(window.note(6), Freshness::TooOld);
}

#[test]
fn what_travels_twice_is_taken_once_beyond_the_end_of_the_counter() {
    for start in [0, u32::MAX - 600] {
        let mut once = Once::default();
        for step in 0..2000_u32 {
            let number = start.wrapping_add(step);
            assert!(once.take(number), "{number}");
            assert!(!once.take(number), "{number} again");
            if step >= 5 {
                assert!(!once.take(number.wrapping_sub(5)), "an old one before {number}");
            }
        }
    }
}

#[test]
fn a_packet_that_is_too_late_to_tell_is_not_taken() {
    let mut once = Once::default();
    assert!(once.take(10_000));
    assert!(!once.take(10_000 - 1024));
    assert!(once.take(10_000 - 1023));
}

proptest! {
    /// The window against a set of everything.
    #[test]
    fn a_window_agrees_with_a_set(numbers in prop::collection::vec(0u64..4000, 1..400)) {
        let mut window = SequenceWindow::default();
        let mut seen = std::collections::BTreeSet::new();
        for number in numbers {
            let highest = seen.last().copied().unwrap_or(0);
            let expected = if number + 1024 <= highest {
                Freshness::TooOld
            } else if seen.contains(&number) {
                Freshness::Seen
            } else {
                Freshness::Fresh
            };
            prop_assert_eq!(window.note(number), expected);
            seen.insert(number);
        }
    }
}
