use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::unhex;
use crate::id::ServiceId;
use crate::wire::datagram::{
    FromClient, FromIntermediate, NackStatus, Role, in_session_prefix, introduction, parse_from_client,
    parse_from_intermediate, routed_prefix, write_observed, write_refused, write_register, write_registered,
};
use crate::wire::{Malformed, observed};

fn echo() -> ServiceId {
    ServiceId::parse(b"echo").unwrap()
}

#[test]
fn golden_registrations() {
    for (role, bytes, introduce) in [
        (Role::Agent, "10 04 6563686f", false),
        (Role::Connector, "11 04 6563686f 01", true),
    ] {
        let bytes = unhex(bytes);
        assert_eq!(write_register(role, &echo()), bytes);
        assert_eq!(
            parse_from_client(&bytes),
            Ok(FromClient::Register {
                role,
                service: b"echo",
                introduce
            })
        );
    }
    // A connector of v1 asks for nothing, nor does any other byte behind it.
    for bytes in ["11 04 6563686f", "11 04 6563686f 00", "11 04 6563686f 02 01"] {
        let bytes = unhex(bytes);
        let parsed = parse_from_client(&bytes);
        assert!(
            matches!(parsed, Ok(FromClient::Register { introduce: false, .. })),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn golden_introduction() {
    let fingerprint: [u8; 32] = std::array::from_fn(|index| index as u8);
    let head = unhex("14 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 05 616c696365");
    assert_eq!(introduction(&fingerprint, "alice").as_ref(), &head[..]);
    let whole = [&head[..], &[0x45, 0, 0, 20]].concat();
    assert_eq!(
        parse_from_intermediate(&whole),
        Ok(FromIntermediate::Introduced {
            fingerprint: &fingerprint,
            name: b"alice",
            packet_at: head.len(),
        })
    );
    for len in 0..=head.len() {
        assert!(parse_from_intermediate(&whole[..len]).is_err(), "{len}");
    }
    // Control inside would be forged control outside.
    let forged = [&head[..], &[0x12, 0, 0]].concat();
    assert_eq!(parse_from_intermediate(&forged), Err(Malformed::NotAnIpPacket));
    // A name too long for its length is cut between characters: 127 of two bytes.
    let long = introduction(&fingerprint, &"ä".repeat(200));
    assert_eq!((long.len(), long[33]), (34 + 254, 254));
    assert!(std::str::from_utf8(&long[34..]).is_ok());
    // An agent never sends one.
    assert_eq!(parse_from_client(&whole), Err(Malformed::UnknownType(0x14)));
}

#[test]
fn a_registration_may_be_empty_and_may_be_followed_by_anything() {
    let empty = FromClient::Register {
        role: Role::Agent,
        service: b"",
        introduce: false,
    };
    assert_eq!(parse_from_client(&[0x10, 0]), Ok(empty));
    let trailing = unhex("11 04 6563686f ffff");
    assert_eq!(
        parse_from_client(&trailing),
        Ok(FromClient::Register {
            role: Role::Connector,
            service: b"echo",
            introduce: false
        })
    );
}

#[test]
fn golden_answers() {
    let accepted = unhex("12 00 04 6563686f");
    assert_eq!(write_registered(b"echo"), accepted);
    assert_eq!(
        parse_from_intermediate(&accepted),
        Ok(FromIntermediate::Registered { service: b"echo" })
    );
    for (status, bytes) in [
        (NackStatus::InvalidId, "13 01 00"),
        (NackStatus::NotAuthorised, "13 02 04 6563686f"),
        (NackStatus::Taken, "13 03 04 6563686f"),
        (NackStatus::AtCapacity, "13 04 04 6563686f"),
        (NackStatus::Other(0x7F), "13 7f 04 6563686f"),
        (NackStatus::Other(0), "13 00 04 6563686f"),
    ] {
        let bytes = unhex(bytes);
        let service: &[u8] = if status == NackStatus::InvalidId {
            b""
        } else {
            b"echo"
        };
        assert_eq!(write_refused(status, service), bytes);
        assert_eq!(
            parse_from_intermediate(&bytes),
            Ok(FromIntermediate::Refused { status, service })
        );
    }
}

#[test]
fn golden_observed_address() {
    let address = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 50), 50000);
    let bytes = unhex("01 cb007132 c350");
    assert_eq!(write_observed(address), bytes);
    assert_eq!(
        parse_from_intermediate(&bytes),
        Ok(FromIntermediate::Observed(address))
    );
    assert_eq!(observed::parse(&bytes), Ok(address));
    assert_eq!(observed::parse(&[]), Err(Malformed::Empty));
    assert_eq!(
        observed::parse(&unhex("02 cb007132 c350")),
        Err(Malformed::UnknownType(2))
    );
}

#[test]
fn golden_routed_packet() {
    let prefix = routed_prefix(&echo());
    assert_eq!(*prefix, unhex("2f 04 6563686f"));
    for first in 0..=u8::MAX {
        let mut datagram = prefix.to_vec();
        datagram.push(first);
        let expected = match first >> 4 {
            4 | 6 => Ok(FromClient::Routed {
                service: b"echo",
                packet_at: 6,
            }),
            _ => Err(Malformed::NotAnIpPacket),
        };
        assert_eq!(parse_from_client(&datagram), expected, "inner {first:#04x}");
    }
    assert_eq!(parse_from_client(&prefix), Err(Malformed::Truncated));
}

#[test]
fn golden_packet_in_a_session() {
    let bytes = unhex("15 1122334455667788 45");
    assert!(bytes.starts_with(&in_session_prefix(0x1122_3344_5566_7788)));
    let expected = FromClient::InSession {
        session: 0x1122_3344_5566_7788,
        packet_at: 9,
    };
    assert_eq!(parse_from_client(&bytes), Ok(expected));
    for len in 1..bytes.len() {
        assert_eq!(parse_from_client(&bytes[..len]), Err(Malformed::Truncated));
    }
    // Control inside would be read as the intermediate's own.
    let forged = unhex("15 1122334455667788 13");
    assert_eq!(parse_from_client(&forged), Err(Malformed::NotAnIpPacket));
}

#[test]
fn every_other_first_byte_is_an_ip_packet_or_unknown() {
    assert_eq!(parse_from_client(&[]), Err(Malformed::Empty));
    assert_eq!(parse_from_intermediate(&[]), Err(Malformed::Empty));
    for first in 0..=u8::MAX {
        let is_ip = matches!(first >> 4, 4 | 6);
        if !matches!(first, 0x10 | 0x11 | 0x15 | 0x2F) {
            let expected = if is_ip {
                Ok(FromClient::Packet)
            } else {
                Err(Malformed::UnknownType(first))
            };
            assert_eq!(parse_from_client(&[first]), expected);
        }
        if !matches!(first, 0x01 | 0x12..=0x14) {
            let expected = if is_ip {
                Ok(FromIntermediate::Packet)
            } else {
                Err(Malformed::UnknownType(first))
            };
            assert_eq!(parse_from_intermediate(&[first]), expected);
        }
    }
}

#[test]
fn a_message_for_the_other_direction_is_unknown() {
    assert_eq!(
        parse_from_client(&write_observed(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1))),
        Err(Malformed::UnknownType(1))
    );
    assert_eq!(
        parse_from_client(&write_registered(b"echo")),
        Err(Malformed::UnknownType(0x12))
    );
    assert_eq!(
        parse_from_intermediate(&write_register(Role::Agent, &echo())),
        Err(Malformed::UnknownType(0x10))
    );
    assert_eq!(
        parse_from_intermediate(&routed_prefix(&echo())),
        Err(Malformed::UnknownType(0x2F))
    );
}

#[test]
fn a_field_that_does_not_fit_is_cut_and_never_contradicts_its_length() {
    let message = write_registered(&[b'x'; 300]);
    assert_eq!(
        parse_from_intermediate(&message),
        Ok(FromIntermediate::Registered {
            service: &[b'x'; 255]
        })
    );
    assert_eq!(message.len(), 258);
}

proptest! {
    #[test]
    fn answers_round_trip_and_no_prefix_of_them_parses(
        service in prop::collection::vec(any::<u8>(), 0..256), code in any::<u8>(), ip in any::<u32>(), port in any::<u16>()
    ) {
        let status = NackStatus::from_code(code);
        prop_assert_eq!(status.code(), code);
        let address = SocketAddrV4::new(ip.into(), port);
        let cases = [
            (write_registered(&service), FromIntermediate::Registered { service: &service }),
            (write_refused(status, &service), FromIntermediate::Refused { status, service: &service }),
            (write_observed(address), FromIntermediate::Observed(address)),
        ];
        for (bytes, message) in cases {
            prop_assert_eq!(parse_from_intermediate(&bytes), Ok(message));
            for len in 0..bytes.len() {
                prop_assert!(parse_from_intermediate(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn requests_round_trip_and_no_prefix_of_them_parses(name in "\\PC{1,60}", agent in any::<bool>()) {
        let service = ServiceId::parse(name.as_bytes()).unwrap();
        let role = if agent { Role::Agent } else { Role::Connector };
        let mut bytes = write_register(role, &service);
        let introduce = !agent;
        let expected = FromClient::Register { role, service: name.as_bytes(), introduce };
        prop_assert_eq!(parse_from_client(&bytes), Ok(expected));
        // Without what a connector asks for, it is a registration of v1.
        bytes.truncate(2 + name.len());
        let prefix = routed_prefix(&service);
        let routed = [&prefix, &[0x45, 1, 2][..]].concat();
        let expected = FromClient::Routed { service: name.as_bytes(), packet_at: prefix.len() };
        prop_assert_eq!(parse_from_client(&routed), Ok(expected));
        for len in 0..bytes.len() {
            prop_assert!(parse_from_client(&bytes[..len]).is_err());
            prop_assert!(parse_from_client(&routed[..len]).is_err());
        }
    }

    #[test]
    fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(FromClient::Routed { packet_at, .. }) = parse_from_client(&bytes) {
            prop_assert!(matches!(bytes[packet_at] >> 4, 4 | 6));
        }
        let _ = parse_from_intermediate(&bytes);
        let _ = observed::parse(&bytes);
    }
}
