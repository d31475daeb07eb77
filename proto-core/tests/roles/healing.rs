//! Stories of agents whose network, intermediate or certificate fails them: what they notice, when, and what they do.

use std::time::Duration;

use proto_core::config::timing::{HANDSHAKE_TIMEOUT, KEEPALIVE, PATIENCE, RECONNECT_CAP, RECONNECT_FIRST};
use proto_core::intermediate::IntermediateEvent;
use proto_core::link::LinkEvent;
use proto_core::machine::{Machine as _, SendError};
use proto_core::quic::CloseReason;
use proto_core::sim::{HostId, LinkConfig};
use proto_core::wire::datagram::NackStatus;

use crate::people::{AgentHost, FIRST};
use crate::setup::{DELAY, Quic, Scene, udp};

const AGENT: &str = "198.51.100.1:1111";
const CONNECTOR: &str = "203.0.113.1:3333";
const ECHO: &[crate::people::Service<'static>] = &[("echo", "10.100.0.1")];
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

fn lost(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Disconnected(_))
}

fn connected(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Connected { .. })
}

/// Sends a packet every 100 ms, as a busy host does, until the agent is registered again.
fn chat_until_registered<Q: Quic>(scene: &mut Scene<Q>, agent: HostId<AgentHost<Q>>) -> Duration {
    let start = scene.world.elapsed();
    scene.world[agent].events.clear();
    while !scene.world[agent].events.contains(&LinkEvent::Registered(FIRST)) {
        let _ = scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"anybody?"));
        scene.world.run_for(Duration::from_millis(100));
        assert!(scene.world.elapsed() - start < Duration::from_secs(60), "never");
    }
    scene.world.elapsed() - start
}

pub(crate) fn a_registration_survives_a_lossy_path<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.world.set_default_link(LinkConfig::new(DELAY).with_loss(20));
    let agent = scene.starting_agent("agent", AGENT, &["agent.echo.ztna"], ECHO);
    scene.await_agent(agent, Duration::from_secs(40));
}

pub(crate) fn a_restarted_intermediate_says_so_and_is_back_at_once<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.restart_relay(Some([5; 32]));
    let took = chat_until_registered(&mut scene, agent);
    assert!(took < RECONNECT_FIRST + Duration::from_millis(500), "{took:?}");
    let events = scene.events(agent);
    assert!(
        events.contains(&LinkEvent::Disconnected(CloseReason::Reset)),
        "{events:?}"
    );
}

pub(crate) fn an_idle_agent_finds_out_with_its_next_sign_of_life<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.world.run_for(KEEPALIVE / 3);
    scene.restart_relay(Some([5; 32]));
    let registered = |event: &LinkEvent| *event == LinkEvent::Registered(FIRST);
    scene.await_event(agent, registered, KEEPALIVE + Duration::from_secs(1));
    let events = scene.events(agent);
    assert!(
        events.contains(&LinkEvent::Disconnected(CloseReason::Reset)),
        "{events:?}"
    );
}

pub(crate) fn an_intermediate_that_forgot_everything_is_given_up_in_time<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    // Another key is no key: the tokens that the agent knows are those of the old one.
    scene.restart_relay(Some([6; 32]));
    let took = chat_until_registered(&mut scene, agent);
    assert!(
        took >= PATIENCE && took < PATIENCE + RECONNECT_FIRST + Duration::from_secs(1),
        "{took:?}"
    );
    let events = scene.events(agent);
    assert!(
        events.contains(&LinkEvent::Disconnected(CloseReason::TimedOut)),
        "{events:?}"
    );
}

pub(crate) fn an_intermediate_without_a_key_is_given_up_in_time<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.restart_relay(None);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.restart_relay(None);
    let took = chat_until_registered(&mut scene, agent);
    assert!(
        took < PATIENCE + RECONNECT_FIRST + Duration::from_secs(1),
        "{took:?}"
    );
}

pub(crate) fn a_denied_certificate_is_reported_and_asked_again_only_after_a_reconnect<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.starting_agent("agent", AGENT, &["agent.web.ztna"], ECHO);
    let denied = LinkEvent::Denied(FIRST, NackStatus::NotAuthorised);
    scene.world.run_for(Duration::from_secs(120));
    let events = scene.events(agent);
    assert_eq!(
        events.iter().filter(|event| **event == denied).count(),
        1,
        "{events:?}"
    );
    assert_eq!(scene.relay().stats().registrations_refused, 1);
    assert_eq!(
        scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"hello")),
        Err(SendError::NotReady)
    );
    scene.restart_relay(Some([5; 32]));
    scene.await_event(agent, |event| *event == denied, Duration::from_secs(20));
    assert_eq!(scene.relay().stats().registrations_refused, 1);
}

pub(crate) fn the_pause_grows_until_a_registration_succeeds<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.replace_relay_by_impostor();
    let agent = scene.starting_agent("agent", AGENT, &["agent.echo.ztna"], ECHO);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let down = scene.await_event(agent, lost, Duration::from_secs(30));
        let up = scene.await_event(agent, connected, Duration::from_secs(30));
        pauses.push(up - down);
    }
    let mut ceiling = RECONNECT_FIRST;
    // A handshake with Retry takes three round trips at most.
    let handshake = 8 * DELAY;
    for pause in &pauses {
        assert!(
            *pause >= ceiling / 2 && *pause <= ceiling + handshake,
            "{pause:?} of {pauses:?}"
        );
        ceiling = (2 * ceiling).min(RECONNECT_CAP);
    }
    assert_eq!(ceiling, RECONNECT_CAP);
}

pub(crate) fn a_success_makes_the_next_pause_short_again<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.world.take_down(scene.relay);
    let agent = scene.starting_agent("agent", AGENT, &["agent.echo.ztna"], ECHO);
    scene.world.run_for(Duration::from_secs(60));
    scene.world.bring_up(scene.relay);
    scene.await_agent(agent, RECONNECT_CAP + HANDSHAKE_TIMEOUT);
    scene.restart_relay(Some([5; 32]));
    let took = chat_until_registered(&mut scene, agent);
    assert!(took < RECONNECT_FIRST + Duration::from_millis(500), "{took:?}");
}

pub(crate) fn agents_that_lose_the_same_intermediate_do_not_return_in_step<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agents: Vec<_> = (1..=4)
        .map(|number| {
            let address = format!("198.51.100.{number}:1111");
            scene.agent(&format!("agent {number}"), &address, ECHO)
        })
        .collect();
    let (relay, now) = (scene.relay, scene.world.now());
    scene.world.with(relay, |host, _| host.machine.shut_down(now));
    let events = scene.world[relay].events.len();
    scene.world.run_for(Duration::from_millis(50));
    scene.restart_relay(Some([5; 32]));
    let back = |world: &proto_core::sim::World<Q::Clock>, count| {
        let registered = |event: &&IntermediateEvent| matches!(event, IntermediateEvent::Registered { .. });
        world[relay].events.iter().filter(registered).count() >= count
    };
    assert!(events >= agents.len());
    let mut times = Vec::new();
    for count in 1..=agents.len() {
        scene
            .world
            .run_until(|world| back(world, count), Duration::from_secs(5));
        times.push(scene.world.elapsed());
    }
    assert!(
        times.windows(2).all(|pair| pair[0] < pair[1]),
        "all at different times: {times:?}"
    );
}

pub(crate) fn an_idle_hour_costs_little<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.world.run_for(Duration::from_secs(1));
    scene.events(agent);
    let (sent, happened) = (scene.world.stats().sent, scene.world.trace().len());
    let hour = Duration::from_secs(3600);
    scene.world.run_for(hour);
    let pings = hour.as_secs() / KEEPALIVE.as_secs();
    let sent = scene.world.stats().sent - sent;
    let happened = scene.world.trace().len() - happened;
    // A peer that has sent nothing but acknowledgements asks for one itself now and then.
    assert!(
        sent >= 2 * pings - 2 && sent <= 2 * pings + pings / 10,
        "a PING and its acknowledgement: {sent}"
    );
    // Each packet is sent and arrives; between them the agent wakes to send it and the intermediate to acknowledge it.
    let wakes = happened - 2 * sent;
    assert!(wakes <= 5 * pings, "{wakes} wake-ups");
    assert!(
        scene.events(agent).is_empty(),
        "and the connection is still the first"
    );
}

pub(crate) fn a_moved_agent_keeps_its_flows<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.events(agent);
    for round in 0..10_u8 {
        if round == 4 {
            scene.world.rebind(agent, "198.51.100.99:8080");
        }
        scene
            .send_packet(agent, &udp(INNER_AGENT, SERVICE, &[round]))
            .unwrap();
        scene.world.run_for(6 * DELAY);
        scene.send(connector, &[&udp(SERVICE, INNER_AGENT, &[round])]);
    }
    assert_eq!(
        scene.received(connector).len(),
        10,
        "every question arrives, also those from the new address"
    );
    let answers = scene.packets(agent);
    let last: Vec<u8> = (5..10).collect();
    let texts: Vec<u8> = answers
        .iter()
        .filter_map(|packet| packet.last().copied())
        .collect();
    assert!(texts.ends_with(&last), "{texts:?}");
    let events = scene.events(agent);
    assert_eq!(
        events,
        [LinkEvent::Observed("198.51.100.99:8080".parse().unwrap())],
        "it is told, and nothing else happens"
    );
}

pub(crate) fn goodbye_is_said_and_heard<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.world.with(agent, |host, now| host.machine.shut_down(now));
    assert!(scene.world[agent].machine.is_drained());
    scene.world.run_for(2 * DELAY);
    let said = |event: &IntermediateEvent| match event {
        IntermediateEvent::Gone { reason, .. } => matches!(
            reason,
            CloseReason::Peer {
                application: true,
                code: 0,
                ..
            }
        ),
        IntermediateEvent::Connected { .. }
        | IntermediateEvent::Registered { .. }
        | IntermediateEvent::Refused { .. }
        | IntermediateEvent::Withdrawn { .. } => false,
    };
    scene.world.run_for(Duration::from_secs(10));
    assert!(
        scene.world[scene.relay].events.iter().any(said),
        "{:?}",
        scene.world[scene.relay].events
    );
    assert_eq!(scene.relay().connections(), 0);
    assert_eq!(scene.relay().registry().registrations(), 0);
    assert_eq!(
        scene.world[agent].machine.poll_timeout(),
        None,
        "and it never connects again"
    );
    assert_eq!(
        scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"hello")),
        Err(SendError::NotReady)
    );
}

pub(crate) fn hours_of_sleep_are_one_step<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    for _ in 0..3 {
        scene.world.take_down(agent);
        scene.world.run_for(Duration::from_secs(3 * 3600));
        scene.world.bring_up(agent);
        scene.events(agent);
        scene.await_agent(agent, Duration::from_secs(1));
    }
    assert_eq!(scene.relay().connections(), 1);
}

pub(crate) fn a_cut_path_is_noticed_and_heals<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    let relay = scene.relay;
    scene.world.cut(agent, relay);
    let start = scene.world.elapsed();
    let noticed = scene.await_event(agent, lost, KEEPALIVE + PATIENCE + Duration::from_secs(1));
    assert!(noticed - start > Duration::from_secs(1));
    scene.world.run_for(Duration::from_secs(300));
    scene.world.mend(agent, relay);
    scene.await_agent(agent, HANDSHAKE_TIMEOUT + RECONNECT_CAP + Duration::from_secs(1));
    scene.world.run_for(Duration::from_secs(60));
    assert_eq!(scene.relay().connections(), 1, "the old one is forgotten");
}

pub(crate) fn a_short_cut_costs_no_connection<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.events(agent);
    let relay = scene.relay;
    for _ in 0..5 {
        scene.world.cut(agent, relay);
        let _ = scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"into the void"));
        scene.world.run_for(Duration::from_secs(2));
        scene.world.mend(agent, relay);
        scene.world.run_for(Duration::from_secs(20));
    }
    let events = scene.events(agent);
    assert!(!events.iter().any(lost), "{events:?}");
}

pub(crate) fn an_address_learned_late_is_tried_at_once<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let mut agent = scene.new_agent(AGENT, &["agent.echo.ztna"], ECHO);
    // Nobody is there: the pause between attempts grows to its cap.
    agent
        .machine
        .set_intermediate_addresses(vec!["192.0.2.200:4433".parse().unwrap()]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.world.run_for(Duration::from_secs(90));
    assert!(!scene.events(agent).iter().any(connected));
    // A resolver found another address in the middle of a pause.
    let pausing = |world: &proto_core::sim::World<Q::Clock>| {
        matches!(world[agent].events.last(), Some(LinkEvent::Unreachable { .. }))
    };
    scene.world[agent].events.clear();
    scene.world.run_until(pausing, HANDSHAKE_TIMEOUT + RECONNECT_CAP);
    let found = vec![crate::setup::RELAY.parse().unwrap()];
    scene
        .world
        .with(agent, |host, _| host.machine.set_intermediate_addresses(found));
    scene.await_agent(agent, 20 * DELAY);
}
