//! Stories of relay channels: who is given one, whose frames go where, and how a channel ends.

use std::time::Duration;

use proto_core::channel::ChannelLimits;
use proto_core::config::IntermediateLimits;
use proto_core::quic::identity::SanAuthority;
use proto_core::sim::MachineHost;
use proto_core::wire::control::{ChannelEnd, ControlMessage, Refusal};
use proto_core::wire::datagram::Role;

use crate::raw::FORGOTTEN;
use crate::setup::{DELAY, Quic, Scene, intermediate};
use crate::speaker::frame;
use crate::speaking::{AGENT, CONNECTOR, OTHER_AGENT, OTHER_CONNECTOR, closed, open, register, registered};

pub(crate) fn a_channel_is_opened_to_both_ends_and_carries_frames<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [agent, connector] = ends;
    let [there, back] = scene.channel(ends, "echo");
    scene.send_frames(agent, there, &[b"one", b"two", b"end"]);
    assert_eq!(scene.take_packets(connector, back), [b"one", b"two", b"end"]);
    scene.send_frames(connector, back, &[b"hello yourself"]);
    assert_eq!(scene.take_packets(agent, there), [b"hello yourself"]);
    // Frames and packets of the connection share a batch.
    scene.world.set_coalescing(true);
    scene.world.with(agent, |host, _| {
        host.machine.say(&ControlMessage::Ping { nonce: 9 });
        host.machine.send_frames(there, &[b"a"]);
    });
    scene.world.run_for(6 * DELAY);
    assert_eq!(scene.take_packets(connector, back), [b"a"]);
    assert_eq!(scene.take_heard(agent), [ControlMessage::Pong { nonce: 9 }]);
    let stats = scene.relay().channel_stats();
    assert_eq!((stats.forwarded, stats.unknown, stats.foreign), (5, 0, 0));
    assert_eq!(scene.relay().pool_stats().not_quic, 0);
}

pub(crate) fn a_second_service_joins_the_channel<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let numbers = scene.channel(ends, "echo");
    for host in ends {
        scene.say(host, &[register("files")]);
        scene.take_heard(host);
    }
    assert_eq!(scene.channel(ends, "files"), numbers);
    // Who asks again is answered, and the other end is left in peace.
    scene.say(ends[0], &[open(6, "files")]);
    assert_eq!(scene.take_heard(ends[0]).len(), 1);
    assert_eq!(scene.take_heard(ends[1]), []);

    let back = |service: &str| ControlMessage::Unregister {
        service: service.to_owned(),
    };
    scene.say(ends[1], &[back("echo")]);
    assert_eq!(scene.relay().channels(), 1);
    scene.say(ends[0], &[back("files")]);
    assert_eq!(
        scene.take_heard(ends[0]),
        [closed(numbers[0], ChannelEnd::NoService)]
    );
    assert_eq!(
        scene.take_heard(ends[1]),
        [closed(numbers[1], ChannelEnd::NoService)]
    );
    assert_eq!(scene.relay().channels(), 0);
}

pub(crate) fn each_reason_for_no_channel_is_told_apart<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agent = scene.speaker("agent", AGENT, Role::Agent, &["agent.*.ztna"]);
    scene.registered("old", CONNECTOR, 0x11, "old");
    scene.say(agent, &[register("old"), register("echo")]);
    scene.take_heard(agent);
    scene.say(
        agent,
        &[open(1, "old"), open(2, "echo"), open(3, "files"), open(4, "")],
    );
    let expected = [
        (1, Refusal::PeerIsV1, 30_000),
        (2, Refusal::NoConnector, 2000),
        (3, Refusal::Unknown, 2000),
        (4, Refusal::InvalidId, 0),
    ];
    let expected = expected.map(|(request, reason, retry_ms)| ControlMessage::ChannelRefused {
        request,
        reason,
        retry_ms,
    });
    assert_eq!(scene.take_heard(agent), expected);
    let connector = scene.speaker(
        "connector",
        OTHER_CONNECTOR,
        Role::Connector,
        &["connector.echo.ztna"],
    );
    scene.say(connector, &[register("echo"), open(5, "echo")]);
    assert_eq!(
        scene.take_heard(connector),
        [registered("echo")],
        "connectors open none"
    );
    // It speaks v2, and takes no channels.
    let shy = scene.silent("shy", "203.0.113.9:9", &["connector.shy.ztna"]);
    let hello = ControlMessage::Hello {
        role: Role::Connector,
        instance: 1,
        capabilities: 0,
    };
    scene.say(shy, &[hello, register("shy")]);
    scene.say(agent, &[register("shy"), open(6, "shy")]);
    let expected = ControlMessage::ChannelRefused {
        request: 6,
        reason: Refusal::PeerIsV1,
        retry_ms: 30_000,
    };
    assert_eq!(scene.take_heard(agent), [registered("shy"), expected]);
    let refused = scene.relay().stats().control.refused;
    assert_eq!(
        (
            refused.peer_is_v1,
            refused.no_connector,
            refused.not_registered,
            refused.invalid_id
        ),
        (2, 1, 1, 1)
    );
    assert_eq!(scene.relay().stats().control.unexpected, 1);
}

pub(crate) fn only_the_two_ends_use_a_channel<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    let stranger = scene.speaker("stranger", OTHER_AGENT, Role::Agent, &["agent.echo.ztna"]);
    scene.send_frames(stranger, there, &[b"forged"]);
    scene.send_frames(stranger, back, &[b"forged"]);
    // Each end has its own number, and the other end's is not its own.
    scene.send_frames(ends[0], back, &[b"turned"]);
    assert_eq!(scene.relay().channel_stats().foreign, 3);
    let theirs = [
        closed(there, ChannelEnd::Closed),
        ControlMessage::Carriage {
            channel: back,
            datagram: true,
        },
    ];
    scene.say(stranger, &theirs);
    assert_eq!(scene.relay().stats().control.unexpected, 2);
    scene.world.with(stranger, |host, _| {
        host.machine.send(&frame(there, b"forged inside"));
    });
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.relay().channel_stats().unknown, 1);
    assert_eq!(scene.relay().channel_stats().forwarded, 0);
    assert_eq!(scene.relay().channels(), 1);
    for (host, number) in ends.into_iter().zip([there, back]) {
        assert_eq!(scene.take_packets(host, number), Vec::<Vec<u8>>::new());
    }
}

pub(crate) fn a_moved_end_is_followed_after_quic_has_proven_its_address<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    scene.world.rebind(ends[0], "198.51.100.99:8080");
    scene.send_frames(ends[0], there, &[b"too early"]);
    assert_eq!(scene.relay().channel_stats().foreign, 1);
    scene.say(ends[0], &[ControlMessage::Ping { nonce: 3 }]);
    scene.world.run_for(10 * DELAY);
    let address = "198.51.100.99:8080".parse().unwrap();
    let heard = scene.take_heard(ends[0]);
    assert!(
        heard.contains(&ControlMessage::ObservedAddress { address }),
        "{heard:?}"
    );
    scene.send_frames(ends[0], there, &[b"in time"]);
    assert_eq!(scene.take_packets(ends[1], back), [b"in time"]);
    scene.send_frames(ends[1], back, &[b"found"]);
    assert_eq!(scene.take_packets(ends[0], there), [b"found"]);
}

pub(crate) fn frames_travel_inside_where_nothing_else_gets_through<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    let carriage = |channel| ControlMessage::Carriage {
        channel,
        datagram: true,
    };
    // One end inside: what it sends leaves bare, what is for it comes inside.
    scene.say(ends[0], &[carriage(there)]);
    scene.world.with(ends[0], |host, _| {
        for packet in [b"one", b"two"] {
            host.machine.send(&frame(there, packet));
        }
    });
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.take_packets(ends[1], back), [b"one", b"two"]);
    scene.send_frames(ends[1], back, &[b"abc", b"def"]);
    assert_eq!(
        scene.take_datagrams(ends[0]),
        [frame(there, b"abc"), frame(there, b"def")]
    );
    // Both inside.
    scene.say(ends[1], &[carriage(back)]);
    scene.world.with(ends[0], |host, _| {
        host.machine.send(&frame(there, b"all the way"))
    });
    scene.world.run_for(4 * DELAY);
    assert_eq!(scene.take_datagrams(ends[1]), [frame(back, b"all the way")]);
}

pub(crate) fn an_end_that_leaves_takes_its_channels_along<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    scene.say(ends[0], &[closed(there, ChannelEnd::Closed)]);
    assert_eq!(scene.take_heard(ends[1]), [closed(back, ChannelEnd::PeerGone)]);
    assert_eq!(scene.take_heard(ends[0]), []);
    scene.send_frames(ends[0], there, &[b"late"]);
    assert_eq!(scene.relay().channel_stats().unknown, 1);

    let [_, back] = scene.channel(ends, "echo");
    scene.world.take_down(ends[0]);
    scene.world.run_for(FORGOTTEN / 2);
    scene.say(ends[1], &[ControlMessage::Ping { nonce: 1 }]);
    scene.world.run_for(FORGOTTEN / 2);
    scene.world.run_for(Duration::from_secs(5));
    let heard = scene.take_heard(ends[1]);
    assert!(heard.contains(&closed(back, ChannelEnd::PeerGone)), "{heard:?}");
    assert_eq!(scene.relay().channels(), 0);
}

pub(crate) fn a_channel_without_frames_ends<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let numbers = scene.channel(ends, "echo");
    for round in 0..48_u64 {
        scene.world.run_for(Duration::from_secs(9));
        for host in ends {
            scene.say(host, &[ControlMessage::Ping { nonce: round }, register("echo")]);
        }
        if round == 10 {
            scene.send_frames(ends[0], numbers[0], &[b"still here"]);
        }
        if round == 35 {
            assert_eq!(scene.relay().channels(), 1);
        }
    }
    assert_eq!(scene.relay().channels(), 0);
    for (host, number) in ends.into_iter().zip(numbers) {
        assert!(scene.take_heard(host).contains(&closed(number, ChannelEnd::Idle)));
    }
}

pub(crate) fn a_channel_has_its_quota<Q: Quic>(quic: Q) {
    let limits = IntermediateLimits {
        channels: ChannelLimits {
            rate: Some(1_000_000),
            ..ChannelLimits::default()
        },
        ..IntermediateLimits::default()
    };
    let mut scene = Scene::special(quic, limits, Box::new(SanAuthority::default()));
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    let packet: &[u8] = &[7; 995];
    for _ in 0..30 {
        scene.send_frames(ends[0], there, &[packet; 10]);
    }
    // A burst of 100,000 bytes, and a million a second: 30 times 10,000 bytes in 30 times 40 ms.
    assert_eq!(scene.take_packets(ends[1], back).len(), 300);
    for _ in 0..15 {
        scene
            .world
            .with(ends[0], |host, _| host.machine.send_frames(there, &[packet; 10]));
    }
    scene.world.run_for(4 * DELAY);
    let arrived = scene.take_packets(ends[1], back).len();
    assert!((99..=101).contains(&arrived), "{arrived}");
    assert_eq!(scene.relay().channel_stats().over_quota, 150 - arrived as u64);
    // The other direction has its own.
    scene.send_frames(ends[1], back, &[packet; 50]);
    assert_eq!(scene.take_packets(ends[0], there).len(), 50);
}

pub(crate) fn a_restarted_intermediate_knows_no_old_numbers<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let [there, back] = scene.channel(ends, "echo");
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let again = intermediate(&mut scene.quic, seed, now);
    scene.relay = scene.world.replace(scene.relay, MachineHost::new(again));
    scene.send_frames(ends[0], there, &[b"anybody?"]);
    assert_eq!(scene.take_packets(ends[1], back), Vec::<Vec<u8>>::new());
    assert_eq!(scene.relay().channel_stats().unknown, 1);
    scene.say(ends[0], &[ControlMessage::Ping { nonce: 1 }]);
    assert!(scene.world[ends[0]].machine.closed.is_some(), "it says so");
}
