//! v2: the golden bytes were written by another implementation of the encoding, from `docs/wire.md`.

use proptest::prelude::*;

use super::{VECTORS_V2, unhex, vector, vector_of};
use crate::wire::Malformed;
use crate::wire::channel::{channel_prefix, parse_channel, parse_twice, set_channel, twice_prefix};
use crate::wire::check::{
    Check, CheckKey, CheckKind, MAX_CHECK_LEN, Transaction, Unacceptable, claimed_session,
};
use crate::wire::control::{
    Candidate, CandidateKind, ChannelEnd, ControlMessage, Neighbour, PathOutcome, PeerIdentity, Refusal,
    SessionMessage, SignalingMessage, Undecodable,
};
use crate::wire::datagram::Role;

const INSTANCE: u64 = 0x1122_3344_5566_7788;
const SESSION: u32 = 0xa1a2_a3a4;

fn golden(name: &str) -> Vec<u8> {
    vector_of(VECTORS_V2, name)
}

fn key() -> CheckKey {
    CheckKey::new(&ascending())
}

fn ascending() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

fn opened(request: Option<u32>, channel: u32) -> ControlMessage {
    ControlMessage::ChannelOpened {
        request,
        channel,
        service: "echo".into(),
        peer: PeerIdentity {
            fingerprint: ascending(),
            name: "alice".into(),
        },
    }
}

fn hello(role: Role) -> ControlMessage {
    ControlMessage::Hello {
        role,
        instance: INSTANCE,
        capabilities: 0,
    }
}

fn control() -> Vec<(&'static str, ControlMessage)> {
    let service = || "echo".to_owned();
    let channel = 0x0102_0304;
    let neighbour = Neighbour {
        name: "relay2.example".into(),
        addresses: vec!["198.51.100.2:4433".parse().unwrap()],
    };
    let observed = |address: &str| ControlMessage::ObservedAddress {
        address: address.parse().unwrap(),
    };
    vec![
        ("hello agent", hello(Role::Agent)),
        ("hello connector", hello(Role::Connector)),
        ("welcome", ControlMessage::Welcome { capabilities: 0 }),
        ("register", ControlMessage::Register { service: service() }),
        (
            "registered",
            ControlMessage::Registered {
                service: service(),
                lease_ms: 300_000,
            },
        ),
        (
            "refused",
            ControlMessage::Refused {
                service: service(),
                reason: Refusal::NotAuthorised,
                retry_ms: 0,
            },
        ),
        ("unregister", ControlMessage::Unregister { service: service() }),
        (
            "open channel",
            ControlMessage::OpenChannel {
                request: 7,
                service: service(),
            },
        ),
        ("channel opened", opened(Some(7), channel)),
        ("channel opened to peer", opened(None, 5)),
        (
            "channel refused",
            ControlMessage::ChannelRefused {
                request: 7,
                reason: Refusal::NoConnector,
                retry_ms: 2000,
            },
        ),
        (
            "channel closed",
            ControlMessage::ChannelClosed {
                channel,
                reason: ChannelEnd::PeerGone,
            },
        ),
        (
            "carriage",
            ControlMessage::Carriage {
                channel,
                datagram: true,
            },
        ),
        ("observed v4", observed("203.0.113.50:50000")),
        ("observed v6", observed("[2001:db8::1]:4433")),
        (
            "neighbours",
            ControlMessage::Neighbours {
                neighbours: vec![neighbour],
            },
        ),
        ("going away", ControlMessage::GoingAway { within_ms: 30_000 }),
        ("ping", ControlMessage::Ping { nonce: INSTANCE }),
        ("pong", ControlMessage::Pong { nonce: INSTANCE }),
        (
            "offer from",
            ControlMessage::OfferFrom {
                session: INSTANCE,
                agent: PeerIdentity {
                    fingerprint: ascending(),
                    name: "alice".into(),
                },
            },
        ),
    ]
}

fn session() -> Vec<(&'static str, SessionMessage)> {
    let service = || "echo".to_owned();
    let result = |outcome| SessionMessage::PathResult {
        session: SESSION,
        round: 1,
        outcome,
    };
    let candidate = Candidate {
        kind: CandidateKind::Host,
        address: "192.168.1.100:50000".parse().unwrap(),
        priority: 0x7eff_ffff,
        foundation: "host_192.168.1.100".into(),
        related: None,
    };
    vec![
        (
            "use service",
            SessionMessage::UseService {
                service: service(),
                addresses: vec!["10.99.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            },
        ),
        (
            "service accepted",
            SessionMessage::ServiceAccepted { service: service() },
        ),
        (
            "service refused",
            SessionMessage::ServiceRefused {
                service: service(),
                reason: Refusal::NotAuthorised,
            },
        ),
        (
            "release service",
            SessionMessage::ReleaseService { service: service() },
        ),
        (
            "path offer",
            SessionMessage::PathOffer {
                session: SESSION,
                key: ascending(),
            },
        ),
        (
            "path answer",
            SessionMessage::PathAnswer {
                session: SESSION,
                own_session: 0xb1b2_b3b4,
            },
        ),
        (
            "candidates",
            SessionMessage::Candidates {
                session: SESSION,
                candidates: vec![candidate],
                complete: true,
            },
        ),
        (
            "punch at",
            SessionMessage::PunchAt {
                session: SESSION,
                round: 1,
                delay_us: 15_000,
            },
        ),
        (
            "path result direct",
            result(PathOutcome::Direct {
                local: "192.168.1.100:50000".parse().unwrap(),
                remote: "203.0.113.50:50000".parse().unwrap(),
            }),
        ),
        ("path result none", result(PathOutcome::NoPath)),
    ]
}

fn checks() -> Vec<(&'static str, Check)> {
    let check = |from_agent, kind| Check {
        session: 0xb1b2_b3b4,
        from_agent,
        transaction: Transaction {
            sequence: 9,
            nonce: 0x0a0b_0c0d,
        },
        phase: 0,
        priority: 0x6eff_ffff,
        kind,
    };
    let response = |address: &str| CheckKind::Response {
        observed: address.parse().unwrap(),
    };
    vec![
        (
            "check request",
            check(true, CheckKind::Request { nominate: false }),
        ),
        (
            "check nomination",
            check(true, CheckKind::Request { nominate: true }),
        ),
        ("check response v4", check(false, response("203.0.113.50:50000"))),
        ("check response v6", check(true, response("[2001:db8::1]:4433"))),
    ]
}

fn write(check: &Check) -> Vec<u8> {
    let mut out = [0xEE; MAX_CHECK_LEN];
    let len = check.write(&key(), &mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn golden_control_messages() {
    for (name, message) in control() {
        let frame = golden(name);
        assert_eq!(ControlMessage::parse(&frame[4..]), Ok(message.clone()), "{name}");
        assert_eq!(message.write().unwrap(), frame, "{name}");
    }
}

#[test]
fn golden_session_messages() {
    for (name, message) in session() {
        let frame = golden(name);
        assert_eq!(SessionMessage::parse(&frame[4..]), Ok(message.clone()), "{name}");
        assert_eq!(message.write().unwrap(), frame, "{name}");
    }
}

#[test]
fn golden_checks() {
    for (name, check) in checks() {
        let bytes = golden(name);
        assert_eq!(write(&check), bytes, "{name}");
        assert_eq!(claimed_session(&bytes), Ok(check.session), "{name}");
        assert_eq!(Check::parse(&bytes, &key()), Ok(check), "{name}");
    }
}

#[test]
fn golden_prefixes() {
    let mut frame = golden("channel frame");
    assert_eq!(parse_channel(&frame), Some(0x0102_0304));
    assert!(frame.starts_with(&channel_prefix(0x0102_0304)));
    set_channel(&mut frame, 5);
    assert_eq!(frame, unhex("21 00000005 40 71756963"));
    let twice = golden("sent twice");
    assert_eq!(parse_twice(&twice), Some(9));
    assert!(twice.starts_with(&twice_prefix(9)));
    // A prefix without anything behind it carries nothing.
    assert_eq!(parse_channel(&frame[..5]), None);
    assert_eq!(parse_twice(&frame), None);
    assert_eq!(parse_channel(&[]), None);
}

/// What one context says is nothing in another, whatever the bytes behind the index.
#[test]
fn families_do_not_mix() {
    for (name, message) in control() {
        let frame = message.write().unwrap();
        assert_eq!(SessionMessage::parse(&frame[4..]), Err(Undecodable), "{name}");
        assert_eq!(SignalingMessage::parse(&frame[4..]), Err(Undecodable), "{name}");
    }
    for (name, message) in session() {
        let frame = message.write().unwrap();
        assert_eq!(ControlMessage::parse(&frame[4..]), Err(Undecodable), "{name}");
        assert_eq!(SignalingMessage::parse(&frame[4..]), Err(Undecodable), "{name}");
    }
    let v1 = vector("result ok");
    assert_eq!(ControlMessage::parse(&v1[4..]), Err(Undecodable));
    assert_eq!(SessionMessage::parse(&v1[4..]), Err(Undecodable));
}

#[test]
fn every_prefix_of_a_message_is_refused_and_what_follows_it_ignored() {
    for (name, message) in control() {
        let frame = message.write().unwrap();
        for end in 4..frame.len() {
            assert_eq!(
                ControlMessage::parse(&frame[4..end]),
                Err(Undecodable),
                "{name} cut at {end}"
            );
        }
        let longer = [&frame[4..], &[0xFF; 3]].concat();
        assert_eq!(ControlMessage::parse(&longer), Ok(message), "{name}");
    }
    for (name, message) in session() {
        let frame = message.write().unwrap();
        for end in 4..frame.len() {
            assert_eq!(
                SessionMessage::parse(&frame[4..end]),
                Err(Undecodable),
                "{name} cut at {end}"
            );
        }
    }
}

#[test]
fn reasons_of_later_versions_are_kept() {
    for code in [0, 1, 2, 3, 4, 5, 6, 7, u32::MAX] {
        assert_eq!(u32::from(Refusal::from(code)), code);
        assert_eq!(u32::from(ChannelEnd::from(code)), code);
    }
    assert_eq!(Refusal::from(99), Refusal::Other(99));
}

#[test]
fn a_check_that_is_changed_anywhere_is_forged() {
    for (name, check) in checks() {
        let bytes = write(&check);
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(
                Check::parse(&changed, &key()),
                Err(Unacceptable::Forged),
                "{name}, bit {at}"
            );
        }
        for end in 0..bytes.len() {
            assert!(
                Check::parse(&bytes[..end], &key()).is_err(),
                "{name} cut at {end}"
            );
        }
        let other = CheckKey::new(&[7; 32]);
        assert_eq!(Check::parse(&bytes, &other), Err(Unacceptable::Forged), "{name}");
    }
}

/// Who has the key may still write nonsense.
#[test]
fn an_authentic_check_must_be_well_formed() {
    let sealed = |body: &[u8]| {
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &ascending()), body);
        [body, &tag.as_ref()[..16]].concat()
    };
    let good = golden("check response v4");
    let body = &good[..good.len() - 16];
    assert_eq!(sealed(body), good);
    let with = |at: usize, byte: u8| {
        let mut body = body.to_vec();
        body[at] = byte;
        Check::parse(&sealed(&body), &key())
    };
    let invalid = Err(Unacceptable::Malformed(Malformed::InvalidValue));
    assert_eq!(
        with(0, 0x23),
        Err(Unacceptable::Malformed(Malformed::UnknownType(0x23)))
    );
    assert_eq!(with(1, 0x08 | 1), invalid, "an unknown flag");
    assert_eq!(with(1, 3), invalid, "a response that nominates");
    assert_eq!(with(1, 0), invalid, "a request with an address behind it");
    assert_eq!(with(23, 5), invalid, "a family that does not exist");
    let short = &body[..body.len() - 1];
    assert_eq!(
        Check::parse(&sealed(short), &key()),
        Err(Unacceptable::Malformed(Malformed::Truncated))
    );
}

#[test]
fn the_claimed_session_needs_a_whole_check() {
    let bytes = golden("check request");
    assert_eq!(
        claimed_session(&bytes[..bytes.len() - 1]),
        Err(Malformed::Truncated)
    );
    assert_eq!(claimed_session(&[]), Err(Malformed::Empty));
    assert_eq!(claimed_session(&[0x21; 60]), Err(Malformed::UnknownType(0x21)));
}

/// RFC 9000 §8.1 for our own messages: an address that has proved nothing is never sent three times what it sent.
#[test]
fn a_response_does_not_amplify() {
    assert!(MAX_CHECK_LEN < 2 * golden("check request").len());
}

proptest! {
    #[test]
    fn checks_survive_the_wire(
        session: u32, from_agent: bool, sequence: u64, nonce: u32, phase: u8, priority: u32,
        kind in prop_oneof![
            any::<bool>().prop_map(|nominate| CheckKind::Request { nominate }),
            any::<(std::net::IpAddr, u16)>()
                .prop_map(|address| CheckKind::Response { observed: address.into() }),
        ],
    ) {
        let check = Check { session, from_agent, transaction: Transaction { sequence, nonce }, phase, priority, kind };
        prop_assert_eq!(Check::parse(&write(&check), &key()), Ok(check));
    }

    #[test]
    fn junk_is_no_message(payload in prop::collection::vec(any::<u8>(), 0..200), index in 0u32..50) {
        let _ = Check::parse(&payload, &key());
        let _ = claimed_session(&payload);
        let _ = parse_channel(&payload);
        let payload = [&index.to_le_bytes()[..], &payload].concat();
        if let Ok(message) = ControlMessage::parse(&payload) {
            let frame = message.write().unwrap();
            prop_assert_eq!(ControlMessage::parse(&frame[4..]), Ok(message));
        }
        if let Ok(message) = SessionMessage::parse(&payload) {
            let frame = message.write().unwrap();
            prop_assert_eq!(SessionMessage::parse(&frame[4..]), Ok(message));
        }
    }
}
