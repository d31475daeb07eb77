//! Streams 0 and 1: bytes in order, flow control, loss, and what happens when nobody reads.

use std::time::Duration;

use super::pair::{DELAY, Fate, Pair};
use super::{Harness, Side};
use crate::quic::{Connection, Datagram, State};

/// What one side may send on a stream that the other does not read, at the very most.
const MOST_UNREAD: usize = 64 * 1024;

/// A message of several windows.
const BIG: usize = 200 * 1024;

const BOTH_WAYS: [(Side, Side); 2] = [(Side::Client, Side::Server), (Side::Server, Side::Client)];

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// The stream that a side opens.
fn own_stream(side: Side) -> u64 {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

/// Everything that waits on `stream`; nothing may wait on the other.
fn read_all<C: Connection>(connection: &mut C, stream: u64) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 700]);
    while let Some((from, len)) = connection.read_stream(&mut buffer) {
        assert_eq!(from, stream);
        assert!((1..=buffer.len()).contains(&len), "{len} bytes");
        bytes.extend_from_slice(&buffer[..len]);
    }
    bytes
}

/// Carries bytes from one side to the other for `time`; what arrived.
fn carry<H: Harness>(
    pair: &mut Pair<H>,
    (from, to): (Side, Side),
    stream: u64,
    bytes: &[u8],
    time: Duration,
) -> Vec<u8> {
    let (mut written, mut arrived) = (0, Vec::new());
    let end = pair.now() + time;
    while pair.now() < end && arrived.len() < bytes.len() {
        written += pair.end(from).send_stream(stream, &bytes[written..]);
        pair.run(DELAY);
        arrived.extend(read_all(pair.end(to), stream));
    }
    assert_eq!(written, bytes.len(), "not all was taken in {time:?}");
    arrived
}

/// Either side opens its own stream, and both write on both.
pub fn streams_carry_bytes_both_ways<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for (opener, other) in BOTH_WAYS {
        let stream = own_stream(opener);
        assert_eq!(
            pair.end(other).send_stream(stream, b"early"),
            0,
            "nobody has opened it yet"
        );
        for (from, to) in [(opener, other), (other, opener), (opener, other)] {
            for text in [&b"first "[..], b"second ", b"third"] {
                assert_eq!(pair.end(from).send_stream(stream, text), text.len());
            }
            pair.run(DELAY * 3);
            assert_eq!(read_all(pair.end(to), stream), b"first second third");
        }
    }
}

/// Before the handshake is complete, after a close, and on streams that nobody uses, nothing is taken.
pub fn streams_take_nothing_where_they_cannot<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    assert_eq!(pair.client.send_stream(0, b"early"), 0);
    assert_eq!(pair.client.read_stream(&mut [0; 10]), None);
    pair.establish();
    for stream in [2, 3, 4, 5, u64::MAX] {
        assert_eq!(pair.client.send_stream(stream, b"elsewhere"), 0);
        assert_eq!(pair.server().send_stream(stream, b"elsewhere"), 0);
    }
    assert_eq!(pair.client.send_stream(0, b""), 0);
    assert_eq!(pair.client.send_stream(0, b"good"), 4);
    pair.run(DELAY * 3);
    assert_eq!(
        pair.server().read_stream(&mut []),
        None,
        "there is no room for any"
    );
    assert_eq!(read_all(pair.server(), 0), b"good");
    let now = pair.now();
    pair.client.close(0, b"", now);
    assert_eq!(pair.client.send_stream(0, b"late"), 0);
    pair.run(DELAY * 3);
    assert_eq!(pair.server().send_stream(0, b"late"), 0);
}

/// A peer that does not read is sent a window and no more, however often one tries; what was taken arrives once it reads.
pub fn unread_streams_hold_up_their_sender<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let bytes = pattern(BIG);
    for (from, to) in BOTH_WAYS {
        let stream = own_stream(from);
        // A reader that was quick so far is not trusted with more for it.
        assert_eq!(
            carry(&mut pair, (from, to), stream, &bytes, Duration::from_secs(20)),
            bytes
        );
        let mut taken = 0;
        for _ in 0..50 {
            taken += pair.end(from).send_stream(stream, &bytes[taken..]);
            pair.run(DELAY * 2);
        }
        assert!(
            (MOST_UNREAD / 2..=MOST_UNREAD).contains(&taken),
            "{taken} bytes were taken"
        );
        // DATAGRAMs are not behind it.
        assert_eq!(pair.end(from).send_datagram(Datagram::from(vec![7; 100])), Ok(()));
        pair.run(DELAY * 3);
        assert_eq!(pair.end(to).poll_datagram().as_deref(), Some(&[7; 100][..]));
        let mut arrived = Vec::new();
        for _ in 0..10 {
            arrived.extend(read_all(pair.end(to), stream));
            pair.run(DELAY * 3);
        }
        assert_eq!(arrived, bytes[..taken]);
        assert!(pair.end(from).send_stream(stream, b"again") > 0);
        pair.run(DELAY * 3);
        assert_eq!(read_all(pair.end(to), stream), b"again");
    }
}

/// A message of several windows arrives whole.
pub fn big_messages_arrive_whole<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let bytes = pattern(BIG);
    for (from, to) in BOTH_WAYS {
        for stream in [own_stream(from), own_stream(to)] {
            if stream != own_stream(from) {
                assert_eq!(pair.end(to).send_stream(stream, b"open"), 4);
                pair.run(DELAY * 3);
                assert_eq!(read_all(pair.end(from), stream), b"open");
            }
            let arrived = carry(&mut pair, (from, to), stream, &bytes, Duration::from_secs(20));
            assert!(arrived == bytes, "{} bytes arrived", arrived.len());
        }
    }
}

/// Loss, repetition and reordering on the way cost time and nothing else.
pub fn streams_survive_a_bad_wire<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    pair.judge = Box::new(|_, index| match index % 11 {
        3 => Fate::Drop,
        5 => Fate::Twice,
        7 => Fate::Late,
        _ => Fate::Deliver,
    });
    let bytes = pattern(BIG);
    for (from, to) in BOTH_WAYS {
        let stream = own_stream(from);
        let arrived = carry(&mut pair, (from, to), stream, &bytes, Duration::from_secs(60));
        assert!(arrived == bytes, "{} bytes arrived", arrived.len());
    }
    assert!(pair.is_established());
}

/// A lost last packet is sent again although nothing follows it.
pub fn lost_ends_of_streams_are_repeated<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for (from, to) in BOTH_WAYS {
        let mut left = 2;
        pair.judge = Box::new(move |side, _| {
            if side == from && left > 0 {
                left -= 1;
                return Fate::Drop;
            }
            Fate::Deliver
        });
        assert_eq!(pair.end(from).send_stream(own_stream(from), b"alone"), 5);
        pair.run(Duration::from_secs(5));
        assert_eq!(read_all(pair.end(to), own_stream(from)), b"alone");
    }
}

/// A connection that ends in the middle of a message ends like any other.
pub fn closing_mid_stream_ends_it<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let bytes = pattern(BIG);
    assert!(pair.client.send_stream(0, &bytes) > 0);
    pair.run(DELAY);
    let now = pair.now();
    pair.client.close(7, b"enough", now);
    let over = |pair: &Pair<H>| {
        let server = pair.server.as_ref().map(Connection::state);
        pair.client.state() == State::Closed && server == Some(State::Closed)
    };
    assert!(pair.run_until(Duration::from_secs(30), over));
    let arrived = read_all(pair.server(), 0);
    assert!(bytes.starts_with(&arrived));
    assert_eq!(pair.server().send_stream(0, b"late"), 0);
}

/// Who does not care for streams drops them and holds nobody up; who cares later hears what comes then.
pub fn discarded_streams_hold_nobody_up<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let bytes = pattern(BIG);
    for (from, to) in BOTH_WAYS {
        let stream = own_stream(from);
        let (mut written, mut dropped) = (0, 0);
        for _ in 0..2_000 {
            written += pair.end(from).send_stream(stream, &bytes[written..]);
            pair.run(DELAY);
            dropped += pair.end(to).discard_streams();
        }
        assert_eq!((written, dropped), (BIG, BIG));
        assert_eq!(pair.end(from).send_stream(stream, b"heard"), 5);
        pair.run(DELAY * 3);
        assert_eq!(read_all(pair.end(to), stream), b"heard");
        assert_eq!(pair.end(to).discard_streams(), 0);
        assert_eq!(pair.end(to).take_discarded(), 0);
    }
}
