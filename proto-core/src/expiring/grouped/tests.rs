use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rng::{Rng, Seed};
use crate::test_origin::origin;

fn table(capacity: usize, per_group: usize) -> Grouped<u8, u16, ()> {
    Grouped::new(capacity, per_group, &mut Rng::new(&Seed([7; 32])))
}

#[test]
fn a_group_at_its_bound_gives_up_its_own_entry_that_rested_longest() {
    let now = origin();
    let mut table = table(10, 2);
    for (group, key) in [(1, 10), (2, 20), (1, 11)] {
        assert_eq!(table.make_room(group), None);
        table.insert(group, key, (), now);
    }
    assert!(table.touch(&10, now).is_some());
    assert_eq!(table.make_room(1), Some((11, ())));
    assert_eq!(table.make_room(2), None);
}

#[test]
fn the_largest_group_gives_way_to_a_small_one() {
    let now = origin();
    let mut table = table(5, 4);
    for (group, key) in [(2, 20), (1, 10), (1, 11), (1, 12), (1, 13)] {
        assert_eq!(table.make_room(group), None);
        table.insert(group, key, (), now);
    }
    assert_eq!(table.make_room(3), Some((10, ())), "not 20, which rested longer");
    table.insert(3, 30, (), now);
    assert_eq!(table.make_room(2), Some((11, ())));
}

#[derive(Clone, Debug)]
enum Step {
    Open(u8, u16),
    Touch(u16),
    Remove(u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, 0..40_u16).prop_map(|(group, key)| Step::Open(group, key)),
        2 => (0..40_u16).prop_map(Step::Touch),
        1 => (0..40_u16).prop_map(Step::Remove),
        1 => (0..20_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Against a model that searches: bounds hold, the right one leaves, and nothing is left in the end.
    #[test]
    fn it_behaves_as_its_model(steps in proptest::collection::vec(step(), 0..200)) {
        const IDLE: Duration = Duration::from_secs(30);
        let (capacity, per_group) = (8, 5);
        let mut table = table(capacity, per_group);
        let mut now = origin();
        // Key to group, time and order of the last use.
        let mut model: BTreeMap<u16, (u8, Instant, u64)> = BTreeMap::new();
        let mut order = 0_u64;
        for step in steps {
            order += 1;
            match step {
                Step::Open(group, key) if !model.contains_key(&key) => {
                    let size = |group: u8| model.values().filter(|entry| entry.0 == group).count();
                    let loser = if size(group) >= per_group {
                        Some(group)
                    } else if model.len() >= capacity {
                        (0..4).max_by_key(|group| (size(*group), *group))
                    } else {
                        None
                    };
                    let oldest = loser.and_then(|loser| {
                        let of_loser = model.iter().filter(|(_, entry)| entry.0 == loser);
                        of_loser.min_by_key(|(_, entry)| entry.2).map(|(key, _)| *key)
                    });
                    prop_assert_eq!(table.make_room(group).map(|(key, ())| key), oldest);
                    if let Some(oldest) = oldest {
                        model.remove(&oldest);
                    }
                    table.insert(group, key, (), now);
                    model.insert(key, (group, now, order));
                }
                Step::Open(_, key) | Step::Touch(key) => {
                    let known = model.get_mut(&key);
                    prop_assert_eq!(table.touch(&key, now).is_some(), known.is_some());
                    if let Some(entry) = known {
                        (entry.1, entry.2) = (now, order);
                    }
                }
                Step::Remove(key) => {
                    prop_assert_eq!(table.remove(&key).is_some(), model.remove(&key).is_some());
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    while let Some((key, ())) = table.pop_expired(now, IDLE) {
                        prop_assert!(model.remove(&key).is_some());
                    }
                    prop_assert!(model.values().all(|entry| now - entry.1 < IDLE));
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        while table.pop_expired(now + IDLE, IDLE).is_some() {}
        prop_assert_eq!(
            (table.len(), table.members.len(), table.groups.len(), table.by_size.len()),
            (0, 0, 0, 0)
        );
    }
}
