use proptest::prelude::*;

use super::*;

/// Feeds bytes as a socket would, in pieces of at most `piece`; returns what was said, and the last step.
fn negotiate(mut bytes: &[u8], piece: usize) -> (Vec<u8>, Step, usize) {
    let mut negotiation = Negotiation::default();
    let mut said = Vec::new();
    let mut taken = 0;
    loop {
        let count = negotiation.wants().min(bytes.len()).min(piece);
        if count == 0 {
            return (said, Step::More, taken);
        }
        let (now, rest) = bytes.split_at(count);
        bytes = rest;
        taken += count;
        match negotiation.feed(now) {
            Step::More => {}
            Step::Say(words) => said.extend_from_slice(words),
            last @ (Step::Asked(_) | Step::Refuse(_) | Step::Alien) => {
                assert_eq!(negotiation.wants(), 0);
                return (said, last, taken);
            }
        }
    }
}

fn named(name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

fn connect(host: Host, port: u16) -> Step {
    Step::Asked(Request::Connect(host, port))
}

#[test]
fn a_name_and_both_kinds_of_address_are_read_byte_by_byte_or_at_once() {
    let v6: Ipv6Addr = "fd7a:746e:6100::1:1".parse().unwrap();
    let mut sixth = vec![5, 2, 2, 0, 5, 1, 0, 4];
    sixth.extend_from_slice(&v6.octets());
    sixth.extend_from_slice(&[0, 22]);
    for piece in [1, 3, 1000] {
        assert_eq!(
            negotiate(&named("web-app.ztna", 8080), piece),
            (
                vec![5, 0],
                connect(Host::Name("web-app.ztna".into()), 8080),
                3 + 7 + 12
            )
        );
        assert_eq!(
            negotiate(&[5, 1, 0, 5, 1, 0, 1, 10, 100, 0, 1, 0x1f, 0x90], piece).1,
            connect(Host::Address("10.100.0.1".parse().unwrap()), 8080)
        );
        assert_eq!(negotiate(&sixth, piece).1, connect(Host::Address(v6.into()), 22));
    }
}

#[test]
fn bytes_behind_the_request_are_left_for_the_connection() {
    let mut bytes = named("db", 5432);
    let request = bytes.len();
    bytes.extend_from_slice(b"startup packet");
    let (_, step, taken) = negotiate(&bytes, 1000);
    assert_eq!(step, connect(Host::Name("db".into()), 5432));
    assert_eq!(taken, request);
}

#[test]
fn addresses_written_as_names_are_addresses() {
    for (name, address) in [
        ("10.0.0.1", "10.0.0.1"),
        ("[fd00::1]", "fd00::1"),
        ("fd00::1", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(
            negotiate(&named(name, 1), 9).1,
            connect(Host::Address(address.parse().unwrap()), 1),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_offered_is_refused_by_its_number() {
    // Only user name and password.
    assert_eq!(negotiate(&[5, 1, 2], 9).1, Step::Refuse(vec![5, 0xff]));
    // No method at all.
    assert_eq!(negotiate(&[5, 0], 9).1, Step::Refuse(vec![5, 0xff]));
    let refused = |code| Step::Refuse(vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    // BIND, an unknown command, an unknown kind of address, an empty name, a name that is no text.
    assert_eq!(negotiate(&[5, 1, 0, 5, 2, 0, 1], 9).1, refused(7));
    assert_eq!(negotiate(&[5, 1, 0, 5, 9, 0, 1], 9).1, refused(7));
    assert_eq!(negotiate(&[5, 1, 0, 5, 1, 0, 2], 9).1, refused(8));
    assert_eq!(negotiate(&[5, 1, 0, 5, 1, 0, 3, 0, 0, 80], 9).1, refused(1));
    assert_eq!(negotiate(&[5, 1, 0, 5, 1, 0, 3, 1, 0xff, 0, 80], 9).1, refused(1));
    assert_eq!(
        negotiate(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0], 9).1,
        Step::Asked(Request::Associate)
    );
}

#[test]
fn other_protocols_are_noticed_at_their_first_byte() {
    for piece in [1, 9] {
        assert_eq!(negotiate(b"GET / HTTP/1.1", piece), (vec![], Step::Alien, 1));
    }
    // SOCKS 4.
    assert_eq!(negotiate(&[4, 1, 0, 80], 1).1, Step::Alien);
    assert_eq!(negotiate(&[5, 1, 0, 4], 1).1, Step::Alien);
}

#[test]
fn datagrams_carry_their_destination() {
    let source: SocketAddr = "10.100.0.1:53".parse().unwrap();
    let mut bytes = datagram_header(source);
    bytes.extend_from_slice(b"answer");
    assert_eq!(
        split_datagram(&bytes),
        Some((Host::Address(source.ip()), 53, b"answer".as_slice()))
    );
    // A fragment, a cut header.
    bytes[2] = 1;
    assert_eq!(split_datagram(&bytes), None);
    assert_eq!(split_datagram(&[0, 0, 0, 1, 10, 0]), None);
    assert_eq!(split_datagram(&[]), None);
}

proptest! {
    #[test]
    fn any_bytes_come_to_the_same_end_however_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), begun in any::<bool>(), piece in 1_usize..300,
    ) {
        let mut bytes = bytes;
        if begun {
            bytes.splice(..0, [5, 1, 0, 5, 1, 0, 3]);
        }
        let whole = negotiate(&bytes, usize::MAX);
        prop_assert!(whole.2 <= 2 + 255 + LONGEST);
        prop_assert_eq!(negotiate(&bytes, piece), whole);
        let _ = split_datagram(&bytes);
    }
}
