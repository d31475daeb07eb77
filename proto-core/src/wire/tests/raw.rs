use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use proptest::prelude::*;

use super::{unhex, vector};
use crate::wire::Malformed;
use crate::wire::v1::RawMessage;

const TRANSACTION: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn response(success: bool, observed: Option<&str>) -> RawMessage {
    let observed = observed.map(|text| text.parse().unwrap());
    RawMessage::BindingResponse {
        transaction: TRANSACTION,
        success,
        observed,
    }
}

#[test]
fn golden_binding_messages() {
    let priority = 0x7eff_ffff_fdff_fffe;
    let cases = [
        (
            "breq",
            RawMessage::BindingRequest {
                transaction: TRANSACTION,
                priority,
                use_candidate: false,
            },
        ),
        ("bresp ok", response(true, Some("203.0.113.5:54321"))),
        ("bresp fail", response(false, None)),
        ("bresp v6", response(true, Some("[2001:db8::1]:4433"))),
    ];
    for (name, message) in cases {
        let bytes = vector(name);
        assert_eq!(RawMessage::parse(&bytes), Ok(message), "{name}");
        assert_eq!(message.write(), bytes, "{name}");
    }
}

#[test]
fn golden_keepalives() {
    for (bytes, message) in [
        ("5a 10 00000007", RawMessage::KeepaliveRequest { sequence: 7 }),
        (
            "5a 11 01020304",
            RawMessage::KeepaliveResponse {
                sequence: 0x0102_0304,
            },
        ),
    ] {
        let bytes = unhex(bytes);
        assert_eq!(message.write(), bytes);
        assert_eq!(RawMessage::parse(&bytes), Ok(message));
    }
}

#[test]
fn a_scope_id_does_not_travel() {
    let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 4433, 5, 9);
    let message = RawMessage::BindingResponse {
        transaction: TRANSACTION,
        success: true,
        observed: Some(scoped.into()),
    };
    let bytes = message.write();
    assert!(bytes.ends_with(&vector("v6 addr scope")));
    assert_eq!(
        RawMessage::parse(&bytes),
        Ok(response(true, Some("[fe80::1]:4433")))
    );
}

#[test]
fn values_that_their_type_does_not_have_are_refused() {
    let mut request = vector("breq");
    *request.last_mut().unwrap() = 2;
    assert_eq!(RawMessage::parse(&request), Err(Malformed::InvalidValue));
    let mut option = vector("bresp ok");
    option[18] = 2;
    assert_eq!(RawMessage::parse(&option), Err(Malformed::InvalidValue));
    let mut family = vector("bresp ok");
    family[19] = 2;
    assert_eq!(RawMessage::parse(&family), Err(Malformed::InvalidValue));
    assert_eq!(
        RawMessage::parse(&unhex("5a 02000000 00")),
        Err(Malformed::UnknownType(2))
    );
    assert_eq!(RawMessage::parse(&[0x40]), Err(Malformed::UnknownType(0x40)));
    assert_eq!(RawMessage::parse(&[]), Err(Malformed::Empty));
}

fn message() -> impl Strategy<Value = RawMessage> {
    let observed = prop::option::of((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from));
    prop_oneof![
        (any::<[u8; 12]>(), any::<u64>(), any::<bool>()).prop_map(
            |(transaction, priority, use_candidate)| {
                RawMessage::BindingRequest {
                    transaction,
                    priority,
                    use_candidate,
                }
            }
        ),
        (any::<[u8; 12]>(), any::<bool>(), observed).prop_map(|(transaction, success, observed)| {
            RawMessage::BindingResponse {
                transaction,
                success,
                observed,
            }
        }),
        any::<u32>().prop_map(|sequence| RawMessage::KeepaliveRequest { sequence }),
        any::<u32>().prop_map(|sequence| RawMessage::KeepaliveResponse { sequence }),
    ]
}

proptest! {
    #[test]
    fn round_trip_and_no_prefix_parses(message in message(), trailing in any::<[u8; 3]>()) {
        let mut bytes = message.write();
        for len in 0..bytes.len() {
            prop_assert!(RawMessage::parse(&bytes[..len]).is_err());
        }
        prop_assert_eq!(RawMessage::parse(&bytes), Ok(message));
        bytes.extend(trailing);
        prop_assert_eq!(RawMessage::parse(&bytes), Ok(message));
    }

    #[test]
    fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0..2u8) {
        let _ = RawMessage::parse(&bytes);
        bytes.splice(0..0, [0x5A, kind, 0, 0, 0]);
        let _ = RawMessage::parse(&bytes);
    }
}
