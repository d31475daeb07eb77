use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Expiring, Inserted};
use crate::rng::{Rng, Seed};
use crate::test_origin::origin;

const IDLE: Duration = Duration::from_secs(60);

fn map(capacity: usize) -> Expiring<u8, u32> {
    Expiring::new(capacity, &mut Rng::new(&Seed([5; 32])))
}

fn expired(map: &mut Expiring<u8, u32>, now: Instant) -> Vec<(u8, u32)> {
    std::iter::from_fn(|| map.pop_expired(now, IDLE)).collect()
}

#[test]
fn entries_expire_in_the_order_of_use() {
    let start = origin();
    let second = Duration::from_secs(1);
    let mut map = map(10);
    assert_eq!(map.next_expiry(IDLE), None);
    for key in 0..3 {
        assert_eq!(map.insert(key, 10, start + second * key.into()), Inserted::Added);
    }
    *map.touch(&0, start + 3 * second).unwrap() += 1;
    *map.get_mut(&2).unwrap() += 2;
    assert_eq!(map.next_expiry(IDLE), Some(start + second + IDLE));
    assert_eq!(expired(&mut map, start + IDLE), []);
    assert_eq!(expired(&mut map, start + second + IDLE), [(1, 10)]);
    assert_eq!(expired(&mut map, start + 100 * IDLE), [(2, 12), (0, 11)]);
    assert!(map.is_empty());
}

#[test]
fn a_full_map_loses_what_rested_longest() {
    let now = origin();
    let mut map = map(2);
    map.insert(1, 1, now);
    map.insert(2, 2, now);
    map.touch(&1, now);
    assert_eq!(map.insert(2, 3, now), Inserted::Replaced(2), "which renews it");
    assert_eq!(map.insert(3, 3, now), Inserted::Evicted(1, 1));
    assert_eq!(
        (map.len(), map.get(&1), map.get(&2), map.get(&3)),
        (2, None, Some(&3), Some(&3))
    );
    assert_eq!((map.remove(&2), map.remove(&2)), (Some(3), None));
    assert_eq!((map.pop_oldest(), map.pop_oldest()), (Some((3, 3)), None));
}

#[test]
fn a_clock_that_runs_backwards_keeps_the_order() {
    let start = origin() + IDLE;
    let mut map = map(4);
    map.insert(1, 1, start);
    map.insert(2, 2, start - IDLE);
    assert_eq!(expired(&mut map, start), []);
    assert_eq!(expired(&mut map, start + IDLE), [(1, 1), (2, 2)]);
}

#[test]
fn no_capacity_is_one() {
    let mut map = map(0);
    assert_eq!(map.insert(1, 1, origin()), Inserted::Added);
    assert_eq!(map.insert(2, 2, origin()), Inserted::Evicted(1, 1));
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u8, u32),
    Touch(u8),
    Remove(u8),
    PopOldest,
    Pass(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..12u8, any::<u32>()).prop_map(|(key, value)| Op::Insert(key, value)),
        3 => (0..12u8).prop_map(Op::Touch),
        2 => (0..12u8).prop_map(Op::Remove),
        1 => Just(Op::PopOldest),
        2 => (0..90u8).prop_map(Op::Pass),
    ]
}

proptest! {
    /// The model is a list of (key, value, touched), oldest first.
    #[test]
    fn agrees_with_a_flat_list(ops in prop::collection::vec(op(), 0..200), capacity in 1..8usize) {
        let mut map = map(capacity);
        let mut model: Vec<(u8, u32, Instant)> = Vec::new();
        let mut now = origin();
        for op in ops {
            match op {
                Op::Insert(key, value) => {
                    let expected = if let Some(at) = model.iter().position(|entry| entry.0 == key) {
                        Inserted::Replaced(model.remove(at).1)
                    } else if model.len() == capacity {
                        let (key, value, _) = model.remove(0);
                        Inserted::Evicted(key, value)
                    } else {
                        Inserted::Added
                    };
                    model.push((key, value, now));
                    prop_assert_eq!(map.insert(key, value, now), expected);
                }
                Op::Touch(key) => {
                    let at = model.iter().position(|entry| entry.0 == key);
                    let expected = at.map(|at| model.remove(at).1);
                    model.extend(expected.map(|value| (key, value, now)));
                    prop_assert_eq!(map.touch(&key, now).copied(), expected);
                }
                Op::Remove(key) => {
                    let at = model.iter().position(|entry| entry.0 == key);
                    prop_assert_eq!(map.remove(&key), at.map(|at| model.remove(at).1));
                }
                Op::PopOldest => {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(map.pop_oldest(), expected.map(|(key, value, _)| (key, value)));
                }
                Op::Pass(seconds) => now += Duration::from_secs(seconds.into()),
            }
            let due = model.iter().take_while(|entry| now - entry.2 >= IDLE).count();
            let due: Vec<_> = model.drain(..due).map(|(key, value, _)| (key, value)).collect();
            prop_assert_eq!(expired(&mut map, now), due);
            prop_assert_eq!(map.next_expiry(IDLE), model.first().map(|entry| entry.2 + IDLE));
            prop_assert_eq!(map.len(), model.len());
            for key in 0..12 {
                let expected = model.iter().find(|entry| entry.0 == key).map(|entry| &entry.1);
                prop_assert_eq!(map.get(&key), expected);
            }
        }
    }
}
