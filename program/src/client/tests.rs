use super::*;

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
