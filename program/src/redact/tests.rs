use std::net::Ipv4Addr;

use super::*;

#[test]
fn addresses_are_shown_at_debug_only() {
    let peer = Redacted(Ipv4Addr::new(192, 0, 2, 7));
    assert_eq!(peer.show(LevelFilter::Debug), "192.0.2.7");
    assert_eq!(peer.show(LevelFilter::Trace), "192.0.2.7");
    for level in [LevelFilter::Off, LevelFilter::Warn, LevelFilter::Info] {
        assert!(!peer.show(level).contains("192"), "{level}");
    }
}

#[test]
fn the_same_address_has_the_same_tag() {
    let plain = Redacted(Ipv4Addr::new(192, 0, 2, 7));
    let mapped = Redacted(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped());
    assert_eq!(plain.show(LevelFilter::Info), mapped.show(LevelFilter::Info));
}
