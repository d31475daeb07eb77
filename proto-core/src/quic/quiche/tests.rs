//! What the peer may do to streams and the suite cannot say through the seam: ends, resets, other streams.

use std::time::Duration;

use virtual_clock::VirtualClock;

use super::*;
use crate::quic::testing::TestPki;

struct Two {
    clock: VirtualClock,
    client: QuicheConnection,
    server: QuicheConnection,
}

impl Two {
    fn new() -> Self {
        let two = Self::begin(Purpose::Control, "relay.test");
        assert_eq!(two.server.state(), State::Established);
        two
    }

    fn begin(purpose: Purpose, name: &str) -> Self {
        let clock = VirtualClock::start();
        let pki = TestPki::new();
        let provider = |server, names: &[&str]| {
            let mut config = pki.config(server, names);
            config.session_alpn = vec![b"ztna-e2e-v2".to_vec()];
            QuicheProvider::new(&config).unwrap()
        };
        let (local, remote) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let connect = Connect {
            server_name: (purpose == Purpose::Control).then_some(name),
            scid: Cid::new(b"client-1").unwrap(),
            path: FourTuple { local, remote },
            purpose,
        };
        let accept = Accept {
            scid: Cid::new(b"server-1").unwrap(),
            retry: None,
            reset_token: [1; 16],
            path: FourTuple {
                local: remote,
                remote: local,
            },
            purpose,
        };
        let client = provider(false, &["agent.echo.ztna"])
            .connect(connect, clock.now())
            .unwrap();
        let server = provider(true, &[name]).accept(accept, clock.now()).unwrap();
        let mut two = Self {
            clock,
            client,
            server,
        };
        two.settle();
        two
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.clock.advance(Duration::from_millis(5));
            let now = self.clock.now();
            pass(&mut self.client, &mut self.server, now);
            pass(&mut self.server, &mut self.client, now);
        }
    }
}

fn pass(from: &mut QuicheConnection, to: &mut QuicheConnection, now: Instant) {
    let mut buf = [0; 1500];
    if from.poll_timeout().is_some_and(|at| at <= now) {
        from.handle_timeout(now);
    }
    while let Some(out) = from.poll_packet(&mut buf, now) {
        let path = FourTuple {
            local: out.path.remote,
            remote: out.path.local,
        };
        to.handle_packet(&mut buf[..out.len], path, now);
    }
}

fn read(connection: &mut QuicheConnection) -> Vec<(u64, Vec<u8>)> {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| {
        let (stream, len) = connection.read_stream(&mut buffer)?;
        Some((stream, buffer[..len].to_vec()))
    })
    .collect()
}

#[test]
fn a_stream_that_the_peer_ends_is_read_to_its_end_and_answered() {
    let mut two = Two::new();
    two.client.connection.stream_send(0, b"last words", true).unwrap();
    two.settle();
    assert_eq!(read(&mut two.server), [(0, b"last words".to_vec())]);
    assert_eq!(read(&mut two.server), []);
    // Its other direction is still open.
    assert_eq!(two.server.send_stream(0, b"answer"), 6);
    two.settle();
    assert_eq!(read(&mut two.client), [(0, b"answer".to_vec())]);
    // An end without a byte before it.
    two.server.connection.stream_send(1, b"", true).unwrap();
    two.settle();
    assert_eq!(read(&mut two.client), []);
    assert_eq!(two.client.send_stream(1, b"fine"), 4);
}

#[test]
fn a_stream_that_the_peer_resets_falls_silent_alone() {
    let mut two = Two::new();
    two.server.send_stream(1, b"other");
    two.client.send_stream(0, b"lost");
    two.settle();
    two.client
        .connection
        .stream_shutdown(0, quiche::Shutdown::Write, 9)
        .unwrap();
    two.settle();
    assert_eq!(read(&mut two.server), []);
    assert_eq!(two.server.discard_streams(), 0);
    assert_eq!(two.server.state(), State::Established);
    assert_eq!(read(&mut two.client), [(1, b"other".to_vec())]);
    assert_eq!(two.client.send_stream(1, b"still here"), 10);
    two.settle();
    assert_eq!(read(&mut two.server), [(1, b"still here".to_vec())]);
}

#[test]
fn a_peer_that_stops_listening_takes_nothing() {
    let mut two = Two::new();
    two.client.send_stream(0, b"hello");
    two.settle();
    assert_eq!(read(&mut two.server).len(), 1);
    two.client
        .connection
        .stream_shutdown(0, quiche::Shutdown::Read, 9)
        .unwrap();
    two.settle();
    assert_eq!(two.server.send_stream(0, b"anybody?"), 0);
    assert_eq!(two.server.state(), State::Established);
    assert_eq!(two.client.send_stream(0, b"I talk"), 6);
    two.settle();
    assert_eq!(read(&mut two.server), [(0, b"I talk".to_vec())]);
}

#[test]
fn other_streams_are_dropped_counted_and_hold_nobody_up() {
    let mut two = Two::new();
    let chunk = [7; 10_000];
    let mut sent = 0;
    // Several windows of every other stream that a client may open.
    for _ in 0..30 {
        for stream in [4, 8, 12] {
            sent += two
                .client
                .connection
                .stream_send(stream, &chunk, false)
                .unwrap_or(0);
        }
        two.settle();
        assert_eq!(read(&mut two.server), []);
    }
    assert!(sent > 3 * 2 * STREAM_WINDOW as usize, "{sent} bytes");
    assert_eq!(two.server.take_discarded(), sent as u64);
    assert_eq!(two.server.take_discarded(), 0);
    two.client.connection.stream_send(4, b"foreign", true).unwrap();
    assert_eq!(two.client.send_stream(0, b"ours"), 4);
    two.settle();
    assert_eq!(two.server.discard_streams(), 11);
    assert_eq!(two.client.connection.stream_send(16, b"fifth", false).ok(), None);
}

#[test]
fn a_connector_with_a_certificate_for_clients_serves_sessions_and_nothing_else() {
    for purpose in [Purpose::Session, Purpose::Carried] {
        let two = Two::begin(purpose, "connector.echo.ztna");
        assert_eq!(two.client.state(), State::Established, "{purpose:?}");
        assert_eq!(two.server.state(), State::Established, "{purpose:?}");
    }
    let two = Two::begin(Purpose::Control, "connector.echo.ztna");
    assert_ne!(two.client.state(), State::Established);
}
