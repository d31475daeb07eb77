use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::test_origin::origin;

proptest! {
    /// Against a naive model: the same earliest deadline after every change, and the same order of expiry.
    #[test]
    fn behaves_like_a_sorted_list(changes in proptest::collection::vec((0_u32..20, proptest::option::of(0_u64..50)), 0..200)) {
        let start = origin();
        let mut index = DeadlineIndex::default();
        let mut model = BTreeMap::new();
        for (slot, at) in changes {
            let at = at.map(|millis| start + Duration::from_millis(millis));
            index.set(slot, at);
            model.remove(&slot);
            if let Some(at) = at {
                model.insert(slot, at);
            }
            prop_assert_eq!(index.earliest(), model.values().min().copied());
            prop_assert_eq!(index.of(slot), at);
            prop_assert_eq!(index.len(), model.len());
        }
        let mut last = start;
        while let Some(slot) = index.pop_due(start + Duration::from_millis(50)) {
            let at = model.remove(&slot).unwrap();
            prop_assert!(at >= last);
            last = at;
        }
        prop_assert!(model.is_empty() && index.is_empty());
    }
}

#[test]
fn nothing_is_due_before_its_time() {
    let start = origin();
    let mut index = DeadlineIndex::default();
    index.set(3, Some(start + Duration::from_millis(1)));
    assert_eq!(index.pop_due(start), None);
    assert_eq!(index.pop_due(start + Duration::from_millis(1)), Some(3));
    assert_eq!(index.earliest(), None);
}
