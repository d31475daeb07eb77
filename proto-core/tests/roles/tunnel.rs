//! Stories of IP packets that hosts send through agents.

use std::time::Duration;

use proto_core::machine::SendError;
use proto_core::routing::packet;

use crate::setup::{DELAY, Quic, Scene, message, udp};

const AGENT: &str = "198.51.100.1:1111";
const CONNECTOR: &str = "203.0.113.1:3333";
const ECHO: &[crate::people::Service<'static>] = &[("echo", "10.100.0.1")];
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

pub(crate) fn packets_find_their_service_by_address<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let echo = scene.registered("echo", CONNECTOR, 0x11, "echo");
    let web = scene.registered("web", "203.0.113.2:3333", 0x11, "web");
    let services = [("echo", "10.100.0.1"), ("web", "10.100.0.2")];
    let agent = scene.agent("agent", AGENT, &services);
    let packets = [
        udp(INNER_AGENT, "10.100.0.1:80", b"one"),
        udp(INNER_AGENT, "10.100.0.2:80", b"two"),
    ];
    for packet in &packets {
        scene.send_packet(agent, packet).unwrap();
    }
    let elsewhere = udp(INNER_AGENT, "10.100.0.3:80", b"three");
    assert_eq!(scene.send_packet(agent, &elsewhere), Err(SendError::NoRoute));
    for junk in [&[][..], &[0x45], &[0x12, 0, 4], &[0xff; 40]] {
        assert_eq!(scene.send_packet(agent, junk), Err(SendError::Malformed));
    }
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.received(echo), packets[..1]);
    assert_eq!(scene.received(web), packets[1..]);
}

pub(crate) fn only_services_speak_to_the_host<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let impostor = scene.replace_relay_by_impostor();
    let agent = scene.starting_agent("agent", AGENT, &["agent.echo.ztna"], ECHO);
    scene.world.run_for(Duration::from_secs(1));
    let genuine = udp(SERVICE, INNER_AGENT, b"genuine");
    let said: [&[u8]; 8] = [
        &udp("10.1.1.1:53", INNER_AGENT, b"spoofed"),
        &udp("127.0.0.1:9999", INNER_AGENT, b"spoofed"),
        &udp("[2001:db8::1]:1", "[2001:db8::2]:2", b"spoofed"),
        &[0x45, 0, 0],
        &[0x60],
        &genuine,
        &message(0x2f, "echo"),
        &[0x5a, 1, 2, 3],
    ];
    scene.world.with(impostor, |host, _| {
        said.iter().for_each(|datagram| host.machine.say(datagram))
    });
    scene.world.run_for(2 * DELAY);
    assert_eq!(scene.packets(agent), [genuine]);
    let machine = &scene.world[agent].machine;
    assert_eq!(machine.stats().spoofed, 5, "short ones come from nobody");
    assert_eq!(machine.link_stats().malformed, 2);
}

pub(crate) fn forged_control_changes_nothing<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let impostor = scene.replace_relay_by_impostor();
    let agent = scene.starting_agent("agent", AGENT, &["agent.echo.ztna"], ECHO);
    scene.world.run_for(Duration::from_secs(1));
    let said: [&[u8]; 7] = [
        &[&[0x12, 0][..], &message(0, "other")[1..]].concat(),
        &[&[0x13, 2][..], &message(0, "other")[1..]].concat(),
        &[0x12],
        &[0x13, 2, 200, b'e'],
        &[0x01, 1, 2, 3],
        &[],
        &[0x10, 4, b'e', b'c', b'h', b'o'],
    ];
    scene.world.with(impostor, |host, _| {
        said.iter().for_each(|datagram| host.machine.say(datagram))
    });
    scene.world.run_for(2 * DELAY);
    let status = scene.world[agent].machine.status();
    assert!(status.connected && !status.services[0].registered && status.observed.is_none());
    assert_eq!(scene.events(agent).len(), 1, "connected, and that is all");
}

pub(crate) fn what_does_not_fit_is_answered_and_what_fits_arrives<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.agent("agent", AGENT, ECHO);
    // The path is measured once the handshake is over.
    scene.world.run_for(4 * DELAY);
    let mtu = scene.world[agent].machine.path_mtu().unwrap();
    let fits = udp(INNER_AGENT, SERVICE, &vec![7; mtu - 28]);
    assert_eq!(fits.len(), mtu);
    scene.send_packet(agent, &fits).unwrap();
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.received(connector), [fits]);
    let large = udp(INNER_AGENT, SERVICE, &vec![7; mtu - 27]);
    assert_eq!(scene.send_packet(agent, &large), Err(SendError::TooLarge));
    let answers = scene.packets(agent);
    assert_eq!(answers.len(), 1);
    let parsed = packet::parse(&answers[0]).unwrap();
    assert_eq!(parsed.kind, packet::Kind::IcmpError);
    assert!(packet::verify_checksums(&parsed, &answers[0]));
    let advertised = u16::from_be_bytes([answers[0][26], answers[0][27]]);
    assert_eq!(
        (answers[0][20], answers[0][21], usize::from(advertised)),
        (3, 4, mtu),
        "fragmentation needed, with the size that fits"
    );
}
