use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{ChannelLimits, ChannelTable, Closed, Full, Onward, Opened};
use crate::id::{ConnId, ServiceId};
use crate::machine::{Ecn, Forward, FourTuple, MAX_RUNS, Received};
use crate::rng::{Rng, Seed};
use crate::test_origin;
use crate::wire::channel::{channel_prefix, parse_channel};
use crate::wire::control::ChannelEnd;

static ORIGIN: LazyLock<Instant> = LazyLock::new(test_origin::origin);

fn client(index: u32) -> (ConnId, FourTuple) {
    (ConnId { index, generation: 1 }, path(index as u16))
}

fn path(port: u16) -> FourTuple {
    FourTuple {
        local: "198.51.100.1:4433".parse().unwrap(),
        remote: SocketAddr::new("203.0.113.5".parse().unwrap(), 1000 + port),
    }
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name.as_bytes()).unwrap()
}

fn table(limits: ChannelLimits) -> ChannelTable {
    ChannelTable::new(limits, &mut Rng::new(&Seed([4; 32])))
}

fn open(table: &mut ChannelTable, agent: u32, connector: u32, name: &str) -> Opened {
    table
        .open(client(agent), client(connector), &service(name), *ORIGIN)
        .unwrap()
}

fn frame(number: u32, packet: &[u8]) -> Vec<u8> {
    [&channel_prefix(number)[..], packet].concat()
}

/// Sends one batch of frames of one size; what came of it, and the bytes as they are now.
fn send(table: &mut ChannelTable, from: u32, frames: &[Vec<u8>], now: Instant) -> (Forward, Vec<u8>) {
    let mut payload = frames.concat();
    let stride = frames.first().map_or(0, Vec::len);
    let mut received = Received {
        path: client(from).1,
        ecn: Ecn::NotEct,
        stride: (frames.len() > 1).then(|| NonZeroUsize::new(stride).unwrap()),
        payload: &mut payload,
    };
    let mut forward = Forward::NONE;
    table.forward(&mut received, 0, &mut forward, now, |_, _| {
        panic!("nobody asked for it inside")
    });
    (forward, payload)
}

#[test]
fn a_batch_goes_to_the_other_end_whole_with_its_number() {
    let mut table = table(ChannelLimits::default());
    let opened = open(&mut table, 1, 2, "web");
    assert_ne!(opened.agent, opened.connector);
    for (from, to, mine, yours) in [
        (1, 2, opened.agent, opened.connector),
        (2, 1, opened.connector, opened.agent),
    ] {
        let frames: Vec<_> = (0..40).map(|i| frame(mine, &[0x40 + i; 100])).collect();
        let (forward, bytes) = send(&mut table, from, &frames, *ORIGIN);
        let runs: Vec<_> = forward.runs().collect();
        let [run] = runs[..] else { panic!("{runs:?}") };
        assert_eq!((run.start, run.end), (0, 40 * 105));
        assert_eq!(run.path, client(to).1);
        for (i, frame) in bytes.chunks(105).enumerate() {
            assert_eq!(parse_channel(frame), Some(yours));
            assert_eq!(
                frame[5..],
                [0x40 + i as u8; 100],
                "nothing but the number has changed"
            );
        }
    }
    assert_eq!(table.stats().forwarded, 80);
}

#[test]
fn a_frame_from_elsewhere_or_for_nobody_is_not_forwarded() {
    let mut table = table(ChannelLimits::default());
    let opened = open(&mut table, 1, 2, "web");
    // The number of another client's end, from a client of this intermediate or from anywhere.
    for from in [2, 3] {
        let (forward, _) = send(&mut table, from, &[frame(opened.agent, b"x")], *ORIGIN);
        assert!(forward.is_empty());
    }
    assert_eq!(table.stats().foreign, 2);
    for number in [opened.agent ^ 2, opened.agent ^ (1 << 25), 0, u32::MAX] {
        let (forward, _) = send(&mut table, 1, &[frame(number, b"x")], *ORIGIN);
        assert!(forward.is_empty());
    }
    assert!(
        send(&mut table, 1, &[channel_prefix(opened.agent).to_vec()], *ORIGIN)
            .0
            .is_empty(),
        "no packet in it"
    );
    assert_eq!(table.stats().unknown, 5);
    assert_eq!(table.stats().forwarded, 0);
}

#[test]
fn a_client_that_moves_takes_its_channels_along() {
    let mut table = table(ChannelLimits::default());
    let opened = open(&mut table, 1, 2, "web");
    table.set_path(client(1).0, path(77));
    assert!(
        send(&mut table, 1, &[frame(opened.agent, b"x")], *ORIGIN)
            .0
            .is_empty(),
        "the old address"
    );
    assert!(
        !send(&mut table, 77, &[frame(opened.agent, b"x")], *ORIGIN)
            .0
            .is_empty()
    );
    let (forward, _) = send(&mut table, 2, &[frame(opened.connector, b"x")], *ORIGIN);
    assert_eq!(forward.runs().next().unwrap().path, path(77));
}

#[test]
fn a_batch_is_split_where_channels_change_and_dropped_where_it_is_split_too_often() {
    let mut table = table(ChannelLimits::default());
    let numbers = [2, 3].map(|connector| open(&mut table, 1, connector, "web").agent);
    let frames: Vec<_> = (0..MAX_RUNS + 24)
        .map(|i| frame(numbers[i % 2], b"xyz"))
        .collect();
    let (forward, _) = send(&mut table, 1, &frames, *ORIGIN);
    assert_eq!(forward.runs().count(), MAX_RUNS);
    assert!(forward.runs().all(|run| run.end - run.start == 8));
    assert_eq!(table.stats().forwarded, MAX_RUNS as u64);
    assert_eq!(table.stats().scattered, 24);
    // A frame in the middle that is for nobody does not join its neighbours.
    let frames = [
        frame(numbers[0], b"abc"),
        frame(9, b"abc"),
        frame(numbers[0], b"abc"),
    ];
    let (forward, _) = send(&mut table, 1, &frames, *ORIGIN);
    let runs: Vec<_> = forward.runs().map(|run| (run.start, run.end)).collect();
    assert_eq!(runs, [(0, 8), (16, 24)]);
}

#[test]
fn one_pair_has_one_channel_until_its_last_service_goes() {
    let mut table = table(ChannelLimits::default());
    let web = open(&mut table, 1, 2, "web");
    let ssh = open(&mut table, 1, 2, "ssh");
    assert!(ssh.existed && !ssh.known && !web.existed && !web.known);
    assert!(open(&mut table, 1, 2, "ssh").known);
    assert_eq!((web.agent, web.connector), (ssh.agent, ssh.connector));
    assert_eq!(table.remove_service(client(2).0, &service("web")), []);
    let closed = table.remove_service(client(1).0, &service("ssh"));
    let reason = ChannelEnd::NoService;
    let expected = [(1, web.agent), (2, web.connector)];
    assert_eq!(
        closed,
        expected.map(|(index, number)| Closed {
            client: client(index).0,
            number,
            reason
        })
    );
    assert!(table.is_empty());
    let again = open(&mut table, 1, 2, "web");
    assert_ne!(again.agent, web.agent, "an old number leads nowhere");
}

#[test]
fn the_other_end_learns_that_a_client_is_gone() {
    let mut table = table(ChannelLimits::default());
    let first = open(&mut table, 1, 2, "web");
    let second = open(&mut table, 3, 2, "web");
    let reason = ChannelEnd::PeerGone;
    let mut closed = table.remove_client(client(2).0);
    closed.sort_by_key(|closed| closed.client);
    let expected = [(1, first.agent), (3, second.agent)];
    assert_eq!(
        closed,
        expected.map(|(index, number)| Closed {
            client: client(index).0,
            number,
            reason
        })
    );
    let third = open(&mut table, 1, 4, "web");
    assert_eq!(table.close(client(9).0, third.agent), None, "not its channel");
    let told = table.close(client(1).0, third.agent).unwrap();
    assert_eq!((told.client, told.number), (client(4).0, third.connector));
    assert!(table.is_empty());
    assert!(table.by_client.is_empty() && table.by_pair.is_empty());
}

#[test]
fn limits_hold() {
    let limits = ChannelLimits {
        channels: 3,
        per_client: 2,
        services: 2,
        ..ChannelLimits::default()
    };
    let mut table = table(limits);
    let attempt = |table: &mut ChannelTable, agent, connector, name: &str| {
        table.open(client(agent), client(connector), &service(name), *ORIGIN)
    };
    assert!(attempt(&mut table, 1, 10, "a").is_ok());
    assert!(attempt(&mut table, 1, 10, "b").is_ok());
    assert_eq!(
        attempt(&mut table, 1, 10, "c"),
        Err(Full::Client),
        "services of a channel"
    );
    assert!(attempt(&mut table, 1, 10, "a").is_ok(), "what it has it keeps");
    assert!(attempt(&mut table, 1, 11, "a").is_ok());
    assert_eq!(attempt(&mut table, 1, 12, "a"), Err(Full::Client));
    assert!(attempt(&mut table, 2, 12, "a").is_ok());
    assert_eq!(attempt(&mut table, 3, 13, "a"), Err(Full::Table));
}

#[test]
fn a_channel_carries_no_more_than_its_quota() {
    let limits = ChannelLimits {
        rate: Some(1_000_000),
        ..ChannelLimits::default()
    };
    let mut table = table(limits);
    let opened = open(&mut table, 1, 2, "web");
    let mut now = *ORIGIN;
    let mut carried = 0;
    // Ten seconds at ten times the quota.
    for _ in 0..10_000 {
        now += Duration::from_millis(1);
        let frames = vec![frame(opened.agent, &[0; 995]); 10];
        let (forward, _) = send(&mut table, 1, &frames, now);
        carried += forward.runs().map(|run| run.end - run.start).sum::<usize>();
    }
    assert!((10_000_000..=10_100_000).contains(&carried), "{carried}");
    assert_eq!(table.stats().forwarded + table.stats().over_quota, 100_000);
    // The other direction has a bucket of its own.
    assert!(
        !send(&mut table, 2, &[frame(opened.connector, b"x")], now)
            .0
            .is_empty()
    );
}

#[test]
fn a_channel_that_carries_nothing_ends() {
    let idle = Duration::from_secs(300);
    let mut table = table(ChannelLimits::default());
    let quiet = open(&mut table, 1, 2, "web");
    let busy = open(&mut table, 1, 3, "web");
    let mut now = *ORIGIN;
    let mut closed = Vec::new();
    while closed.is_empty() {
        now += Duration::from_secs(10);
        let _ = send(&mut table, 3, &[frame(busy.connector, b"x")], now);
        closed = table.handle_timeout(now);
        assert!(now - *ORIGIN < idle * 2);
    }
    assert!(now - *ORIGIN >= idle);
    let numbers: Vec<_> = closed
        .iter()
        .map(|closed| (closed.number, closed.reason))
        .collect();
    assert_eq!(
        numbers,
        [
            (quiet.agent, ChannelEnd::Idle),
            (quiet.connector, ChannelEnd::Idle)
        ]
    );
    assert_eq!(table.len(), 1);
    assert!(table.poll_timeout().is_some_and(|at| at > now));
}

#[test]
fn frames_travel_inside_the_control_connection_for_who_asks() {
    let mut table = table(ChannelLimits::default());
    let opened = open(&mut table, 1, 2, "web");
    assert!(
        !table.set_inside(client(1).0, opened.connector, true),
        "not its end"
    );
    assert!(table.set_inside(client(2).0, opened.connector, true));
    let mut payload = [frame(opened.agent, b"abc"), frame(opened.agent, b"def")].concat();
    let mut received = Received {
        path: client(1).1,
        ecn: Ecn::NotEct,
        stride: NonZeroUsize::new(8),
        payload: &mut payload,
    };
    let mut inside = Vec::new();
    let mut forward = Forward::NONE;
    table.forward(&mut received, 0, &mut forward, *ORIGIN, |client, frame| {
        inside.push((client, frame.to_vec()))
    });
    assert!(forward.is_empty());
    let to = client(2).0;
    assert_eq!(
        inside,
        [
            (to, frame(opened.connector, b"abc")),
            (to, frame(opened.connector, b"def"))
        ]
    );

    // The way back: it comes inside, and goes on bare.
    let mut back = frame(opened.connector, b"ghi");
    assert_eq!(
        table.forward_inside(&mut back, client(1).0, *ORIGIN),
        None,
        "not its end"
    );
    assert_eq!(
        table.forward_inside(&mut back, to, *ORIGIN),
        Some(Onward::Bare(client(1).1))
    );
    assert_eq!(back, frame(opened.agent, b"ghi"));
    assert_eq!(table.forward_inside(&mut [], to, *ORIGIN), None);
}

proptest! {
    /// Against a plain model: whatever opens, closes and moves, a frame reaches exactly the end it belongs to.
    #[test]
    fn frames_go_where_the_model_says(
        steps in prop::collection::vec((0u8..6, 0u32..4, 10u32..14, 0u8..3), 1..120),
    ) {
        let mut table = table(ChannelLimits::default());
        let mut model: BTreeMap<(u32, u32), (Opened, std::collections::BTreeSet<u8>)> = BTreeMap::new();
        for (step, agent, connector, name) in steps {
            let title = service(&name.to_string());
            match step {
                0..=2 => {
                    let opened = table.open(client(agent), client(connector), &title, *ORIGIN).unwrap();
                    let known = model.entry((agent, connector)).or_insert_with(|| (opened, Default::default()));
                    prop_assert_eq!((known.0.agent, known.0.connector), (opened.agent, opened.connector));
                    known.1.insert(name);
                }
                3 => {
                    table.remove_client(client(agent).0);
                    model.retain(|pair, _| pair.0 != agent);
                }
                4 => {
                    table.remove_service(client(connector).0, &title);
                    for (_, (_, services)) in model.iter_mut().filter(|(pair, _)| pair.1 == connector) {
                        services.remove(&name);
                    }
                    model.retain(|pair, (_, services)| pair.1 != connector || !services.is_empty());
                }
                _ => {
                    if let Some((known, _)) = model.remove(&(agent, connector)) {
                        prop_assert!(table.close(client(agent).0, known.agent).is_some());
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
            for (pair, (known, _)) in &model {
                let (forward, _) = send(&mut table, pair.0, &[frame(known.agent, b"x")], *ORIGIN);
                prop_assert_eq!(forward.runs().next().map(|run| run.path), Some(client(pair.1).1));
                let (forward, _) = send(&mut table, pair.1, &[frame(known.connector, b"x")], *ORIGIN);
                prop_assert_eq!(forward.runs().next().map(|run| run.path), Some(client(pair.0).1));
                let (forward, _) = send(&mut table, pair.1, &[frame(known.agent, b"x")], *ORIGIN);
                prop_assert!(forward.is_empty());
            }
        }
    }
}
