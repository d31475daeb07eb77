use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;

fn certificate(names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params
        .subject_alt_names
        .push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec()
}

fn identity(names: &[&str]) -> Identity {
    Identity::from_certificate(&certificate(names)).unwrap()
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name.as_bytes()).unwrap()
}

#[test]
fn a_name_grants_one_capacity_for_one_service() {
    let peer = identity(&["agent.web-app.ztna"]);
    assert!(peer.names(Capacity::Agent, &service("web-app")));
    assert!(!peer.names(Capacity::Connector, &service("web-app")));
    assert!(!peer.names(Capacity::Agent, &service("web")));
}

#[test]
fn the_service_is_everything_between_the_first_dot_and_the_suffix() {
    let peer = identity(&["connector.db.eu.ztna"]);
    assert!(peer.names(Capacity::Connector, &service("db.eu")));
    assert!(!peer.names(Capacity::Connector, &service("db")));
}

#[test]
fn case_does_not_matter_on_either_side() {
    let peer = identity(&["AGENT.Web-App.ZTNA"]);
    assert!(peer.names(Capacity::Agent, &service("wEB-aPP")));
}

#[test]
fn a_star_is_any_service_in_its_capacity() {
    let peer = identity(&["agent.*.ztna"]);
    assert!(peer.names(Capacity::Agent, &service("anything")));
    assert!(!peer.names(Capacity::Connector, &service("anything")));
}

#[test]
fn other_names_grant_nothing() {
    let names = [
        "agent.ztna",
        "agent..ztna",
        "web-app.ztna",
        "agent.web-app.ztna.example",
        "xagent.web-app.ztna",
    ];
    let peer = identity(&names);
    assert!(!peer.is_named());
    assert!(!peer.names(Capacity::Agent, &service("web-app")));
}

#[test]
fn authority_refuses_anonymous_and_unnamed_peers_unless_told_otherwise() {
    let unnamed = identity(&["host.example"]);
    let strict = SanAuthority::default();
    assert!(!strict.permits(None, Capacity::Agent, &service("a")));
    assert!(!strict.permits(Some(&unnamed), Capacity::Agent, &service("a")));
    let lax = SanAuthority {
        allow_unnamed: true,
        insecure_allow_anonymous: false,
    };
    assert!(lax.permits(Some(&unnamed), Capacity::Agent, &service("a")));
    assert!(!lax.permits(None, Capacity::Agent, &service("a")));
    let other = identity(&["agent.b.ztna"]);
    assert!(!lax.permits(Some(&other), Capacity::Agent, &service("a")));
}

#[test]
fn addresses_are_found_and_junk_is_refused() {
    let der = certificate(&[]);
    assert!(names_address(&der, "192.0.2.1".parse().unwrap()));
    assert!(!names_address(&der, "192.0.2.2".parse().unwrap()));
    assert!(!names_address(&der, "::1".parse().unwrap()));
    assert!(!names_address(b"junk", "192.0.2.1".parse().unwrap()));
    assert!(Identity::from_certificate(b"junk").is_none());
}
