//! DATAGRAMs: content, sizes, queues.

use std::time::Duration;

use super::pair::{DELAY, Fate, Pair};
use super::{Harness, SERVER_NAME, Setup, Side};
use crate::config::limits::MAX_UDP_PAYLOAD;
use crate::quic::{Connection, Datagram, DatagramError};

/// UDP payload less first byte, packet number, checksum, frame type and length: what a DATAGRAM and the peer's id share.
const SHARED_LEN: usize = MAX_UDP_PAYLOAD - 1 - 4 - 16 - 1 - 2;

/// DATAGRAMs arrive in order and unchanged, of any size down to none.
pub fn datagrams_travel_both_ways<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let payloads: Vec<Vec<u8>> = [0_usize, 1, 2, 63, 64, 500, 1200]
        .iter()
        .map(|&len| (0..len).map(|i| (i * 7 + len) as u8).collect())
        .collect();
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        for payload in &payloads {
            assert_eq!(
                pair.end(from).send_datagram(Datagram::from(payload.clone())),
                Ok(())
            );
        }
        // What was stripped from the front stays behind.
        let mut stripped = Datagram::from(b"header and payload".to_vec());
        stripped.advance(11);
        assert_eq!(pair.end(from).send_datagram(stripped), Ok(()));
        pair.run(DELAY * 3);
        for payload in &payloads {
            assert_eq!(pair.end(to).poll_datagram().as_deref(), Some(&**payload));
        }
        assert_eq!(pair.end(to).poll_datagram().as_deref(), Some(&b"payload"[..]));
        assert_eq!(pair.end(to).poll_datagram(), None);
    }
}

/// Before the handshake is complete, and after a close, nothing is taken.
pub fn datagrams_wait_for_the_handshake<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    assert_eq!(pair.client.max_datagram_len(), None);
    assert_eq!(
        pair.client.send_datagram(Datagram::from(vec![1])),
        Err(DatagramError::NotReady)
    );
    pair.establish();
    assert_eq!(pair.client.send_datagram(Datagram::from(vec![1])), Ok(()));
    let now = pair.now();
    pair.client.close(0, b"", now);
    assert_eq!(
        pair.client.send_datagram(Datagram::from(vec![1])),
        Err(DatagramError::NotReady)
    );
}

/// `max_datagram_len` bytes pass, one more is refused; the length follows from the UDP payload and the peer's id.
pub fn largest_datagram_fits_exactly<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let len = pair.end(from).max_datagram_len().expect("the handshake has told");
        assert_eq!(len, SHARED_LEN - 8, "towards an 8-byte connection id");
        let largest: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let oversized = Datagram::from(vec![0; len + 1]);
        assert_eq!(
            pair.end(from).send_datagram(oversized),
            Err(DatagramError::TooLarge)
        );
        for _ in 0..8 {
            assert_eq!(
                pair.end(from).send_datagram(Datagram::from(largest.clone())),
                Ok(())
            );
        }
        pair.run(Duration::from_secs(1));
        for _ in 0..8 {
            assert_eq!(pair.end(to).poll_datagram().as_deref(), Some(&*largest));
        }
    }
}

/// The send queue takes as many as it was set to, refuses more, and says at any time how much room there is.
pub fn datagram_queue_is_bounded<H: Harness>(harness: &mut H) {
    let client = Setup {
        queue: 5,
        ..Setup::new(Side::Client)
    };
    let mut pair = Pair::with(harness, &client, &Setup::new(Side::Server), Some(SERVER_NAME));
    pair.establish();
    for queued in 0..5 {
        assert_eq!(pair.client.datagram_space(), 5 - queued);
        assert_eq!(pair.client.datagrams_queued(), queued);
        assert_eq!(
            pair.client.send_datagram(Datagram::from(vec![queued as u8])),
            Ok(())
        );
    }
    assert_eq!(pair.client.datagram_space(), 0);
    assert_eq!(
        pair.client.send_datagram(Datagram::from(vec![9])),
        Err(DatagramError::Full)
    );
    pair.run(DELAY * 3);
    assert_eq!(
        (pair.client.datagram_space(), pair.client.datagrams_queued()),
        (5, 0)
    );
    for queued in 0..5 {
        assert_eq!(pair.server().poll_datagram().as_deref(), Some(&[queued][..]));
    }
    assert_eq!(pair.server().poll_datagram(), None);
}

/// A receive queue that nobody empties keeps the newest DATAGRAMs.
pub fn datagrams_received_are_bounded<H: Harness>(harness: &mut H) {
    let server = Setup {
        queue: 5,
        ..Setup::new(Side::Server)
    };
    let mut pair = Pair::with(harness, &Setup::new(Side::Client), &server, Some(SERVER_NAME));
    pair.establish();
    for number in 0..20 {
        assert_eq!(pair.client.send_datagram(Datagram::from(vec![number])), Ok(()));
    }
    pair.run(DELAY * 3);
    let kept: Vec<u8> = std::iter::from_fn(|| pair.server().poll_datagram())
        .map(|datagram| datagram[0])
        .collect();
    assert_eq!(kept, [15, 16, 17, 18, 19]);
}

/// A packet that arrives twice delivers its DATAGRAM once.
pub fn replayed_packets_deliver_once<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    pair.judge = Box::new(|_, _| Fate::Twice);
    for number in 0..10 {
        assert_eq!(
            pair.client.send_datagram(Datagram::from(vec![number; 900])),
            Ok(())
        );
    }
    pair.run(Duration::from_secs(1));
    for number in 0..10 {
        assert_eq!(pair.server().poll_datagram().as_deref(), Some(&[number; 900][..]));
    }
    assert_eq!(pair.server().poll_datagram(), None);
}
