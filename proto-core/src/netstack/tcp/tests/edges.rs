//! Sessions that do not end in order, or never begin.

use super::*;
use crate::backend::{FromBackend, Refusal};
use crate::routing::packet::{self, Kind, TcpFlags};

const NOBODY: Weather = Weather {
    loss: 0,
    repeat: 0,
    reorder: 0,
};

#[test]
fn a_refused_backend_is_a_refused_connection() {
    for reason in [Refusal::Refused, Refusal::Exhausted] {
        let mut world = World::new(Script::Refuse(reason), NOBODY);
        let call = world.call(40_000, b"hello".to_vec(), false);
        world.run(Duration::from_millis(100), |world| {
            world.host.state(call) == State::Closed
        });
        assert_eq!(world.stack.stats().tcp_errors, 1);
        world.assert_empty();
    }
}

#[test]
fn an_unreachable_backend_is_an_unreachable_host() {
    for (script, errors) in [(Script::Refuse(Refusal::Unreachable), 1), (Script::Mute, 1)] {
        let mut world = World::new(script, NOBODY);
        world.call(40_000, Vec::new(), false);
        world.tunnel_open = false;
        world.pass(crate::netstack::CONNECT_TIMEOUT + Duration::from_millis(20));
        assert!(world.stack.stats().tcp_errors >= errors);
        let answer = world.stack.poll_packet(harness::LANE, world.now).unwrap();
        let answer = packet::parse(&answer).unwrap();
        assert_eq!(
            (answer.kind, answer.flow.destination_port),
            (Kind::IcmpError, 40_000)
        );
    }
}

#[test]
fn a_reset_by_the_agent_resets_the_backend() {
    let mut world = World::new(Script::Sink, NOBODY);
    let call = world.call(40_000, pattern(1000), false);
    world.run(MINUTE, |world| {
        world
            .backends
            .first()
            .is_some_and(|backend| backend.received.len() == 1000)
    });
    world.host.socket(call).abort();
    world.run(MINUTE, |world| world.backends[0].reset);
    assert!(!world.backends[0].closed);
    world.assert_empty();
}

#[test]
fn a_reset_by_the_backend_resets_the_agent() {
    let mut world = World::new(Script::Sink, NOBODY);
    let call = world.call(40_000, pattern(1000), false);
    world.run(MINUTE, |world| {
        world
            .backends
            .first()
            .is_some_and(|backend| backend.received.len() == 1000)
    });
    world.break_backend(0);
    world.run(Duration::from_millis(100), |world| {
        world.host.state(call) == State::Closed
    });
    assert!(!world.backends[0].reset, "its flow was dead already");
    world.assert_empty();
}

#[test]
fn a_reset_that_finds_no_room_does_not_wait_for_ever() {
    let mut world = World::new(Script::Sink, NOBODY);
    let call = world.call(40_000, Vec::new(), false);
    world.run(MINUTE, |world| world.host.state(call) == State::Established);
    world.tunnel_open = false;
    world.break_backend(0);
    world.pass(MINUTE);
    assert_eq!((world.stack.flows(), world.stack.poll_timeout()), (0, None));
}

#[test]
fn an_agent_that_vanishes_is_given_up() {
    for to_send in [Vec::new(), pattern(1_000_000)] {
        let mut world = World::new(Script::Echo, NOBODY);
        let call = world.call(40_000, to_send, false);
        world.run(MINUTE, |world| world.host.state(call) == State::Established);
        world.up.broken = true;
        world.pass(10 * MINUTE);
        assert!(world.backends[0].reset);
        world.assert_empty();
    }
}

#[test]
fn an_idle_session_lives_while_its_agent_answers() {
    let mut world = World::new(Script::Echo, NOBODY);
    let call = world.call(40_000, Vec::new(), false);
    world.pass(600 * MINUTE);
    assert_eq!(world.host.state(call), State::Established);
    world.host.calls[call].to_send.extend(b"still there");
    world.run(MINUTE, |world| world.host.calls[call].received == b"still there");
}

#[test]
fn a_handshake_that_is_never_completed_is_given_up() {
    let mut world = World::new(Script::Echo, NOBODY);
    world.call(40_000, Vec::new(), false);
    world.down.broken = true;
    world.pass(Duration::from_secs(1));
    assert_eq!((world.stack.flows(), world.stack.tcp_pending.len()), (1, 1));
    world.up.broken = true;
    world.pass(MINUTE);
    assert!(world.backends[0].reset);
    world.assert_empty();
}

#[test]
fn a_session_whose_other_half_stands_still_is_given_up() {
    let mut world = World::new(Script::Sink, NOBODY);
    let call = world.call(40_000, Vec::new(), true);
    world.run(MINUTE, |world| {
        world.host.state(call) == State::Closed || world.backends.first().is_some_and(|b| b.closed)
    });
    world.assert_empty();
    // A backend that never ends, though its agent has ended and been gone since.
    let mut world = World::new(Script::Slow(0), NOBODY);
    world.call(40_000, pattern(10), true);
    world.pass(Duration::from_secs(1));
    world.up.broken = true;
    world.pass(10 * MINUTE);
    assert!(world.backends[0].reset);
    world.assert_empty();
}

/// A bare segment of the agent's port 40000.
fn segment(flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut udp = Vec::new();
    let (source, destination) = (
        "10.9.0.1:40000".parse().unwrap(),
        "10.100.0.1:80".parse().unwrap(),
    );
    assert!(packet::udp(source, destination, &[0; 12], &mut udp));
    udp[24..28].copy_from_slice(&sequence.to_be_bytes());
    udp[28..32].copy_from_slice(&acknowledged.to_be_bytes());
    udp[32..40].copy_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    udp[9] = packet::TCP;
    udp[10..12].copy_from_slice(&[0, 0]);
    let checksum = naive(&udp[..20], &[]);
    udp[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = [&udp[12..20], &[0, packet::TCP, 0, 20]].concat();
    let checksum = naive(&pseudo, &udp[20..]);
    udp[36..38].copy_from_slice(&checksum.to_be_bytes());
    assert!(packet::verify_checksums(&packet::parse(&udp).unwrap(), &udp));
    udp
}

fn naive(pseudo: &[u8], bytes: &[u8]) -> u16 {
    let words = pseudo.chunks(2).chain(bytes.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A world in which the test itself speaks for the agent.
fn bare(script: Script) -> World {
    let mut world = World::new(script, NOBODY);
    world.tunnel_open = false;
    world
}

fn feed(world: &mut World, packet: Vec<u8>) {
    world.stack.handle_packet(harness::LANE, packet.into(), world.now);
    world.pass(Duration::from_millis(1));
}

/// What the stack sends next: its flags, sequence and acknowledgement number.
fn reply(world: &mut World) -> Option<(TcpFlags, u32, u32)> {
    let packet = world.stack.poll_packet(harness::LANE, world.now)?;
    let parsed = packet::parse(&packet).unwrap();
    assert!(packet::verify_checksums(&parsed, &packet));
    let Kind::Tcp(flags) = parsed.kind else {
        panic!("{parsed:?}")
    };
    let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    Some((flags, number(24), number(28)))
}

#[test]
fn a_segment_of_no_session_is_reset() {
    let mut world = bare(Script::Echo);
    feed(&mut world, segment(ACK, 5, 7));
    let (flags, sequence, _) = reply(&mut world).unwrap();
    assert!(flags.rst && !flags.ack && sequence == 7);
    feed(&mut world, segment(RST, 5, 7));
    assert!(reply(&mut world).is_none());
    let mut damaged = segment(SYN, 5, 0);
    damaged[39] ^= 1;
    feed(&mut world, damaged);
    assert_eq!((reply(&mut world).is_none(), world.stack.flows()), (true, 0));
    assert_eq!(world.stack.stats().bad_checksum, 1);
}

#[test]
fn a_handshake_waits_for_the_backend_and_takes_the_newest_syn() {
    let mut world = bare(Script::Mute);
    feed(&mut world, segment(SYN, 100, 0));
    feed(&mut world, segment(SYN, 100, 0));
    feed(&mut world, segment(SYN, 900, 0));
    assert!(reply(&mut world).is_none() && world.stack.stats().tcp_sessions == 1);
    let flow = world.backends[0].flow;
    world
        .stack
        .handle_backend(FromBackend::Opened { flow }, world.now);
    let (flags, _, acknowledged) = reply(&mut world).unwrap();
    assert!(flags.syn && flags.ack && acknowledged == 901);
}

#[test]
fn a_reset_ends_a_handshake_at_every_stage() {
    let mut world = bare(Script::Mute);
    feed(&mut world, segment(SYN, 100, 0));
    feed(&mut world, segment(RST, 101, 0));
    assert!(world.backends[0].reset);
    world.assert_empty();

    let mut world = bare(Script::Echo);
    feed(&mut world, segment(SYN, 100, 0));
    let (flags, ..) = reply(&mut world).unwrap();
    assert!(flags.syn);
    feed(&mut world, segment(RST, 101, 0));
    assert!(world.backends[0].reset);
    world.assert_empty();
}

#[test]
fn a_lingering_session_repeats_its_last_word_and_gives_up_its_port() {
    let mut world = World::new(Script::Serve(Vec::new()), NOBODY);
    let call = world.call(40_000, Vec::new(), false);
    world.run(MINUTE, |world| world.host.state(call) == State::CloseWait);
    world.host.calls[call].then_close = true;
    world.run(MINUTE, |world| world.host.state(call) == State::Closed);
    world.pass(Duration::from_millis(100));
    assert_eq!((world.stack.flows(), world.stack.lingering.len()), (1, 1));
    assert!(world.backends[0].closed);
    world.tunnel_open = false;
    feed(&mut world, segment(1 | ACK, 5, 7));
    let (flags, ..) = reply(&mut world).unwrap();
    assert!(flags.ack && !flags.syn && !flags.rst);
    feed(&mut world, segment(SYN, 77, 0));
    let (flags, _, acknowledged) = reply(&mut world).unwrap();
    assert!(flags.syn && flags.ack && acknowledged == 78);
    assert_eq!((world.stack.flows(), world.stack.lingering.len()), (1, 0));
}

#[test]
fn reports_about_dead_flows_change_nothing() {
    let mut world = World::new(Script::Echo, NOBODY);
    let call = world.call(40_000, pattern(10), true);
    world.run(MINUTE, |world| {
        world.host.state(call) == State::Closed || world.backends.first().is_some_and(|b| b.closed)
    });
    let flow = world.backends[0].flow;
    for report in [
        FromBackend::Opened { flow },
        FromBackend::Refused {
            flow,
            reason: Refusal::Refused,
        },
        FromBackend::HalfClosed { flow },
        FromBackend::Reset { flow },
        FromBackend::Datagram { flow, payload: b"" },
        FromBackend::Unreachable {
            flow,
            why: crate::backend::BackendUnreachable::Port,
        },
    ] {
        world.stack.handle_backend(report, world.now);
    }
    assert_eq!(
        world
            .stack
            .fill_stream(flow, world.now, &mut |_| panic!("no room")),
        None
    );
    assert_eq!(
        world
            .stack
            .drain_stream(flow, world.now, &mut |_| panic!("no bytes")),
        0
    );
    world.assert_empty();
    assert_eq!(world.stack.stats().tcp_errors, 0);
}
