//! One mechanism at a time, by the packets that show it.

use smoltcp::wire::TcpControl;

use super::harness::{Application, End, MILLI, Net, Pairing, SECOND, Weather, pattern};
use crate::routing::packet;
use crate::tcp::{Config, Connection, Segment, State};

fn net(first: usize, second: usize) -> Net {
    let applications = [
        Application::sends(pattern(first, 1)),
        Application::sends(pattern(second, 2)),
    ];
    Net::new(Pairing::Ours, Config::default(), Weather::default(), applications)
}

fn connection(net: &mut Net, side: usize) -> &mut Connection {
    net.ours(side).connection.as_mut().unwrap()
}

/// The payload lengths and flags of what a side has sent.
fn sent(net: &Net, side: usize) -> Vec<(TcpControl, usize)> {
    let log = net.links[side].log.as_ref().unwrap();
    log.iter()
        .map(|bytes| {
            let parsed = packet::parse(bytes).unwrap();
            let segment = Segment::parse(&parsed, bytes).unwrap();
            (segment.repr.control, segment.repr.payload.len())
        })
        .collect()
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() < 1600, "{}", size_of::<Connection>());
    let mut net = net(1, 1);
    for side in 0..2 {
        net.ends[side].application_mut().closes = false;
    }
    net.pass(2 * SECOND);
    for side in 0..2 {
        assert_eq!(connection(&mut net, side).memory(), 0);
        assert_eq!(connection(&mut net, side).state(), State::Established);
    }
}

#[test]
fn a_lost_tail_is_probed_for_and_costs_no_timeout() {
    // 5 ms each way. The answer is the fourth packet of the second side or later; its last segment is lost.
    for lost in 1..4 {
        let mut net = net(10, 4000);
        net.links[1].victims = vec![1 + lost];
        net.run(SECOND / 5, |net| net.ends[0].application().received.len() == 4000);
        net.finish(SECOND);
        assert_eq!(connection(&mut net, 1).stats().timeouts, 0);
        assert_eq!(net.links[1].lost, 1);
    }
}

#[test]
fn a_hole_is_filled_in_a_round_trip() {
    let mut net = net(0, 200_000);
    net.links[1].victims = vec![12, 15, 16];
    net.run(SECOND / 5, |net| {
        net.ends[0].application().received.len() == 200_000
    });
    let stats = connection(&mut net, 1).stats();
    assert_eq!((stats.retransmits, stats.timeouts), (3, 0));
    net.finish(SECOND);
}

#[test]
fn reordering_is_not_loss() {
    let weather = Weather {
        delay: 20 * MILLI,
        reorder: 100,
        late: 3 * MILLI,
        rate: Some(10_000_000),
        ..Weather::default()
    };
    let applications = [
        Application::sends(Vec::new()),
        Application::sends(pattern(4_000_000, 2)),
    ];
    let mut net = Net::new(Pairing::Ours, Config::default(), weather, applications);
    net.finish(20 * SECOND);
    let stats = connection(&mut net, 1).stats();
    // Only what comes before the first sign that this is reordering is taken for loss.
    assert!(stats.retransmits < 200 && stats.timeouts == 0, "{stats:?}");
    assert!(stats.undone >= 1, "{stats:?}");
}

#[test]
fn a_delay_that_looks_like_loss_is_taken_back() {
    let mut net = net(0, 3_000_000);
    net.run(SECOND, |net| net.ends[0].application().received.len() > 100_000);
    // What is under way from now on takes half a second.
    net.links[1].weather.delay = 500 * MILLI;
    net.pass(300 * MILLI);
    net.links[1].weather.delay = 5 * MILLI;
    net.finish(10 * SECOND);
    let stats = connection(&mut net, 1).stats();
    assert!(stats.undone >= 1 && stats.timeouts >= 1, "{stats:?}");
}

#[test]
fn a_closed_window_is_asked_about_until_it_opens() {
    let mut net = net(0, 1_000_000);
    net.ends[0].application_mut().appetite = Some((0, SECOND));
    net.pass(60 * SECOND);
    let waiting = net.ends[1].application().written;
    assert!(waiting < 400_000, "{waiting}");
    net.links[1].log = Some(Vec::new());
    net.pass(60 * SECOND);
    let probes = sent(&net, 1);
    assert!(!probes.is_empty() && probes.len() < 30, "{probes:?}");
    assert!(probes.iter().all(|(_, len)| *len == 0), "{probes:?}");
    // The window opens, and the acknowledgement that says so is lost.
    net.links[0].broken = true;
    net.ends[0].application_mut().appetite = None;
    net.ends[0].application_mut().next_meal = None;
    net.pass(SECOND);
    net.links[0].broken = false;
    net.finish(100 * SECOND);
}

#[test]
fn segments_are_full_when_the_reader_is_slow() {
    // A reader that takes a few bytes at a time must not be sent a few bytes at a time (RFC 9293 §3.8.6.2).
    let mut net = net(0, 300_000);
    net.ends[0].application_mut().appetite = Some((100, MILLI));
    net.links[1].log = Some(Vec::new());
    net.finish(100 * SECOND);
    let small = sent(&net, 1)
        .into_iter()
        .filter(|(_, len)| (1..1000).contains(len));
    assert!(small.count() < 20);
}

#[test]
fn every_second_segment_is_acknowledged_and_a_lone_one_after_a_while() {
    let mut net = net(0, 0);
    for side in 0..2 {
        net.ends[side].application_mut().closes = false;
    }
    let weather = Weather {
        rate: Some(1_000_000),
        ..Weather::default()
    };
    net.links[1].weather = weather;
    net.run(SECOND, |net| {
        net.ours(1)
            .connection
            .as_ref()
            .is_some_and(Connection::is_established)
    });
    net.ends[1].application_mut().sent.extend(pattern(500_000, 2));
    net.links[0].log = Some(Vec::new());
    net.run(10 * SECOND, |net| {
        net.ends[0].application().received.len() == 500_000
    });
    net.pass(SECOND);
    let acknowledgements = sent(&net, 0).len();
    assert!((200..260).contains(&acknowledgements), "{acknowledgements}");
    net.ends[1].application_mut().sent.push(1);
    net.run(SECOND, |net| net.ends[0].application().received.len() == 500_001);
    assert_eq!(sent(&net, 0).len(), acknowledgements);
    net.pass(35 * MILLI);
    assert_eq!(sent(&net, 0).len(), acknowledgements);
    net.pass(10 * MILLI);
    assert_eq!(sent(&net, 0).len(), acknowledgements + 1);
    assert_eq!(connection(&mut net, 1).stats().retransmits, 0);
}

#[test]
fn a_silent_peer_is_asked_and_one_that_answers_is_kept() {
    let mut net = net(0, 0);
    for side in 0..2 {
        net.ends[side].application_mut().closes = false;
    }
    net.pass(1000 * SECOND);
    let now = net.now;
    for side in 0..2 {
        assert!(connection(&mut net, side).silence(now) < 50 * SECOND);
        assert_eq!(connection(&mut net, side).state(), State::Established);
    }
    net.links[0].broken = true;
    net.pass(1000 * SECOND);
    let now = net.now;
    assert!(connection(&mut net, 1).silence(now) > 900 * SECOND);
}

#[test]
fn both_may_call_and_both_may_end_at_the_same_time() {
    let mut net = net(1000, 1000);
    let flow = super::harness::flow(false);
    let budget = net.budget.clone();
    let calls = Connection::connect(flow.reversed(), Config::default(), 9, &budget, net.now);
    net.ours(1).connection = Some(calls);
    net.finish(10 * SECOND);
    for side in 0..2 {
        assert_eq!(connection(&mut net, side).state(), State::TimeWait);
    }
}

#[test]
fn a_path_that_narrows_gets_smaller_segments() {
    let mut net = net(0, 2_000_000);
    net.links[1].weather.rate = Some(2_000_000);
    net.run(SECOND, |net| net.ends[0].application().received.len() > 200_000);
    assert_eq!(net.links[1].largest, 1280);
    net.mtu = 700;
    net.links[1].largest = 0;
    net.finish(20 * SECOND);
    assert_eq!(net.links[1].largest, 700);
}

#[test]
fn a_budget_that_is_used_up_slows_but_never_stops() {
    let applications = [
        Application::sends(pattern(500_000, 1)),
        Application::sends(pattern(500_000, 2)),
    ];
    let weather = Weather {
        loss: 20,
        ..Weather::default()
    };
    let mut net = Net::with_budget(12_000, weather, applications);
    net.run(1000 * SECOND, |net| {
        assert!(net.budget.used() <= 16_384, "{}", net.budget.used());
        net.ends.iter_mut().all(End::is_closed)
    });
    net.finish(SECOND);
}
