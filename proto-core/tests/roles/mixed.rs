//! Stories of packets between clients of which one speaks `ztna-v1` and the other `ztna-v2`.

use proto_core::wire::datagram::Role;

use crate::setup::{DELAY, Quic, Scene, SpeakerHost, routed, udp};
use crate::speaking::{AGENT, CONNECTOR, INNER_AGENT, OTHER_AGENT, SERVICE, register};

pub(crate) fn packets_of_v1_travel_on_the_same_connection<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = scene.pair();
    let old = scene.registered("old agent", OTHER_AGENT, 0x10, "echo");
    let question = udp(INNER_AGENT, SERVICE, b"hello");
    let answer = udp(SERVICE, INNER_AGENT, b"hello yourself");
    let wrapped = routed("echo", &question);

    // From an agent of v2: introduced, wrapped, answered bare.
    let send = |scene: &mut Scene<Q>, host, datagram: &[u8]| {
        scene
            .world
            .with(host, |host: &mut SpeakerHost<Q>, _| host.machine.send(datagram));
        scene.world.run_for(4 * DELAY);
    };
    send(&mut scene, agent, &wrapped);
    let heard = scene.take_datagrams(connector);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0][0], 0x14);
    assert!(heard[0].ends_with(&wrapped));
    assert_eq!(heard[0].len(), 34 + usize::from(heard[0][33]) + wrapped.len());
    send(&mut scene, connector, &routed("echo", &answer));
    assert_eq!(scene.take_datagrams(agent), std::slice::from_ref(&answer));
    send(&mut scene, agent, &wrapped);
    assert_eq!(
        scene.take_datagrams(connector),
        std::slice::from_ref(&wrapped),
        "answered flows are known"
    );

    // From an agent of v1 that looks the same, wrapped and bare: under an alias, and wrapped either way.
    for (datagram, text) in [
        (routed("echo", &question), &b"to one"[..]),
        (question.clone(), b"to two"),
    ] {
        scene.send(old, &[&datagram]);
        let heard = scene.take_datagrams(connector).remove(0);
        let at = heard.len() - wrapped.len();
        assert_eq!(heard[at..at + 6], wrapped[..6]);
        let alias = &heard[at + 6..];
        assert_ne!(alias, question, "translated");
        let port = |at: usize| u16::from_be_bytes([alias[at], alias[at + 1]]);
        let source = std::net::Ipv4Addr::new(alias[12], alias[13], alias[14], alias[15]);
        let reply = udp(SERVICE, &format!("{source}:{}", port(20)), text);
        send(&mut scene, connector, &routed("echo", &reply));
        let got = scene.received(old).pop().unwrap();
        assert_eq!(got, udp(SERVICE, INNER_AGENT, text));
    }

    // What v2 does not have: bare packets, registrations in DATAGRAMs, replies for a service one does not publish.
    send(&mut scene, agent, &question);
    send(&mut scene, connector, &answer);
    send(&mut scene, connector, &routed("files", &answer));
    send(&mut scene, agent, &crate::setup::message(0x10, "files"));
    assert_eq!(scene.take_datagrams(agent), Vec::<Vec<u8>>::new());
    assert_eq!(scene.take_datagrams(connector), Vec::<Vec<u8>>::new());
    let dropped = scene.relay().stats().dropped;
    assert_eq!(
        (dropped.ambiguous, dropped.not_registered, dropped.malformed),
        (2, 1, 1)
    );
}

pub(crate) fn an_agent_of_v2_reaches_a_connector_of_v1<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.registered("connector", CONNECTOR, 0x11, "echo");
    let agent = scene.speaker("agent", AGENT, Role::Agent, &["agent.echo.ztna"]);
    scene.say(agent, &[register("echo")]);
    let question = udp(INNER_AGENT, SERVICE, b"hello");
    let answer = udp(SERVICE, INNER_AGENT, b"hello yourself");
    scene.world.with(agent, |host, _| {
        host.machine.send(&routed("echo", &question));
    });
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.received(connector), [question]);
    scene.send(connector, &[&answer]);
    assert_eq!(scene.take_datagrams(agent), [answer]);
}
