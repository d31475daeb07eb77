//! v1 agents that reach a connector of ours directly.

use std::net::SocketAddr;
use std::time::Duration;

use proto_core::agent::ServicePath;
use proto_core::config::SessionConfig;
use proto_core::connector::Connector;
use proto_core::quic::CloseReason;
use proto_core::sim::{BackendsHost, EchoBackends, HostId};
use proto_core::v1peer::MEETING_LIFETIME;
use proto_core::wire::control::{Candidate, CandidateKind, ErrorCode, SignalingMessage};
use proto_core::wire::v1::RawMessage;

use crate::people::{ConnectorHost, Service, connector_config};
use crate::raw::FORGOTTEN;
use crate::setup::{DELAY, Quic, RawHost, Scene, V1, routed, udp};

const ECHO: &[Service<'static>] = &[("echo", "10.100.0.1"), ("other", "10.100.0.2")];
const INNER: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";
const AGENT: &str = "198.51.100.10:4000";
const SECOND: &str = "198.51.100.11:4000";
const CONNECTOR: &str = "203.0.113.1:4434";

type Agent<Q> = HostId<RawHost<Q>>;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn connector<Q: Quic>(scene: &mut Scene<Q>, has_sessions: bool) -> HostId<ConnectorHost<Q>> {
    connector_of(scene, has_sessions.then(SessionConfig::default))
}

fn connector_of<Q: Quic>(scene: &mut Scene<Q>, sessions: Option<SessionConfig>) -> HostId<ConnectorHost<Q>> {
    // Agents of v1 take a connector only for what TLS calls a server: its certificate has a name of one, too.
    let provider = scene.quic.publisher(&["connector.*.ztna", "host.test"]);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let mut config = connector_config(CONNECTOR, ECHO);
    config.sessions = sessions;
    let host = BackendsHost::new(
        Connector::new(config, provider, &seed, now),
        EchoBackends::default(),
    );
    let host = scene.world.add("connector", CONNECTOR, host);
    scene.await_connector(host, Duration::from_secs(5));
    host
}

/// Offers these addresses, and lets the answer come.
fn offer<Q: Quic>(scene: &mut Scene<Q>, agent: Agent<Q>, session: u64, addresses: &[&str]) {
    let candidates = addresses.iter().map(|text| Candidate {
        kind: CandidateKind::Host,
        address: address(text),
        priority: 1,
        foundation: "host".into(),
        related: None,
    });
    let offer = SignalingMessage::CandidateOffer {
        session,
        service: "echo".into(),
        candidates: candidates.collect(),
    };
    scene.world.with(agent, |host, _| host.machine.signal(&offer));
    scene.world.run_for(10 * DELAY);
}

/// Opens a direct connection, and waits until it stands or is refused.
fn go_direct<Q: Quic>(scene: &mut Scene<Q>, agent: Agent<Q>) {
    scene
        .world
        .with(agent, |host, now| host.machine.go_direct(address(CONNECTOR), now));
    scene.world.run_for(20 * DELAY);
}

/// A v1 agent that has found its way.
fn guest<Q: Quic>(scene: &mut Scene<Q>, name: &str, at: &str, session: u64) -> Agent<Q> {
    let agent = scene.registered(name, at, 0x10, "echo");
    offer(scene, agent, session, &[at]);
    go_direct(scene, agent);
    assert!(scene.world[agent].machine.direct_connected);
    agent
}

fn send_direct<Q: Quic>(scene: &mut Scene<Q>, agent: Agent<Q>, packet: &[u8]) {
    scene
        .world
        .with(agent, |host, _| host.machine.send_direct(packet));
    scene.world.run_for(10 * DELAY);
}

pub(crate) fn a_v1_agent_reaches_a_connector_directly<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = connector(&mut scene, true);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    offer(&mut scene, agent, 5, &[AGENT]);
    let heard = scene.world[agent].machine.signalled.clone();
    let [
        SignalingMessage::StartPunching {
            session: 5,
            peer_candidates,
            ..
        },
    ] = &heard[..]
    else {
        panic!("no start: {heard:?}");
    };
    let observed = address(CONNECTOR);
    assert!(
        peer_candidates
            .iter()
            .any(|candidate| candidate.address == observed)
    );

    // Both ask, and both are answered.
    let ask = RawMessage::BindingRequest {
        transaction: [7; 12],
        priority: 1,
        use_candidate: true,
    };
    for _ in 0..2 {
        scene
            .world
            .with(agent, |host, _| host.machine.send_beside(observed, &ask.write()));
        scene.world.run_for(10 * DELAY);
    }
    let beside = scene.world[agent].machine.beside.clone();
    let messages = beside
        .iter()
        .map(|(_, payload)| RawMessage::parse(payload).unwrap());
    let messages: Vec<_> = messages.collect();
    assert!(
        messages
            .iter()
            .any(|message| matches!(message, RawMessage::BindingRequest { .. }))
    );
    let answered = |observed| RawMessage::BindingResponse {
        transaction: [7; 12],
        success: true,
        observed,
    };
    assert!(messages.contains(&answered(None)) && messages.contains(&answered(Some(address(AGENT)))));

    go_direct(&mut scene, agent);
    assert!(scene.world[agent].machine.direct_connected);
    assert_eq!(scene.world[connector].machine.v1_agents(), 1);
    // Packets go straight; answers come through the intermediate, which never saw the flow.
    let question = udp(INNER, SERVICE, b"straight");
    send_direct(&mut scene, agent, &question);
    let answer = udp(SERVICE, INNER, b"straight");
    assert_eq!(scene.received(agent), [answer]);
    assert_eq!(scene.relay().stats().relayed, 1);
    assert_eq!(scene.relay().flows(), 0);
    assert!(scene.world[agent].machine.direct_received.is_empty());
    assert_eq!(scene.relay().signalling_stats().succeeded, 1);
    // It is not limited to the time of the offer.
    for _ in 0..8 {
        scene.world.run_for(Duration::from_secs(5));
        send_direct(&mut scene, agent, &question);
    }
    assert_eq!(scene.received(agent).len(), 9);
}

pub(crate) fn a_flow_of_the_relay_goes_on_directly<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = connector(&mut scene, true);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let question = udp(INNER, SERVICE, b"first");
    scene.send(agent, &[&routed("echo", &question)]);
    scene.world.run_for(10 * DELAY);
    assert_eq!(scene.received(agent), [udp(SERVICE, INNER, b"first")]);
    offer(&mut scene, agent, 5, &[AGENT]);
    go_direct(&mut scene, agent);
    send_direct(&mut scene, agent, &udp(INNER, SERVICE, b"second"));
    assert_eq!(scene.received(agent)[1..], [udp(SERVICE, INNER, b"second")]);
    let stats = scene.world[connector].machine.netstack_stats();
    assert_eq!(stats.udp_flows, 1, "one flow on both ways");
}

pub(crate) fn v1_agents_that_look_alike_hear_their_own_words<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    connector(&mut scene, true);
    let first = guest(&mut scene, "first", AGENT, 5);
    let second = guest(&mut scene, "second", SECOND, 6);
    for (agent, text) in [(first, b"one"), (second, b"two"), (first, b"six")] {
        send_direct(&mut scene, agent, &udp(INNER, SERVICE, text));
    }
    let answer = |text| udp(SERVICE, INNER, text);
    assert_eq!(scene.received(first), [answer(b"one"), answer(b"six")]);
    assert_eq!(scene.received(second), [answer(b"two")]);
}

pub(crate) fn strangers_beside_quic_are_not_answered<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = connector(&mut scene, true);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let stranger = scene.registered("stranger", SECOND, 0x10, "echo");
    offer(&mut scene, agent, 5, &[AGENT]);
    let messages = [
        RawMessage::BindingRequest {
            transaction: [7; 12],
            priority: 1,
            use_candidate: true,
        },
        RawMessage::KeepaliveRequest { sequence: 1 },
    ];
    for message in messages {
        scene.world.with(stranger, |host, _| {
            host.machine.send_beside(address(CONNECTOR), &message.write());
        });
        scene.world.run_for(10 * DELAY);
    }
    go_direct(&mut scene, stranger);
    let machine = &scene.world[stranger].machine;
    assert!(machine.beside.is_empty() && !machine.direct_connected);
    let machine = &scene.world[connector].machine;
    assert_eq!(machine.v1_stats().unnamed, 2);
    assert!(machine.pool_stats().uninvited > 0);
    assert_eq!(machine.pool_stats().accepted, 0);
}

/// An agent names the address of another, whose certificate permits another service.
pub(crate) fn an_agent_of_another_service_is_sent_away<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = connector(&mut scene, true);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let other = scene.registered("other", SECOND, 0x10, "other");
    offer(&mut scene, agent, 5, &[AGENT, SECOND]);
    go_direct(&mut scene, other);
    scene.world.run_for(Duration::from_secs(2));
    assert!(matches!(
        scene.world[other].machine.direct_closed,
        Some(CloseReason::Peer {
            application: true,
            code: 3,
            ..
        })
    ));
    // Nor does one of the same service get in, where the intermediate has said whose the offer is.
    let namesake = scene.registered("namesake", "198.51.100.12:4000", 0x10, "echo");
    offer(&mut scene, agent, 6, &["198.51.100.12:4000"]);
    go_direct(&mut scene, namesake);
    scene.world.run_for(Duration::from_secs(2));
    assert!(scene.world[namesake].machine.direct_closed.is_some());
    let machine = &scene.world[connector].machine;
    assert_eq!((machine.v1_agents(), machine.v1_stats().rejected), (0, 2));
}

pub(crate) fn a_direct_connection_that_ends_leaves_nothing<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = connector(&mut scene, true);
    let agent = guest(&mut scene, "agent", AGENT, 5);
    send_direct(&mut scene, agent, &udp(INNER, SERVICE, b"hello"));
    scene.world.take_down(agent);
    scene.world.run_for(FORGOTTEN + MEETING_LIFETIME);
    let machine = &scene.world[connector].machine;
    assert_eq!(machine.v1_agents(), 0);
    assert_eq!(machine.v1_meetings(), 0);
}

/// A v1 intermediate has one connection for each service, its signalling on streams of its own, and no word for whose an offer is.
pub(crate) fn a_connector_of_a_v1_intermediate_is_reached_as_well<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.restart_relay_as(V1, None);
    let connector = connector(&mut scene, true);
    scene.world.run_for(Duration::from_secs(1));
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene.send(agent, &[&routed("echo", &udp(INNER, SERVICE, b"first"))]);
    scene.world.run_for(10 * DELAY);
    offer(&mut scene, agent, 5, &[AGENT]);
    let heard = scene.world[agent].machine.signalled.clone();
    assert!(
        matches!(heard[..], [SignalingMessage::StartPunching { session: 5, .. }]),
        "{heard:?}"
    );
    go_direct(&mut scene, agent);
    assert_eq!(scene.world[connector].machine.v1_agents(), 1);
    send_direct(&mut scene, agent, &udp(INNER, SERVICE, b"second"));
    let answers = [b"first".as_slice(), b"second"].map(|text| udp(SERVICE, INNER, text));
    assert_eq!(scene.received(agent), answers);
}

pub(crate) fn a_connector_that_lets_nobody_come_directly_has_nobody_come<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let sessions = SessionConfig {
        direct: false,
        ..SessionConfig::default()
    };
    connector_of(&mut scene, Some(sessions));
    let v2 = crate::sessions::new_agent(&mut scene, SECOND, &["agent.*.ztna"]);
    let v2 = scene.world.add("v2", SECOND, v2);
    scene.await_agent(v2, Duration::from_secs(5));
    for _ in 0..5 {
        assert_eq!(
            scene.ask(v2, INNER, SERVICE, b"hello"),
            [udp(SERVICE, INNER, b"hello")]
        );
        scene.world.run_for(Duration::from_secs(2));
    }
    assert_eq!(crate::sessions::path::<Q>(&scene.world, v2), ServicePath::Relayed);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    offer(&mut scene, agent, 5, &[AGENT]);
    assert!(matches!(
        scene.world[agent].machine.signalled[..],
        [SignalingMessage::Error { .. }]
    ));
}

pub(crate) fn a_connector_without_sessions_says_so<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    connector(&mut scene, false);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    offer(&mut scene, agent, 5, &[AGENT]);
    let heard = scene.world[agent].machine.signalled.clone();
    assert!(
        matches!(
            heard[..],
            [SignalingMessage::Error {
                session: Some(5),
                code: ErrorCode::NoConnectorAvailable,
                ..
            }]
        ),
        "{heard:?}"
    );
}
