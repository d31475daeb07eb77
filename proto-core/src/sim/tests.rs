use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Chance, LinkConfig, Loss, MachineHost, World};
use crate::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Transmit, Wake};

const INTERVAL: Duration = Duration::from_millis(100);

/// Answers every datagram; with a target it also sends a numbered ping per interval.
#[derive(Debug, Default)]
struct PingPong {
    target: Option<FourTuple>,
    next_ping: Option<Instant>,
    sequence: u32,
    queue: VecDeque<(FourTuple, Vec<u8>)>,
    /// The time of the last input, at which everything queued is due.
    seen: Option<Instant>,
    events: VecDeque<Heard>,
    batches: usize,
    /// Breaks rule 2: never says that something is queued.
    secretive: bool,
    /// Breaks rule 3: always says that it is due.
    restless: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    from: SocketAddr,
    sequence: u32,
    at: Instant,
}

impl PingPong {
    fn pinging(from: &str, to: &str, now: Instant) -> Self {
        let path = FourTuple {
            local: from.parse().unwrap(),
            remote: to.parse().unwrap(),
        };
        Self {
            target: Some(path),
            next_ping: Some(now),
            ..Self::default()
        }
    }
}

impl Machine for PingPong {
    type Event = Heard;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.seen = Some(now);
        let size = received.segment_size();
        self.batches += usize::from(received.stride.is_some());
        for datagram in received.payload.chunks(size) {
            let Some(bytes) = datagram.first_chunk::<4>() else {
                continue;
            };
            let sequence = u32::from_be_bytes(*bytes);
            self.events.push_back(Heard {
                from: received.path.remote,
                sequence,
                at: now,
            });
            if self.target.is_none() {
                self.queue.push_back((received.path, datagram.to_vec()));
            }
        }
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.seen = Some(now);
        let Some(path) = self.target else { return };
        while let Some(due) = self.next_ping.filter(|due| *due <= now) {
            // After a sleep one ping is enough.
            self.next_ping = Some((due + INTERVAL).max(now));
            if self.next_ping == Some(now) {
                self.next_ping = Some(now + INTERVAL);
            }
            self.queue.push_back((path, self.sequence.to_be_bytes().to_vec()));
            self.sequence += 1;
        }
    }

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        let (path, payload) = self.queue.pop_front()?;
        buf[..payload.len()].copy_from_slice(&payload);
        Some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len: payload.len(),
            segment_size: None,
        })
    }

    fn poll_event(&mut self) -> Option<Heard> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let ping = self.next_ping.map(|at| Deadline {
            at,
            wake: Wake::Keepalive,
        });
        let queued = self
            .seen
            .filter(|_| !self.secretive && (!self.queue.is_empty() || !self.events.is_empty()));
        let queued = queued.map(|at| Deadline {
            at,
            wake: Wake::QueuedOutput,
        });
        let restless = self.restless.map(|at| Deadline { at, wake: Wake::Quic });
        Deadline::earliest(Deadline::earliest(ping, queued), restless)
    }

    fn shut_down(&mut self, _: Instant) {}

    fn is_drained(&self) -> bool {
        true
    }
}

type Node = MachineHost<PingPong>;

/// A pinger at .1 and an answerer at .2.
fn pair(seed: u64, link: LinkConfig) -> (World, super::HostId<Node>, super::HostId<Node>) {
    let mut world = World::seeded(seed);
    world.set_default_link(link);
    let now = world.now();
    let pinger = PingPong::pinging("192.0.2.1:1000", "192.0.2.2:2000", now);
    let answerer = world.add(
        "answerer",
        "192.0.2.2:2000",
        MachineHost::new(PingPong::default()),
    );
    let pinger = world.add("pinger", "192.0.2.1:1000", MachineHost::new(pinger));
    (world, pinger, answerer)
}

#[test]
fn answers_come_back_after_two_delays() {
    let (mut world, pinger, _) = pair(1, LinkConfig::new(Duration::from_millis(30)));
    world.run_until(|world| !world[pinger].events.is_empty(), Duration::from_secs(1));
    assert_eq!(world.elapsed(), Duration::from_millis(60));
    assert_eq!(world[pinger].events[0].sequence, 0);
    world.run_for(Duration::from_millis(940));
    assert_eq!(world.elapsed(), Duration::from_secs(1));
    assert_eq!(world[pinger].events.len(), 10);
}

#[test]
fn equal_seeds_give_equal_worlds() {
    let link = LinkConfig::new(Duration::from_millis(15))
        .with_loss(10)
        .with_jitter(Duration::from_millis(9))
        .with_reordering(20, Duration::from_millis(300))
        .with_duplicates(5);
    let run = |seed| {
        let (mut world, ..) = pair(seed, link);
        world.run_for(Duration::from_secs(60));
        (world.trace().hash(), world.stats())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

#[test]
fn loss_duplication_and_reordering_happen_as_often_as_asked() {
    let (mut world, pinger, answerer) = pair(3, LinkConfig::default());
    let worse = LinkConfig::default()
        .with_loss(20)
        .with_duplicates(10)
        .with_reordering(30, Duration::from_millis(350));
    world.set_one_way(pinger, answerer, worse);
    world.run_for(Duration::from_secs(1000));
    let heard: Vec<u32> = world[answerer]
        .events
        .iter()
        .map(|event| event.sequence)
        .collect();
    let distinct = heard.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!((7700..8300).contains(&distinct), "{distinct} of 10000 arrived");
    assert!(
        (600..1000).contains(&(heard.len() - distinct)),
        "{} duplicates",
        heard.len() - distinct
    );
    let overtaken = heard.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 800, "{overtaken} overtaken");
}

#[test]
fn losses_in_bursts_come_in_runs() {
    let (mut world, pinger, answerer) = pair(4, LinkConfig::default());
    let bursts = Loss::Bursts {
        begin: Chance::percent(1),
        end: Chance::percent(10),
        good: Chance::NEVER,
        bad: Chance::ALWAYS,
    };
    world.set_one_way(
        pinger,
        answerer,
        LinkConfig {
            loss: bursts,
            ..LinkConfig::default()
        },
    );
    world.run_for(Duration::from_secs(1000));
    let heard: Vec<u32> = world[answerer]
        .events
        .iter()
        .map(|event| event.sequence)
        .collect();
    let gaps: Vec<u32> = heard
        .windows(2)
        .map(|pair| pair[1] - pair[0] - 1)
        .filter(|gap| *gap > 0)
        .collect();
    let mean = gaps.iter().sum::<u32>() as usize / gaps.len();
    assert!((7..14).contains(&mean), "bursts of {mean}");
}

#[test]
fn a_slow_link_queues_and_then_drops() {
    let (mut world, pinger, answerer) = pair(5, LinkConfig::default());
    // 32 bytes with headers at 160 bytes per second: one per 200 ms, twice the time between pings.
    let slow = LinkConfig {
        rate: Some(160),
        queue: 320,
        ..LinkConfig::default()
    };
    world.set_one_way(pinger, answerer, slow);
    world.run_for(Duration::from_secs(100));
    let heard = world[answerer].events.len();
    assert!((485..=500).contains(&heard), "{heard}");
    assert!(world.stats().dropped > 450);
    let tiny = LinkConfig {
        mtu: 31,
        ..LinkConfig::default()
    };
    world.set_one_way(pinger, answerer, tiny);
    world.run_for(Duration::from_secs(10));
    let before = world[answerer].events.len();
    world.run_for(Duration::from_secs(10));
    assert_eq!(world[answerer].events.len(), before);
}

#[test]
fn cut_links_and_sleeping_hosts_lose_what_is_sent_to_them() {
    let (mut world, pinger, answerer) = pair(6, LinkConfig::default());
    world.at(Duration::from_secs(10), move |world| world.cut(pinger, answerer));
    world.at(Duration::from_secs(20), move |world| world.mend(pinger, answerer));
    world.at(Duration::from_secs(30), move |world| world.take_down(answerer));
    world.at(Duration::from_secs(40), move |world| world.bring_up(answerer));
    world.at(Duration::from_secs(50), move |world| world.take_down(pinger));
    world.at(Duration::from_secs(3650), move |world| world.bring_up(pinger));
    world.run_for(Duration::from_secs(3660));
    let count = world[pinger].events.len();
    assert!((395..=405).contains(&count), "{count} in forty seconds");
    world.replace(answerer, MachineHost::new(PingPong::default()));
    assert!(world[answerer].events.is_empty());
    world.run_for(Duration::from_secs(1));
    assert!(world[answerer].events.len() >= 9);
}

#[test]
fn a_rebound_host_is_seen_elsewhere_and_found_there() {
    let (mut world, pinger, answerer) = pair(7, LinkConfig::default());
    world.run_for(Duration::from_millis(950));
    world.rebind(pinger, "198.51.100.7:7777");
    world.run_for(Duration::from_secs(1));
    let last = world[answerer].events.last().unwrap();
    assert_eq!(last.from, "198.51.100.7:7777".parse().unwrap());
    assert!(world[pinger].events.len() >= 18);
    assert_eq!(world.stats().dropped, 0);
}

#[test]
fn datagrams_that_arrive_together_come_in_one_batch() {
    let (mut world, pinger, answerer) = pair(8, LinkConfig::default());
    world.run_for(INTERVAL / 2);
    for coalescing in [true, false] {
        world.set_coalescing(coalescing);
        let (batches, heard) = (world[answerer].machine.batches, world[answerer].events.len());
        world.with(pinger, |host, now| {
            let path = host.machine.target.unwrap();
            host.machine.seen = Some(now);
            for number in 100..105_u32 {
                host.machine
                    .queue
                    .push_back((path, number.to_be_bytes().to_vec()));
            }
        });
        world.run_for(INTERVAL / 4);
        assert_eq!(world[answerer].machine.batches - batches, usize::from(coalescing));
        assert_eq!(world[answerer].events.len() - heard, 5);
        world.run_for(INTERVAL * 3 / 4);
    }
}

/// The message of the panic that `run` ends with.
fn complaint(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the world complains");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn hidden_output_breaks_rule_2() {
    let said = complaint(|| {
        let (mut world, _, answerer) = pair(9, LinkConfig::default());
        world.with(answerer, |host, _| host.machine.secretive = true);
        world.run_for(Duration::from_secs(1));
    });
    assert!(said.contains("answerer breaks rule 2"), "{said}");
}

#[test]
fn a_deadline_that_stays_due_breaks_rule_3() {
    let said = complaint(|| {
        let (mut world, pinger, _) = pair(10, LinkConfig::default());
        world.run_for(Duration::from_millis(50));
        world.with(pinger, |host, now| host.machine.restless = Some(now));
    });
    assert!(said.contains("pinger breaks rule 3"), "{said}");
}

#[test]
fn a_condition_never_reached_fails_the_scenario() {
    let said = complaint(|| {
        let (mut world, ..) = pair(11, LinkConfig::default());
        world.run_until(|_| false, Duration::from_secs(2));
    });
    assert!(said.contains("after 2s: the condition was not reached"), "{said}");
}

#[test]
fn actions_happen_in_order_at_their_time() {
    let mut world = World::seeded(12);
    let seen = Rc::new(Cell::new(0));
    for (time, number) in [(3, 3), (1, 1), (2, 2)] {
        let seen = seen.clone();
        world.at(Duration::from_secs(time), move |world| {
            assert_eq!(world.elapsed(), Duration::from_secs(time));
            assert_eq!(seen.replace(number), number - 1);
        });
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(seen.get(), 3);
}

mod nats;
