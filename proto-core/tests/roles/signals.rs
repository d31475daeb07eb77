//! Signalling between v1 peers, as the intermediate relays it.

use std::net::SocketAddr;
use std::time::Duration;

use proto_core::intermediate::SESSION_LIFETIME;
use proto_core::sim::HostId;
use proto_core::wire::control::{Candidate, CandidateKind, ControlMessage, ErrorCode, SignalingMessage};
use proto_core::wire::datagram::{Role, in_session_prefix};

use crate::setup::{DELAY, Quic, RawHost, Scene, message, routed, udp};

const AGENT: &str = "198.51.100.1:5000";
const CONNECTOR: &str = "203.0.113.1:4434";
const OTHER: &str = "198.51.100.2:5000";

fn candidate(address: &str) -> Candidate {
    let address: SocketAddr = address.parse().unwrap();
    Candidate {
        kind: CandidateKind::Host,
        address,
        priority: 1,
        foundation: format!("host_{}", address.ip()),
        related: None,
    }
}

fn offer(session: u64, service: &str) -> SignalingMessage {
    SignalingMessage::CandidateOffer {
        session,
        service: service.into(),
        candidates: vec![candidate(AGENT)],
    }
}

fn answer(session: u64) -> SignalingMessage {
    SignalingMessage::CandidateAnswer {
        session,
        candidates: vec![candidate(CONNECTOR)],
    }
}

fn start(session: u64, address: &str) -> SignalingMessage {
    SignalingMessage::StartPunching {
        session,
        start_delay_ms: 100,
        peer_candidates: vec![candidate(address)],
    }
}

/// Says something, lets it arrive and be answered, and returns what the others were told meanwhile.
fn say<Q: Quic>(scene: &mut Scene<Q>, host: HostId<RawHost<Q>>, message: &SignalingMessage) {
    scene.world.with(host, |host, _| host.machine.signal(message));
    scene.world.run_for(8 * DELAY);
}

fn heard<Q: Quic>(scene: &mut Scene<Q>, host: HostId<RawHost<Q>>) -> Vec<SignalingMessage> {
    scene
        .world
        .with(host, |host, _| std::mem::take(&mut host.machine.signalled))
}

/// The code of the only message that was heard.
fn refusal<Q: Quic>(scene: &mut Scene<Q>, host: HostId<RawHost<Q>>, about: u64) -> ErrorCode {
    match heard(scene, host).as_slice() {
        [SignalingMessage::Error { session, code, .. }] => {
            assert_eq!(*session, Some(about));
            *code
        }
        other => panic!("no single error: {other:?}"),
    }
}

fn pair<Q: Quic>(scene: &mut Scene<Q>) -> [HostId<RawHost<Q>>; 2] {
    [
        scene.registered("agent", AGENT, 0x10, "echo"),
        scene.registered("connector", CONNECTOR, 0x11, "echo"),
    ]
}

pub(crate) fn an_offer_is_answered_and_both_begin<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    say(&mut scene, agent, &offer(5, "echo"));
    assert_eq!(heard(&mut scene, connector), [offer(5, "echo")]);
    assert_eq!(heard(&mut scene, agent), []);
    say(&mut scene, connector, &answer(5));
    assert_eq!(heard(&mut scene, agent), [start(5, CONNECTOR)]);
    assert_eq!(heard(&mut scene, connector), [start(5, AGENT)]);
    let result = SignalingMessage::PunchingResult {
        session: 5,
        success: true,
        working: Some(CONNECTOR.parse().unwrap()),
    };
    say(&mut scene, agent, &result);
    let stats = scene.relay().signalling_stats();
    assert_eq!((stats.offers, stats.started, stats.succeeded), (1, 1, 1));
    // The next session of the same two, and packets beside it.
    say(&mut scene, agent, &offer(6, "echo"));
    assert_eq!(heard(&mut scene, connector), [offer(6, "echo")]);
    let packet = udp("10.0.0.2:1000", "10.1.0.1:53", b"query");
    scene.send(agent, &[&routed("echo", &packet)]);
    assert!(scene.received(connector).contains(&packet));
}

pub(crate) fn each_reason_to_refuse_an_offer_is_told_apart<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    say(&mut scene, agent, &offer(1, "echo"));
    assert_eq!(refusal(&mut scene, agent, 1), ErrorCode::NoConnectorAvailable);
    say(&mut scene, agent, &offer(2, "other"));
    assert_eq!(refusal(&mut scene, agent, 2), ErrorCode::ServiceNotFound);
    say(&mut scene, agent, &start(3, AGENT));
    assert_eq!(refusal(&mut scene, agent, 3), ErrorCode::InvalidMessage);
    say(&mut scene, agent, &answer(4));
    assert_eq!(refusal(&mut scene, agent, 4), ErrorCode::SessionNotFound);
    // A connector has no services to reach.
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    say(&mut scene, connector, &offer(5, "echo"));
    assert_eq!(refusal(&mut scene, connector, 5), ErrorCode::ServiceNotFound);
    assert_eq!(scene.relay().signalling_stats().refused, 5);
}

pub(crate) fn strangers_answers_are_rejected<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    let stranger = scene.registered("stranger", OTHER, 0x11, "other");
    say(&mut scene, agent, &offer(5, "echo"));
    heard(&mut scene, connector);
    let forged = SignalingMessage::CandidateAnswer {
        session: 5,
        candidates: vec![candidate(OTHER)],
    };
    say(&mut scene, stranger, &forged);
    assert_eq!(refusal(&mut scene, stranger, 5), ErrorCode::PeerRejected);
    assert_eq!(heard(&mut scene, agent), []);
    // The real one is still heard.
    say(&mut scene, connector, &answer(5));
    assert_eq!(heard(&mut scene, agent), [start(5, CONNECTOR)]);
}

pub(crate) fn an_unanswered_session_expires<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    say(&mut scene, agent, &offer(5, "echo"));
    assert_eq!(heard(&mut scene, agent), []);
    scene.world.run_for(SESSION_LIFETIME);
    assert_eq!(refusal(&mut scene, agent, 5), ErrorCode::SessionTimeout);
    heard(&mut scene, connector);
    say(&mut scene, connector, &answer(5));
    assert_eq!(refusal(&mut scene, connector, 5), ErrorCode::SessionNotFound);
    assert_eq!(heard(&mut scene, agent), []);
    assert_eq!(scene.relay().signalling_sessions(), 0);
}

pub(crate) fn too_many_offers_are_refused<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    scene.world.with(agent, |host, _| {
        (0..100).for_each(|session| host.machine.signal(&offer(session, "echo")));
    });
    scene.world.run_for(20 * DELAY);
    let passed_on = heard(&mut scene, connector).len();
    let refused = heard(&mut scene, agent).len();
    assert_eq!((passed_on, refused), (8, 92));
    assert_eq!(scene.relay().signalling_sessions(), 8);
    scene.world.run_for(SESSION_LIFETIME);
    heard(&mut scene, agent);
    say(&mut scene, agent, &offer(200, "echo"));
    assert_eq!(heard(&mut scene, connector).len(), 1);
}

/// Nobody of ours reads the connector's streams here; only its window and what waits for it fill.
pub(crate) fn an_agent_of_a_connector_that_does_not_read_hurts_nobody<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    scene.world.with(connector, |host, _| host.machine.is_deaf = true);
    let big = |session| {
        let mut candidate = candidate(AGENT);
        candidate.foundation = "x".repeat(64);
        SignalingMessage::CandidateOffer {
            session,
            service: "echo".into(),
            candidates: vec![candidate; 32],
        }
    };
    for round in 0..16 {
        for number in 0..8 {
            say(&mut scene, agent, &big(round * 8 + number));
        }
        // A sign of life: that it keeps its registration alive is all that it does.
        scene.send(connector, &[&message(0x11, "echo")]);
        scene.world.run_for(SESSION_LIFETIME);
    }
    assert!(scene.relay().signalling_stats().unread > 0);
    let packet = udp("10.0.0.2:1000", "10.1.0.1:53", b"query");
    scene.send(agent, &[&routed("echo", &packet)]);
    assert!(scene.received(connector).contains(&packet));
}

pub(crate) fn junk_on_streams_is_skipped_and_hurts_nobody<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    scene.world.with(agent, |host, _| {
        // A frame that is no message, one that is empty, and one that is longer than frames may be.
        let mut junk = vec![0, 0, 0, 3, 9, 9, 9, 0, 0, 0, 0, 0, 1, 0, 1];
        junk.resize(junk.len() + 0x1_0001, 7);
        let mut written = 0;
        while written < junk.len() {
            match host.machine.scribble(0, &junk[written..]) {
                0 => break,
                taken => written += taken,
            }
        }
        host.machine.rest = junk.split_off(written);
    });
    scene.world.run_for(20 * DELAY);
    assert!(scene.world[agent].machine.rest.is_empty());
    assert_eq!(scene.relay().signalling_stats().undecodable, 2);
    say(&mut scene, agent, &offer(5, "echo"));
    assert_eq!(heard(&mut scene, connector), [offer(5, "echo")]);
}

/// A connector of v2 speaks with v1 agents all the same: their messages travel among its own.
pub(crate) fn a_connector_of_v2_hears_of_it_on_its_control_stream<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let connector = scene.silent("connector", CONNECTOR, &["connector.echo.ztna"]);
    scene.world.with(connector, |host, _| {
        host.machine.say(&ControlMessage::Hello {
            role: Role::Connector,
            instance: 1,
            capabilities: 0,
        });
        host.machine.say(&ControlMessage::Register {
            service: "echo".into(),
        });
    });
    scene.world.run_for(8 * DELAY);
    say(&mut scene, agent, &offer(5, "echo"));
    let offered = scene.world.with(connector, |host, _| {
        let offered = std::mem::take(&mut host.machine.signalled);
        host.machine.signal(&answer(5));
        offered
    });
    assert_eq!(offered, [offer(5, "echo")]);
    // It is told whose offer it is before.
    let named = scene.world[connector].machine.heard.last().cloned();
    assert!(matches!(
        named,
        Some(ControlMessage::OfferFrom { session: 5, .. })
    ));
    scene.world.run_for(8 * DELAY);
    assert_eq!(heard(&mut scene, agent), [start(5, CONNECTOR)]);
    assert_eq!(scene.world[connector].machine.signalled, [start(5, AGENT)]);
    // Packets for the agent of the session reach it without a flow; those of another session, nobody.
    let packet = udp("10.1.0.1:53", "10.0.0.2:1000", b"answer");
    let in_session = |session| [&in_session_prefix(session)[..], &packet].concat();
    let forged = [&in_session_prefix(5)[..], &[0x13, 2, 4], b"echo"].concat();
    scene.world.with(connector, |host, _| {
        for datagram in [in_session(5), in_session(6), forged] {
            host.machine.send(&datagram);
        }
    });
    scene.world.run_for(8 * DELAY);
    assert_eq!(scene.received(agent), [packet]);
    let dropped = scene.relay().stats().dropped;
    assert_eq!((dropped.no_flow, dropped.not_ip), (1, 1));
}

pub(crate) fn clients_that_leave_leave_no_sessions<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = pair(&mut scene);
    say(&mut scene, agent, &offer(5, "echo"));
    scene.world.with(connector, |host, now| {
        use proto_core::machine::Machine;
        host.machine.shut_down(now);
    });
    scene.world.run_for(Duration::from_secs(2));
    assert_eq!(refusal(&mut scene, agent, 5), ErrorCode::NoConnectorAvailable);
    assert_eq!(scene.relay().signalling_sessions(), 0);
}
