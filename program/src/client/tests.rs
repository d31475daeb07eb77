use super::*;

fn services(list: &[(&str, bool)]) -> Vec<(ServiceId, bool)> {
    let service = |(id, registered): &(&str, bool)| (ServiceId::parse(id.as_bytes()).unwrap(), *registered);
    list.iter().map(service).collect()
}

#[test]
fn health_names_what_is_missing() {
    assert_eq!(
        all_registered(&services(&[("a", true), ("b", true)]), true),
        Ok(())
    );
    assert_eq!(
        all_registered(&services(&[("a", true), ("b", false)]), true),
        Err("not registered: b".to_owned())
    );
    assert_eq!(
        all_registered(&services(&[("a", false)]), false),
        Err("not connected to the intermediate; not registered: a".to_owned())
    );
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let many: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), false)).collect();
    let text = all_registered(&services(&many), true).unwrap_err();
    assert!(text.ends_with("s6, s7 and 2 more"), "{text}");
}

#[test]
fn a_client_binds_what_it_is_told() {
    let socket = bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
    let address = socket.local_addr();
    assert!(address.ip().is_loopback() && address.port() != 0);
    assert!(matches!(
        bind(Some(address.ip()), address.port()),
        Err(BindError::AddressInUse(_))
    ));
    assert_ne!(bind(None, 0).unwrap().local_addr().port(), 0);
}

#[test]
fn a_socket_of_one_family_is_given_its_addresses_only() {
    let all: Vec<SocketAddr> = ["192.0.2.1:1", "[2001:db8::1]:1"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let kept = |local: &str| reachable(all.clone(), local.parse().unwrap());
    assert_eq!(kept("[::]:5"), all);
    assert_eq!(kept("0.0.0.0:5"), all[..1]);
    assert_eq!(kept("127.0.0.1:5"), all[..1]);
    assert_eq!(kept("[2001:db8::2]:5"), all[1..]);
    assert!(reachable(all[..1].to_vec(), "[::1]:5".parse().unwrap()).is_empty());
}
