//! Which address of this host a reload adds, and which change it cannot follow.

use std::net::IpAddr;

use super::{has_moved, new_families};

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_family_that_was_missing_is_added_and_another_address_needs_a_restart() {
    let four = addresses(&["10.0.0.1"]);
    let both = addresses(&["10.0.0.1", "fd00::1"]);
    let other = addresses(&["fd00::2", "10.0.0.1"]);
    assert_eq!(new_families(&four, &both), addresses(&["fd00::1"]));
    assert!(!has_moved(&four, &both));
    // The last IPv6 service has gone: the address stays, and does no harm.
    assert!(new_families(&both, &four).is_empty() && !has_moved(&both, &four));
    assert!(new_families(&both, &other).is_empty() && has_moved(&both, &other));
}
