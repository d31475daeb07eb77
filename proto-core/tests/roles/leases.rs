//! Stories of the control stream of `ztna-v2`: registrations by lease, and what clients may not do to others with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto_core::config::IntermediateLimits;
use proto_core::id::ServiceId;
use proto_core::machine::Machine;
use proto_core::quic::identity::{Authority, Capacity, Identity, SanAuthority};
use proto_core::sim::HostId;
use proto_core::wire::control::{ChannelEnd, ControlMessage, Refusal};
use proto_core::wire::datagram::Role;

use crate::setup::{DELAY, Quic, Scene, SpeakerHost};
use crate::speaking::{
    AGENT, CONNECTOR, OTHER_AGENT, OTHER_CONNECTOR, closed, hello, open, refused, register, registered,
};

pub(crate) fn nothing_is_granted_before_the_hello<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let client = scene.silent("client", AGENT, &["agent.echo.ztna"]);
    let early = [
        register("echo"),
        open(1, "echo"),
        ControlMessage::Ping { nonce: 1 },
    ];
    scene.say(client, &early);
    assert_eq!(scene.take_heard(client), []);
    assert_eq!(scene.relay().stats().control.unexpected, 3);
    assert_eq!(scene.relay().registry().registrations(), 0);

    scene.say(client, &[hello(Role::Agent), register("echo")]);
    assert_eq!(scene.take_heard(client).len(), 3);
    // Once means once: what a client is does not change.
    scene.say(client, &[hello(Role::Connector)]);
    assert_eq!(scene.take_heard(client), []);
    assert_eq!(scene.relay().stats().control.unexpected, 4);
    assert_eq!(scene.relay().registry().agents(), 1);
}

pub(crate) fn a_registration_is_a_lease_and_ends_without_renewal<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, connector] = scene.pair();
    let [_, number] = scene.channel([agent, connector], "echo");
    let keep = |scene: &mut Scene<Q>, renewed: &[HostId<SpeakerHost<Q>>]| {
        for _ in 0..6 {
            scene.world.run_for(Duration::from_secs(10));
            for host in [agent, connector] {
                scene.say(host, &[ControlMessage::Ping { nonce: 1 }]);
            }
        }
        for host in renewed {
            scene.say(*host, &[register("echo")]);
        }
    };
    keep(&mut scene, &[agent, connector]);
    keep(&mut scene, &[connector]);
    assert_eq!(scene.relay().registry().registrations(), 2);
    assert_eq!(scene.relay().channels(), 1);
    scene.take_heard(agent);
    scene.take_heard(connector);
    keep(&mut scene, &[connector]);
    let lost = refused("echo", Refusal::Unknown, 2000);
    assert!(scene.take_heard(agent).contains(&lost));
    let heard = scene.take_heard(connector);
    assert!(heard.contains(&registered("echo")));
    assert!(
        heard.contains(&closed(number, ChannelEnd::NoService)),
        "{heard:?}"
    );
    assert_eq!(scene.relay().registry().registrations(), 1);
    assert_eq!(scene.relay().channels(), 0);
    assert_eq!(scene.relay().stats().control.expired, 1);
    assert_eq!(scene.relay().stats().control.renewed, 4);

    scene.say(agent, &[register("echo")]);
    assert_eq!(scene.take_heard(agent), [registered("echo")]);
}

pub(crate) fn each_reason_not_to_register_is_told_apart<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = scene.speaker(
        "connector",
        CONNECTOR,
        Role::Connector,
        &["connector.echo.ztna", "agent.files.ztna"],
    );
    let long = "x".repeat(256);
    let asked = ["echo", "files", "", &long].map(register);
    scene.say(connector, &asked);
    assert_eq!(
        scene.take_heard(connector),
        [
            registered("echo"),
            refused("files", Refusal::NotAuthorised, 0),
            refused("", Refusal::InvalidId, 0),
            refused(&long, Refusal::InvalidId, 0),
        ]
    );
    let other = scene.speaker(
        "other",
        OTHER_CONNECTOR,
        Role::Connector,
        &["connector.echo.ztna"],
    );
    scene.say(other, &[register("echo")]);
    assert_eq!(scene.take_heard(other), [refused("echo", Refusal::Taken, 2000)]);
    // Given back, it is free.
    let back = ControlMessage::Unregister {
        service: "echo".to_owned(),
    };
    scene.say(connector, &[back.clone(), back]);
    scene.say(other, &[register("echo")]);
    assert_eq!(scene.take_heard(other), [registered("echo")]);
    assert_eq!(scene.take_heard(connector), []);
}

/// The rule of the certificates, while nobody has withdrawn what agents may.
#[derive(Clone, Debug, Default)]
struct Withdrawable(Arc<AtomicBool>);

impl Authority for Withdrawable {
    fn permits(&self, peer: Option<&Identity>, capacity: Capacity, service: &ServiceId) -> bool {
        let withdrawn = self.0.load(Ordering::Relaxed);
        let concerned = capacity == Capacity::Agent && service.as_str() == "echo";
        SanAuthority::default().permits(peer, capacity, service) && !(withdrawn && concerned)
    }
}

pub(crate) fn what_is_not_permitted_any_more_is_taken_back<Q: Quic>(quic: Q) {
    let authority = Withdrawable::default();
    let mut scene = Scene::special(quic, IntermediateLimits::default(), Box::new(authority.clone()));
    let [agent, connector] = scene.pair();
    let [there, back] = scene.channel([agent, connector], "echo");
    authority.0.store(true, Ordering::Relaxed);
    scene.say(agent, &[register("echo")]);
    assert_eq!(
        scene.take_heard(agent),
        [
            closed(there, ChannelEnd::NoService),
            refused("echo", Refusal::NotAuthorised, 0)
        ]
    );
    assert_eq!(scene.take_heard(connector), [closed(back, ChannelEnd::NoService)]);
    scene.send_frames(agent, there, &[b"still here?"]);
    assert_eq!(scene.relay().channel_stats().unknown, 1);
    assert_eq!(scene.relay().registry().agents(), 0);

    // The same when a channel is asked for between two renewals.
    authority.0.store(false, Ordering::Relaxed);
    scene.say(agent, &[register("echo")]);
    scene.take_heard(agent);
    authority.0.store(true, Ordering::Relaxed);
    scene.say(agent, &[open(8, "echo")]);
    let no_channel = ControlMessage::ChannelRefused {
        request: 8,
        reason: Refusal::NotAuthorised,
        retry_ms: 0,
    };
    assert_eq!(
        scene.take_heard(agent),
        [refused("echo", Refusal::NotAuthorised, 0), no_channel]
    );
    assert_eq!(scene.relay().stats().control.revoked, 2);
    assert_eq!(scene.relay().channels(), 0);
}

pub(crate) fn a_restarted_connector_takes_over_and_old_channels_end<Q: Quic>(mut quic: Q) {
    let [old, new] = quic.same_speakers(&["connector.echo.ztna"]);
    let mut scene = Scene::new(quic);
    let agent = scene.speaker("agent", AGENT, Role::Agent, &["agent.*.ztna"]);
    scene.say(agent, &[register("echo")]);
    scene.take_heard(agent);
    let publish = |scene: &mut Scene<Q>, name, address, provider| {
        let host = scene.silent_with(name, address, provider);
        scene.say(host, &[hello(Role::Connector), register("echo")]);
        assert_eq!(scene.take_heard(host).last(), Some(&registered("echo")));
        host
    };
    let old = publish(&mut scene, "old", CONNECTOR, old);
    scene.channel([agent, old], "echo");
    let new = publish(&mut scene, "new", OTHER_CONNECTOR, new);
    let heard = scene.take_heard(old);
    assert!(
        matches!(
            heard.as_slice(),
            [
                ControlMessage::ChannelClosed {
                    reason: ChannelEnd::NoService,
                    ..
                },
                ControlMessage::Refused {
                    reason: Refusal::Taken,
                    ..
                }
            ]
        ),
        "{heard:?}"
    );
    assert!(matches!(
        scene.take_heard(agent).as_slice(),
        [ControlMessage::ChannelClosed { .. }]
    ));
    scene.channel([agent, new], "echo");
}

pub(crate) fn who_floods_the_control_stream_is_cut_off_alone<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let numbers = scene.channel(ends, "echo");
    let noisy = scene.speaker("noisy", OTHER_AGENT, Role::Agent, &["agent.echo.ztna"]);
    scene.world.with(noisy, |host, _| {
        for nonce in 0..5000 {
            host.machine.say(&ControlMessage::Ping { nonce });
        }
    });
    scene.world.run_for(Duration::from_secs(2));
    assert!(scene.world[noisy].machine.closed.is_some());
    assert_eq!(scene.relay().stats().control.flooded, 1);
    scene.send_frames(ends[0], numbers[0], &[b"as ever"]);
    assert_eq!(scene.take_packets(ends[1], numbers[1]), [b"as ever"]);
}

pub(crate) fn what_cannot_be_read_is_counted_and_skipped<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let [agent, _] = scene.pair();
    scene.world.with(agent, |host, _| {
        host.machine.mutter(&[]);
        host.machine.mutter(&[99, 0, 0, 0]);
        host.machine.mutter(&[7, 0, 0, 0, 255]);
        host.machine.say(&ControlMessage::Ping { nonce: 4 });
    });
    scene.world.run_for(6 * DELAY);
    assert_eq!(scene.take_heard(agent), [ControlMessage::Pong { nonce: 4 }]);
    assert_eq!(scene.relay().stats().control.undecodable, 3);
}

pub(crate) fn agents_cannot_drown_a_connector<Q: Quic>(quic: Q) {
    let service = "s".repeat(255);
    let mut scene = Scene::new(quic);
    let connector = scene.speaker("connector", CONNECTOR, Role::Connector, &["connector.*.ztna"]);
    scene.say(connector, &[register(&service)]);
    scene
        .world
        .with(connector, |host, _| host.machine.listens = false);
    for number in 1..=4_u64 {
        let address = format!("198.51.100.{number}:1111");
        let agent = scene.speaker("agent", &address, Role::Agent, &["agent.*.ztna"]);
        scene.say(agent, &[register(&service)]);
        for request in 0..500 {
            let channel = match scene.take_heard(agent).as_slice() {
                [ControlMessage::ChannelOpened { channel, .. }] => Some(*channel),
                _ => None,
            };
            scene.world.with(agent, |host, _| {
                if let Some(channel) = channel {
                    host.machine.say(&closed(channel, ChannelEnd::Closed));
                }
                host.machine.say(&open(request, &service));
            });
            scene.world.run_for(3 * DELAY);
        }
        // It is deaf, not dead.
        scene.world.with(connector, |host, _| {
            host.machine.say(&ControlMessage::Ping { nonce: number });
        });
    }
    assert!(scene.relay().stats().control.refused.at_capacity > 0);
    assert_eq!(scene.relay().stats().control.deaf, 0);
    assert_eq!(scene.world[connector].machine.closed, None);
    // It listens again, and hears everything in order.
    scene.world.with(connector, |host, _| host.machine.listens = true);
    scene.say(connector, &[ControlMessage::Ping { nonce: 77 }]);
    scene.world.run_for(20 * DELAY);
    let heard = scene.take_heard(connector);
    assert_eq!(heard.last(), Some(&ControlMessage::Pong { nonce: 77 }));
    let opened = heard
        .iter()
        .filter(|message| matches!(message, ControlMessage::ChannelOpened { .. }));
    assert!(opened.count() > 400);
}

pub(crate) fn who_does_not_listen_is_given_up_alone<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let numbers = scene.channel(ends, "echo");
    let deaf = scene.speaker("deaf", OTHER_AGENT, Role::Agent, &["agent.echo.ztna"]);
    scene.world.with(deaf, |host, _| host.machine.listens = false);
    // Each answer repeats a name of 60,000 bytes.
    for _ in 0..8 {
        scene.world.with(deaf, |host, _| {
            host.machine.say(&register(&"x".repeat(60_000)));
        });
        scene.world.run_for(40 * DELAY);
    }
    assert_eq!(scene.relay().stats().control.deaf, 1);
    assert!(scene.world[deaf].machine.closed.is_some());
    scene.send_frames(ends[0], numbers[0], &[b"as ever"]);
    assert_eq!(scene.take_packets(ends[1], numbers[1]), [b"as ever"]);
}
pub(crate) fn clients_of_v2_hear_of_the_end_before_it_comes<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let ends = scene.pair();
    let numbers = scene.channel(ends, "echo");
    let old = scene.registered("old", OTHER_AGENT, 0x10, "echo");
    let relay = scene.relay;
    scene.world.with(relay, |host, now| host.machine.shut_down(now));
    scene.world.run_for(3 * DELAY);
    for host in ends {
        assert_eq!(
            scene.take_heard(host),
            [ControlMessage::GoingAway { within_ms: 250 }]
        );
        assert_eq!(scene.world[host].machine.closed, None);
    }
    assert!(!scene.relay().is_drained());
    scene.send_frames(ends[0], numbers[0], &[b"last words"]);
    assert_eq!(scene.take_packets(ends[1], numbers[1]), [b"last words"]);
    scene.world.run_for(Duration::from_secs(1));
    assert!(scene.relay().is_drained());
    for host in ends {
        assert!(scene.world[host].machine.closed.is_some());
    }
    assert!(scene.world[old].machine.closed.is_some());
    assert_eq!(scene.relay().channels(), 0);
}
