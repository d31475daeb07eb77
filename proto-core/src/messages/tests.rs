//! Two pools over the fake, joined by a wire that delivers at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::machine::{Ecn, FourTuple, Received};
use crate::quic::fake::{FakeConfig, FakeProvider};
use crate::quic::{Admission, PoolConfig, PoolEvent};
use crate::rng::{Rng, Seed};
use crate::sim::{Clock, ManualClock};
use crate::wire::framing::{MAX_FRAME_LEN, write_frame};

const CLIENT: usize = 0;
const SERVER: usize = 1;

struct Line {
    clock: ManualClock,
    pools: [Pool<FakeProvider>; 2],
    ids: [ConnId; 2],
}

fn pool(accept: bool, seed: u8, now: Instant) -> Pool<FakeProvider> {
    let config = PoolConfig {
        admission: if accept {
            Admission::Anybody { retry: false }
        } else {
            Admission::Nobody
        },
        raw: false,
        reset_key: None,
        max_connections: 4,
        max_handshakes: 4,
        max_udp_payload: 1350,
    };
    let provider = FakeProvider::new(FakeConfig::new(&[b"messages"]), Rng::new(&Seed([seed; 32])));
    Pool::new(provider, config, Rng::new(&Seed([seed + 10; 32])), now)
}

fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, side as u8 + 1], 4433))
}

impl Line {
    fn new() -> Self {
        let clock = ManualClock::new();
        let now = clock.now();
        let mut pools = [pool(false, 1, now), pool(true, 2, now)];
        let path = FourTuple {
            local: address(CLIENT),
            remote: address(SERVER),
        };
        let id = pools[CLIENT].connect(None, path, now).unwrap();
        let mut line = Self {
            clock,
            pools,
            ids: [id, id],
        };
        let mut accepted = None;
        for _ in 0..10 {
            line.settle();
            while let Some(event) = line.pools[SERVER].poll_event() {
                if let PoolEvent::Established(id) = event {
                    accepted = Some(id);
                }
            }
        }
        line.ids[SERVER] = accepted.unwrap();
        line
    }

    /// Delivers until both are quiet, and lets a moment pass.
    fn settle(&mut self) {
        let mut buf = vec![0; 65_536];
        for _ in 0..40 {
            self.clock.advance_to(self.clock.now() + Duration::from_millis(5));
            let now = self.clock.now();
            for from in [CLIENT, SERVER] {
                self.pools[from].handle_timeout(now);
                while let Some(sent) = self.pools[from].poll_transmit(&mut buf, now) {
                    let received = Received {
                        path: FourTuple {
                            local: sent.path.remote,
                            remote: sent.path.local,
                        },
                        ecn: Ecn::NotEct,
                        stride: sent.segment_size,
                        payload: &mut buf[..sent.len],
                    };
                    self.pools[1 - from].handle_datagram(received, now);
                }
            }
        }
    }

    fn read(&mut self, side: usize, stream: &mut MessageStream) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        stream.read(&mut self.pools[side], self.ids[side], &mut |payload| {
            payloads.push(payload.to_vec());
        });
        payloads
    }

    /// Flushes and reads until a message of any size must have arrived.
    fn carry(&mut self, from: (usize, &mut MessageStream), to: (usize, &mut MessageStream)) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for _ in 0..20 {
            from.1.flush(&mut self.pools[from.0], self.ids[from.0]);
            self.settle();
            payloads.extend(self.read(to.0, to.1));
            self.settle();
        }
        payloads
    }
}

fn long(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn messages_of_any_size_travel_both_ways() {
    let mut line = Line::new();
    let (mut client, mut server) = (MessageStream::new(0), MessageStream::new(0));
    let sizes = [0, 1, 5_000, MAX_FRAME_LEN, MAX_FRAME_LEN, 7];
    for len in sizes {
        assert!(client.send(write_frame(&long(len))));
    }
    let arrived = line.carry((CLIENT, &mut client), (SERVER, &mut server));
    assert_eq!(arrived, sizes.map(long));
    assert!(client.is_empty());
    for len in sizes {
        assert!(server.send(write_frame(&long(len))));
    }
    let arrived = line.carry((SERVER, &mut server), (CLIENT, &mut client));
    assert_eq!(arrived, sizes.map(long));
}

#[test]
fn what_a_peer_does_not_read_is_bounded_and_refused_beyond() {
    let mut line = Line::new();
    let mut client = MessageStream::new(0);
    let frame = || write_frame(&long(10_000));
    let mut taken = 0;
    for _ in 0..60 {
        taken += usize::from(client.send(frame()));
        client.flush(&mut line.pools[CLIENT], line.ids[CLIENT]);
        line.settle();
    }
    assert!(!client.send(frame()));
    assert!(!client.is_empty());
    assert!(client.waiting.len() <= MAX_WAITING);
    assert!(
        (20..60).contains(&taken),
        "{taken} messages of 10 kB for a window of 64 KiB and a limit of 256"
    );
    // Once it reads, all that was taken arrives and more is taken.
    let mut server = MessageStream::new(0);
    let arrived = line.carry((CLIENT, &mut client), (SERVER, &mut server));
    assert_eq!(arrived.len(), taken);
    assert!(arrived.iter().all(|payload| *payload == long(10_000)));
    assert!(client.is_empty());
    assert_eq!(client.waiting.capacity(), 0);
    assert!(client.send(frame()));
}

#[test]
fn a_message_that_could_not_be_written_is_refused() {
    let mut stream = MessageStream::new(0);
    assert!(!stream.send(write_frame(&long(MAX_FRAME_LEN + 1))));
    assert!(stream.is_empty());
}

#[test]
fn an_over_long_frame_costs_itself_alone() {
    let mut line = Line::new();
    let (mut client, mut server) = (MessageStream::new(0), MessageStream::new(0));
    let mut junk = (MAX_FRAME_LEN as u32 + 10).to_be_bytes().to_vec();
    junk.extend(long(MAX_FRAME_LEN + 10));
    assert!(client.send(Some(junk)));
    assert!(client.send(write_frame(b"behind it")));
    let arrived = line.carry((CLIENT, &mut client), (SERVER, &mut server));
    assert_eq!(arrived, [b"behind it"]);
}

#[test]
fn the_other_stream_is_not_listened_to() {
    let mut line = Line::new();
    let (mut aside, mut client) = (MessageStream::new(1), MessageStream::new(0));
    assert!(aside.send(write_frame(b"aside")));
    let arrived = line.carry((SERVER, &mut aside), (CLIENT, &mut client));
    assert_eq!(arrived, Vec::<Vec<u8>>::new());
}

#[test]
fn v1_is_answered_on_the_stream_it_opened_or_else_on_the_servers() {
    let mut line = Line::new();
    let (mut client, mut server) = (MessageStream::v1_client(), MessageStream::v1_server());
    let frame = |text: &[u8]| write_frame(text);
    // The client has opened nothing: stream 1.
    assert!(server.send(frame(b"offer")));
    assert_eq!(
        line.carry((SERVER, &mut server), (CLIENT, &mut client)),
        [b"offer"]
    );
    assert!(!client.first_is_open);
    assert!(client.send(frame(b"answer")));
    assert_eq!(
        line.carry((CLIENT, &mut client), (SERVER, &mut server)),
        [b"answer"]
    );
    // Now it has: stream 0.
    assert!(server.send(frame(b"begin")));
    assert_eq!(
        line.carry((SERVER, &mut server), (CLIENT, &mut client)),
        [b"begin"]
    );
    assert!(client.first_is_open);
}

#[test]
fn a_frame_ends_on_the_stream_where_it_began() {
    let mut line = Line::new();
    let (mut client, mut server) = (MessageStream::v1_client(), MessageStream::v1_server());
    // More than the window: the rest waits while the client opens stream 0.
    for _ in 0..3 {
        assert!(server.send(write_frame(&long(40_000))));
    }
    server.flush(&mut line.pools[SERVER], line.ids[SERVER]);
    assert!(client.send(write_frame(b"hello")));
    assert_eq!(
        line.carry((CLIENT, &mut client), (SERVER, &mut server)),
        [b"hello"]
    );
    let arrived = line.carry((SERVER, &mut server), (CLIENT, &mut client));
    assert_eq!(arrived, [long(40_000), long(40_000), long(40_000)]);
}
