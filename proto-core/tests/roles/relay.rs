//! Stories of the intermediate with clients that speak `ztna-v1` byte by byte.

use std::time::Duration;

use proto_core::intermediate::IntermediateEvent;
use proto_core::machine::Machine;
use proto_core::routing::packet;

use crate::raw::FORGOTTEN;
use crate::setup::{DELAY, Quic, Scene, message, routed, udp};

const AGENT: &str = "198.51.100.1:1111";
const OTHER_AGENT: &str = "198.51.100.2:2222";
const CONNECTOR: &str = "203.0.113.1:3333";

const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

pub(crate) fn clients_are_told_where_they_are_seen<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let client = scene.raw("client", AGENT, &[]);
    assert_eq!(scene.received(client), [[0x01, 198, 51, 100, 1, 0x04, 0x57]]);
}

pub(crate) fn a_moved_client_is_told_its_new_address<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let client = scene.registered("client", AGENT, 0x10, "echo");
    scene.world.rebind(client, "198.51.100.99:8080");
    scene.send(client, &[&message(0x10, "echo")]);
    scene.world.run_for(10 * DELAY);
    assert!(
        scene
            .received(client)
            .contains(&vec![0x01, 198, 51, 100, 99, 0x1f, 0x90])
    );
}

pub(crate) fn a_packet_reaches_the_connector_bare_and_the_reply_its_agent<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let question = udp(INNER_AGENT, SERVICE, b"hello");
    scene.send(agent, &[&routed("echo", &question)]);
    assert_eq!(scene.received(connector), [question]);
    let answer = udp(SERVICE, INNER_AGENT, b"hello yourself");
    scene.send(connector, &[&answer]);
    assert_eq!(scene.received(agent), [answer]);
    assert_eq!(scene.relay().stats().relayed, 2);
}

pub(crate) fn replies_find_the_right_one_of_two_agents_that_look_alike<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agents = [
        scene.registered("first", AGENT, 0x10, "echo"),
        scene.registered("second", OTHER_AGENT, 0x10, "echo"),
    ];
    for (agent, text) in agents.into_iter().zip([&b"one"[..], b"two"]) {
        scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, text))]);
    }
    let questions = scene.received(connector);
    let sources: Vec<_> = questions
        .iter()
        .map(|bytes| packet::parse(bytes).unwrap().flow)
        .collect();
    assert_eq!(questions.len(), 2);
    assert_ne!(sources[0], sources[1], "the connector can tell them apart");
    for (question, flow) in questions.iter().zip(&sources) {
        let parsed = packet::parse(question).unwrap();
        assert!(packet::verify_checksums(&parsed, question));
        let client = std::net::SocketAddr::new(flow.source, flow.source_port).to_string();
        scene.send(connector, &[&udp(SERVICE, &client, &question[parsed.payload])]);
    }
    for (agent, text) in agents.into_iter().zip([&b"one"[..], b"two"]) {
        assert_eq!(
            scene.received(agent),
            [udp(SERVICE, INNER_AGENT, text)],
            "with its own inner address"
        );
    }
}

pub(crate) fn a_bare_packet_goes_to_the_only_service<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let packet = udp(INNER_AGENT, SERVICE, b"hello");
    scene.send(agent, &[&packet]);
    assert_eq!(scene.received(connector), [packet]);
}

pub(crate) fn a_bare_packet_for_one_of_two_services_is_dropped<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.raw("agent", AGENT, &["agent.*.ztna"]);
    scene.send(agent, &[&message(0x10, "echo"), &message(0x10, "web")]);
    scene.send(agent, &[&udp(INNER_AGENT, SERVICE, b"hello")]);
    assert!(scene.received(connector).is_empty());
    assert_eq!(scene.relay().stats().dropped.ambiguous, 1);
}

pub(crate) fn control_bytes_inside_a_wrapper_go_nowhere<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let forged: [&[u8]; 5] = [
        &[0x01, 6, 6, 6, 6, 0, 1],
        &message(0x13, "echo"),
        &[0x12, 0, 4, b'e', b'c', b'h', b'o'],
        &message(0x2f, "echo"),
        &[],
    ];
    for inner in forged {
        scene.send(agent, &[&routed("echo", inner)]);
        scene.send(
            connector,
            &[inner]
                .iter()
                .filter(|inner| !inner.is_empty())
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    assert!(
        !scene.received(connector).iter().any(|bytes| bytes[0] == 0x01),
        "nothing forged arrives"
    );
    assert!(scene.received(agent).is_empty());
    assert_eq!(
        scene.relay().stats().dropped.not_ip,
        4,
        "and the empty one is malformed"
    );
    assert_eq!(scene.relay().stats().relayed, 0);
}

pub(crate) fn malformed_datagrams_are_counted_and_the_connection_lives<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let client = scene.raw("client", AGENT, &["agent.echo.ztna"]);
    let malformed: [&[u8]; 7] = [
        &[],
        &[0x10],
        &[0x10, 200, b'x'],
        &[0x11, 4, b'e'],
        &[0x2f],
        &[0x2f, 9, b'e'],
        &[0xff, 0, 1, 2],
    ];
    for datagram in malformed {
        scene.send(client, &[datagram]);
    }
    let stats = scene.relay().stats();
    assert_eq!(stats.dropped.malformed, malformed.len() as u64);
    scene.send(client, &[&[0x10, 0], &[0x10, 2, 0xff, 0xfe]]);
    scene.send(
        client,
        &[&[&message(0x10, "echo")[..], b"trailing bytes"].concat()],
    );
    let received = scene.received(client);
    assert!(
        received.contains(&vec![0x13, 0x01, 0]),
        "an empty name is refused"
    );
    assert!(
        received.contains(&vec![0x13, 0x01, 2, 0xff, 0xfe]),
        "so is one that is not UTF-8"
    );
    assert!(
        received.contains(&[&[0x12, 0x00, 4][..], b"echo"].concat()),
        "and the next message is heard"
    );
}

pub(crate) fn certificates_decide_who_registers_for_what<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.raw("agent", AGENT, &["agent.web.ztna"]);
    scene.send(agent, &[&message(0x10, "echo")]);
    assert!(
        scene
            .received(agent)
            .contains(&[&[0x13, 0x02, 4][..], b"echo"].concat())
    );
    let impostor = scene.raw("impostor", OTHER_AGENT, &["agent.echo.ztna"]);
    scene.send(impostor, &[&message(0x11, "echo")]);
    assert!(
        scene
            .received(impostor)
            .contains(&[&[0x13, 0x02, 4][..], b"echo"].concat())
    );
    let unnamed = scene.raw("unnamed", CONNECTOR, &["host.example"]);
    scene.send(unnamed, &[&message(0x10, "echo")]);
    assert!(
        scene
            .received(unnamed)
            .contains(&[&[0x13, 0x02, 4][..], b"echo"].concat())
    );
    assert_eq!(scene.relay().registry().registrations(), 0);
}

pub(crate) fn a_service_is_taken_only_by_its_owner<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let first = scene.registered("first", CONNECTOR, 0x11, "echo");
    let stranger = scene.raw("stranger", OTHER_AGENT, &["connector.echo.ztna"]);
    scene.send(stranger, &[&message(0x11, "echo")]);
    assert!(
        scene
            .received(stranger)
            .contains(&[&[0x13, 0x03, 4][..], b"echo"].concat())
    );
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    assert_eq!(
        scene.received(first).len(),
        1,
        "the first connector keeps its service"
    );
    assert!(!scene.received(stranger).iter().any(|bytes| bytes[0] >> 4 == 4));
}

pub(crate) fn a_connector_cannot_open_flows_to_agents<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    scene.send(
        connector,
        &[
            &udp(SERVICE, "10.9.0.1:22", b"knock"),
            &udp("10.100.0.1:1", INNER_AGENT, b"knock"),
        ],
    );
    assert!(scene.received(agent).is_empty());
    assert_eq!(scene.relay().stats().dropped.no_flow, 2);
}

pub(crate) fn nobody_behind_a_service_is_said_at_once<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    let received = scene.received(agent);
    let parsed = packet::parse(&received[0]).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    assert_eq!(
        parsed.flow,
        packet::parse(&udp(SERVICE, INNER_AGENT, b"")).unwrap().flow
    );
    scene.send(agent, &[&routed("other", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    assert_eq!(scene.relay().stats().dropped.not_registered, 1);
}

pub(crate) fn registrations_die_with_their_connection<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene
        .world
        .with(connector, |host, now| host.machine.shut_down(now));
    scene.world.run_for(Duration::from_secs(2));
    scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    assert_eq!(scene.relay().stats().dropped.no_connector, 1);
    assert_eq!(scene.relay().registry().connectors(), 0);
    let gone = |event: &IntermediateEvent| matches!(event, IntermediateEvent::Gone { .. });
    assert!(scene.world[scene.relay].events.iter().any(gone));
}

pub(crate) fn everything_is_empty_after_everyone_left<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    scene.send(agent, &[&routed("echo", &udp(INNER_AGENT, SERVICE, b"hello"))]);
    assert_eq!(scene.relay().flows(), 1);
    scene.world.with(agent, |host, now| host.machine.shut_down(now));
    scene.world.take_down(connector);
    scene.world.run_for(FORGOTTEN);
    let relay = scene.relay();
    assert_eq!(
        (
            relay.connections(),
            relay.flows(),
            relay.registry().registrations()
        ),
        (0, 0, 0)
    );
    assert_eq!(relay.poll_timeout(), None, "and nothing wakes it");
}

pub(crate) fn junk_on_the_socket_changes_nothing<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.registered("agent", AGENT, 0x10, "echo");
    let path = proto_core::machine::FourTuple {
        local: crate::setup::RELAY.parse().unwrap(),
        remote: "198.51.100.66:0".parse().unwrap(),
    };
    for len in [0, 1, 5, 20, 21, 100, 1199, 1200, 1500] {
        for first in [0x00, 0x22, 0x40, 0x5a, 0x80, 0xc0, 0xd0, 0xe0, 0xf0, 0xff] {
            let mut junk: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
            junk.first_mut().into_iter().for_each(|byte| *byte = first);
            let received = proto_core::machine::Received {
                path,
                ecn: proto_core::machine::Ecn::NotEct,
                stride: None,
                payload: &mut junk,
            };
            let forward = scene.world.with(scene.relay, |host, now| {
                host.machine.handle_datagram(received, now)
            });
            assert!(forward.is_empty());
        }
    }
    scene.world.run_for(DELAY);
    assert_eq!(scene.relay().connections(), 1);
    scene.send(agent, &[&message(0x10, "echo")]);
    assert!(
        scene
            .received(agent)
            .contains(&[&[0x12, 0, 4][..], b"echo"].concat())
    );
}
