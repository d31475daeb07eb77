use super::*;
use crate::id::ServiceId;
use crate::rng::Seed;

fn directory() -> Directory {
    let service = |id: &str, addresses: &[&str]| AgentService {
        id: ServiceId::parse(id.as_bytes()).unwrap(),
        virtual_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    Directory::new(
        &[
            service("Web-App", &["fd00::1", "10.100.0.1"]),
            service("db", &["fd00::2"]),
            service("odd.ztna", &["10.100.0.3"]),
        ],
        &["10.100.255.1".parse().unwrap()],
        &mut Rng::new(&Seed([1; 32])),
    )
}

fn find(name: &str) -> Option<(u16, String)> {
    let found = directory().find(&Host::Name(name.into()))?;
    Some((found.0.0, found.1.to_string()))
}

#[test]
fn names_are_found_with_and_without_the_zone_whatever_the_case() {
    for name in ["web-app", "WEB-APP", "web-app.ztna", "Web-App.Ztna."] {
        assert_eq!(find(name), Some((0, "10.100.0.1".to_owned())), "{name}");
    }
    for name in ["odd.ztna", "odd.ztna.ztna"] {
        assert_eq!(find(name), Some((2, "10.100.0.3".to_owned())), "{name}");
    }
    for name in [
        "odd",
        "web-app.example.com",
        "example.com",
        "localhost",
        ".ztna",
        "",
        ".",
    ] {
        assert_eq!(find(name), None, "{name}");
    }
}

#[test]
fn an_address_of_a_family_that_we_lack_is_not_chosen() {
    assert_eq!(find("db"), None);
    let address = Host::Address("fd00::2".parse().unwrap());
    let directory = directory();
    assert_eq!(
        directory.find(&address),
        Some((ServiceIndex(1), "fd00::2".parse().unwrap()))
    );
    assert_eq!(directory.local("fd00::2".parse().unwrap()), None);
    assert_eq!(
        directory.find(&Host::Address("10.100.0.9".parse().unwrap())),
        None
    );
}

#[test]
fn internal_addresses_differ_and_are_known_as_such() {
    assert_eq!(internal_address(0).to_string(), "100.127.0.1");
    assert_eq!(internal_address(1023).to_string(), "100.127.4.0");
    assert!((0..1024).map(internal_address).all(is_internal));
    for address in ["100.126.0.1", "10.100.0.1", "fd00::1"] {
        assert!(!is_internal(address.parse().unwrap()), "{address}");
    }
}
