//! Any clients of v2 that say anything in any order: what must hold whatever they say.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proto_core::sim::HostId;
use proto_core::wire::channel::parse_channel;
use proto_core::wire::control::{ChannelEnd, ControlMessage, Refusal};
use proto_core::wire::datagram::Role;

use crate::raw::FORGOTTEN;
use crate::setup::{DELAY, FakeQuic, Scene, SpeakerHost, routed, udp};
use crate::speaker::frame;

type Host = HostId<SpeakerHost<FakeQuic>>;

/// Two that mean to be connectors, three that mean to be agents.
const CLIENTS: usize = 5;
const CONNECTORS: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Step {
    who: usize,
    what: u8,
    service: u8,
    number: u8,
    pause: u16,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..CLIENTS, any::<u8>(), 0..3_u8, any::<u8>(), 0..400_u16);
    let step = step.prop_map(|(who, what, service, number, pause)| Step {
        who,
        what,
        service,
        number,
        pause,
    });
    prop::collection::vec(step, 1..60)
}

/// A number that the client was given, or any.
fn number(scene: &Scene<FakeQuic>, host: Host, choice: u8) -> u32 {
    let given: Vec<u32> = numbers(scene, host).into_iter().collect();
    match given.get(usize::from(choice % 8)) {
        Some(number) => *number,
        None => u32::from(choice),
    }
}

fn numbers(scene: &Scene<FakeQuic>, host: Host) -> BTreeSet<u32> {
    let heard = scene.world[host].machine.heard.iter();
    heard
        .filter_map(|message| {
            let ControlMessage::ChannelOpened { channel, .. } = message else {
                return None;
            };
            Some(*channel)
        })
        .collect()
}

fn message(scene: &Scene<FakeQuic>, host: Host, step: Step) -> ControlMessage {
    let Step {
        what,
        service,
        number: choice,
        ..
    } = step;
    let service = ["echo", "files", ""][usize::from(service)].to_owned();
    let channel = number(scene, host, choice);
    match what % 16 {
        0..=3 => ControlMessage::Register { service },
        4..=7 => ControlMessage::OpenChannel {
            request: u32::from(choice),
            service,
        },
        8 => ControlMessage::Unregister { service },
        9 => ControlMessage::ChannelClosed {
            channel,
            reason: ChannelEnd::Closed,
        },
        10 => ControlMessage::Carriage {
            channel,
            datagram: choice.is_multiple_of(2),
        },
        11 => ControlMessage::Hello {
            role: if choice.is_multiple_of(2) {
                Role::Agent
            } else {
                Role::Connector
            },
            instance: 1,
            capabilities: 1,
        },
        12 => ControlMessage::Ping { nonce: 1 },
        // What only an intermediate says.
        13 => ControlMessage::ChannelRefused {
            request: 1,
            reason: Refusal::Unknown,
            retry_ms: 0,
        },
        14 => ControlMessage::Registered { service, lease_ms: 1 },
        _ => ControlMessage::GoingAway { within_ms: 1 },
    }
}

fn act(scene: &mut Scene<FakeQuic>, host: Host, step: Step) {
    if scene.world[host].machine.closed.is_some() {
        return;
    }
    let channel = number(scene, host, step.number);
    let message = message(scene, host, step);
    let packet = udp("10.9.0.1:5000", "10.100.0.1:9999", &[step.number]);
    scene.world.with(host, |host, _| match step.what / 16 {
        0..=9 => host.machine.say(&message),
        10 | 11 => host.machine.send_frames(channel, &[b"packet", &[step.number; 6]]),
        12 => host.machine.send(&frame(channel, b"inside")),
        13 => host.machine.send(&routed("echo", &packet)),
        14 => host.machine.mutter(&[step.number; 9]),
        _ => host.machine.send(&packet),
    });
    if step.what == 255 {
        let public = format!("198.51.100.200:{}", 1000 + u16::from(step.number));
        scene.world.rebind(host, &public);
    }
    scene
        .world
        .run_for(Duration::from_millis(u64::from(step.pause) * 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_clients_say_nobody_gets_what_is_not_theirs_and_nothing_is_left(steps in steps()) {
        let mut scene = Scene::new(FakeQuic::new());
        let mut hosts = Vec::new();
        for index in 0..CLIENTS {
            let (role, name) = if index < CONNECTORS {
                (Role::Connector, "connector.*.ztna")
            } else {
                (Role::Agent, "agent.*.ztna")
            };
            let address = format!("198.51.100.{}:1111", index + 1);
            let host = scene.silent("client", &address, &[name]);
            if index != CLIENTS - 1 {
                let hello = ControlMessage::Hello { role, instance: 1, capabilities: 1 };
                scene.world.with(host, |host, _| host.machine.say(&hello));
            }
            hosts.push(host);
        }
        scene.world.run_for(4 * DELAY);
        for step in steps {
            act(&mut scene, hosts[step.who], step);
            let (channels, registrations) = (scene.relay().channels(), scene.relay().registry().registrations());
            prop_assert!(channels <= CONNECTORS * (CLIENTS - CONNECTORS));
            prop_assert!(registrations <= 2 * CLIENTS);
            prop_assert!(channels == 0 || registrations >= 2);
        }
        for host in &hosts {
            // Whatever came in a frame came under a number that this client was told of.
            let given = numbers(&scene, *host);
            let machine = &scene.world[*host].machine;
            let inside = machine.datagrams.iter().filter(|datagram| datagram.first() == Some(&0x21));
            for bytes in machine.frames.iter().map(|(_, frame)| frame).chain(inside) {
                let number = parse_channel(bytes).unwrap();
                prop_assert!(given.contains(&number), "{} is none of {:?}", number, given);
            }
            scene.world.with(*host, |host, now| proto_core::Machine::shut_down(&mut host.machine, now));
        }
        scene.world.run_for(FORGOTTEN);
        let relay = scene.relay();
        prop_assert_eq!(relay.channels(), 0);
        prop_assert_eq!(relay.registry().registrations(), 0);
        prop_assert_eq!(relay.connections(), 0);
        prop_assert_eq!(relay.flows(), 0);
    }
}
