//! Sessions between an agent's host and scripted backends, over good and bad paths, in virtual time.

mod edges;
mod harness;

use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::wire::IpAddress;

use crate::netstack::NetstackLimits;
use harness::{MTU, Script, Weather, World, pattern};

const BAD: Weather = Weather {
    loss: 30,
    repeat: 20,
    reorder: 50,
};
/// More than a session buffers before it has seen what its path carries.
const BUFFER: usize = 256 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn five_megabytes_come_through_unharmed_from_the_backend() {
    let bytes = pattern(5_000_000);
    let mut world = World::new(Script::Serve(bytes.clone()), BAD);
    let call = world.call(40_000, b"request".to_vec(), true);
    world.run(10 * MINUTE, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.calls[call].received == bytes);
    world.assert_empty();
    let stats = world.stack.stats();
    assert_eq!(
        (stats.returned_bytes, stats.forwarded_bytes, stats.tcp_errors),
        (5_000_000, 7, 0)
    );
}

#[test]
fn five_megabytes_come_through_unharmed_to_the_backend() {
    let bytes = pattern(5_000_000);
    let mut world = World::new(Script::Reply(b"thanks".to_vec()), BAD);
    let call = world.call(40_000, bytes.clone(), true);
    world.run(10 * MINUTE, |world| world.host.calls[call].received == b"thanks");
    assert!(world.backends[0].received == bytes);
    world.assert_empty();
    let stats = world.stack.stats();
    assert_eq!(
        (stats.returned_bytes, stats.forwarded_bytes, stats.tcp_errors),
        (6, 5_000_000, 0)
    );
}

#[test]
fn five_megabytes_go_both_ways_at_once() {
    let bytes = pattern(5_000_000);
    let mut world = World::new(Script::Echo, BAD);
    let call = world.call(40_000, bytes.clone(), true);
    world.run(10 * MINUTE, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.calls[call].received == bytes && world.backends[0].received == bytes);
    world.assert_empty();
}

#[test]
fn a_good_path_is_filled() {
    // Virtual time. Here every arrival of an instant is acknowledged at once, and the windows of smoltcp, which is the
    // agent's host, grow by the number of acknowledgements, so that they open slowly; what must not happen is a stall.
    let bytes = pattern(8_000_000);
    let mut world = World::new(Script::Serve(bytes.clone()), Weather::default());
    let call = world.call(40_000, Vec::new(), true);
    world.run(3 * SECOND, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.calls[call].received == bytes);
    let mut world = World::new(Script::Sink, Weather::default());
    world.call(40_000, bytes.clone(), true);
    world.run(10 * SECOND, |world| {
        world.backends.first().is_some_and(|backend| backend.ended)
    });
    assert!(world.backends[0].received == bytes);
    world.assert_empty();
}

#[test]
fn ipv6_sessions_work_alike() {
    let bytes = pattern(100_000);
    let mut world = World::new(Script::Echo, BAD);
    let to = IpAddress::v6(0xfd00, 5, 0, 0, 0, 0, 0, 1);
    let call = world.call_to(to, 40_000, bytes.clone(), true);
    world.run(20 * MINUTE, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.calls[call].received == bytes && world.backends[0].received == bytes);
    world.assert_empty();
}

#[test]
fn an_agent_that_ends_first_still_gets_its_answer() {
    let answer = pattern(1_000_000);
    let mut world = World::new(Script::Reply(answer.clone()), BAD);
    let call = world.call(40_000, b"request".to_vec(), true);
    world.run(20 * MINUTE, |world| {
        world.host.calls[call].received.len() == answer.len()
    });
    assert_eq!(world.backends[0].received, b"request");
    assert!(world.host.calls[call].received == answer);
    world.assert_empty();
}

#[test]
fn a_backend_that_ends_first_still_gets_everything() {
    for weather in [Weather::default(), BAD] {
        let bytes = pattern(300_000);
        let mut world = World::new(Script::Serve(b"banner".to_vec()), weather);
        let call = world.call(40_000, Vec::new(), false);
        world.run(MINUTE, |world| world.host.state(call) == State::CloseWait);
        world.pass(Duration::from_secs(5));
        assert_eq!(world.host.calls[call].received, b"banner");
        world.host.calls[call].to_send.extend(&bytes);
        world.host.calls[call].then_close = true;
        world.run(20 * MINUTE, |world| world.backends[0].closed);
        assert!(world.backends[0].received == bytes && !world.backends[0].reset);
        world.assert_empty();
    }
}

#[test]
fn a_backend_that_ends_before_the_handshake_is_complete_ends_in_order() {
    for answer in [Vec::new(), pattern(3000)] {
        for weather in [Weather::default(), Weather { loss: 400, ..BAD }] {
            let mut world = World::new(Script::Serve(answer.clone()), weather);
            let call = world.call(40_000, Vec::new(), true);
            world.run(30 * MINUTE, |world| {
                matches!(world.host.state(call), State::Closed | State::TimeWait)
            });
            assert!(world.host.calls[call].received == answer);
            world.assert_empty();
        }
    }
}

#[test]
fn a_slow_backend_closes_the_window_and_loses_nothing() {
    let bytes = pattern(1_000_000);
    let mut world = World::new(Script::Slow(0), Weather::default());
    world.call(40_000, bytes.clone(), true);
    world.pass(MINUTE);
    let waiting = world.host.calls[0].to_send.len();
    // Its own buffer, the session's, and nothing beyond.
    assert!(waiting >= 1_000_000 - BUFFER - 128 * 1024, "{waiting}");
    assert!(world.backends[0].received.is_empty());
    world.script_backend(0, Script::Slow(100));
    world.run(30 * MINUTE, |world| world.backends[0].ended);
    assert!(world.backends[0].received == bytes);
    world.assert_empty();
}

#[test]
fn bytes_outlive_the_connection_that_brought_them() {
    // The agent sends, ends, hears the backend's end and is gone, long before the backend takes a byte.
    let bytes = pattern(60_000);
    let mut world = World::new(Script::Slow(0), Weather::default());
    let call = world.call(40_000, bytes.clone(), true);
    world.pass(Duration::from_secs(5));
    world.finish_backend(0);
    world.run(MINUTE, |world| {
        world.host.state(call) == State::TimeWait || world.host.state(call) == State::Closed
    });
    world.pass(2 * MINUTE);
    assert!(!world.backends[0].closed && !world.backends[0].reset);
    world.script_backend(0, Script::Slow(10_000));
    world.run(MINUTE, |world| world.backends[0].closed);
    assert!(world.backends[0].ended && world.backends[0].received == bytes);
    world.assert_empty();
}

#[test]
fn a_slow_tunnel_stops_the_backend() {
    let bytes = pattern(1_000_000);
    let mut world = World::new(Script::Serve(bytes.clone()), Weather::default());
    let call = world.call(40_000, Vec::new(), false);
    world.run(MINUTE, |world| world.host.state(call) == State::Established);
    world.tunnel_open = false;
    world.pass(MINUTE / 4);
    let filled = world.backends[0].filled;
    assert!(filled <= BUFFER + 128 * 1024, "{filled}");
    world.pass(MINUTE / 4);
    assert_eq!(world.backends[0].filled, filled, "not a byte more");
    world.tunnel_open = true;
    world.host.calls[call].then_close = true;
    world.run(5 * MINUTE, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.calls[call].received == bytes);
    world.assert_empty();
}

#[test]
fn many_sessions_share_a_bad_tunnel_and_leave_nothing() {
    let mut world = World::new(Script::Echo, BAD);
    let payloads: Vec<Vec<u8>> = (0..100).map(|call| pattern(2_000 + 37 * call)).collect();
    for (port, payload) in payloads.iter().enumerate() {
        world.call(30_000 + port as u16, payload.clone(), true);
    }
    world.run(60 * MINUTE, |world| {
        world
            .host
            .calls
            .iter()
            .zip(&payloads)
            .all(|(call, sent)| call.received.len() == sent.len())
    });
    for (call, sent) in world.host.calls.iter().zip(&payloads) {
        assert!(call.received == *sent);
    }
    assert_eq!(world.stack.stats().tcp_sessions, 100);
    world.assert_empty();
}

#[test]
fn a_path_that_narrows_is_healed_by_smaller_segments() {
    let bytes = pattern(400_000);
    let mut world = World::new(Script::Serve(bytes.clone()), Weather::default());
    let call = world.call(40_000, Vec::new(), true);
    world.run(MINUTE, |world| world.host.calls[call].received.len() > 20_000);
    assert_eq!(world.host.largest, MTU);
    world.stack.set_mtu(harness::LANE, 1000);
    world.pass(Duration::from_millis(100));
    world.host.largest = 0;
    world.run(MINUTE, |world| {
        world.host.calls[call].received.len() == bytes.len()
    });
    assert!(world.host.largest <= 1000);
    world.assert_empty();
}

#[test]
fn a_full_table_refuses_until_there_is_room() {
    let limits = NetstackLimits {
        tcp_sessions: 8,
        tcp_pending_per_source: 4,
        ..NetstackLimits::default()
    };
    let mut world = World::with_limits(Script::Mute, Weather::default(), limits);
    for port in 0..6 {
        world.call(40_000 + port, Vec::new(), false);
    }
    world.pass(Duration::from_secs(1));
    // As with a listener whose backlog is full, the others are not answered, and ask again.
    let stats = world.stack.stats();
    assert_eq!((world.stack.flows(), stats.tcp_full), (4, 0));
    assert!(stats.tcp_backlog >= 2);
    assert!((0..6).all(|call| world.host.state(call) == State::SynSent));
    (0..6).for_each(|call| world.host.socket(call).abort());
    world.assert_empty();

    let mut world = World::with_limits(Script::Echo, Weather::default(), limits);
    for port in 0..10 {
        world.call(40_000 + port, Vec::new(), false);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!((world.stack.flows(), world.stack.stats().tcp_full), (8, 2));
    // Those that have ended and only linger give way to new ones.
    for call in 0..8 {
        world.host.calls[call].then_close = true;
    }
    world.pass(Duration::from_secs(1));
    for port in 0..8 {
        world.call(50_000 + port, b"hello".to_vec(), false);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(world.stack.stats().tcp_full, 2);
    (10..18).for_each(|call| assert_eq!(world.host.calls[call].received, b"hello"));
    for call in 10..18 {
        world.host.calls[call].then_close = true;
    }
    world.assert_empty();
}
