//! Stories of the intermediate with clients that speak `ztna-v2` message by message: leases, relay channels, and packets of v1 on the
//! same connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto_core::channel::ChannelLimits;
use proto_core::config::IntermediateLimits;
use proto_core::id::ServiceId;
use proto_core::machine::Machine;
use proto_core::quic::identity::{Authority, Capacity, Identity, SanAuthority};
use proto_core::sim::{HostId, MachineHost};
use proto_core::wire::control::{ChannelEnd, ControlMessage, Refusal};
use proto_core::wire::datagram::Role;

use crate::raw::FORGOTTEN;
use crate::setup::{DELAY, Quic, Scene, SpeakerHost, intermediate, routed, udp};
use crate::speaker::frame;

const AGENT: &str = "198.51.100.1:1111";
const OTHER_AGENT: &str = "198.51.100.2:2222";
const CONNECTOR: &str = "203.0.113.1:3333";
const OTHER_CONNECTOR: &str = "203.0.113.2:4444";

const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

/// The lease that an intermediate grants.
const LEASE: Duration = Duration::from_secs(120);

fn hello(role: Role) -> ControlMessage {
    ControlMessage::Hello {
        role,
        instance: 7,
        capabilities: u64::MAX,
    }
}

pub(crate) fn register(service: &str) -> ControlMessage {
    ControlMessage::Register {
        service: service.to_owned(),
    }
}

fn open(request: u32, service: &str) -> ControlMessage {
    ControlMessage::OpenChannel {
        request,
        service: service.to_owned(),
    }
}

fn refused(service: &str, reason: Refusal, retry_ms: u32) -> ControlMessage {
    ControlMessage::Refused {
        service: service.to_owned(),
        reason,
        retry_ms,
    }
}

fn registered(service: &str) -> ControlMessage {
    ControlMessage::Registered {
        service: service.to_owned(),
        lease_ms: LEASE.as_millis() as u32,
    }
}

fn closed(channel: u32, reason: ChannelEnd) -> ControlMessage {
    ControlMessage::ChannelClosed { channel, reason }
}

impl<Q: Quic> Scene<Q> {
    /// A client of v2 that has said hello.
    pub(crate) fn speaker(
        &mut self,
        name: &str,
        address: &str,
        role: Role,
        names: &[&str],
    ) -> HostId<SpeakerHost<Q>> {
        let host = self.silent(name, address, names);
        assert_eq!(self.world[host].machine.alpn(), b"ztna-v2");
        self.say(host, &[hello(role)]);
        let address = address.parse().unwrap();
        let welcome = [
            ControlMessage::Welcome { capabilities: 0 },
            ControlMessage::ObservedAddress { address },
        ];
        assert_eq!(self.take_heard(host), welcome);
        host
    }

    /// Says messages and lets them arrive and be answered.
    pub(crate) fn say(&mut self, host: HostId<SpeakerHost<Q>>, messages: &[ControlMessage]) {
        self.world.with(host, |host, _| {
            messages.iter().for_each(|message| host.machine.say(message))
        });
        self.world.run_for(6 * DELAY);
    }

    pub(crate) fn take_heard(&mut self, host: HostId<SpeakerHost<Q>>) -> Vec<ControlMessage> {
        self.world
            .with(host, |host, _| std::mem::take(&mut host.machine.heard))
    }

    pub(crate) fn take_datagrams(&mut self, host: HostId<SpeakerHost<Q>>) -> Vec<Vec<u8>> {
        self.world
            .with(host, |host, _| std::mem::take(&mut host.machine.datagrams))
    }

    /// The packets that arrived in bare frames of a channel.
    fn take_packets(&mut self, host: HostId<SpeakerHost<Q>>, channel: u32) -> Vec<Vec<u8>> {
        let frames = self
            .world
            .with(host, |host, _| std::mem::take(&mut host.machine.frames));
        let prefix = frame(channel, b"");
        let packets = frames.into_iter().map(|(from, bytes)| {
            assert_eq!(from, crate::setup::RELAY.parse().unwrap());
            bytes.strip_prefix(&prefix[..]).unwrap().to_vec()
        });
        packets.collect()
    }

    fn send_frames(&mut self, host: HostId<SpeakerHost<Q>>, channel: u32, packets: &[&[u8]]) {
        self.world
            .with(host, |host, _| host.machine.send_frames(channel, packets));
        self.world.run_for(4 * DELAY);
    }

    /// An agent and a connector of the service "echo", registered.
    fn pair(&mut self) -> [HostId<SpeakerHost<Q>>; 2] {
        let connector = self.speaker("connector", CONNECTOR, Role::Connector, &["connector.*.ztna"]);
        let agent = self.speaker("agent", AGENT, Role::Agent, &["agent.*.ztna"]);
        for host in [connector, agent] {
            self.say(host, &[register("echo")]);
            assert_eq!(self.take_heard(host), [registered("echo")]);
        }
        [agent, connector]
    }

    /// Opens the channel between them; its numbers.
    fn channel(&mut self, [agent, connector]: [HostId<SpeakerHost<Q>>; 2], service: &str) -> [u32; 2] {
        self.say(agent, &[open(5, service)]);
        let numbers = [(agent, Some(5)), (connector, None)].map(|(host, expected)| {
            let heard = self.take_heard(host);
            let [
                ControlMessage::ChannelOpened {
                    request,
                    channel,
                    service: told,
                    peer,
                },
            ] = heard.as_slice()
            else {
                panic!("no channel: {heard:?}");
            };
            assert_eq!((*request, told.as_str()), (expected, service));
            assert_ne!(peer.fingerprint, [0; 32]);
            *channel
        });
        assert_ne!(numbers[0], numbers[1]);
        numbers
    }
}

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
    let refused = scene.relay().stats().control.refused;
    assert_eq!(
        (
            refused.peer_is_v1,
            refused.no_connector,
            refused.not_registered,
            refused.invalid_id
        ),
        (1, 1, 1, 1)
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
