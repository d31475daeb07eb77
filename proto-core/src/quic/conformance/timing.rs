//! Time: timers, silence, keepalives, losses.

use std::time::Duration;

use super::pair::{DELAY, Fate, Pair};
use super::{Harness, IDLE_TIMEOUT, Side};
use crate::quic::{CloseReason, Connection, Datagram, State};
use crate::sim::Clock;

/// Timeouts handled early or twice change nothing; late ones do what was due.
pub fn timeouts_may_come_early_late_and_twice<H: Harness>(harness: &mut H) {
    let mut pair = Pair::new(harness);
    for _ in 0..20 {
        let now = pair.now();
        pair.client.handle_timeout(now);
        pair.client.handle_timeout(now);
        if pair.server.is_some() {
            pair.server().handle_timeout(now);
            pair.server().handle_timeout(now);
        }
        pair.run(DELAY / 2);
    }
    assert!(pair.is_established());
    // Three seconds late: a packet that was never answered is by then overdue, not forgotten.
    pair.judge = Box::new(|_, _| Fate::Drop);
    pair.client.ping();
    pair.settle();
    let sent = pair.sent(Side::Client);
    let late = pair.now() + Duration::from_secs(3);
    pair.clock.advance_to(late);
    pair.settle();
    assert!(pair.sent(Side::Client) > sent, "a probe");
    pair.judge = Box::new(|_, _| Fate::Deliver);
    pair.run(Duration::from_secs(10));
    assert!(pair.is_established());
}

/// Whoever hears nothing for the idle timeout is done, without a packet.
pub fn silence_ends_the_connection<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    pair.judge = Box::new(|_, _| Fate::Drop);
    pair.run(IDLE_TIMEOUT - Duration::from_secs(2));
    assert!(pair.is_established(), "not too early");
    let sent = [pair.sent(Side::Client), pair.sent(Side::Server)];
    pair.run(Duration::from_secs(10));
    for side in [Side::Client, Side::Server] {
        assert_eq!(pair.end(side).state(), State::Closed);
        assert_eq!(pair.end(side).close_reason(), Some(CloseReason::TimedOut));
        assert_eq!(pair.end(side).poll_timeout(), None);
    }
    assert_eq!([pair.sent(Side::Client), pair.sent(Side::Server)], sent);
}

/// After a sleep of hours the connection is simply over.
pub fn hours_may_pass_in_one_step<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    assert_eq!(pair.client.send_datagram(Datagram::from(vec![1; 100])), Ok(()));
    let later = pair.now() + Duration::from_secs(5 * 3600);
    pair.clock.advance_to(later);
    pair.settle();
    pair.run(IDLE_TIMEOUT + Duration::from_secs(10));
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.server().state(), State::Closed);
}

/// A ping is answered with an acknowledgement.
pub fn ping_is_acknowledged<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for side in [Side::Client, Side::Server] {
        let before = pair.end(side).stats();
        pair.end(side).ping();
        pair.run(DELAY * 2 + Duration::from_millis(30));
        let after = pair.end(side).stats();
        assert_eq!(after.sent, before.sent + 1, "one packet");
        assert!(after.received > before.received, "an answer");
        assert_eq!(after.lost, before.lost);
    }
}

/// Pings more frequent than the idle timeout keep a connection for as long as they go on.
pub fn ping_keeps_the_connection<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    for _ in 0..12 {
        pair.client.ping();
        pair.run(IDLE_TIMEOUT / 2);
    }
    assert!(pair.is_established());
    pair.run(IDLE_TIMEOUT + Duration::from_secs(5));
    assert!(!pair.is_established());
}

/// A connection with nothing to say says nothing, and wants no waking but for the idle timeout.
pub fn idle_connections_are_quiet<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    pair.run(Duration::from_secs(4));
    let sent = pair.log.len();
    let now = pair.now();
    let mut buf = [0; 1500];
    for side in [Side::Client, Side::Server] {
        for _ in 0..5 {
            assert_eq!(pair.end(side).poll_packet(&mut buf, now), None);
        }
        let wake = pair.end(side).poll_timeout().expect("the idle timeout");
        assert!(
            wake > now + IDLE_TIMEOUT / 2,
            "wants to be woken in {:?}",
            wake - now
        );
    }
    pair.run(IDLE_TIMEOUT / 2);
    assert_eq!(pair.log.len(), sent);
}

/// Packets that never arrive are declared lost once later ones are acknowledged; DATAGRAMs are not repeated.
pub fn losses_are_counted<H: Harness>(harness: &mut H) {
    let mut pair = Pair::established(harness);
    let lost = pair.client.stats().lost;
    let first = pair.sent(Side::Client);
    pair.judge = Box::new(move |side, index| {
        let gone = side == Side::Client && (first..first + 3).contains(&index);
        if gone { Fate::Drop } else { Fate::Deliver }
    });
    for number in 0..10 {
        assert_eq!(
            pair.client.send_datagram(Datagram::from(vec![number; 1000])),
            Ok(())
        );
    }
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.client.stats().lost, lost + 3);
    let arrived: Vec<u8> = std::iter::from_fn(|| pair.server().poll_datagram())
        .map(|datagram| datagram[0])
        .collect();
    assert_eq!(arrived, [3, 4, 5, 6, 7, 8, 9]);
    assert!(pair.is_established());
}
