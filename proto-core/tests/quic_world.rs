//! QUIC in a virtual world: the same scenarios over the deterministic fake and over real quiche, whose clock this binary
//! answers itself.

#![cfg(target_os = "linux")]

#[path = "support/endpoint.rs"]
mod endpoint;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use endpoint::{Endpoint, Event};
use proptest::collection::vec;
use proptest::prelude::*;
use proto_core::machine::FourTuple;
use proto_core::machine::contract::{Subject, inputs};
use proto_core::quic::fake::{FakeConfig, FakeProvider};
use proto_core::quic::quiche::{QuicheConfig, QuicheProvider};
use proto_core::quic::testing::TestPki;
use proto_core::quic::{CloseReason, Connection, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::sim::{Clock, HostId, LinkConfig, MachineHost, ManualClock, World};
use virtual_clock::VirtualClock;

const CLIENT: &str = "192.0.2.1:4433";
const SERVER: &str = "192.0.2.2:4433";
const NAME: &str = "server.world.test";

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

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

fn path() -> FourTuple {
    FourTuple {
        local: address(CLIENT),
        remote: address(SERVER),
    }
}

fn fake(seed: u8) -> FakeProvider {
    FakeProvider::new(FakeConfig::new(&[b"echo"]), Rng::new(&Seed([seed; 32])))
}

fn quiche(pki: &TestPki, server: bool) -> QuicheProvider {
    let config = QuicheConfig {
        alpn: vec![b"echo".to_vec()],
        session_alpn: Vec::new(),
        ..pki.config(server, &[NAME])
    };
    QuicheProvider::new(&config).expect("a usable configuration")
}

type Node<P> = HostId<MachineHost<Endpoint<P>>>;

/// A client and a server whose handshake is about to begin, over this link.
fn meet<C: Clock + 'static, P: Provider + 'static>(
    world: &mut World<C>,
    link: LinkConfig,
    [client, server]: [P; 2],
) -> [Node<P>; 2] {
    world.set_default_link(link);
    let now = world.now();
    let server = world.add("server", SERVER, MachineHost::new(Endpoint::server(server, now)));
    let client = world.add(
        "client",
        CLIENT,
        MachineHost::new(Endpoint::client(client, path(), NAME, now)),
    );
    [client, server]
}

fn has<C: Clock, P: Provider + 'static>(world: &World<C>, node: Node<P>, event: &Event) -> bool {
    world[node].events.contains(event)
}

fn heard<C: Clock, P: Provider + 'static>(world: &World<C>, node: Node<P>) -> usize {
    world[node]
        .events
        .iter()
        .filter(|event| matches!(event, Event::Received(_)))
        .count()
}

/// Handshake and DATAGRAMs through heavy weather, a move to another address, an outage, and the idle timeout.
fn a_life_in_bad_weather<C: Clock + 'static, P: Provider + 'static>(mut world: World<C>, providers: [P; 2]) {
    let weather = LinkConfig::new(Duration::from_millis(20))
        .with_jitter(Duration::from_millis(10))
        .with_loss(10)
        .with_duplicates(5)
        .with_reordering(10, Duration::from_millis(40));
    let [client, server] = meet(&mut world, weather, providers);
    let seconds = Duration::from_secs;
    world.run_until(|world| has(world, client, &Event::Established), seconds(15));
    world.run_until(|world| has(world, server, &Event::Established), seconds(15));

    for number in 0..100_u8 {
        world.with(client, |host, now| {
            assert!(host.machine.send(&[number; 600], now))
        });
        world.run_for(Duration::from_millis(50));
    }
    world.run_for(seconds(1));
    let (there, back) = (heard(&world, server), heard(&world, client));
    assert!((75..=100).contains(&there), "{there} of 100 arrived");
    assert!((60..there).contains(&back), "{back} of {there} came back");

    // In the same weather: a lost answer to a path challenge is asked for again.
    world.rebind(client, "198.51.100.1:9999");
    let moved = Event::Moved(address("198.51.100.1:9999"));
    for _ in 0..40 {
        world.with(client, |host, now| host.machine.send(b"here I am", now));
        world.run_for(Duration::from_millis(100));
    }
    assert!(has(&world, server, &moved), "the server has noticed");
    world.set_link(client, server, LinkConfig::new(Duration::from_millis(20)));
    let back = heard(&world, client);
    world.with(client, |host, now| host.machine.send(b"and here I stay", now));
    world.run_until(|world| heard(world, client) > back, seconds(2));

    world.cut(client, server);
    let cut_at = world.elapsed();
    let ended = Event::Ended(CloseReason::TimedOut);
    world.run_until(
        |world| has(world, client, &ended) && has(world, server, &ended),
        seconds(40),
    );
    assert!(
        world.elapsed() - cut_at > seconds(25),
        "not before the idle timeout"
    );
    world.run_for(seconds(3600));
    assert!(
        world[client]
            .machine
            .connection
            .as_ref()
            .is_some_and(|it| it.poll_timeout().is_none())
    );
}

#[test]
fn a_life_in_bad_weather_over_the_fake() {
    a_life_in_bad_weather(World::seeded(1), [fake(1), fake(2)]);
}

#[test]
fn a_life_in_bad_weather_over_quiche() {
    let pki = TestPki::new();
    let clock = ThreadClock(VirtualClock::start());
    let world = World::with_clock(clock, 1);
    a_life_in_bad_weather(world, [quiche(&pki, false), quiche(&pki, true)]);
}

/// A transfer that asks for more than the link has gets nearly all of it, and loses what does not fit its queue.
fn a_slow_link_is_filled<C: Clock + 'static, P: Provider + 'static>(mut world: World<C>, providers: [P; 2]) {
    let slow = LinkConfig::new(Duration::from_millis(10)).with_rate(125_000);
    let [client, server] = meet(
        &mut world,
        LinkConfig {
            queue: 40_000,
            ..slow
        },
        providers,
    );
    world.run_until(
        |world| has(world, server, &Event::Established),
        Duration::from_secs(10),
    );
    for _ in 0..1000 {
        // Twice the rate: the send queue and the link's decide what is dropped.
        world.with(client, |host, now| {
            (0..2).all(|_| host.machine.send(&[1; 1250], now))
        });
        world.run_for(Duration::from_millis(10));
    }
    let bytes = heard(&world, server) * 1250;
    assert!(
        (900_000..1_250_000).contains(&bytes),
        "{bytes} of 1,250,000 bytes in ten seconds"
    );
}

#[test]
fn a_slow_link_is_filled_by_the_fake() {
    a_slow_link_is_filled(World::seeded(2), [fake(1), fake(2)]);
}

#[test]
fn a_slow_link_is_filled_by_quiche() {
    let pki = TestPki::new();
    let clock = ThreadClock(VirtualClock::start());
    let world = World::with_clock(clock, 2);
    a_slow_link_is_filled(world, [quiche(&pki, false), quiche(&pki, true)]);
}

/// TCP inside the tunnel slows down for every loss by itself; a tunnel that did so too would make it pay twice.
#[test]
fn losses_do_not_narrow_the_tunnel_of_quiche() {
    let pki = TestPki::new();
    let clock = ThreadClock(VirtualClock::start());
    let mut world = World::with_clock(clock, 3);
    let lossy = LinkConfig::new(Duration::from_millis(10)).with_loss(1);
    let [client, server] = meet(&mut world, lossy, [quiche(&pki, false), quiche(&pki, true)]);
    world.run_until(
        |world| has(world, server, &Event::Established),
        Duration::from_secs(10),
    );
    for _ in 0..4_000 {
        // 40 Mbit/s; what does not fit any queue is lost, too.
        world.with(client, |host, now| {
            (0..4).all(|_| host.machine.send(&[1; 1250], now))
        });
        world.run_for(Duration::from_millis(1));
    }
    let arrived = heard(&world, server);
    assert!(
        (15_400..15_960).contains(&arrived),
        "{arrived} of 16,000 at 1 % loss"
    );
}

#[test]
fn equal_seeds_give_equal_lives_over_the_fake() {
    let run = |seed| {
        let mut world = World::seeded(seed);
        let weather = LinkConfig::default()
            .with_loss(15)
            .with_jitter(Duration::from_millis(30));
        let [client, _] = meet(&mut world, weather, [fake(1), fake(2)]);
        for number in 0..200_u8 {
            world.with(client, |host, now| host.machine.send(&[number; 300], now));
            world.run_for(Duration::from_millis(40));
        }
        world.trace().hash()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn many_worlds_settle() {
    for seed in 0..60 {
        let mut world = World::with_clock(ManualClock::new(), seed);
        let loss = u32::try_from(seed % 6).unwrap() * 8;
        let weather = LinkConfig::default()
            .with_loss(loss)
            .with_duplicates(10)
            .with_jitter(Duration::from_millis(seed % 40))
            .with_reordering(15, Duration::from_millis(150));
        let [client, server] = meet(&mut world, weather, [fake(3), fake(4)]);
        world.run_for(Duration::from_secs(5));
        for _ in 0..50 {
            world.with(client, |host, now| host.machine.send(&[9; 1000], now));
            world.run_for(Duration::from_millis(20));
        }
        world.with(client, |host, now| {
            use proto_core::machine::Machine as _;
            host.machine.shut_down(now);
        });
        let over = |world: &World, node: Node<FakeProvider>| {
            world[node]
                .events
                .iter()
                .any(|event| matches!(event, Event::Ended(_)))
        };
        world.run_until(|world| over(world, client), Duration::from_secs(20));
        let reached = world[server].machine.connection.is_some();
        world.run_until(|world| !reached || over(world, server), Duration::from_secs(100));
    }
}

/// Machines around the fake, talking to each other, for the contract.
fn contract(server: bool) -> Subject<MachineHost<Endpoint<FakeProvider>>> {
    let client_at = |now| MachineHost::new(Endpoint::client(fake(1), path(), NAME, now));
    let server_at = |now| MachineHost::new(Endpoint::server(fake(2), now));
    let [local, remote] = [CLIENT, SERVER].map(address);
    let subject = if server {
        Subject::new(server_at).with_peer(client_at).at(remote, local)
    } else {
        Subject::new(client_at).with_peer(server_at).at(local, remote)
    };
    subject.with_application(|host, choice, bytes, now| {
        use proto_core::machine::Machine as _;
        match choice {
            0..250 => drop(host.machine.send(bytes, now)),
            250..=255 => host.machine.shut_down(now),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn the_fake_keeps_the_contract(bytes in vec(any::<u8>(), 0..1500), server in any::<bool>()) {
        contract(server).check(&inputs(&bytes));
    }
}
