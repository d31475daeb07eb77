//! Which addresses a host tells its peers.

use std::net::IpAddr;

use crate::punch::{Family, Interface, candidate_priority, host_candidates};
use crate::wire::control::CandidateKind;

fn interfaces(list: &[(&str, &str)]) -> Vec<Interface> {
    let interface = |(name, address): &(&str, &str)| Interface {
        name: (*name).to_owned(),
        address: address.parse().unwrap(),
    };
    list.iter().map(interface).collect()
}

fn addresses(list: &[(&str, &str)], skip: impl Fn(IpAddr) -> bool) -> Vec<String> {
    let candidates = host_candidates(&interfaces(list), 50_000, skip);
    let priorities: Vec<u32> = candidates.iter().map(|candidate| candidate.priority).collect();
    let mut distinct = priorities.clone();
    distinct.dedup();
    assert_eq!(distinct, priorities, "each has a priority of its own");
    candidates
        .iter()
        .map(|candidate| candidate.address.to_string())
        .collect()
}

#[test]
fn real_interfaces_come_first_and_bridges_do_not_crowd_them_out() {
    let list = [
        ("lo", "127.0.0.1"),
        ("docker0", "172.17.0.1"),
        ("br-1a2b", "172.18.0.1"),
        ("br-3c4d", "172.19.0.1"),
        ("veth12", "169.254.7.7"),
        ("eth0", "192.168.1.100"),
        ("eth0", "2001:db8::7"),
        ("eth0", "fe80::1"),
        ("ztna0", "100.64.0.1"),
        ("wlan0", "10.0.0.4"),
    ];
    let tunnel: IpAddr = "100.64.0.1".parse().unwrap();
    assert_eq!(
        addresses(&list, |address| address == tunnel),
        [
            "192.168.1.100:50000",
            "[2001:db8::7]:50000",
            "10.0.0.4:50000",
            "172.17.0.1:50000",
            "172.18.0.1:50000",
        ]
    );
}

#[test]
fn a_host_with_many_addresses_tells_a_few() {
    let names: Vec<String> = (1..100).map(|last| format!("10.1.0.{last}")).collect();
    let list: Vec<(&str, &str)> = names.iter().map(|address| ("eth0", address.as_str())).collect();
    assert_eq!(addresses(&list, |_| false).len(), 8);
    assert_eq!(
        addresses(&[("eth0", "10.1.0.1"), ("eth1", "10.1.0.1")], |_| false).len(),
        1
    );
}

/// The figures of RFC 8445 §5.1.2.2: the type decides first, then the family and the rank.
#[test]
fn priorities_order_kinds_before_families() {
    let of = candidate_priority;
    assert!(of(CandidateKind::Host, Family::V4, 9) > of(CandidateKind::PeerReflexive, Family::V6, 0));
    assert!(
        of(CandidateKind::PeerReflexive, Family::V4, 9) > of(CandidateKind::ServerReflexive, Family::V6, 0)
    );
    assert!(of(CandidateKind::ServerReflexive, Family::V4, 9) > of(CandidateKind::Relay, Family::V6, 0));
    assert!(of(CandidateKind::Host, Family::V6, 9) > of(CandidateKind::Host, Family::V4, 0));
    assert!(of(CandidateKind::Host, Family::V4, 0) > of(CandidateKind::Host, Family::V4, 1));
    assert_eq!(
        of(CandidateKind::Host, Family::V6, 0),
        (126 << 24) | (0xFFFF << 8) | 255
    );
}
