//! Pools of real QUIC connections, joined by a wire that the test owns.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use super::*;
use crate::config::limits::MAX_UDP_PAYLOAD;
use crate::machine::{Ecn, Transmit};
use crate::quic::CloseReason;
use crate::quic::quiche::QuicheProvider;
use crate::quic::testing::TestPki;
use crate::rng::Seed;
use virtual_clock::VirtualClock;

const SERVER: &str = "192.0.2.1:4433";
const CLIENT: &str = "198.51.100.7:5000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server_config(retry: bool) -> PoolConfig {
    PoolConfig {
        admission: Admission::Anybody { retry },
        raw: false,
        reset_key: Some([9; 32]),
        max_connections: 100,
        max_handshakes: 50,
        max_udp_payload: MAX_UDP_PAYLOAD,
    }
}

struct Wire {
    clock: VirtualClock,
    client: Pool<QuicheProvider>,
    server: Pool<QuicheProvider>,
    client_address: SocketAddr,
    client_events: Vec<PoolEvent>,
    server_events: Vec<PoolEvent>,
    /// Datagrams from the client, as sent, for tests that repeat or hold them.
    sent_by_client: Vec<Vec<u8>>,
}

impl Wire {
    fn new(retry: bool, client_groups: &'static str) -> Self {
        let clock = VirtualClock::start();
        let now = clock.now();
        let pki = TestPki::new();
        let mut client = pki.config(false, &["agent.echo.ztna"]);
        client.groups = client_groups;
        let client = QuicheProvider::new(&client).unwrap();
        let client_config = PoolConfig {
            admission: Admission::Nobody,
            raw: false,
            ..server_config(false)
        };
        Self {
            client: Pool::new(client, client_config, Rng::new(&Seed([1; 32])), now),
            server: Pool::new(
                pki.provider(true, &["relay.test"]),
                server_config(retry),
                Rng::new(&Seed([2; 32])),
                now,
            ),
            clock,
            client_address: address(CLIENT),
            client_events: Vec::new(),
            server_events: Vec::new(),
            sent_by_client: Vec::new(),
        }
    }

    fn connect(&mut self) -> ConnId {
        let path = FourTuple {
            local: address(CLIENT),
            remote: address(SERVER),
        };
        self.client
            .connect(Some("relay.test"), path, self.clock.now())
            .unwrap()
    }

    fn established(retry: bool) -> (Self, ConnId, ConnId) {
        let mut wire = Self::new(retry, crate::quic::quiche::CLIENT_GROUPS);
        let client = wire.connect();
        wire.settle();
        let Some(PoolEvent::Established(server)) = wire
            .server_events
            .iter()
            .find(|event| matches!(event, PoolEvent::Established(_)))
            .cloned()
        else {
            panic!("the server accepted nothing: {:?}", wire.server.stats())
        };
        assert!(wire.client_events.contains(&PoolEvent::Established(client)));
        (wire, client, server)
    }

    fn deliver_to_server(&mut self, bytes: &[u8], stride: Option<NonZeroUsize>) {
        let path = FourTuple {
            local: address(SERVER),
            remote: self.client_address,
        };
        let mut bytes = bytes.to_vec();
        let received = Received {
            path,
            ecn: Ecn::NotEct,
            stride,
            payload: &mut bytes,
        };
        self.server.handle_datagram(received, self.clock.now());
    }

    fn deliver_to_client(&mut self, bytes: &[u8], stride: Option<NonZeroUsize>) {
        let path = FourTuple {
            local: address(CLIENT),
            remote: address(SERVER),
        };
        let mut bytes = bytes.to_vec();
        let received = Received {
            path,
            ecn: Ecn::NotEct,
            stride,
            payload: &mut bytes,
        };
        self.client.handle_datagram(received, self.clock.now());
    }

    fn poll_client(&mut self) -> Option<(Transmit, Vec<u8>)> {
        let mut buffer = vec![0; 65_535];
        let transmit = self.client.poll_transmit(&mut buffer, self.clock.now())?;
        buffer.truncate(transmit.len);
        self.sent_by_client.push(buffer.clone());
        Some((transmit, buffer))
    }

    fn collect(&mut self) {
        self.client_events
            .extend(std::iter::from_fn(|| self.client.poll_event()));
        self.server_events
            .extend(std::iter::from_fn(|| self.server.poll_event()));
    }

    /// Moves datagrams and time until both sides are quiet for longer than any acknowledgement is held.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.exchange();
            self.clock.advance(ACK_HOLD);
            let now = self.clock.now();
            self.client.handle_timeout(now);
            self.server.handle_timeout(now);
        }
    }

    fn exchange(&mut self) {
        let mut buffer = vec![0; 65_535];
        loop {
            let mut quiet = true;
            while let Some((transmit, bytes)) = self.poll_client() {
                self.deliver_to_server(&bytes, transmit.segment_size);
                quiet = false;
            }
            while let Some(transmit) = self.server.poll_transmit(&mut buffer, self.clock.now()) {
                self.deliver_to_client(&buffer[..transmit.len], transmit.segment_size);
                quiet = false;
            }
            self.collect();
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass in the steps that the pools ask for.
    fn sleep(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.exchange();
            let next = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = next
                .into_iter()
                .flatten()
                .map(|deadline| deadline.at)
                .min()
                .unwrap_or(end)
                .min(end);
            self.clock.advance(
                next.saturating_duration_since(self.clock.now())
                    .max(Duration::from_micros(10)),
            );
            let now = self.clock.now();
            self.client.handle_timeout(now);
            self.server.handle_timeout(now);
        }
        self.exchange();
    }
}

#[test]
fn a_retry_proves_the_address_before_any_state_exists() {
    let mut wire = Wire::new(true, crate::quic::quiche::CLIENT_GROUPS);
    wire.connect();
    let (_, initial) = wire.poll_client().unwrap();
    wire.deliver_to_server(&initial, None);
    assert_eq!((wire.server.len(), wire.server.stats().retries_sent), (0, 1));
    wire.settle();
    assert_eq!((wire.server.len(), wire.server.stats().tokens_valid), (1, 1));
}

#[test]
fn a_retransmitted_client_hello_makes_no_second_connection() {
    for retry in [false, true] {
        let (mut wire, _, _) = Wire::established(retry);
        let accepted = wire.server.stats().accepted;
        for datagram in wire.sent_by_client.clone() {
            wire.deliver_to_server(&datagram, None);
        }
        wire.settle();
        assert_eq!(wire.server.stats().accepted, accepted, "with retry {retry}");
        assert_eq!(wire.server.len(), 1);
    }
}

#[test]
fn a_client_hello_of_two_datagrams_makes_one_connection() {
    for retry in [false, true] {
        let mut wire = Wire::new(retry, "X25519MLKEM768");
        let client = wire.connect();
        let first: Vec<_> = std::iter::from_fn(|| wire.poll_client()).collect();
        assert!(first.len() >= 2, "a hybrid key share does not fit one datagram");
        for (transmit, bytes) in first {
            wire.deliver_to_server(&bytes, transmit.segment_size);
        }
        wire.settle();
        assert!(
            wire.client_events.contains(&PoolEvent::Established(client)),
            "with retry {retry}"
        );
        assert_eq!((wire.server.stats().accepted, wire.server.len()), (1, 1));
    }
}

#[test]
fn datagrams_travel_in_batches_of_equal_size() {
    let (mut wire, client, server) = Wire::established(true);
    for _ in 0..3 {
        // Opens the congestion window.
        for _ in 0..8 {
            wire.client.send_datagram(client, vec![7; 1200].into()).unwrap();
        }
        wire.settle();
    }
    while wire.server.poll_datagram(server).is_some() {}
    for index in 0..10_u8 {
        wire.client
            .send_datagram(client, vec![index; 1200].into())
            .unwrap();
    }
    let (transmit, bytes) = wire.poll_client().unwrap();
    let stride = transmit.segment_size.unwrap().get();
    assert!(
        bytes.len() / stride >= 8,
        "{} bytes in segments of {stride}",
        bytes.len()
    );
    wire.deliver_to_server(&bytes, transmit.segment_size);
    wire.settle();
    let received: Vec<u8> = std::iter::from_fn(|| wire.server.poll_datagram(server))
        .map(|d| d[0])
        .collect();
    assert_eq!(received, (0..10).collect::<Vec<u8>>());
}

#[test]
fn acknowledgements_wait_for_company_but_not_for_long() {
    let (mut wire, client, server) = Wire::established(true);
    wire.client.send_datagram(client, vec![1; 100].into()).unwrap();
    let (transmit, bytes) = wire.poll_client().unwrap();
    wire.deliver_to_server(&bytes, transmit.segment_size);
    wire.collect();
    let mut buffer = vec![0; 2000];
    assert_eq!(wire.server.poll_transmit(&mut buffer, wire.clock.now()), None);
    let hold = wire.server.poll_timeout().unwrap();
    assert!(hold.at <= wire.clock.now() + ACK_HOLD && hold.at > wire.clock.now());
    wire.clock.advance(ACK_HOLD);
    wire.server.handle_timeout(wire.clock.now());
    assert!(wire.server.poll_transmit(&mut buffer, wire.clock.now()).is_some());
    assert!(wire.server.poll_datagram(server).is_some());
}

#[test]
fn a_packet_after_a_silence_is_acknowledged_at_once() {
    let (mut wire, client, _) = Wire::established(true);
    wire.clock.advance(ACK_QUIET);
    wire.client.send_datagram(client, vec![1; 100].into()).unwrap();
    let (transmit, bytes) = wire.poll_client().unwrap();
    wire.deliver_to_server(&bytes, transmit.segment_size);
    wire.collect();
    let mut buffer = vec![0; 2000];
    assert!(wire.server.poll_transmit(&mut buffer, wire.clock.now()).is_some());
}

#[test]
fn what_the_window_held_back_leaves_with_the_acknowledgement_that_opens_it() {
    let (mut wire, _, server) = Wire::established(false);
    while wire.server.send_datagram(server, vec![3; 1000].into()).is_ok() {}
    for (bytes, stride) in sent_to(&mut wire) {
        wire.deliver_to_client(&bytes, stride);
    }
    assert!(wire.server.datagram_space(server) < 1024, "nothing is held back");
    let (transmit, bytes) = wire.poll_client().unwrap();
    wire.deliver_to_server(&bytes, transmit.segment_size);
    wire.collect();
    assert!(!sent_to(&mut wire).is_empty());
}

/// A server whose queue for one client is crowded, and a packet for it from another that asks for an acknowledgement.
fn crowded() -> (Wire, ConnId) {
    let (mut wire, _, slow) = Wire::established(false);
    let client = wire.connect();
    wire.settle();
    let sender = wire
        .server_events
        .iter()
        .rev()
        .find_map(|event| {
            if let PoolEvent::Established(id) = event {
                Some(*id)
            } else {
                None
            }
        })
        .unwrap();
    assert_ne!(sender, slow);
    while wire.server.send_datagram(slow, vec![3; 1000].into()).is_ok() {}
    for _ in 0..ACK_AFTER {
        wire.client.send_datagram(client, vec![1; 1000].into()).unwrap();
    }
    while let Some((transmit, bytes)) = wire.poll_client() {
        wire.deliver_to_server(&bytes, transmit.segment_size);
    }
    wire.collect();
    wire.server.acknowledge_behind(sender, slow);
    (wire, slow)
}

/// Everything that the server sends now.
fn sent_to(wire: &mut Wire) -> Vec<(Vec<u8>, Option<NonZeroUsize>)> {
    let mut buffer = vec![0; 65_535];
    let now = wire.clock.now();
    std::iter::from_fn(|| {
        let transmit = wire.server.poll_transmit(&mut buffer, now)?;
        Some((buffer[..transmit.len].to_vec(), transmit.segment_size))
    })
    .collect()
}

/// Whether an acknowledgement alone is among what the server sent: nothing else of it is that short.
fn acknowledges(sent: &[(Vec<u8>, Option<NonZeroUsize>)]) -> bool {
    sent.iter().any(|(bytes, _)| bytes.len() < 200)
}

#[test]
fn acknowledgements_wait_while_the_queue_of_the_receiver_is_crowded() {
    let (mut wire, _) = crowded();
    let mut waited = Duration::ZERO;
    while !acknowledges(&sent_to(&mut wire)) {
        assert!(waited < ACK_BEHIND, "never acknowledged");
        let due = wire.server.poll_timeout().unwrap().at;
        assert!(due > wire.clock.now(), "a drained pool is due at once");
        waited += due - wire.clock.now();
        wire.clock.advance(due - wire.clock.now());
        wire.server.handle_timeout(wire.clock.now());
    }
    assert_eq!(waited, ACK_BEHIND);
}

#[test]
fn acknowledgements_stop_waiting_when_the_queue_has_room_again() {
    let (mut wire, slow) = crowded();
    let begin = wire.clock.now();
    let mut sent = sent_to(&mut wire);
    assert!(!acknowledges(&sent));
    // The slow client takes everything, as often as it is sent something.
    for _ in 0..70 {
        for (bytes, stride) in std::mem::take(&mut sent) {
            wire.deliver_to_client(&bytes, stride);
        }
        while let Some((transmit, bytes)) = wire.poll_client() {
            wire.deliver_to_server(&bytes, transmit.segment_size);
        }
        wire.collect();
        wire.clock.advance(ACK_HOLD / 20);
        wire.client.handle_timeout(wire.clock.now());
        sent = sent_to(&mut wire);
        assert!(!acknowledges(&sent));
        if !wire.server.is_crowded(slow) {
            break;
        }
    }
    assert!(!wire.server.is_crowded(slow));
    wire.clock.advance(ACK_HOLD);
    wire.server.handle_timeout(wire.clock.now());
    assert!(acknowledges(&sent_to(&mut wire)));
    assert!(wire.clock.now() - begin < ACK_BEHIND);
}

#[test]
fn a_restarted_server_says_that_it_has_lost_the_connection() {
    let (mut wire, client, _) = Wire::established(true);
    let now = wire.clock.now();
    let pki = TestPki::new();
    wire.server = Pool::new(
        pki.provider(true, &["relay.test"]),
        server_config(true),
        Rng::new(&Seed([3; 32])),
        now,
    );
    wire.client.send_datagram(client, vec![1; 200].into()).unwrap();
    wire.settle();
    assert_eq!(wire.server.stats().resets_sent, 1);
    assert!(
        wire.client_events
            .contains(&PoolEvent::Closed(client, CloseReason::Reset)),
        "{:?}",
        wire.client_events
    );
    assert_eq!((wire.client.len(), wire.client.cids_known()), (0, 0));
}

#[test]
fn a_moved_client_is_reported_at_its_new_address() {
    let (mut wire, client, server) = Wire::established(true);
    wire.client_address = address("203.0.113.9:61000");
    wire.client.send_datagram(client, vec![1; 200].into()).unwrap();
    wire.settle();
    let path = FourTuple {
        local: address(SERVER),
        remote: wire.client_address,
    };
    assert!(
        wire.server_events.contains(&PoolEvent::PathChanged(server, path)),
        "{:?}",
        wire.server_events
    );
}

#[test]
fn a_packet_from_elsewhere_moves_no_path_before_the_peer_has_answered_there() {
    let (mut wire, client, server) = Wire::established(true);
    let path = |remote| {
        Some(FourTuple {
            local: address(SERVER),
            remote,
        })
    };
    let home = wire.client_address;
    wire.client.send_datagram(client, vec![1; 200].into()).unwrap();
    let (_, bytes) = wire.poll_client().unwrap();
    wire.client_address = address("203.0.113.66:666");
    wire.deliver_to_server(&bytes, None);
    wire.collect();
    assert_eq!(wire.server.peer_address(server), Some(wire.client_address));
    assert_eq!(wire.server.path(server), path(home));

    wire.settle();
    assert_eq!(
        wire.server.path(server),
        path(wire.client_address),
        "answered there"
    );
}

#[test]
fn silence_ends_a_connection_on_both_sides_and_leaves_nothing() {
    let (mut wire, client, server) = Wire::established(true);
    wire.sleep(Duration::from_secs(31));
    assert!(
        wire.client_events
            .contains(&PoolEvent::Closed(client, CloseReason::TimedOut))
    );
    assert!(
        wire.server_events
            .contains(&PoolEvent::Closed(server, CloseReason::TimedOut))
    );
    assert!(wire.server.is_empty() && wire.server.cids_known() == 0 && wire.server.poll_timeout().is_none());
}

#[test]
fn pings_keep_a_silent_connection() {
    let (mut wire, client, _) = Wire::established(true);
    for _ in 0..6 {
        wire.sleep(Duration::from_secs(10));
        wire.client.ping(client);
    }
    assert_eq!((wire.client.len(), wire.server.len()), (1, 1));
}

#[test]
fn goodbye_reaches_the_peer_with_its_reason() {
    let (mut wire, client, server) = Wire::established(true);
    wire.client.close(client, 7, b"enough", wire.clock.now());
    wire.sleep(Duration::from_secs(5));
    let reason = CloseReason::Peer {
        application: true,
        code: 7,
        reason: "enough".into(),
    };
    assert!(
        wire.server_events.contains(&PoolEvent::Closed(server, reason)),
        "{:?}",
        wire.server_events
    );
    assert!(wire.client.is_empty() && wire.server.is_empty());
}

#[test]
fn strangers_get_short_answers_or_none() {
    let mut wire = Wire::new(true, crate::quic::quiche::CLIENT_GROUPS);
    let mut buffer = vec![0; 2000];
    let now = wire.clock.now();
    let mut other_version = vec![0xc0, 0xba, 0xba, 0xba, 0xba, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    other_version.resize(1200, 0);
    wire.deliver_to_server(&other_version, None);
    let answer = wire.server.poll_transmit(&mut buffer, now).unwrap();
    assert!(answer.len < 1200 && buffer[1..5] == [0; 4], "version negotiation");
    for junk in [
        &[][..],
        &[0x22; 1200],
        &[0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
        &[0x40; 21],
    ] {
        wire.deliver_to_server(junk, None);
    }
    assert_eq!(wire.server.poll_transmit(&mut buffer, now), None);
    for trigger in [22, 30, 43, 1200] {
        wire.deliver_to_server(&vec![0x40; trigger], None);
        let reset = wire.server.poll_transmit(&mut buffer, now).unwrap();
        assert!(
            (21..trigger).contains(&reset.len),
            "a reset is shorter than what it answers"
        );
    }
    let mut junk_initial = vec![0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 5, 1, 2, 3, 4, 5];
    junk_initial.resize(1200, 0xee);
    wire.deliver_to_server(&junk_initial, None);
    assert_eq!(wire.server.stats().tokens_invalid, 1);
    assert!(wire.server.is_empty());
}

#[test]
fn answers_to_strangers_are_bounded() {
    let mut wire = Wire::new(true, crate::quic::quiche::CLIENT_GROUPS);
    for _ in 0..STATELESS_SLOTS + 10 {
        wire.deliver_to_server(&[0x40; 100], None);
    }
    assert_eq!(wire.server.stats().resets_sent, STATELESS_SLOTS as u64);
    assert_eq!(wire.server.stats().stateless_dropped, 10);
}

#[test]
fn a_full_pool_refuses_the_next_client() {
    let mut wire = Wire::new(false, crate::quic::quiche::CLIENT_GROUPS);
    wire.server.config.max_handshakes = 1;
    wire.connect();
    wire.connect();
    while let Some((transmit, bytes)) = wire.poll_client() {
        wire.deliver_to_server(&bytes, transmit.segment_size);
    }
    assert_eq!((wire.server.len(), wire.server.stats().refused_full), (1, 1));
}
