//! Handshakes over wires good and bad.

use std::time::Duration;

use super::pair::{DELAY, Fate, Pair, address, client_cid, long_header_ids};
use super::{ALPN, Harness, IDLE_TIMEOUT, SERVER_NAME, Setup, Side};
use crate::machine::FourTuple;
use crate::quic::{Cid, CloseReason, Connection, Provider, RetryIds, State, WriteRetry};

/// The TLS alert `no_application_protocol` as a transport error code.
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// Over a good wire both ends are established within two round trips.
pub fn handshake_completes<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    assert_eq!(pair.client.state(), State::Handshaking);
    assert_eq!(pair.client.alpn(), b"");
    assert!(pair.run_until(DELAY * 4, Pair::is_established));
    pair.run(Duration::from_secs(1));
    for side in [Side::Client, Side::Server] {
        let end = pair.end(side);
        assert_eq!(end.state(), State::Established);
        assert_eq!(end.alpn(), ALPN);
        assert_eq!(end.close_reason(), None);
        assert_eq!(end.stats().lost, 0);
        assert!(end.stats().received > 0 && end.stats().sent > 0);
        assert!(end.stats().rtt >= DELAY, "{:?}", end.stats().rtt);
    }
}

/// Whichever of the first packets of either side is lost, the handshake completes.
pub fn handshake_survives_the_loss_of_any_packet<H: Harness>(harness: &mut H) {
    for victim in [Side::Client, Side::Server] {
        for lost in 0..6 {
            let mut pair = Pair::new(harness);
            pair.judge = Box::new(move |side, index| {
                if (side, index) == (victim, lost) {
                    Fate::Drop
                } else {
                    Fate::Deliver
                }
            });
            pair.establish();
        }
    }
}

/// Duplicates change nothing.
pub fn handshake_survives_duplicates<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    pair.judge = Box::new(|_, _| Fate::Twice);
    pair.establish();
}

/// Whichever of the first packets is overtaken by later ones, the handshake completes.
pub fn handshake_survives_reordering<H: Harness>(harness: &mut H) {
    for late in 0..5 {
        let mut pair = Pair::new(harness);
        pair.judge = Box::new(move |_, index| if index == late { Fate::Late } else { Fate::Deliver });
        pair.establish();
    }
}

/// Without a common application protocol both ends close, and say why.
pub fn handshake_without_a_common_protocol_closes_both<H: Harness>(harness: &mut H) {
    let client = Setup {
        alpn: vec![b"unknown".to_vec()],
        ..Setup::new(Side::Client)
    };
    let mut pair = Pair::with(harness, &client, &Setup::new(Side::Server), Some(SERVER_NAME));
    pair.run(Duration::from_secs(20));
    let code = NO_APPLICATION_PROTOCOL;
    assert_eq!(
        pair.server().close_reason(),
        Some(CloseReason::Local {
            application: false,
            code
        })
    );
    let Some(CloseReason::Peer {
        application: false,
        code,
        ..
    }) = pair.client.close_reason()
    else {
        panic!("the client was not told: {:?}", pair.client.close_reason());
    };
    assert_eq!(code, NO_APPLICATION_PROTOCOL);
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.server().state(), State::Closed);
}

/// Where several protocols are common, the client's order decides.
pub fn handshake_prefers_the_clients_protocol<H: Harness>(harness: &mut H) {
    let offer = |side, alpn: [&[u8]; 2]| Setup {
        alpn: alpn.map(<[u8]>::to_vec).to_vec(),
        ..Setup::new(side)
    };
    let client = offer(Side::Client, [b"one", b"two"]);
    let server = offer(Side::Server, [b"two", b"one"]);
    let mut pair = Pair::with(harness, &client, &server, Some(SERVER_NAME));
    pair.establish();
    assert_eq!(pair.client.alpn(), b"one");
    assert_eq!(pair.server().alpn(), b"one");
}

/// The first packet is an Initial of version 1 with our source id, in a datagram of at least 1200 bytes.
pub fn handshake_starts_with_a_full_initial<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    pair.settle();
    let (side, first) = &pair.log[0];
    assert_eq!(*side, Side::Client);
    assert!(first.len() >= 1200, "{}", first.len());
    assert_eq!(first[0] & 0xf0, 0xc0, "long header, fixed bit, Initial");
    assert_eq!(first[1..5], [0, 0, 0, 1]);
    let (dcid, scid) = long_header_ids(first).expect("a long header");
    assert!(dcid.as_bytes().len() >= 8);
    assert_eq!(scid, client_cid());
}

/// A Retry is answered with its token and its id, and the handshake goes on from there.
pub fn handshake_follows_a_retry<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    pair.judge = Box::new(|side, index| {
        if (side, index) == (Side::Client, 0) {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    });
    pair.settle();
    let first = pair.log[0].1.clone();
    let (original, client_scid) = long_header_ids(&first).expect("a long header");
    let retry = Cid::new(b"retry-01").expect("it is short enough");
    let token = b"a token that the client brings back";
    let fields = WriteRetry {
        client_scid,
        original_dcid: original,
        retry_scid: retry,
        token,
        version: 1,
    };
    let mut buf = [0; 1500];
    let len = pair.acceptor.write_retry(fields, &mut buf).expect("it fits");
    // Everything that was sent before the Retry arrived stays unanswered.
    let (now, path) = (
        pair.now(),
        FourTuple {
            local: address(1),
            remote: address(2),
        },
    );
    pair.client.handle_packet(&mut buf[..len], path, now);
    pair.retry = Some(RetryIds { original, retry });
    let before = pair.log.len();
    pair.settle();
    let second = &pair.log.get(before).expect("the client tries again").1;
    let (dcid, scid) = long_header_ids(second).expect("a long header");
    assert_eq!((dcid, scid), (retry, client_cid()));
    assert!(
        second.windows(token.len()).any(|window| window == token),
        "the token is in the clear"
    );
    pair.establish();
}

/// A server that does not speak our version ends the attempt at once; a list that contains it is ignored.
pub fn handshake_ends_on_version_negotiation<H: Harness>(harness: &mut H) {
    for (offered, survives) in [(0x1a2a_3a4a_u32, false), (1, true)] {
        let mut pair = Pair::new(harness);
        pair.judge = Box::new(|_, _| Fate::Drop);
        pair.settle();
        let (dcid, scid) = long_header_ids(&pair.log[0].1).expect("a long header");
        let mut buf = [0; 100];
        let written = pair
            .acceptor
            .write_version_negotiation(&scid, &dcid, &mut buf)
            .expect("it fits");
        assert_eq!(buf[1..5], [0; 4], "version zero");
        assert!(pair.acceptor.is_supported(1) && !pair.acceptor.is_supported(0x1a2a_3a4a));
        assert_eq!(long_header_ids(&buf[..written]), Some((scid, dcid)));
        let ids = 7 + scid.as_bytes().len() + dcid.as_bytes().len();
        buf[ids..ids + 4].copy_from_slice(&offered.to_be_bytes());
        let (now, path) = (
            pair.now(),
            FourTuple {
                local: address(1),
                remote: address(2),
            },
        );
        pair.client.handle_packet(&mut buf[..ids + 4], path, now);
        pair.run(Duration::from_secs(5));
        assert_eq!(
            pair.client.state() == State::Handshaking,
            survives,
            "{:?}",
            pair.client.state()
        );
        assert_eq!(pair.client.close_reason().is_none(), survives);
    }
}

/// Without any answer a client tries a few times and gives up after the idle timeout.
pub fn handshake_gives_up_in_silence<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    pair.judge = Box::new(|_, _| Fate::Drop);
    pair.run(IDLE_TIMEOUT + Duration::from_secs(60));
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.client.close_reason(), Some(CloseReason::TimedOut));
    let sent = pair.sent(Side::Client);
    assert!((3..40).contains(&sent), "{sent} packets");
}

/// Bytes that are no packets, foreign packets and corrupted ones change nothing.
pub fn junk_changes_nothing<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let genuine = pair.log.clone();
    let received = [pair.client.stats().received, pair.server().stats().received];
    for side in [Side::Client, Side::Server] {
        let mut junk: Vec<Vec<u8>> = (0..64_u8)
            .map(|i| vec![i.wrapping_mul(37); usize::from(i) * 20])
            .collect();
        for (_, packet) in genuine.iter().filter(|(from, _)| *from == side) {
            let (mut flipped, mut cut) = (packet.clone(), packet.clone());
            let last = flipped.len() - 1;
            flipped[last] ^= 1;
            cut.pop();
            junk.extend([flipped, cut, packet[..1].to_vec()]);
        }
        for packet in junk {
            pair.post(side, packet, DELAY);
        }
        pair.run(DELAY * 4);
    }
    // Parts of coalesced packets may be genuine repetitions: they must not do anything either.
    assert!(pair.is_established());
    assert_eq!(pair.client.poll_datagram(), None);
    let after = [pair.client.stats().received, pair.server().stats().received];
    assert!(
        after[0] - received[0] <= 8 && after[1] - received[1] <= 8,
        "{received:?} {after:?}"
    );
}
