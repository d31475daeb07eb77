//! Stories of services that change while they are in use: a backend falls ill and recovers, a configuration is replaced.

use std::time::Duration;

use proto_core::config::{AgentConfig, ConnectorConfig};
use proto_core::forward::{CONNECT_PATIENCE, NotReached};
use proto_core::link::LinkEvent;
use proto_core::machine::SendError;
use proto_core::routing::packet;
use proto_core::service::health::{HealthCheck, Question};
use proto_core::sim::{HostId, World};

use crate::locals::{CONNECTOR, ECHO, OTHER, STREAM, Told, say};
use crate::people::{AgentHost, BACKEND, ConnectorHost, Service, agent_config, connector_config};
use crate::setup::{Quic, Scene, udp};

const AGENT: &str = "198.51.100.2:1111";
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";
const SECOND: Service<'_> = ("other", "10.100.0.2");
const MOMENT: Duration = Duration::from_secs(1);

/// Bad after two refusals a second apart, good after one answer.
const CHECK: HealthCheck = HealthCheck {
    question: Question::Connect,
    interval: MOMENT,
    timeout: MOMENT,
    healthy: 1,
    unhealthy: 2,
};

fn reconfigure<Q: Quic>(
    scene: &mut Scene<Q>,
    connector: HostId<ConnectorHost<Q>>,
    services: &[Service<'_>],
    change: impl FnOnce(&mut ConnectorConfig),
) {
    let mut config = connector_config(CONNECTOR, services);
    change(&mut config);
    scene.world.with(connector, |host, now| {
        host.machine.reconfigure(config, now);
    });
}

/// Makes the backends ill or well, and waits until the connector has drawn the consequence.
#[track_caller]
fn until_offered<Q: Quic>(scene: &mut Scene<Q>, connector: HostId<ConnectorHost<Q>>, offered: bool) {
    scene
        .world
        .with(connector, |host, _| host.backend.sick = !offered);
    let is_done = |world: &World<Q::Clock>| {
        let status = world[connector].machine.status();
        let is = |service: &proto_core::connector::ServiceStatus| {
            service.available == offered && service.registered == offered
        };
        status.iter().all(is)
    };
    // Two checks, each with its pause of a second and a tenth at most; then a connection.
    scene.world.run_until(is_done, 4 * MOMENT);
}

pub(crate) fn a_service_without_a_backend_is_answered_for_until_it_returns<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.connector("connector", CONNECTOR, &[ECHO]);
    let agent = scene.agent("agent", AGENT, &[ECHO]);
    let check = |config: &mut ConnectorConfig| config.services[0].offer.health = Some(CHECK);
    reconfigure(&mut scene, connector, &[ECHO], check);
    scene.world.run_for(3 * MOMENT);
    for round in 0..3_u8 {
        let answer = udp(SERVICE, INNER_AGENT, &[round]);
        assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, &[round]), [answer]);
        until_offered(&mut scene, connector, false);
        // A closed connection is remembered for a moment (RFC 9000 §10.2).
        scene.world.run_for(MOMENT);
        assert_eq!(scene.relay().registry().connectors(), 0);
        // Nobody waits for a silence to end: the intermediate says at once that nobody is there.
        let begun = scene.world.elapsed();
        scene.packets(agent);
        scene
            .send_packet(agent, &udp(INNER_AGENT, SERVICE, b"anybody?"))
            .unwrap();
        scene
            .world
            .run_until(|world| !world[agent].packets.is_empty(), MOMENT);
        assert!(scene.world.elapsed() - begun < MOMENT / 4);
        let answer = &scene.packets(agent)[0];
        let parsed = packet::parse(answer).unwrap();
        assert_eq!(parsed.kind, packet::Kind::IcmpError);
        let asked = udp(INNER_AGENT, SERVICE, b"");
        assert_eq!(parsed.flow, packet::parse(&asked).unwrap().flow.reversed());
        until_offered(&mut scene, connector, true);
    }
    // The agent's own registration has not suffered.
    let lost = |event: &LinkEvent| matches!(event, LinkEvent::Disconnected(_));
    assert!(!scene.events(agent).iter().any(lost));
}

/// A stream that has said `words` to its service and heard them.
fn running<Q: Quic>(
    told: &mut Told<Q>,
    listener: proto_core::local::ListenerIndex,
) -> proto_core::backend::FlowId {
    let flow = told.connect(listener, b"words", false);
    told.until(flow, |program| program.heard == b"words", 5 * MOMENT);
    flow
}

/// Whether a stream that was told to say more hears it.
#[track_caller]
fn goes_on<Q: Quic>(told: &mut Told<Q>, flow: proto_core::backend::FlowId) {
    let expected = told.program(flow).heard.len() + 4;
    say(told, flow, b"more", false);
    told.until(flow, |program| program.heard.len() == expected, MOMENT);
    assert!(!told.program(flow).reset);
}

pub(crate) fn sessions_outlive_every_change_but_the_end_of_their_service<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let connector = told.connector;
    let echo = running(&mut told, STREAM);

    // One more.
    reconfigure(&mut told.scene, connector, &[SECOND, ECHO], |_| {});
    told.scene.await_connector(connector, 5 * MOMENT);
    goes_on(&mut told, echo);
    let other = running(&mut told, OTHER);
    assert_eq!(
        told.scene.world[connector].backend.last,
        Some(BACKEND.parse().unwrap())
    );

    // One has another backend: for what begins from now on.
    let moved = "10.200.0.2:1";
    reconfigure(&mut told.scene, connector, &[ECHO, SECOND], |config| {
        let listener = &mut config.services[1].offer.listeners[0];
        *listener =
            proto_core::service::Offer::single(moved.parse().unwrap(), proto_core::config::Protocol::Both)
                .listeners
                .remove(0);
    });
    goes_on(&mut told, echo);
    goes_on(&mut told, other);
    let newer = running(&mut told, OTHER);
    assert_eq!(
        told.scene.world[connector].backend.last,
        Some(moved.parse().unwrap())
    );

    // One less.
    reconfigure(&mut told.scene, connector, &[SECOND], |_| {});
    told.until(echo, |program| program.reset, MOMENT);
    goes_on(&mut told, other);
    goes_on(&mut told, newer);
    assert_eq!(told.scene.world[connector].backend.open, 2);
    told.scene.world.run_for(MOMENT);
    let gone = told.connect(STREAM, b"", false);
    let (why, took) = told.refused(gone, CONNECT_PATIENCE);
    assert!(
        why == NotReached::Unreachable && took < MOMENT / 4,
        "{why:?} after {took:?}"
    );

    // And back.
    reconfigure(&mut told.scene, connector, &[ECHO, SECOND], |_| {});
    told.scene.await_connector(connector, 5 * MOMENT);
    running(&mut told, STREAM);
    goes_on(&mut told, other);
}

fn agent_reconfigure<Q: Quic>(scene: &mut Scene<Q>, agent: HostId<AgentHost<Q>>, services: &[Service<'_>]) {
    let config: AgentConfig = agent_config(AGENT, services);
    scene
        .world
        .with(agent, |host, now| host.machine.reconfigure(&config, now));
}

pub(crate) fn an_agent_goes_on_with_what_it_keeps_and_learns_what_is_new<Q: Quic>(quic: Q) {
    let third = ("third", "10.100.0.3");
    let mut scene = Scene::new(quic);
    scene.connector("connector", CONNECTOR, &[ECHO, SECOND, third]);
    let agent = scene.agent("agent", AGENT, &[SECOND, ECHO]);
    let other = "10.100.0.2:9999";
    let heard = |scene: &mut Scene<Q>, service: &str| {
        scene.ask(agent, INNER_AGENT, service, b"?") == [udp(service, INNER_AGENT, b"?")]
    };
    assert!(heard(&mut scene, SERVICE) && heard(&mut scene, other));
    scene.events(agent);

    // `echo` stays, at another place in the list; `other` goes, `third` comes.
    agent_reconfigure(&mut scene, agent, &[third, ECHO]);
    // Not even the next packet of the one that stays is lost.
    assert!(heard(&mut scene, SERVICE));
    assert_eq!(
        scene.send_packet(agent, &udp(INNER_AGENT, other, b"?")),
        Err(SendError::NoRoute)
    );
    scene.await_agent(agent, MOMENT);
    assert!(heard(&mut scene, "10.100.0.3:9999"));

    // The same services under another address; a connector that has none of its own for it would take it.
    agent_reconfigure(&mut scene, agent, &[("third", "10.100.0.33"), ECHO]);
    assert_eq!(
        scene.send_packet(agent, &udp(INNER_AGENT, "10.100.0.3:9999", b"?")),
        Err(SendError::NoRoute)
    );
    scene
        .send_packet(agent, &udp(INNER_AGENT, "10.100.0.33:9999", b"?"))
        .unwrap();
    assert!(heard(&mut scene, SERVICE));
    let lost = |event: &LinkEvent| matches!(event, LinkEvent::Disconnected(_));
    assert!(!scene.events(agent).iter().any(lost));
    assert_eq!(scene.world[agent].machine.link_stats().reconnections, 0);

    // While there is no connection, the new list waits for the next one.
    scene.world.cut(agent, scene.relay);
    scene.world.run_for(60 * MOMENT);
    agent_reconfigure(&mut scene, agent, &[SECOND]);
    scene.world.mend(agent, scene.relay);
    scene.await_agent(agent, 20 * MOMENT);
    assert!(heard(&mut scene, other));
}
