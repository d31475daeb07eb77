use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::quic::testing::TestPki;
use crate::rng::{Rng, Seed};
use crate::sim::{Clock, ManualClock};
use crate::wire::control::CandidateKind;

const LINK: u32 = 3;
const AGENT: &str = "198.51.100.7:5000";
const INSIDE: &str = "192.168.1.7:5000";
const STRANGER: &str = "198.51.100.9:5000";
const SERVICE: ServiceIndex = ServiceIndex(2);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn candidate(text: &str) -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        address: address(text),
        priority: 1,
        foundation: "host".into(),
        related: None,
    }
}

fn identity(names: &[&str]) -> Identity {
    let pem = TestPki::new().issue(names).chain;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    Identity::from_certificate(&pem.contents).unwrap()
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 1 }
}

struct Scene {
    peers: V1Peers,
    clock: ManualClock,
    id: ServiceId,
    own: Vec<Candidate>,
}

impl Scene {
    fn new() -> Self {
        Self {
            peers: V1Peers::new(Rng::new(&Seed([6; 32]))),
            clock: ManualClock::new(),
            id: ServiceId::parse(b"echo").unwrap(),
            own: vec![candidate("203.0.113.1:4434")],
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wait(&mut self, time: Duration) {
        self.clock.advance_to(self.now() + time);
        self.peers.handle_timeout(self.clock.now());
    }

    fn offer_as(&mut self, session: u64, addresses: &[&str], agent: Option<Fingerprint>) {
        let candidates: Vec<Candidate> = addresses.iter().map(|text| candidate(text)).collect();
        let offered = Offered {
            service: Some((SERVICE, &self.id)),
            own: &self.own,
            speaks_v6: false,
        };
        let now = self.clock.now();
        self.peers
            .handle_offer(LINK, session, &candidates, agent, offered, now);
    }

    fn offer(&mut self, session: u64, addresses: &[&str]) {
        self.offer_as(session, addresses, None);
    }

    fn start(&mut self, session: u64) {
        let start = SignalingMessage::StartPunching {
            session,
            start_delay_ms: 100,
            peer_candidates: vec![candidate(STRANGER)],
        };
        let now = self.now();
        self.peers.handle_signal(LINK, &start, now);
    }

    fn signals(&mut self) -> Vec<SignalingMessage> {
        std::iter::from_fn(|| self.peers.poll_signal())
            .map(|(link, message)| {
                assert_eq!(link, LINK);
                message
            })
            .collect()
    }

    fn raw(&mut self) -> Vec<(SocketAddr, RawMessage)> {
        std::iter::from_fn(|| self.peers.poll_raw())
            .map(|(to, payload)| (to, RawMessage::parse(&payload).unwrap()))
            .collect()
    }

    fn doors(&mut self) -> Vec<Door> {
        std::iter::from_fn(|| self.peers.poll_door()).collect()
    }

    fn hear(&mut self, from: &str, message: RawMessage) {
        let now = self.now();
        self.peers.handle_raw(address(from), &message.write(), now);
    }
}

fn request(number: u8) -> RawMessage {
    RawMessage::BindingRequest {
        transaction: [number; 12],
        priority: 1,
        use_candidate: false,
    }
}

#[test]
fn an_offer_is_answered_and_its_addresses_are_asked_when_both_begin() {
    let mut scene = Scene::new();
    scene.offer(5, &[AGENT, INSIDE]);
    assert_eq!(
        scene.signals(),
        [SignalingMessage::CandidateAnswer {
            session: 5,
            candidates: vec![candidate("203.0.113.1:4434")],
        }]
    );
    assert_eq!(
        scene.doors(),
        [Door::Open(address(AGENT)), Door::Open(address(INSIDE))]
    );
    scene.start(5);
    scene.wait(Duration::from_millis(99));
    assert_eq!(scene.raw(), []);
    scene.wait(Duration::from_millis(1));
    let [(first, RawMessage::BindingRequest { transaction, .. })] = scene.raw()[..] else {
        panic!("one request to begin with");
    };
    assert_eq!(first, address(AGENT));
    let mut asked: BTreeMap<SocketAddr, usize> = BTreeMap::from([(first, 1)]);
    // What the intermediate names beside the offer is not asked, and saying it twice asks nobody twice.
    scene.start(5);
    for _ in 0..400 {
        scene.wait(Duration::from_millis(10));
        for (to, _) in scene.raw() {
            *asked.entry(to).or_default() += 1;
        }
    }
    assert_eq!(
        asked,
        BTreeMap::from([(address(AGENT), 10), (address(INSIDE), 10)])
    );
    // An answer with the number, from where it was asked, counts once.
    let answer = RawMessage::BindingResponse {
        transaction,
        success: true,
        observed: None,
    };
    scene.hear(INSIDE, answer);
    assert_eq!(scene.signals(), []);
    scene.hear(AGENT, answer);
    scene.hear(AGENT, answer);
    assert_eq!(
        scene.signals(),
        [SignalingMessage::PunchingResult {
            session: 5,
            success: true,
            working: Some(address(AGENT)),
        }]
    );
    assert_eq!(scene.peers.stats().met, 1);
}

#[test]
fn an_answer_ends_the_requests() {
    let mut scene = Scene::new();
    scene.offer(5, &[AGENT]);
    scene.start(5);
    scene.wait(Duration::from_millis(100));
    let [(_, RawMessage::BindingRequest { transaction, .. })] = scene.raw()[..] else {
        panic!("one request");
    };
    scene.hear(
        AGENT,
        RawMessage::BindingResponse {
            transaction,
            success: true,
            observed: None,
        },
    );
    scene.wait(Duration::from_secs(2));
    assert_eq!(scene.raw(), []);
}

#[test]
fn offers_are_refused_by_reason() {
    let mut scene = Scene::new();
    let code = |scene: &mut Scene| match scene.signals()[..] {
        [SignalingMessage::Error { code, .. }] => code,
        ref other => panic!("no error: {other:?}"),
    };
    let now = scene.now();
    let own = [candidate(AGENT)];
    let mut offered = Offered {
        service: None,
        own: &own,
        speaks_v6: false,
    };
    scene.peers.handle_offer(LINK, 5, &[], None, offered, now);
    assert_eq!(code(&mut scene), ErrorCode::ServiceNotFound);
    let id = scene.id.clone();
    offered.service = Some((SERVICE, &id));
    offered.own = &[];
    scene.peers.handle_offer(LINK, 5, &[], None, offered, now);
    assert_eq!(code(&mut scene), ErrorCode::NoConnectorAvailable);
    for session in 0..MEETINGS as u64 {
        scene.offer(session, &[AGENT]);
    }
    scene.signals();
    scene.offer(9_999, &[AGENT]);
    assert_eq!(code(&mut scene), ErrorCode::Unknown);
    scene.wait(MEETING_LIFETIME);
    assert_eq!(scene.peers.len(), (0, 0));
}

#[test]
fn addresses_that_no_packet_should_go_to_are_not_named() {
    let mut scene = Scene::new();
    let bad = [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "198.51.100.1:0",
        "[2001:db8::1]:80",
        "[::1]:80",
    ];
    scene.offer(5, &bad);
    assert_eq!(scene.doors(), []);
    scene.start(5);
    scene.wait(Duration::from_secs(1));
    assert_eq!(scene.raw(), []);
    let many: Vec<String> = (1..50).map(|port| format!("198.51.100.1:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    scene.offer(6, &many);
    assert_eq!(scene.doors().len(), ADDRESSES);
}

#[test]
fn only_named_addresses_are_answered() {
    let mut scene = Scene::new();
    scene.hear(AGENT, request(1));
    scene.offer(5, &[AGENT]);
    scene.hear(STRANGER, request(1));
    scene.hear("198.51.100.7:5001", request(1));
    scene.hear(STRANGER, RawMessage::KeepaliveRequest { sequence: 1 });
    assert_eq!(scene.raw(), []);
    assert_eq!(scene.peers.stats().unnamed, 4);
    scene.hear(AGENT, RawMessage::KeepaliveRequest { sequence: 9 });
    assert_eq!(
        scene.raw(),
        [(address(AGENT), RawMessage::KeepaliveResponse { sequence: 9 })]
    );
    let now = scene.now();
    scene
        .peers
        .handle_raw(address(AGENT), &[0x5A, 0x77, 1, 2, 3, 4, 5], now);
    assert_eq!(scene.peers.stats().malformed, 1);
    // As the socket may report it.
    scene.hear(
        "[::ffff:198.51.100.7]:5000",
        RawMessage::KeepaliveRequest { sequence: 9 },
    );
    assert_eq!(scene.raw().len(), 1);
    scene.wait(MEETING_LIFETIME);
    scene.hear(AGENT, request(1));
    assert_eq!(scene.raw(), []);
}

#[test]
fn an_answer_names_the_address_once_enough_has_come_in_for_it() {
    let mut scene = Scene::new();
    scene.offer(5, &[AGENT]);
    let observed = |scene: &mut Scene| match scene.raw()[..] {
        [
            (
                _,
                RawMessage::BindingResponse {
                    success: true,
                    observed,
                    ..
                },
            ),
        ] => observed,
        ref other => panic!("no answer: {other:?}"),
    };
    scene.hear(AGENT, request(1));
    assert_eq!(observed(&mut scene), None);
    scene.hear(AGENT, request(2));
    assert_eq!(observed(&mut scene), Some(address(AGENT)));
}

#[test]
fn a_connection_is_admitted_by_its_certificate_and_kept_beyond_the_offer() {
    let mut scene = Scene::new();
    let agent = identity(&["agent.echo.ztna"]);
    let other = identity(&["agent.other.ztna"]);
    scene.offer(5, &[AGENT]);
    scene.signals();
    let from = address(AGENT);
    assert_eq!(scene.peers.admit(conn(1), from, None), None);
    assert_eq!(scene.peers.admit(conn(1), from, Some(&other)), None);
    assert_eq!(scene.peers.admit(conn(1), address(STRANGER), Some(&agent)), None);
    assert_eq!(
        scene.peers.admit(conn(1), from, Some(&agent)),
        Some(Admitted {
            session: 5,
            service: SERVICE,
            link: LINK
        })
    );
    assert_eq!(scene.signals().len(), 1);
    // One offer, one connection.
    assert_eq!(scene.peers.admit(conn(2), from, Some(&agent)), None);
    assert_eq!(scene.peers.stats().rejected, 4);
    // It lives on, and its address is answered, also where it moves.
    scene.wait(MEETING_LIFETIME * 10);
    scene.peers.on_link_down(LINK);
    let moved = "198.51.100.7:6000";
    let now = scene.now();
    scene.peers.on_moved(conn(1), address(moved), now);
    for from in [AGENT, moved] {
        scene.hear(from, RawMessage::KeepaliveRequest { sequence: 1 });
    }
    assert_eq!(scene.raw().len(), 2);
    scene.peers.on_closed(conn(1));
    assert_eq!(scene.peers.len(), (0, 0));
    assert_eq!(
        scene.doors(),
        [
            Door::Open(address(AGENT)),
            Door::Open(address(moved)),
            Door::Close(address(AGENT)),
            Door::Close(address(moved)),
        ]
    );
}

#[test]
fn an_agent_that_names_anothers_address_does_not_get_its_connection() {
    let mut scene = Scene::new();
    let (agent, thief) = (identity(&["agent.echo.ztna"]), identity(&["agent.echo.ztna"]));
    scene.offer_as(5, &[AGENT], Some(agent.fingerprint()));
    scene.offer_as(6, &[AGENT], Some(thief.fingerprint()));
    let admitted = scene.peers.admit(conn(1), address(AGENT), Some(&agent));
    assert_eq!(admitted.map(|admitted| admitted.session), Some(5));
}

#[test]
fn a_session_that_failed_or_whose_link_is_gone_is_over() {
    let mut scene = Scene::new();
    scene.offer(5, &[AGENT]);
    let error = SignalingMessage::Error {
        session: Some(5),
        code: ErrorCode::SessionTimeout,
        text: String::new(),
    };
    let now = scene.now();
    scene.peers.handle_signal(LINK, &error, now);
    assert_eq!(scene.peers.len(), (0, 0));
    scene.offer(6, &[AGENT]);
    scene.peers.on_link_down(LINK + 1);
    assert_eq!(scene.peers.len(), (1, 1));
    scene.peers.on_link_down(LINK);
    assert_eq!(scene.peers.len(), (0, 0));
    assert_eq!(scene.peers.poll_timeout(), None);
}

proptest! {
    /// Whatever comes from an address: no more bytes go back in answer, and no more answers than its share.
    #[test]
    fn answers_never_amplify(steps in vec((0..4_u8, 0..300_u64), 0..200)) {
        let mut scene = Scene::new();
        scene.offer(5, &[AGENT]);
        let (mut came, mut went, mut answers) = (0, 0, 0_u64);
        let begun = scene.now();
        // The meeting itself asks nobody here: it never begins.
        for (kind, wait) in steps {
            let message = match kind {
                0 => request(1).write(),
                1 => RawMessage::KeepaliveRequest { sequence: 1 }.write(),
                2 => RawMessage::KeepaliveResponse { sequence: 1 }.write(),
                _ => vec![0x5A, 0, 0, 0, 0, 1],
            };
            let now = scene.now();
            scene.peers.handle_raw(address(AGENT), &message, now);
            came += message.len();
            while let Some((to, answer)) = scene.peers.poll_raw() {
                prop_assert_eq!(to, address(AGENT));
                went += answer.len();
                answers += 1;
            }
            prop_assert!(went <= came, "{} bytes for {}", went, came);
            let millis = now.duration_since(begun).as_millis() as u64;
            prop_assert!(answers <= 21 + millis / 50);
            if millis + wait < 14_000 {
                scene.wait(Duration::from_millis(wait));
            }
        }
    }

    /// Sleeping, waking and sleeping again never brings a burst, and the next deadline is always ahead.
    #[test]
    fn time_may_pass_in_any_steps(waits in vec(0..2_000_u64, 0..60), offers in 1..20_u64) {
        let mut scene = Scene::new();
        for session in 0..offers {
            scene.offer(session, &[AGENT, INSIDE]);
            scene.start(session);
        }
        for wait in waits {
            scene.wait(Duration::from_millis(wait));
            let now = scene.now();
            prop_assert!(scene.peers.poll_timeout().is_none_or(|at| at > now));
            prop_assert!(scene.raw().len() <= offers as usize);
        }
        scene.wait(MEETING_LIFETIME);
        prop_assert_eq!(scene.peers.len(), (0, 0));
        prop_assert!(scene.peers.poll_timeout().is_none());
    }
}
