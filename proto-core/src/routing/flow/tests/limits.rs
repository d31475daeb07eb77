//! How long flows live, and who gives way when there are too many.

use super::*;

#[test]
fn a_flow_rests_as_long_as_its_protocol_allows() {
    let cases = [
        (tcp(V4, 1, 2, Flags::SYN), 7440),
        (tcp(V4, 1, 2, Flags::FIN), 240),
        (tcp(V4, 1, 2, Flags::RST), 240),
        (udp(V4, 1, 2), 300),
        (echo(V4, 1), 60),
        (echo(V6, 1), 60),
        (other(V6, 132), 60),
    ];
    for (sent, idle) in cases {
        let (mut table, start) = (
            table(crate::config::IntermediateLimits::default().flow_table()),
            origin(),
        );
        let second = seconds(1);
        let forwarded = forward(&mut table, A, &sent, start).unwrap();
        let mut now = start + seconds(idle) - second;
        assert!(answered(&mut table, A, &sent, &forwarded, now), "{idle}");
        now += seconds(idle) - second;
        assert!(
            answered(&mut table, A, &sent, &forwarded, now),
            "the answer has renewed it"
        );
        now += seconds(idle);
        assert!(!answered(&mut table, A, &sent, &forwarded, now), "{idle}");
        assert_eq!((table.len(), table.stats().expired), (0, 1));
        // Another agent may have the addresses now.
        assert_eq!(forward(&mut table, B, &sent, now).unwrap(), sent);
        assert!(answered(&mut table, B, &sent, &forwarded, now));
    }
}

#[test]
fn a_tcp_connection_that_ends_is_remembered_for_less_and_its_successor_for_longer() {
    let (mut table, start) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let data = tcp(V4, 1, 2, Flags::ACK);
    forward(&mut table, A, &tcp(V4, 1, 2, Flags::SYN), start).unwrap();
    assert!(back(&mut table, &reply(&tcp(V4, 1, 2, Flags::FIN)), start).is_some());
    forward(&mut table, A, &data, start).unwrap();
    assert!(back(&mut table, &reply(&data), start + seconds(239)).is_some());
    assert!(back(&mut table, &reply(&data), start + seconds(239 + 240)).is_none());
    forward(&mut table, A, &tcp(V4, 1, 2, Flags::RST), start).unwrap();
    forward(&mut table, A, &tcp(V4, 1, 2, Flags::SYN), start).unwrap();
    assert!(back(&mut table, &reply(&data), start + seconds(7000)).is_some());
}

#[test]
fn a_clock_that_runs_backwards_or_jumps_is_harmless() {
    let (mut table, start) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin() + seconds(10_000),
    );
    let sent = udp(V4, 1, 2);
    forward(&mut table, A, &sent, start).unwrap();
    assert!(answered(&mut table, A, &sent, &sent, start - seconds(5000)));
    assert!(answered(&mut table, A, &sent, &sent, start + seconds(299)));
    assert!(!answered(&mut table, A, &sent, &sent, start + seconds(100_000)));
}

#[test]
fn an_agent_at_its_limit_loses_its_own_oldest_flow() {
    let (mut table, now) = (
        table(FlowLimits {
            per_agent: 3,
            total: 100,
        }),
        origin(),
    );
    let flow = |port| udp(V4, port, 53);
    forward(&mut table, B, &udp(V6, 9, 9), now).unwrap();
    for port in 1..=3 {
        forward(&mut table, A, &flow(port), now).unwrap();
    }
    let now = now + seconds(1);
    forward(&mut table, A, &tcp(V4, 4, 80, Flags::SYN), now).unwrap();
    assert!(!answered(&mut table, A, &flow(1), &flow(1), now));
    forward(&mut table, A, &flow(2), now).unwrap();
    forward(&mut table, A, &flow(5), now).unwrap();
    assert!(
        answered(&mut table, A, &flow(2), &flow(2), now),
        "it was used since"
    );
    assert!(!answered(&mut table, A, &flow(3), &flow(3), now));
    assert_eq!((table.len(), table.stats().evicted), (4, 2));
    assert!(answered(&mut table, B, &udp(V6, 9, 9), &udp(V6, 9, 9), now));
}

#[test]
fn flows_that_are_over_give_way_before_living_ones() {
    let (mut table, start) = (
        table(FlowLimits {
            per_agent: 3,
            total: 100,
        }),
        origin(),
    );
    let session = tcp(V4, 22, 22, Flags::SYN);
    forward(&mut table, A, &session, start).unwrap();
    forward(&mut table, A, &echo(V4, 1), start).unwrap();
    forward(&mut table, A, &echo(V4, 2), start).unwrap();
    let now = start + seconds(60);
    forward(&mut table, A, &echo(V4, 3), now).unwrap();
    assert_eq!(
        (table.len(), table.stats().evicted, table.stats().expired),
        (2, 0, 2)
    );
    assert!(answered(&mut table, A, &session, &session, now));
}

#[test]
fn a_full_table_never_takes_from_another_agent_what_lives() {
    let (mut table, start) = (
        table(FlowLimits {
            per_agent: 10,
            total: 4,
        }),
        origin(),
    );
    for port in 1..=4 {
        forward(&mut table, A, &udp(V4, port, 53), start).unwrap();
    }
    assert_eq!(
        forward(&mut table, B, &udp(V4, 9, 53), start),
        Err(FlowRefusal::Full)
    );
    assert_eq!((table.len(), table.stats().full), (4, 1));
    assert!(
        forward(&mut table, A, &udp(V4, 5, 53), start).is_ok(),
        "its own it may give up"
    );
    assert_eq!((table.len(), table.stats().evicted), (4, 1));
    let later = start + seconds(300);
    assert!(
        forward(&mut table, B, &udp(V4, 9, 53), later).is_ok(),
        "what is over makes room for anyone"
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn the_flows_of_a_connector_that_left_reach_nobody_and_make_room() {
    let (mut table, now) = (
        table(FlowLimits {
            per_agent: 10,
            total: 2,
        }),
        origin(),
    );
    let sent = tcp(V4, 1, 80, Flags::SYN);
    forward(&mut table, A, &sent, now).unwrap();
    forward(&mut table, A, &tcp(V4, 2, 80, Flags::SYN), now).unwrap();
    table.remove(CONNECTOR);
    let successor = ConnId {
        generation: CONNECTOR.generation + 1,
        ..CONNECTOR
    };
    assert_eq!(table.inbound(successor, &mut reply(&sent), now), None);
    table.outbound(B, successor, &mut sent.clone(), now).unwrap();
    assert_eq!(table.inbound(successor, &mut reply(&sent), now), Some(B));
    assert_eq!((table.len(), table.stats().expired), (1, 2));
}

#[test]
fn a_slot_of_the_pool_used_anew_inherits_nothing() {
    let (mut table, now) = (
        table(crate::config::IntermediateLimits::default().flow_table()),
        origin(),
    );
    let successor = ConnId {
        generation: A.generation + 1,
        ..A
    };
    let sent = udp(V4, 1, 53);
    forward(&mut table, A, &sent, now).unwrap();
    let forwarded = forward(&mut table, successor, &sent, now).unwrap();
    assert!(answered(&mut table, successor, &sent, &forwarded, now));
    assert!(back(&mut table, &reply(&sent), now).is_none());
    table.remove(A);
    assert_eq!(table.len(), 1);
    table.remove(successor);
    assert!(table.is_empty());
}
