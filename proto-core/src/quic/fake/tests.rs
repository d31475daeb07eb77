use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::codec::{Reader, Writer};
use super::frame::{self, Frame};
use super::packet::{Head, PacketWriter, Space};
use super::ranges::Ranges;
use super::seal::TAG_LEN;
use super::{FakeCertificate, FakeConfig, FakeConnection, FakeProvider, Purpose, Trust};
use crate::machine::FourTuple;
use crate::quic::conformance::{Harness, Identity, SERVER_NAME, Setup, Side};
use crate::quic::{Accept, Cid, Connect, Connection, Datagram, DatagramError, Provider, State};
use crate::rng::{Rng, Seed};
use crate::sim::{Clock, ManualClock};

mod suite {
    crate::quic_conformance!(super::FakeHarness::default());
}

const TRUSTED: u32 = 1;
const UNTRUSTED: u32 = 2;

#[derive(Default)]
struct FakeHarness {
    seed: u8,
}

fn certificate(side: Side, issuer: u32) -> FakeCertificate {
    let der = format!("certificate of the {side:?}").repeat(20).into_bytes();
    FakeCertificate {
        der,
        issuer,
        names: vec![SERVER_NAME.to_owned()],
    }
}

impl Harness for FakeHarness {
    type Provider = FakeProvider;
    type Clock = ManualClock;

    fn clock(&mut self) -> ManualClock {
        ManualClock::new()
    }

    fn provider(&mut self, setup: &Setup) -> FakeProvider {
        let mut config = FakeConfig::new(&[]);
        config.alpn.clone_from(&setup.alpn);
        config.trust = Trust::Issuers(vec![TRUSTED]);
        config.require_client_certificate = true;
        config.send_queue = setup.queue;
        config.recv_queue = setup.queue;
        config.certificate = match setup.identity {
            Identity::Trusted => Some(certificate(setup.side, TRUSTED)),
            Identity::Untrusted => Some(certificate(setup.side, UNTRUSTED)),
            Identity::Missing => None,
        };
        self.seed += 1;
        FakeProvider::new(config, Rng::new(&Seed([self.seed; 32])))
    }

    fn certificate(&mut self, side: Side) -> Vec<u8> {
        certificate(side, TRUSTED).der
    }
}

/// A client and a server wired together without any delay.
struct Wire {
    client: FakeConnection,
    server: Option<FakeConnection>,
    acceptor: FakeProvider,
    client_address: SocketAddr,
    now: Instant,
    log: Vec<Vec<u8>>,
}

const MILLISECOND: Duration = Duration::from_millis(1);

impl Wire {
    fn new(config: &FakeConfig) -> Self {
        let now = ManualClock::new().now();
        let client_address = SocketAddr::from(([192, 0, 2, 1], 1));
        let path = FourTuple {
            local: client_address,
            remote: Self::server_address(),
        };
        let connect = Connect {
            server_name: None,
            scid: Cid::new(b"client-1").unwrap(),
            path,
            purpose: Purpose::Control,
        };
        let mut connector = FakeProvider::new(config.clone(), Rng::new(&Seed([1; 32])));
        let acceptor = FakeProvider::new(config.clone(), Rng::new(&Seed([2; 32])));
        let client = connector.connect(connect, now).unwrap();
        Self {
            client,
            server: None,
            acceptor,
            client_address,
            now,
            log: Vec::new(),
        }
    }

    fn server_address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 2], 2))
    }

    fn established(config: &FakeConfig) -> Self {
        let mut wire = Self::new(config);
        wire.run(100);
        assert_eq!(wire.client.state(), State::Established);
        assert_eq!(wire.server().state(), State::Established);
        wire
    }

    fn server(&mut self) -> &mut FakeConnection {
        self.server.as_mut().unwrap()
    }

    /// Passes packets to and fro for so many milliseconds.
    fn run(&mut self, milliseconds: u32) {
        let mut buf = [0; 1500];
        for _ in 0..milliseconds {
            self.now += MILLISECOND;
            let now = self.now;
            self.client.handle_timeout(now);
            while let Some(out) = self.client.poll_packet(&mut buf, now) {
                self.log.push(buf[..out.len].to_vec());
                let path = FourTuple {
                    local: Self::server_address(),
                    remote: self.client_address,
                };
                let accept = Accept {
                    scid: Cid::new(b"server-1").unwrap(),
                    retry: None,
                    reset_token: [9; 16],
                    path,
                    purpose: Purpose::Control,
                };
                let acceptor = &mut self.acceptor;
                let server = self
                    .server
                    .get_or_insert_with(|| acceptor.accept(accept, now).unwrap());
                server.handle_packet(&mut buf[..out.len], path, now);
            }
            let Some(server) = &mut self.server else { continue };
            server.handle_timeout(now);
            while let Some(out) = server.poll_packet(&mut buf, now) {
                self.log.push(buf[..out.len].to_vec());
                let path = FourTuple {
                    local: SocketAddr::from(([10, 0, 0, 1], 1)),
                    remote: Self::server_address(),
                };
                if out.path.remote == self.client_address {
                    self.client.handle_packet(&mut buf[..out.len], path, now);
                }
            }
        }
    }
}

#[test]
fn equal_seeds_write_equal_packets() {
    let run = || {
        let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
        for number in 0..50 {
            assert_eq!(
                wire.client.send_datagram(Datagram::from(vec![number; 700])),
                Ok(())
            );
            wire.run(3);
        }
        wire.log
    };
    assert_eq!(run(), run());
}

#[test]
fn a_long_hello_takes_several_initials() {
    let config = FakeConfig {
        hello_len: 2500,
        ..FakeConfig::new(&[b"x"])
    };
    let wire = Wire::established(&config);
    let initials = wire
        .log
        .iter()
        .take(3)
        .filter(|packet| packet[0] == 0xc3 && packet.len() == 1200)
        .count();
    assert_eq!(initials, 3);
}

#[test]
fn a_large_certificate_waits_for_the_clients_address_to_be_proven() {
    let certificate = FakeCertificate {
        der: vec![5; 9000],
        issuer: TRUSTED,
        names: Vec::new(),
    };
    let config = FakeConfig {
        certificate: Some(certificate),
        ..FakeConfig::new(&[b"x"])
    };
    let mut wire = Wire::new(&config);
    wire.run(1);
    let answers: usize = wire.log[1..].iter().map(Vec::len).sum();
    assert!(
        (3500..=3600).contains(&answers),
        "{answers} bytes after one Initial"
    );
    wire.run(100);
    assert_eq!(wire.server().state(), State::Established);
    assert_eq!(wire.client.peer_certificate().map(<[u8]>::len), Some(9000));
    assert_eq!(wire.server().peer_certificate(), None, "nobody asked for it");
}

#[test]
fn a_dead_wire_fills_the_queue() {
    let mut wire = Wire::established(&FakeConfig {
        send_queue: 100,
        ..FakeConfig::new(&[b"x"])
    });
    let mut buf = [0; 1500];
    let (mut sent, mut full) = (0, false);
    for _ in 0..300 {
        full |= wire.client.send_datagram(Datagram::from(vec![1; 1000])) == Err(DatagramError::Full);
        while wire.client.poll_packet(&mut buf, wire.now).is_some() {
            sent += 1;
        }
    }
    assert!(full, "the window holds them back");
    assert!((8..40).contains(&sent), "{sent} packets without an answer");
}

#[test]
fn a_peer_that_takes_no_datagrams_gets_none() {
    let mut wire = Wire::established(&FakeConfig {
        max_datagram_frame: None,
        ..FakeConfig::new(&[b"x"])
    });
    assert_eq!(wire.client.max_datagram_len(), None);
    assert_eq!(
        wire.client.send_datagram(Datagram::from(vec![1])),
        Err(DatagramError::NotReady)
    );
}

#[test]
fn a_moved_peer_is_reached_by_a_fresh_connection_id() {
    let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
    let fresh = Cid::new(b"client-2").unwrap();
    wire.client.provide_cid(fresh, [3; 16]);
    wire.run(100);
    assert_eq!(wire.client.poll_retired_cid(), None);
    wire.client_address = SocketAddr::from(([198, 51, 100, 1], 7));
    wire.client.ping();
    wire.run(100);
    assert_eq!(
        wire.server().poll_path_change().map(|path| path.remote),
        Some(wire.client_address)
    );
    assert_eq!(wire.client.poll_retired_cid(), Cid::new(b"client-1"));
    wire.log.clear();
    assert_eq!(wire.server().send_datagram(Datagram::from(vec![4; 100])), Ok(()));
    wire.run(100);
    assert!(
        wire.log
            .iter()
            .any(|packet| packet.len() > 100 && &packet[1..9] == fresh.as_bytes())
    );
    assert_eq!(wire.client.poll_datagram().as_deref(), Some(&[4; 100][..]));
}

#[test]
fn a_move_that_nobody_confirms_is_taken_back() {
    let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
    let mut buf = [0; 1500];
    // The next packet of the client seems to come from elsewhere, and nobody answers there.
    wire.client.ping();
    let out = wire.client.poll_packet(&mut buf, wire.now).unwrap();
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 5));
    let path = FourTuple {
        local: Wire::server_address(),
        remote: elsewhere,
    };
    let now = wire.now;
    wire.server().handle_packet(&mut buf[..out.len], path, now);
    let answer = wire.server().poll_packet(&mut buf, now).unwrap();
    assert_eq!(answer.path.remote, elsewhere);
    assert!(answer.len <= 3 * out.len, "three times what came from there");
    wire.run(3000);
    assert_eq!(wire.server().poll_path_change(), None);
    assert_eq!(wire.server().send_datagram(Datagram::from(vec![4; 100])), Ok(()));
    wire.run(100);
    assert_eq!(wire.client.poll_datagram().as_deref(), Some(&[4; 100][..]));
}

/// Seals frames as the server does and gives them to the client.
fn inject(wire: &mut Wire, frames: &[u8]) {
    let server = wire.server();
    let keys = server.spaces[Space::Application.index()].keys.unwrap();
    let number = server.spaces[Space::Application.index()].next_number() + 1000;
    let (dcid, scid) = (Cid::new(b"client-1").unwrap(), Cid::new(b"").unwrap());
    let mut out = [0; 1500];
    let head = Head {
        space: Space::Application,
        dcid,
        scid,
        token: &[],
        number,
    };
    let mut packet = PacketWriter::begin(&mut out, &head).unwrap();
    packet.frames().put(frames).unwrap();
    let (tag, len) = packet.finish(&keys.seal);
    out[len..len + TAG_LEN].copy_from_slice(&tag);
    let path = FourTuple {
        local: wire.client_address,
        remote: Wire::server_address(),
    };
    let now = wire.now;
    wire.client.handle_packet(&mut out[..len + TAG_LEN], path, now);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_ends_the_connection() {
    let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
    inject(&mut wire, &[0x02, 0x80, 0, 0xff, 0xff, 0, 0, 0]);
    assert_eq!(wire.client.state(), State::Closing);
}

#[test]
fn received_bytes_are_gone_after_the_call() {
    let mut wire = Wire::new(&FakeConfig::new(&[b"x"]));
    let mut junk = [0x40; 100];
    let path = FourTuple {
        local: wire.client_address,
        remote: Wire::server_address(),
    };
    wire.client.handle_packet(&mut junk, path, wire.now);
    assert!(junk.iter().all(|byte| *byte == 0xdd));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn arbitrary_genuine_frames_never_panic(frames in vec(0_u8..0x34, 0..300), tail in vec(any::<u8>(), 0..300)) {
        let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
        inject(&mut wire, &[frames, tail].concat());
        wire.run(50);
    }

    #[test]
    fn arbitrary_datagrams_never_panic(bytes in vec(any::<u8>(), 0..1500), first in any::<u8>()) {
        let mut wire = Wire::established(&FakeConfig::new(&[b"x"]));
        let mut packet = vec![first, 0, 0, 0, 1, 8];
        packet.extend_from_slice(b"client-1");
        packet.extend(bytes);
        let path = FourTuple { local: wire.client_address, remote: Wire::server_address() };
        let now = wire.now;
        wire.client.handle_packet(&mut packet.clone(), path, now);
        wire.server().handle_packet(&mut packet, FourTuple { local: path.remote, remote: path.local }, now);
        wire.run(50);
        prop_assert_eq!(wire.client.state(), State::Established);
    }

    #[test]
    fn ranges_are_sets(numbers in vec(0_u64..200, 0..100)) {
        let (mut ranges, mut set) = (Ranges::new(1000), BTreeSet::new());
        for number in numbers {
            prop_assert_eq!(ranges.contains(number), set.contains(&number));
            ranges.insert(number, number + 1);
            set.insert(number);
        }
        prop_assert_eq!(ranges.largest(), set.last().copied());
        let listed: Vec<u64> = ranges.descending().flat_map(|(start, end)| (start..end).rev()).collect();
        prop_assert_eq!(listed, set.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn acknowledgements_read_as_written(numbers in vec(0_u64..500, 1..80)) {
        let mut received = Ranges::new(1000);
        for number in numbers {
            received.insert(number, number + 1);
        }
        let mut out = [0; 1000];
        let mut writer = Writer::new(&mut out);
        frame::write_ack(&mut writer, &received).unwrap();
        let len = writer.len();
        let mut reader = Reader::new(&out[..len]);
        let Some(Frame::Ack(ack)) = frame::read(&mut reader) else { panic!("not an ACK") };
        prop_assert!(reader.is_empty());
        let expected: Vec<_> = received.descending().map(|(start, end)| (start, end - 1)).collect();
        prop_assert_eq!(ack.ranges().collect::<Vec<_>>(), expected);
    }
}
