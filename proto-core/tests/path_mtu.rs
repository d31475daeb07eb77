//! How large packets become: real quiche in virtual time, over paths that carry less than expected, or less than before.

#![cfg(target_os = "linux")]

#[path = "support/endpoint.rs"]
mod endpoint;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use endpoint::{Endpoint, Event};
use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::machine::FourTuple;
use proto_core::quic::Connection as _;
use proto_core::quic::quiche::{QuicheConfig, QuicheProvider};
use proto_core::quic::testing::TestPki;
use proto_core::sim::{Clock, HostId, LinkConfig, MachineHost, World};
use virtual_clock::VirtualClock;

const CLIENT: &str = "192.0.2.1:4433";
const SERVER: &str = "192.0.2.2:4433";
const NAME: &str = "server.world.test";
const DELAY: Duration = Duration::from_millis(10);
const RTT: Duration = Duration::from_millis(20);

/// IPv4 and UDP.
const HEADERS: usize = 28;

/// What a packet holds beside its DATAGRAM, towards a connection id of 8 bytes.
const OVERHEAD: usize = 32;

/// The virtual time of the test's thread, which is also the one that quiche reads.
struct ThreadClock(VirtualClock);

impl Clock for ThreadClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn advance_to(&mut self, at: Instant) {
        self.0.advance(at.saturating_duration_since(self.0.now()));
    }
}

type Node = HostId<MachineHost<Endpoint<QuicheProvider>>>;

/// A client and a server.
struct Scene {
    world: World<ThreadClock>,
    client: Node,
    server: Node,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

fn carrying(mtu: usize) -> LinkConfig {
    LinkConfig {
        mtu,
        ..LinkConfig::new(DELAY)
    }
}

impl Scene {
    /// A pair that has just shaken hands.
    fn new(link: LinkConfig) -> Self {
        Self::of([MAX_UDP_PAYLOAD; 2], link)
    }

    /// The same with the largest UDP payload of each.
    fn of([client, server]: [usize; 2], link: LinkConfig) -> Self {
        let mut world = World::with_clock(ThreadClock(VirtualClock::start()), 1);
        world.set_default_link(link);
        let pki = TestPki::new();
        let provider = |is_server: bool, max_udp_payload: usize| {
            let config = QuicheConfig {
                alpn: vec![b"echo".to_vec()],
                session_alpn: Vec::new(),
                max_udp_payload,
                ..pki.config(is_server, &[NAME])
            };
            QuicheProvider::new(&config).expect("a usable configuration")
        };
        let now = world.now();
        let server = Endpoint::server(provider(true, server), now);
        let server = world.add("server", SERVER, MachineHost::new(server));
        let path = FourTuple {
            local: address(CLIENT),
            remote: address(SERVER),
        };
        let client = Endpoint::client(provider(false, client), path, NAME, now);
        let client = world.add("client", CLIENT, MachineHost::new(client));
        world.run_until(
            |world| {
                [client, server]
                    .iter()
                    .all(|node| world[*node].events.contains(&Event::Established))
            },
            Duration::from_secs(20),
        );
        Self {
            world,
            client,
            server,
        }
    }

    fn ends(&self) -> [Node; 2] {
        [self.client, self.server]
    }

    /// What a packet of this end may have now, and what is told of the path.
    fn size(&self, node: Node) -> (usize, usize) {
        let connection = self.world[node].machine.connection.as_ref().expect("it is open");
        let now = connection.max_datagram_len().expect("it is established");
        let told = connection.path_datagram_len().expect("it is established");
        (now + OVERHEAD, told + OVERHEAD)
    }

    /// Queues a DATAGRAM of this length; whether it was taken.
    fn send(&mut self, node: Node, len: usize) -> bool {
        self.world
            .with(node, |host, now| host.machine.send(&vec![7; len], now))
    }

    /// The lengths of the DATAGRAMs that this end has heard since the last call.
    fn heard(&mut self, node: Node) -> Vec<usize> {
        let events = std::mem::take(&mut self.world[node].events);
        let lens = events.into_iter().filter_map(|event| match event {
            Event::Received(payload) => Some(payload.len()),
            Event::Established | Event::Moved(_) | Event::Ended(_) => None,
        });
        lens.collect()
    }
}

#[test]
fn an_ordinary_path_has_its_full_size_two_round_trips_after_the_handshake() {
    let mut scene = Scene::new(carrying(1_500));
    scene.world.run_for(2 * RTT);
    for node in scene.ends() {
        assert_eq!(scene.size(node), (MAX_UDP_PAYLOAD, MAX_UDP_PAYLOAD));
    }
}

#[test]
fn a_smaller_path_gets_what_it_carries_to_the_byte() {
    for mtu in [1_492, 1_480, 1_400, 1_378, 1_300, 1_280, 1_230] {
        let fits = (mtu - HEADERS).min(MAX_UDP_PAYLOAD);
        let mut scene = Scene::new(carrying(mtu));
        for node in scene.ends() {
            assert_eq!(scene.size(node).1, MAX_UDP_PAYLOAD, "nothing smaller is told yet");
        }
        scene.world.run_for(Duration::from_secs(5));
        for node in scene.ends() {
            assert_eq!(scene.size(node), (fits, fits), "of {mtu}");
        }
        let client = scene.client;
        assert!(scene.send(client, fits - OVERHEAD));
        scene.world.run_for(2 * RTT);
        assert_eq!(scene.heard(client), [fits - OVERHEAD], "there and back");
    }
}

#[test]
fn a_path_with_the_least_size_of_quic_carries_handshake_and_data() {
    let mut scene = Scene::new(carrying(1_200 + HEADERS));
    let took = scene.world.elapsed();
    assert!(
        took < 4 * RTT,
        "no packet of the handshake was too long: {took:?}"
    );
    let (client, least) = (scene.client, 1_200 - OVERHEAD);
    assert!(scene.send(client, least), "while it is searched");
    scene.world.run_for(Duration::from_secs(5));
    assert_eq!(scene.size(client), (1_200, 1_200));
    assert!(scene.send(client, least));
    scene.world.run_for(2 * RTT);
    assert_eq!(scene.heard(client), [least; 2]);
}

#[test]
fn a_lossy_path_comes_close_to_its_full_size() {
    let mut scene = Scene::new(LinkConfig::new(DELAY).with_loss(5));
    scene.world.run_for(Duration::from_secs(5));
    for node in scene.ends() {
        let (now, told) = scene.size(node);
        assert!(now == told && now + 8 >= MAX_UDP_PAYLOAD, "{now} and {told}");
    }
}

#[test]
fn a_peer_that_takes_less_is_sent_no_more_than_arrives() {
    // A peer of before: its buffer ends at 1,350, whatever the path carries.
    let mut scene = Scene::of([1_350, MAX_UDP_PAYLOAD], carrying(1_350 + HEADERS));
    let server = scene.server;
    assert_eq!(scene.size(server).1, 1_350, "it said so");
    scene.world.run_for(Duration::from_secs(5));
    for node in scene.ends() {
        assert_eq!(scene.size(node), (1_350, 1_350));
    }
}

#[test]
fn while_a_size_is_unproven_short_packets_pass_and_long_ones_are_refused() {
    let mut scene = Scene::new(carrying(1_400));
    let client = scene.client;
    assert!(!scene.send(client, 1_300));
    assert!(scene.send(client, 1_100));
    scene.world.run_for(2 * RTT);
    assert_eq!(scene.heard(client), [1_100]);
}

/// Sends a long and a short DATAGRAM every 10 ms; how long it takes until long ones come back again.
fn recovery(scene: &mut Scene) -> Duration {
    let client = scene.client;
    scene.heard(client);
    let from = scene.world.elapsed();
    for round in 0..1_000 {
        // What both ends believe in, as hosts are told by either.
        let told = scene.size(client).1.min(scene.size(scene.server).1);
        // Refused while the size is searched, as the packets of a host are.
        scene.send(client, told - OVERHEAD);
        assert!(scene.send(client, 100), "short ones always find room");
        scene.world.run_for(DELAY);
        let heard = scene.heard(client);
        if heard.iter().any(|len| *len > 100) && round > 10 {
            return scene.world.elapsed() - from;
        }
    }
    panic!("long packets vanish for good: {:?}", scene.size(client));
}

#[test]
fn a_path_that_silently_shrinks_carries_long_packets_again_in_time() {
    for mtu in [1_400, 1_300] {
        let mut scene = Scene::new(carrying(1_500));
        scene.world.run_for(Duration::from_secs(1));
        let [client, server] = scene.ends();
        scene.world.set_link(client, server, carrying(mtu));
        // One end after the other: the server sends long packets only once it gets some.
        let took = recovery(&mut scene);
        assert!(took < Duration::from_secs(5), "{took:?}");
        scene.world.run_for(Duration::from_secs(5));
        assert_eq!(scene.size(client), (mtu - HEADERS, mtu - HEADERS));
        // Long packets come back by now: the server has found out for itself.
        assert!(scene.size(server).0 <= mtu - HEADERS, "{:?}", scene.size(server));
    }
}

#[test]
fn what_waits_and_has_outgrown_the_path_blocks_nothing() {
    let mut scene = Scene::new(carrying(1_500));
    scene.world.run_for(Duration::from_secs(1));
    let [client, server] = scene.ends();
    let (size, _) = scene.size(client);
    scene.world.set_link(client, server, carrying(1_300));
    // More than the congestion window lets out: the rest waits all the time, until it is too long.
    while scene.size(client).0 == size {
        assert!(
            scene.world.elapsed() < Duration::from_secs(4),
            "nothing is noticed"
        );
        while scene.send(client, size - OVERHEAD) {}
        scene.world.run_for(DELAY);
    }
    scene.heard(client);
    assert!(scene.send(client, 100));
    scene.world.run_for(2 * RTT);
    assert_eq!(scene.heard(client), [100], "at once");
    let connection = scene.world[client].machine.connection.as_mut();
    let connection = connection.expect("it is open");
    assert_eq!(connection.datagrams_queued(), 0);
    assert!(connection.take_outgrown() > 0, "and they are counted");
    let took = recovery(&mut scene);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_client_that_moved_to_a_smaller_path_is_answered() {
    let mut scene = Scene::new(carrying(1_500));
    scene.world.run_for(Duration::from_secs(1));
    let [client, server] = scene.ends();
    scene.world.rebind(client, "198.51.100.1:9999");
    scene.world.set_link(client, server, carrying(1_400));
    let took = recovery(&mut scene);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (now, told) = scene.size(server);
    assert!(now == told && now <= 1_400 - HEADERS, "{now} and {told}");
}

#[test]
fn a_storm_of_ordinary_loss_changes_nothing() {
    let mut scene = Scene::new(carrying(1_500));
    scene.world.run_for(Duration::from_secs(1));
    let [client, server] = scene.ends();
    scene
        .world
        .set_link(client, server, LinkConfig::new(DELAY).with_loss(20));
    for _ in 0..2_000 {
        scene.send(client, 1_400);
        scene.world.run_for(Duration::from_millis(5));
        assert_eq!(scene.size(client).0, MAX_UDP_PAYLOAD);
    }
}

#[test]
fn a_host_that_repeats_one_segment_is_enough_to_notice() {
    let mut scene = Scene::new(carrying(1_500));
    scene.world.run_for(Duration::from_secs(1));
    let [client, server] = scene.ends();
    // A busy moment just before, which says nothing about now.
    for _ in 0..200 {
        assert!(scene.send(client, 1_400));
    }
    scene.world.run_for(Duration::from_millis(200));
    scene.world.set_link(client, server, carrying(1_400));
    let from = scene.world.elapsed();
    for _ in 0..10 {
        assert!(scene.send(client, 1_400));
    }
    // The timeouts of TCP: 200 ms, and twice as long each time.
    let mut pause = Duration::from_millis(200);
    while scene.size(client).0 == MAX_UDP_PAYLOAD {
        scene.world.run_for(pause);
        pause *= 2;
        scene.send(client, 1_400);
    }
    let took = scene.world.elapsed() - from;
    assert!(took < Duration::from_secs(2), "{took:?}");
}
