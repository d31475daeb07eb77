//! Stories of agents and connectors: what hosts say to services, and hear from them, through everything.

use std::time::Duration;

use proto_core::config::timing::KEEPALIVE;
use proto_core::machine::Machine as _;
use proto_core::routing::packet;
use proto_core::sim::LinkConfig;

use crate::setup::{DELAY, Quic, Scene, message, routed, udp};

const AGENT: &str = "198.51.100.1:1111";
const CONNECTOR: &str = "203.0.113.1:3333";
const ECHO: &[crate::people::Service<'static>] = &[("echo", "10.100.0.1")];
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

pub(crate) fn an_echo_comes_back_through_everything<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    let mtu = scene.world[agent].machine.path_mtu().unwrap();
    for len in [0, 1, 100, 1000, mtu - 28] {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        assert_eq!(
            scene.ask(agent, INNER_AGENT, SERVICE, &payload),
            [udp(SERVICE, INNER_AGENT, &payload)],
            "{len} bytes"
        );
    }
}

pub(crate) fn a_ping_is_answered_for_the_service_and_nobody_else<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.connector("connector", CONNECTOR, ECHO);
    // This agent believes that a second address belongs to the service; its connector knows better.
    let services = [("echo", "10.100.0.1"), ("other", "10.100.0.77")];
    let agent = scene.agent("agent", AGENT, &services);
    let ping = ping("10.9.0.1", "10.100.0.1");
    scene.send_packet(agent, &ping).unwrap();
    scene.world.run_for(Duration::from_secs(1));
    let answers = scene.packets(agent);
    assert_eq!(answers.len(), 1);
    let (parsed, asked) = (packet::parse(&answers[0]).unwrap(), packet::parse(&ping).unwrap());
    assert_eq!(
        (parsed.kind, parsed.flow),
        (packet::Kind::EchoReply, asked.flow.reversed())
    );
    assert!(packet::verify_checksums(&parsed, &answers[0]));
    assert_eq!(
        answers[0][parsed.payload], ping[asked.payload],
        "with its payload"
    );

    let raw = scene.raw("raw", "198.51.100.9:1", &["agent.echo.ztna"]);
    scene.send(raw, &[&message(0x10, "echo")]);
    scene.world.with(raw, |host, _| host.machine.received.clear());
    scene.send(raw, &[&routed("echo", &self::ping("10.9.0.1", "10.100.0.77"))]);
    scene.world.run_for(Duration::from_secs(1));
    let replies = scene.received(raw);
    let is_reply =
        |bytes: &Vec<u8>| packet::parse(bytes).is_ok_and(|parsed| parsed.kind == packet::Kind::EchoReply);
    assert!(!replies.iter().any(is_reply), "{replies:?}");
}

/// So many agents with one inner address and port talk at once, and each hears only its own words.
fn agents_that_look_alike<Q: Quic>(quic: Q, count: u8) {
    let mut scene = Scene::new(quic);
    scene.connector("connector", CONNECTOR, ECHO);
    let agents: Vec<_> = (1..=count)
        .map(|number| {
            let address = format!("198.51.100.{number}:1111");
            scene.agent(&format!("agent {number}"), &address, ECHO)
        })
        .collect();
    for round in 0..5_u8 {
        for (number, agent) in (0..count).zip(&agents) {
            let question = udp(INNER_AGENT, SERVICE, &[number, round]);
            scene.send_packet(*agent, &question).unwrap();
        }
        scene.world.run_for(Duration::from_millis(7));
    }
    scene.world.run_for(Duration::from_secs(1));
    for (number, agent) in (0..count).zip(&agents) {
        let mut answers = scene.packets(*agent);
        answers.sort();
        let own: Vec<_> = (0..5)
            .map(|round| udp(SERVICE, INNER_AGENT, &[number, round]))
            .collect();
        assert_eq!(answers.len(), own.len());
        assert!(
            own.iter().all(|answer| answers.contains(answer)),
            "agent {number}"
        );
    }
}

pub(crate) fn two_agents_that_look_alike_hear_their_own<Q: Quic>(quic: Q) {
    agents_that_look_alike(quic, 2);
}

pub(crate) fn eight_agents_that_look_alike_hear_their_own<Q: Quic>(quic: Q) {
    agents_that_look_alike(quic, 8);
}

pub(crate) fn one_process_publishes_many_services_and_one_agent_uses_them_all<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let names: Vec<(String, String)> = (1..=12)
        .map(|number| (format!("service{number}"), format!("10.100.0.{number}")))
        .collect();
    let services: Vec<(&str, &str)> = names.iter().map(|(id, address)| (&**id, &**address)).collect();
    let connector = scene.connector("connector", CONNECTOR, &services);
    let agent = scene.agent("agent", AGENT, &services);
    assert_eq!(
        scene.relay().connections(),
        2,
        "one connection for all services, one for the agent"
    );
    for (_, address) in &services {
        let service = format!("{address}:9999");
        let answers = scene.ask(agent, INNER_AGENT, &service, address.as_bytes());
        assert_eq!(answers, [udp(&service, INNER_AGENT, address.as_bytes())]);
    }
    assert_eq!(scene.world[connector].backend.opened, 12);
}

pub(crate) fn a_restarted_connector_takes_its_service_back<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let mut copies = scene.quic.same_client(&["connector.echo.ztna"], 2).into_iter();
    let first = scene.new_connector(copies.next().unwrap(), CONNECTOR, ECHO);
    let connector = scene.world.add("connector", CONNECTOR, first);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = scene.agent("agent", AGENT, ECHO);
    assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, b"before").len(), 1);
    let second = scene.new_connector(copies.next().unwrap(), CONNECTOR, ECHO);
    scene.world.replace(connector, second);
    scene.await_connector(connector, Duration::from_secs(1));
    assert_eq!(
        scene.ask(agent, INNER_AGENT, SERVICE, b"after"),
        [udp(SERVICE, INNER_AGENT, b"after")]
    );
}

pub(crate) fn everything_goes_on_after_any_restart<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, b"one").len(), 1);
    scene.restart_relay(Some([5; 32]));
    let ready = KEEPALIVE + Duration::from_secs(2);
    scene.world.run_for(ready);
    scene.await_connector(connector, Duration::ZERO);
    scene.await_agent(agent, Duration::ZERO);
    assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, b"two").len(), 1);
    let again = scene.new_agent(AGENT, &["agent.*.ztna"], ECHO);
    scene.world.replace(agent, again);
    scene.await_agent(agent, Duration::from_secs(1));
    assert_eq!(
        scene.ask(agent, INNER_AGENT, SERVICE, b"three"),
        [udp(SERVICE, INNER_AGENT, b"three")]
    );
}

pub(crate) fn a_moved_idle_connector_is_found_after_its_next_sign_of_life<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    // A bad path leaves gaps, which make acknowledgements long.
    let (relay, bad) = (scene.relay, LinkConfig::new(DELAY).with_loss(30));
    scene.world.set_link(connector, relay, bad);
    for round in 0..60_u8 {
        let _ = scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, &[round]));
        scene.world.run_for(DELAY);
    }
    scene.world.set_link(connector, relay, LinkConfig::new(DELAY));
    scene.world.rebind(connector, "203.0.113.99:8080");
    scene.world.run_for(2 * KEEPALIVE);
    assert_eq!(
        scene.ask(agent, INNER_AGENT, SERVICE, b"still there?"),
        [udp(SERVICE, INNER_AGENT, b"still there?")]
    );
}

pub(crate) fn nothing_is_left_when_all_have_gone<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    assert_eq!(scene.ask(agent, INNER_AGENT, SERVICE, b"hello").len(), 1);
    scene.world.with(agent, |host, now| host.machine.shut_down(now));
    scene
        .world
        .with(connector, |host, now| host.machine.shut_down(now));
    scene.world.run_for(Duration::from_secs(600));
    assert_eq!(scene.world[connector].backend.open, 0, "no backend stays open");
    assert!(scene.world[connector].machine.is_drained() && scene.world[agent].machine.is_drained());
    assert_eq!(scene.world[connector].machine.poll_timeout(), None);
    assert_eq!(scene.world[agent].machine.poll_timeout(), None);
    let relay = scene.relay();
    let left = (
        relay.connections(),
        relay.flows(),
        relay.registry().registrations(),
    );
    assert_eq!((left, relay.poll_timeout()), ((0, 0, 0), None));
}

/// An ICMP echo request (RFC 792) with a payload.
fn ping(source: &str, destination: &str) -> Vec<u8> {
    let mut bytes = udp(&format!("{source}:1"), &format!("{destination}:2"), &[0; 32]);
    // The packet of a ping is that of UDP with another protocol and header.
    bytes[9] = packet::ICMP;
    bytes[20..28].copy_from_slice(&[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    bytes[28..].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
    let checksum = |bytes: &[u8]| {
        let sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
    };
    bytes[10..12].copy_from_slice(&[0, 0]);
    let header = checksum(&bytes[..20]);
    bytes[10..12].copy_from_slice(&header);
    let icmp = checksum(&bytes[20..]);
    bytes[22..24].copy_from_slice(&icmp);
    bytes
}

pub(crate) fn a_busy_service_survives_a_restart_of_the_intermediate<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.connector("connector", CONNECTOR, ECHO);
    let agent = scene.agent("agent", AGENT, ECHO);
    let ask = |scene: &mut Scene<Q>| {
        let _ = scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"anybody?"));
        scene.world.run_for(Duration::from_millis(50));
        !scene.packets(agent).is_empty()
    };
    assert!((0..100).filter(|_| ask(&mut scene)).count() > 90);
    scene.restart_relay(Some([5; 32]));
    scene.packets(agent);
    let restarted = scene.world.elapsed();
    // The connector's last answer was acknowledged, and nobody asks it anything: it has to find out by itself.
    while !ask(&mut scene) {
        let silent = scene.world.elapsed() - restarted;
        assert!(silent < Duration::from_secs(3), "silent for {silent:?}");
    }
}

pub(crate) fn an_idle_service_learns_of_a_restart_from_its_busy_neighbour<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let both = [ECHO[0], ("idle", "10.100.0.2")];
    scene.connector("connector", CONNECTOR, &both);
    let agent = scene.agent("agent", AGENT, ECHO);
    let ask = |scene: &mut Scene<Q>| {
        let _ = scene.send_packet(agent, &udp(INNER_AGENT, SERVICE, b"anybody?"));
        scene.world.run_for(Duration::from_millis(50));
        !scene.packets(agent).is_empty()
    };
    // Longer than the idle one has anything to say.
    assert!((0..100).filter(|_| ask(&mut scene)).count() > 90);
    scene.restart_relay(Some([5; 32]));
    let relay = scene.relay;
    scene.world.run_until(
        |world| world[relay].machine.registry().registrations() == 3,
        Duration::from_millis(2_500),
    );
}
