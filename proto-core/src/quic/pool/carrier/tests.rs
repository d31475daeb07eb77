//! Connections in channels, invitations, and payloads beside QUIC.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::{Admission, PoolConfig, PoolEvent};
use super::*;
use crate::quic::fake::{FakeConfig, FakeProvider};
use crate::quic::{ALPN_SESSION, ALPN_V2};
use crate::rng::{Rng, Seed};
use crate::sim::{Clock as _, ManualClock};
use crate::wire::channel::set_channel;

const AGENT: &str = "192.0.2.10:5000";
const CONNECTOR: &str = "192.0.2.20:6000";
const RELAY: &str = "192.0.2.1:4433";
/// What each side calls the channel.
const NUMBERS: [u32; 2] = [7, 9];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pool(admission: Admission, seed: u8, now: Instant) -> Pool<FakeProvider> {
    let mut config = FakeConfig::new(&[ALPN_V2]);
    config.session_alpn = vec![ALPN_SESSION.to_vec()];
    config.max_udp_payload = 1350;
    let provider = FakeProvider::new(config, Rng::new(&Seed([seed; 32])));
    let config = PoolConfig {
        admission,
        raw: true,
        reset_key: None,
        max_connections: 8,
        max_handshakes: 8,
        max_udp_payload: 1350,
    };
    Pool::new(provider, config, Rng::new(&Seed([seed + 1; 32])), now)
}

/// An agent and a connector, with a relay between them that forwards frames, and a direct way.
struct Hosts {
    clock: ManualClock,
    agent: Pool<FakeProvider>,
    connector: Pool<FakeProvider>,
    /// Payloads longer than this were seen.
    longest: usize,
    /// By who sent them.
    frames: [usize; 2],
}

impl Hosts {
    fn new() -> Self {
        let clock = ManualClock::new();
        let mut hosts = Self {
            agent: pool(Admission::Nobody, 1, clock.now()),
            connector: pool(Admission::Invited, 3, clock.now()),
            clock,
            longest: 0,
            frames: [0; 2],
        };
        hosts.agent.set_carrier(NUMBERS[0], way(AGENT, RELAY), None);
        hosts
            .connector
            .set_carrier(NUMBERS[1], way(CONNECTOR, RELAY), None);
        hosts
    }

    /// Carries what both have to say until neither has anything.
    fn settle(&mut self) {
        let mut buffer = vec![0; 65_507];
        loop {
            let now = self.clock.now();
            let mut moved = false;
            for side in 0..2 {
                let (from, to, other) = if side == 0 {
                    (&mut self.agent, &mut self.connector, AGENT)
                } else {
                    (&mut self.connector, &mut self.agent, CONNECTOR)
                };
                while let Some(transmit) = from.poll_transmit(&mut buffer, now) {
                    moved = true;
                    let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
                    for packet in buffer[..transmit.len].chunks_mut(size) {
                        self.longest = self.longest.max(packet.len());
                        let relayed = transmit.path.remote == at(RELAY);
                        if relayed {
                            assert_eq!(parse_channel(packet), Some(NUMBERS[side]));
                            set_channel(packet, NUMBERS[1 - side]);
                            self.frames[side] += 1;
                        }
                        let sender = if relayed { RELAY } else { other };
                        let path = way(if side == 0 { CONNECTOR } else { AGENT }, sender);
                        deliver(to, path, packet, now);
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance_to(self.clock.now() + time);
        let now = self.clock.now();
        self.agent.handle_timeout(now);
        self.connector.handle_timeout(now);
        self.settle();
    }

    fn established(pool: &mut Pool<FakeProvider>) -> Option<ConnId> {
        let mut found = None;
        while let Some(event) = pool.poll_event() {
            if let PoolEvent::Established(id) = event {
                found = Some(id);
            }
        }
        found
    }
}

fn way(local: &str, remote: &str) -> FourTuple {
    FourTuple {
        local: at(local),
        remote: at(remote),
    }
}

fn deliver(pool: &mut Pool<FakeProvider>, path: FourTuple, payload: &mut [u8], now: Instant) {
    let received = Received {
        path,
        ecn: crate::machine::Ecn::NotEct,
        stride: None,
        payload,
    };
    pool.handle_datagram(received, now);
}

#[test]
fn a_connection_in_a_channel_speaks_in_frames() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let id = hosts
        .agent
        .connect_session(Via::Carrier(NUMBERS[0]), now)
        .unwrap();
    hosts.settle();
    let server = Hosts::established(&mut hosts.connector).unwrap();
    assert_eq!(Hosts::established(&mut hosts.agent), Some(id));
    assert_eq!(hosts.connector.origin(server), Origin::Carrier(NUMBERS[1]));
    assert_eq!(hosts.agent.alpn(id), ALPN_SESSION);
    let len = hosts.agent.max_datagram_len(id).unwrap();
    hosts.agent.send_datagram(id, vec![5; len].into()).unwrap();
    hosts.settle();
    assert_eq!(hosts.connector.poll_datagram(server).unwrap().len(), len);
    assert_eq!(
        hosts.longest, 1350,
        "a full packet and its prefix have the size of any other"
    );
    assert!(hosts.frames[0] > 2 && hosts.frames[1] > 1);
}

#[test]
fn frames_of_a_batch_keep_one_size() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let id = hosts
        .agent
        .connect_session(Via::Carrier(NUMBERS[0]), now)
        .unwrap();
    hosts.settle();
    let server = Hosts::established(&mut hosts.connector).unwrap();
    for _ in 0..20 {
        hosts.agent.send_datagram(id, vec![5; 900].into()).unwrap();
    }
    let mut buffer = vec![0; 65_507];
    let transmit = hosts.agent.poll_transmit(&mut buffer, now).unwrap();
    let size = transmit.segment_size.unwrap().get();
    assert!(transmit.len > size, "{transmit:?}");
    let mut frames = buffer[..transmit.len].to_vec();
    for frame in frames.chunks_mut(size) {
        set_channel(frame, NUMBERS[1]);
    }
    let received = Received {
        path: way(CONNECTOR, RELAY),
        ecn: crate::machine::Ecn::NotEct,
        stride: transmit.segment_size,
        payload: &mut frames,
    };
    hosts.connector.handle_datagram(received, now);
    let mut taken = 0;
    while hosts.connector.poll_datagram(server).is_some() {
        taken += 1;
    }
    assert!(taken >= 2, "{taken}");
}

#[test]
fn packets_come_the_way_of_their_connection_only() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let id = hosts
        .agent
        .connect_session(Via::Carrier(NUMBERS[0]), now)
        .unwrap();
    hosts.settle();
    hosts.agent.send_datagram(id, vec![5; 50].into()).unwrap();
    let mut buffer = vec![0; 65_507];
    let transmit = hosts.agent.poll_transmit(&mut buffer, now).unwrap();
    let mut bare = buffer[PREFIX_LEN..transmit.len].to_vec();
    deliver(&mut hosts.connector, way(CONNECTOR, AGENT), &mut bare, now);
    assert_eq!(hosts.connector.stats().wrong_way, 1);
    // A frame from another host than the intermediate, and one of another channel.
    let mut frame = buffer[..transmit.len].to_vec();
    set_channel(&mut frame, NUMBERS[1]);
    deliver(&mut hosts.connector, way(CONNECTOR, AGENT), &mut frame, now);
    set_channel(&mut frame, 99);
    deliver(&mut hosts.connector, way(CONNECTOR, RELAY), &mut frame, now);
    assert_eq!(hosts.connector.stats().unknown_channel, 2);
}

#[test]
fn only_guests_are_let_in() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let path = way(AGENT, CONNECTOR);
    hosts.agent.connect_session(Via::Path(path), now).unwrap();
    hosts.settle();
    assert!(hosts.connector.stats().uninvited >= 1);
    assert!(hosts.connector.is_empty());
    hosts.connector.invite(at("[::ffff:192.0.2.10]:5000"), 33);
    let id = hosts.agent.connect_session(Via::Path(path), now).unwrap();
    hosts.settle();
    let server = Hosts::established(&mut hosts.connector).unwrap();
    assert_eq!(hosts.connector.origin(server), Origin::Invited(33));
    hosts.connector.uninvite(at(AGENT));
    assert_eq!(hosts.connector.invitations(), 0);
    hosts.agent.send_datagram(id, vec![1; 10].into()).unwrap();
    hosts.settle();
    assert_eq!(hosts.connector.poll_datagram(server).unwrap().len(), 10);
}

#[test]
fn a_connection_without_its_channel_is_silent_and_ends() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let id = hosts
        .agent
        .connect_session(Via::Carrier(NUMBERS[0]), now)
        .unwrap();
    hosts.settle();
    Hosts::established(&mut hosts.connector).unwrap();
    Hosts::established(&mut hosts.agent).unwrap();
    hosts.agent.remove_carrier(NUMBERS[0]);
    hosts.agent.send_datagram(id, vec![1; 10].into()).unwrap();
    let frames = hosts.frames[0];
    hosts.settle();
    for _ in 0..100 {
        hosts.pass(Duration::from_secs(1));
    }
    assert_eq!(hosts.frames[0], frames);
    assert!(
        hosts
            .agent
            .connect_session(Via::Carrier(NUMBERS[0]), now)
            .is_err()
    );
    let closed = |pool: &mut Pool<FakeProvider>| {
        std::iter::from_fn(|| pool.poll_event()).any(|event| matches!(event, PoolEvent::Closed(..)))
    };
    assert!(closed(&mut hosts.agent));
    assert!(closed(&mut hosts.connector));
    assert!(hosts.agent.is_empty() && hosts.connector.is_empty());
}

#[test]
fn payloads_beside_quic_are_kept_and_sent() {
    let mut hosts = Hosts::new();
    let now = hosts.clock.now();
    let mut check = [CHECK; 39];
    let mut keepalive = [v1::MAGIC, 0x10, 0, 0, 0, 1];
    let mut long = [CHECK; MAX_RAW_LEN + 1];
    let path = way(CONNECTOR, AGENT);
    for payload in [&mut check[..], &mut keepalive, &mut long] {
        deliver(&mut hosts.connector, path, payload, now);
    }
    let mut out = [0; MAX_RAW_LEN];
    assert_eq!(hosts.connector.poll_raw(&mut out), Some((39, path)));
    assert_eq!(hosts.connector.poll_raw(&mut out), Some((6, path)));
    assert_eq!(out[..6], keepalive);
    assert_eq!(hosts.connector.poll_raw(&mut out), None);
    assert_eq!(hosts.connector.stats().raw_dropped, 1);
    assert!(hosts.connector.send_raw(path, &keepalive));
    assert!(
        hosts
            .connector
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= now)
    );
    let mut buffer = vec![0; 2000];
    let transmit = hosts.connector.poll_transmit(&mut buffer, now).unwrap();
    assert_eq!((transmit.path, &buffer[..transmit.len]), (path, &keepalive[..]));
    // Nobody makes it keep more than it has room for.
    for _ in 0..1000 {
        deliver(&mut hosts.connector, path, &mut check, now);
    }
    assert!(hosts.connector.stats().raw_dropped > 900);
}

#[test]
fn frames_travel_inside_where_nothing_else_passes() {
    let clock = ManualClock::new();
    let now = clock.now();
    let mut relay = pool(Admission::Anybody { retry: false }, 8, now);
    let mut hosts = Hosts::new();
    let control = hosts.agent.connect(None, way(AGENT, RELAY), now).unwrap();
    let mut buffer = vec![0; 65_507];
    let mut turn = |agent: &mut Pool<FakeProvider>, relay: &mut Pool<FakeProvider>| {
        for _ in 0..20 {
            while let Some(transmit) = agent.poll_transmit(&mut buffer, now) {
                let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
                for packet in buffer[..transmit.len].chunks_mut(size) {
                    assert_ne!(packet[0], CHANNEL);
                    deliver(relay, way(RELAY, AGENT), packet, now);
                }
            }
            while let Some(transmit) = relay.poll_transmit(&mut buffer, now) {
                let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
                for packet in buffer[..transmit.len].chunks_mut(size) {
                    deliver(agent, way(AGENT, RELAY), packet, now);
                }
            }
        }
    };
    turn(&mut hosts.agent, &mut relay);
    let client = Hosts::established(&mut relay).unwrap();
    assert_eq!(Hosts::established(&mut hosts.agent), Some(control));
    hosts
        .agent
        .set_carrier(NUMBERS[0], way(AGENT, RELAY), Some(control));
    let id = hosts
        .agent
        .connect_session(Via::Carrier(NUMBERS[0]), now)
        .unwrap();
    let mut server = None;
    for _ in 0..10 {
        turn(&mut hosts.agent, &mut relay);
        // The relay hands every frame over to the connector's bare channel, and back.
        while let Some(mut frame) = relay.poll_datagram(client) {
            set_channel(&mut frame, NUMBERS[1]);
            deliver(&mut hosts.connector, way(CONNECTOR, RELAY), &mut frame, now);
        }
        let mut buffer = vec![0; 65_507];
        while let Some(transmit) = hosts.connector.poll_transmit(&mut buffer, now) {
            let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
            for frame in buffer[..transmit.len].chunks_mut(size) {
                set_channel(frame, NUMBERS[0]);
                hosts.agent.handle_carried(frame, control, now);
            }
        }
        server = server.or(Hosts::established(&mut hosts.connector));
    }
    assert_eq!(Hosts::established(&mut hosts.agent), Some(id));
    assert!(server.is_some());
}
