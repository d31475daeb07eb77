use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use proptest::prelude::*;

use super::{VECTORS, vector};
use crate::wire::control::{Candidate, CandidateKind, ErrorCode, SignalingMessage, Undecodable};

const SESSION: u64 = 0x1122_3344_5566_7788;

fn host() -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        address: "192.168.1.100:50000".parse().unwrap(),
        priority: 0x7eff_ffff,
        foundation: "host_192.168.1.100".into(),
        related: None,
    }
}

fn reflexive() -> Candidate {
    Candidate {
        kind: CandidateKind::ServerReflexive,
        address: "203.0.113.50:50000".parse().unwrap(),
        priority: 0x64ff_ffff,
        foundation: "srflx_203.0.113.50".into(),
        related: Some("192.168.1.100:50000".parse().unwrap()),
    }
}

fn offer(candidates: Vec<Candidate>) -> SignalingMessage {
    SignalingMessage::CandidateOffer {
        session: SESSION,
        service: "echo-service".into(),
        candidates,
    }
}

#[test]
fn golden_messages() {
    let error = |session, code, text: &str| SignalingMessage::Error {
        session,
        code,
        text: text.into(),
    };
    let working = Some("203.0.113.50:50000".parse().unwrap());
    let cases = [
        ("offer", offer(vec![host()])),
        (
            "answer",
            SignalingMessage::CandidateAnswer {
                session: SESSION,
                candidates: vec![reflexive()],
            },
        ),
        (
            "start",
            SignalingMessage::StartPunching {
                session: SESSION,
                start_delay_ms: 100,
                peer_candidates: vec![],
            },
        ),
        (
            "result ok",
            SignalingMessage::PunchingResult {
                session: SESSION,
                success: true,
                working,
            },
        ),
        (
            "result fail",
            SignalingMessage::PunchingResult {
                session: SESSION,
                success: false,
                working: None,
            },
        ),
        (
            "error some",
            error(
                Some(SESSION),
                ErrorCode::NoConnectorAvailable,
                "No Connector available for service 'x'",
            ),
        ),
        ("error none", error(None, ErrorCode::Unknown, "x")),
    ];
    for (name, message) in cases {
        let frame = vector(name);
        assert_eq!(
            SignalingMessage::parse(&frame[4..]),
            Ok(message.clone()),
            "{name}"
        );
        assert_eq!(message.write().unwrap(), frame, "{name}");
    }
}

#[test]
fn golden_parts_stand_in_the_messages() {
    let both = offer(vec![host(), reflexive()]).write().unwrap();
    assert!(both.ends_with(&[vector("host cand"), vector("srflx cand")].concat()));
    let result = |address: SocketAddr| {
        SignalingMessage::PunchingResult {
            session: SESSION,
            success: true,
            working: Some(address),
        }
        .write()
        .unwrap()
    };
    assert!(result("[2001:db8::1]:4433".parse().unwrap()).ends_with(&vector("v6 addr")));
}

#[test]
fn a_scope_id_does_not_travel() {
    let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 4433, 7, 3);
    let with = |address| SignalingMessage::PunchingResult {
        session: 1,
        success: true,
        working: Some(address),
    };
    let frame = with(scoped.into()).write().unwrap();
    assert!(frame.ends_with(&vector("v6 addr scope")));
    assert_eq!(
        SignalingMessage::parse(&frame[4..]),
        Ok(with("[fe80::1]:4433".parse().unwrap()))
    );
}

/// The last five lines of the vectors: what the peer's decoder accepts and refuses.
#[test]
fn golden_refusals() {
    assert!(VECTORS.contains("trailing accepted: true"));
    let mut trailing = vector("result ok")[4..].to_vec();
    let message = SignalingMessage::parse(&trailing).unwrap();
    trailing.extend([0xFF; 9]);
    assert_eq!(SignalingMessage::parse(&trailing), Ok(message));

    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut payload = vector(name)[4..].to_vec();
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        SignalingMessage::parse(&payload)
    };
    assert!(VECTORS.contains("bool 2: Err"));
    assert_eq!(with("result ok", 12, &[2]), Err(Undecodable));
    assert!(VECTORS.contains("opt tag 2: Err"));
    assert_eq!(with("result ok", 13, &[2]), Err(Undecodable));
    assert!(VECTORS.contains("variant 9: Err"));
    assert_eq!(with("result ok", 0, &[9]), Err(Undecodable));
    assert!(VECTORS.contains("len u64::MAX vec: Err"));
    assert_eq!(with("start", 20, &[0xFF; 8]), Err(Undecodable));
    assert_eq!(
        with("error none", 9, &[0xFF; 8]),
        Err(Undecodable),
        "a string of that length"
    );
}

#[test]
fn a_message_longer_than_a_frame_is_neither_written_nor_read() {
    let text = |len| SignalingMessage::Error {
        session: None,
        code: ErrorCode::Other(99),
        text: "x".repeat(len),
    };
    let fixed = 4 + 1 + 4 + 8;
    assert!(text(65_536 - fixed).write().is_some());
    assert!(text(65_536 - fixed + 1).write().is_none());
    assert_eq!(SignalingMessage::parse(&[0xFF; 70_000]), Err(Undecodable));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::ServerReflexive),
        Just(CandidateKind::PeerReflexive),
        Just(CandidateKind::Relay),
    ];
    let candidate = (
        kind,
        address(),
        any::<u32>(),
        "\\PC{0,20}",
        prop::option::of(address()),
    )
        .prop_map(|(kind, address, priority, foundation, related)| Candidate {
            kind,
            address,
            priority,
            foundation,
            related,
        });
    prop::collection::vec(candidate, 0..4)
}

fn message() -> impl Strategy<Value = SignalingMessage> {
    prop_oneof![
        (any::<u64>(), "\\PC{0,20}", candidates()).prop_map(|(session, service, candidates)| {
            SignalingMessage::CandidateOffer {
                session,
                service,
                candidates,
            }
        }),
        (any::<u64>(), candidates())
            .prop_map(|(session, candidates)| SignalingMessage::CandidateAnswer { session, candidates }),
        (any::<u64>(), any::<u64>(), candidates()).prop_map(|(session, start_delay_ms, peer_candidates)| {
            SignalingMessage::StartPunching {
                session,
                start_delay_ms,
                peer_candidates,
            }
        }),
        (any::<u64>(), any::<bool>(), prop::option::of(address())).prop_map(|(session, success, working)| {
            SignalingMessage::PunchingResult {
                session,
                success,
                working,
            }
        }),
        (any::<Option<u64>>(), any::<u32>(), "\\PC{0,20}").prop_map(|(session, code, text)| {
            SignalingMessage::Error {
                session,
                code: code.into(),
                text,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn round_trip_and_no_prefix_parses(message in message()) {
        let frame = message.write().unwrap();
        let payload = &frame[4..];
        for len in 0..payload.len() {
            prop_assert_eq!(SignalingMessage::parse(&payload[..len]), Err(Undecodable));
        }
        prop_assert_eq!(SignalingMessage::parse(payload), Ok(message));
    }

    #[test]
    fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), variant in 0..6u8) {
        let _ = SignalingMessage::parse(&bytes);
        bytes.splice(0..0, [variant, 0, 0, 0]);
        let _ = SignalingMessage::parse(&bytes);
    }

    #[test]
    fn codes_survive(code in any::<u32>()) {
        prop_assert_eq!(u32::from(ErrorCode::from(code)), code);
        prop_assert_eq!(u32::from(ErrorCode::from(code % 8)), code % 8);
    }
}
