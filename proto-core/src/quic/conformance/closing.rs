//! Ends and changes: closing, resets, addresses, connection ids.

use std::time::Duration;

use super::pair::{DELAY, Fate, Pair, RESET_TOKEN, address};
use super::{Harness, Side};
use crate::quic::{Cid, CloseReason, Connection, Datagram, State};

/// A close reaches the other side with the application's code and words.
pub fn close_reaches_the_peer<H: Harness>(harness: &mut H) {
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let mut pair = Pair::established(harness);
        let now = pair.now();
        pair.end(from).close(0x2a, b"going home", now);
        assert_eq!(pair.end(from).state(), State::Closing);
        pair.run(DELAY * 2);
        let local = CloseReason::Local {
            application: true,
            code: 0x2a,
        };
        assert_eq!(pair.end(from).close_reason(), Some(local));
        let reason = "going home".to_owned();
        let told = CloseReason::Peer {
            application: true,
            code: 0x2a,
            reason,
        };
        assert_eq!(pair.end(to).close_reason(), Some(told));
        assert!(matches!(pair.end(to).state(), State::Closing | State::Closed));
        // A second close is too late to change anything.
        let now = pair.now();
        pair.end(from).close(1, b"no, wait", now);
        pair.run(Duration::from_secs(10));
        for side in [from, to] {
            assert_eq!(pair.end(side).state(), State::Closed);
        }
        assert_eq!(
            pair.end(from).close_reason(),
            Some(CloseReason::Local {
                application: true,
                code: 0x2a
            })
        );
    }
}

/// Closing during the handshake ends both sides without telling the application's words to a stranger.
pub fn close_before_the_handshake_ends_it<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    pair.run(DELAY * 3 / 2);
    assert!(pair.server.is_some() && pair.client.state() == State::Handshaking);
    let now = pair.now();
    pair.client.close(7, b"a secret", now);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.server().state(), State::Closed);
    let secret = b"a secret";
    let told = pair
        .log
        .iter()
        .any(|(_, packet)| packet.windows(secret.len()).any(|window| window == secret));
    assert!(!told);
}

/// Also over a dead wire a close is over in a few seconds, with a packet or two.
pub fn closing_takes_bounded_time<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    pair.judge = Box::new(|_, _| Fate::Drop);
    let sent = pair.sent(Side::Client);
    let now = pair.now();
    pair.client.close(0, b"", now);
    pair.settle();
    assert_eq!(pair.client.state(), State::Closing);
    assert!(pair.run_until(Duration::from_secs(5), |pair| pair.client.state()
        == State::Closed));
    assert!((1..=2).contains(&(pair.sent(Side::Client) - sent)));
    assert_eq!(pair.client.poll_timeout(), None);
    let (now, mut buf) = (pair.now(), [0; 1500]);
    assert_eq!(pair.client.poll_packet(&mut buf, now), None);
}

/// A datagram that ends with the server's reset token ends the connection; another token does not.
pub fn stateless_reset_ends_the_connection<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let reset = |token: &[u8; 16]| {
        let mut packet = b"\x5anothing but noise in a packet".to_vec();
        packet.extend_from_slice(token);
        packet
    };
    assert!(!pair.client.is_stateless_reset(&reset(b"some other token")));
    assert!(pair.client.is_stateless_reset(&reset(&RESET_TOKEN)));
    assert!(!pair.client.is_stateless_reset(&RESET_TOKEN[1..]));
    pair.post(Side::Server, reset(b"some other token"), DELAY);
    pair.run(DELAY * 2);
    assert!(pair.is_established());
    pair.post(Side::Server, reset(&RESET_TOKEN), DELAY);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.client.close_reason(), Some(CloseReason::Reset));
}

/// When a client's packets come from a new address, the server validates it, reports it and sends there.
pub fn address_change_is_reported<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    assert_eq!(pair.server().poll_path_change(), None);
    pair.client_address = address(77);
    assert_eq!(pair.client.send_datagram(Datagram::from(vec![1; 500])), Ok(()));
    pair.run(Duration::from_secs(2));
    let change = pair.server().poll_path_change().expect("the change is reported");
    assert_eq!((change.local, change.remote), (address(2), address(77)));
    assert_eq!(pair.server().poll_path_change(), None, "once");
    assert_eq!(pair.client.poll_path_change(), None, "the client has not noticed");
    assert_eq!(pair.server().poll_datagram().as_deref(), Some(&[1; 500][..]));
    assert_eq!(pair.server().send_datagram(Datagram::from(vec![2; 1000])), Ok(()));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.poll_datagram().as_deref(), Some(&[2; 1000][..]));
}

/// The peer takes as many of our connection ids as it wants, and retires none but those it got.
pub fn connection_ids_can_be_provided<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for side in [Side::Client, Side::Server] {
        let wanted = pair.end(side).cids_wanted();
        assert!(wanted >= 1, "{side:?} may give no connection id");
        let mut given = Vec::new();
        for number in 0..wanted {
            assert_eq!(pair.end(side).cids_wanted(), wanted - number);
            let cid = Cid::new(&[side as u8, number as u8, 3, 4, 5, 6, 7, 8]).expect("it is short enough");
            pair.end(side).provide_cid(cid, [number as u8; 16]);
            given.push(cid);
        }
        assert_eq!(pair.end(side).cids_wanted(), 0);
        pair.run(Duration::from_secs(1));
        if let Some(retired) = pair.end(side).poll_retired_cid() {
            assert!(given.contains(&retired));
        }
    }
    assert!(pair.is_established());
    assert_eq!(pair.client.send_datagram(Datagram::from(vec![1; 500])), Ok(()));
    pair.run(DELAY * 3);
    assert_eq!(pair.server().poll_datagram().as_deref(), Some(&[1; 500][..]));
}

/// Discarding what streams carry is harmless when they carry nothing.
pub fn discarding_streams_is_harmless<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    assert_eq!(pair.client.discard_streams(), 0);
    pair.establish();
    for side in [Side::Client, Side::Server] {
        assert_eq!(pair.end(side).discard_streams(), 0);
    }
    pair.run(Duration::from_secs(1));
    assert!(pair.is_established());
}
