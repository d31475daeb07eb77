//! Stories of legs that carry less than others. Real QUIC only: the stand-in believes in one size.

use std::time::Duration;

use proto_core::machine::SendError;
use proto_core::routing::packet;
use proto_core::sim::{HostId, LinkConfig};
use proto_core::wire::datagram::Role;

use crate::people::AgentHost;
use crate::setup::{DELAY, Quic, RealQuic, Scene, SpeakerHost, routed, udp};
use crate::speaking::register;

const AGENT: &str = "198.51.100.1:1111";
const CONNECTOR: &str = "203.0.113.1:3333";
const ECHO: &[crate::people::Service<'static>] = &[("echo", "10.100.0.1")];
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

/// IPv4 and UDP outside, QUIC around a DATAGRAM, and the wrapper of the service.
const OUTSIDE: usize = 28 + 32;
const WRAPPER: usize = 2 + 4;

fn carrying(mtu: usize) -> LinkConfig {
    LinkConfig {
        mtu,
        ..LinkConfig::new(DELAY)
    }
}

/// An agent and a connector whose legs carry this much, when both have been measured.
fn legs(agent_leg: usize, connector_leg: usize) -> (Scene<RealQuic>, HostId<AgentHost<RealQuic>>) {
    let mut scene = Scene::new(RealQuic::new());
    let provider = scene.quic.client(&["connector.*.ztna"]);
    let connector = scene.new_connector(provider, CONNECTOR, ECHO);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene
        .world
        .set_link(connector, scene.relay, carrying(connector_leg));
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = scene.starting_agent("agent", AGENT, &["agent.*.ztna"], ECHO);
    scene.world.set_link(agent, scene.relay, carrying(agent_leg));
    scene.await_agent(agent, Duration::from_secs(5));
    scene.world.run_for(Duration::from_secs(5));
    (scene, agent)
}

#[test]
fn the_least_path_of_quic_carries_handshakes_and_registrations_at_once() {
    let mut scene = Scene::new(RealQuic::new());
    scene.world.set_default_link(carrying(1_200 + 28));
    let agent = scene.starting_agent("agent", AGENT, &["agent.*.ztna"], ECHO);
    // Retry, handshake and registration take a round trip each; what was lost would be repeated after a second.
    scene.await_agent(agent, 8 * DELAY);
}

#[test]
fn the_interface_follows_the_leg_of_the_agent() {
    for leg in [1_500, 1_400, 1_300] {
        let (mut scene, agent) = legs(leg, 1_500);
        let mtu = (leg - OUTSIDE).min(1_420) - WRAPPER;
        assert_eq!(scene.world[agent].machine.path_mtu(), Some(mtu));
        let payload = vec![7; mtu - 28];
        assert_eq!(
            scene.ask(agent, INNER_AGENT, SERVICE, &payload),
            [udp(SERVICE, INNER_AGENT, &payload)]
        );
        let large = udp(INNER_AGENT, SERVICE, &vec![7; mtu - 27]);
        assert_eq!(scene.send_packet(agent, &large), Err(SendError::TooLarge));
    }
}

#[test]
fn the_intermediate_answers_for_a_smaller_leg_of_the_connector() {
    let (mut scene, agent) = legs(1_500, 1_400);
    let mtu = scene.world[agent].machine.path_mtu().unwrap();
    assert_eq!(mtu, 1_420 - WRAPPER);
    scene
        .send_packet(agent, &udp(INNER_AGENT, SERVICE, &vec![7; mtu - 28]))
        .unwrap();
    scene.world.run_for(4 * DELAY);
    let answers = scene.packets(agent);
    let parsed = packet::parse(&answers[0]).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    let fits = usize::from(u16::from_be_bytes([answers[0][26], answers[0][27]]));
    assert_eq!(fits, 1_400 - OUTSIDE);
    let payload = vec![7; fits - 28];
    assert_eq!(
        scene.ask(agent, INNER_AGENT, SERVICE, &payload),
        [udp(SERVICE, INNER_AGENT, &payload)]
    );
}

/// Of two agents that look alike the second travels under an alias; what is said about its packets must reach it under its own
/// address.
#[test]
fn an_agent_under_an_alias_is_told_as_well() {
    let (mut scene, first) = legs(1_500, 1_400);
    let second = scene.agent("second", "198.51.100.2:1111", ECHO);
    scene.world.run_for(Duration::from_secs(5));
    // The first holds the flow, so the second is told apart from it.
    for agent in [first, second] {
        assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, b"hello").len(), 1);
    }
    let mtu = scene.world[second].machine.path_mtu().unwrap();
    scene
        .send_packet(second, &udp(INNER_AGENT, SERVICE, &vec![7; mtu - 28]))
        .unwrap();
    scene.world.run_for(4 * DELAY);
    let answers = scene.packets(second);
    let parsed = packet::parse(&answers[0]).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    assert!(packet::verify_checksums(&parsed, &answers[0]));
    let own = packet::parse(&udp(INNER_AGENT, SERVICE, &[])).unwrap().flow;
    assert_eq!(parsed.flow, own.reversed());
    assert_eq!(answers[0][16..20], [10, 9, 0, 1]);
}

/// The other direction: a connector knows the agent by its alias only.
#[test]
fn a_connector_is_told_by_the_alias_that_it_knows() {
    let mut scene = Scene::new(RealQuic::new());
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let first = scene.agent("first", AGENT, ECHO);
    let second = scene.starting_agent("second", "198.51.100.2:1111", &["agent.*.ztna"], ECHO);
    scene.world.set_link(second, scene.relay, carrying(1_300));
    scene.await_agent(second, Duration::from_secs(5));
    scene.world.run_for(Duration::from_secs(5));
    for agent in [first, second] {
        scene
            .send_packet(agent, &udp(INNER_AGENT, SERVICE, b"hello"))
            .unwrap();
        scene.world.run_for(4 * DELAY);
    }
    let heard = scene.received(connector);
    let alias = packet::parse(&heard[1]).unwrap().flow;
    assert_ne!(alias.source, packet::parse(&heard[0]).unwrap().flow.source);
    let source = format!("{}:{}", alias.source, alias.source_port);
    scene.send(connector, &[&udp(SERVICE, &source, &[7; 1_250])]);
    scene.world.run_for(4 * DELAY);
    let [.., error] = &scene.received(connector)[..] else {
        panic!("nothing came")
    };
    let parsed = packet::parse(error).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    assert_eq!(parsed.flow, alias);
}

/// An agent with a wide leg, and a connector of v2 with another.
fn wide_agent_and_speaker(
    connector_leg: usize,
) -> (
    Scene<RealQuic>,
    HostId<AgentHost<RealQuic>>,
    HostId<SpeakerHost<RealQuic>>,
) {
    let mut scene = Scene::new(RealQuic::new());
    scene.world.set_default_link(carrying(connector_leg));
    let names = ["connector.*.ztna"];
    let connector = scene.speaker("connector", CONNECTOR, Role::Connector, &names);
    scene.say(connector, &[register("echo")]);
    scene.world.set_default_link(carrying(1_500));
    scene
        .world
        .set_link(connector, scene.relay, carrying(connector_leg));
    let agent = scene.agent("agent", AGENT, ECHO);
    scene.world.run_for(Duration::from_secs(5));
    scene.take_datagrams(connector);
    (scene, agent, connector)
}

/// What stands before a packet and says whose it is may be longer than what the packet leaves of a small leg.
#[test]
fn a_connector_of_v2_leaves_room_for_the_service_before_its_packets() {
    let (mut scene, agent, connector) = wide_agent_and_speaker(1_300);
    let mtu = scene.world[agent].machine.path_mtu().unwrap();
    let large = udp(INNER_AGENT, SERVICE, &vec![7; mtu - 28]);
    scene.send_packet(agent, &large).unwrap();
    scene.world.run_for(4 * DELAY);
    let answers = scene.packets(agent);
    let fits = usize::from(u16::from_be_bytes([answers[0][26], answers[0][27]]));
    assert_eq!(fits, 1_300 - OUTSIDE - WRAPPER);
    // The introduction goes ahead of a packet that leaves no room for it.
    let fitting = udp(INNER_AGENT, SERVICE, &vec![7; fits - 28]);
    scene.send_packet(agent, &fitting).unwrap();
    scene.world.run_for(4 * DELAY);
    let heard = scene.take_datagrams(connector);
    assert_eq!(heard.last(), Some(&routed("echo", &fitting)));
    assert!(heard[..heard.len() - 1].iter().all(|ahead| ahead[0] == 0x14));

    // What may be cut is cut, and each piece has the service before it.
    let mut may_be_cut = large;
    assert_eq!(may_be_cut[6] & 0x40, 0x40);
    may_be_cut[6] ^= 0x40;
    let checksum = u16::from_be_bytes([may_be_cut[10], may_be_cut[11]]);
    let (sum, carry) = checksum.overflowing_add(0x4000);
    may_be_cut[10..12].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    scene.send_packet(agent, &may_be_cut).unwrap();
    scene.world.run_for(4 * DELAY);
    let pieces = scene.take_datagrams(connector);
    let pieces: Vec<_> = pieces.iter().filter(|piece| piece[0] == 0x2f).collect();
    assert_eq!(pieces.len(), 2);
    let inner = pieces
        .iter()
        .map(|piece| piece.strip_prefix(&routed("echo", b"")[..]).unwrap());
    assert_eq!(inner.map(|piece| piece.len() - 20).sum::<usize>(), mtu - 20);
}

#[test]
fn a_connector_of_v2_is_told_a_size_with_the_service_before_it() {
    let mut scene = Scene::new(RealQuic::new());
    let names = ["connector.*.ztna"];
    let connector = scene.speaker("connector", CONNECTOR, Role::Connector, &names);
    scene.say(connector, &[register("echo")]);
    let agent = scene.starting_agent("agent", AGENT, &["agent.*.ztna"], ECHO);
    scene.world.set_link(agent, scene.relay, carrying(1_300));
    scene.await_agent(agent, Duration::from_secs(5));
    scene.world.run_for(Duration::from_secs(5));
    scene
        .send_packet(agent, &udp(INNER_AGENT, SERVICE, b"hello"))
        .unwrap();
    scene.world.run_for(4 * DELAY);
    scene.take_datagrams(connector);
    let large = routed("echo", &udp(SERVICE, INNER_AGENT, &[7; 1_250]));
    scene.world.with(connector, |host, _| host.machine.send(&large));
    scene.world.run_for(4 * DELAY);
    let told = scene.take_datagrams(connector).remove(0);
    let error = told.strip_prefix(&routed("echo", b"")[..]).unwrap();
    let parsed = packet::parse(error).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    let fits = u16::from_be_bytes([error[26], error[27]]);
    assert_eq!(usize::from(fits), 1_300 - OUTSIDE);
}

#[test]
fn nobody_is_told_a_size_while_it_is_searched() {
    let mut scene = Scene::new(RealQuic::new());
    scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    let large = udp(INNER_AGENT, SERVICE, &[7; 1_350]);
    assert_eq!(scene.send_packet(agent, &large), Err(SendError::NotReady));
    assert_eq!(scene.packets(agent), Vec::<Vec<u8>>::new());
    // The interface may have its full size all the time.
    assert_eq!(scene.world[agent].machine.path_mtu(), Some(1_420 - WRAPPER));
    scene.world.run_for(3 * DELAY);
    scene.send_packet(agent, &large).unwrap();
}
