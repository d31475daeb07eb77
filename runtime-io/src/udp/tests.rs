//! What the endpoint does about each answer of the kernel.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use proto_core::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Run, Transmit};
use rustix::io::Errno;

use super::{Drained, UdpConfig, UdpEndpoint};
use crate::stats::{UdpDrop, UdpStats};

/// Sends the given batches; forwards whatever comes in to `forward_to`, in runs of two datagrams.
struct Script {
    batches: Vec<(SocketAddr, usize, Option<usize>)>,
    forward_to: Option<SocketAddr>,
}

impl Machine for Script {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, _: Instant) -> Forward {
        let mut forward = Forward::NONE;
        let Some(remote) = self.forward_to else {
            return forward;
        };
        let (len, step) = (received.payload.len(), 2 * received.segment_size());
        for start in (0..len).step_by(step) {
            let path = FourTuple {
                local: received.path.local,
                remote,
            };
            assert!(forward.push(Run {
                start,
                end: len.min(start + step),
                path
            }));
        }
        forward
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        if self.batches.is_empty() {
            return None;
        }
        let (remote, len, segment) = self.batches.remove(0);
        for (at, byte) in buf.iter_mut().take(len).enumerate() {
            *byte = (at / segment.unwrap_or(len).max(1)) as u8;
        }
        let path = FourTuple {
            local: SocketAddr::from(([0, 0, 0, 0], 0)),
            remote,
        };
        Some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len,
            segment_size: segment.and_then(NonZeroUsize::new),
        })
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    fn shut_down(&mut self, _: Instant) {}

    fn is_drained(&self) -> bool {
        true
    }
}

struct Bench {
    endpoint: UdpEndpoint,
    peer: UdpSocket,
    stats: UdpStats,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let endpoint = UdpEndpoint::bind(&UdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self {
            endpoint,
            peer,
            stats: UdpStats::default(),
            now: Instant::now(),
        }
    }

    fn peer(&self) -> SocketAddr {
        self.peer.local_addr().unwrap()
    }

    fn answer(&mut self, answers: &[Option<Errno>]) {
        self.endpoint.wire.script = answers.iter().copied().collect();
    }

    fn transmit(&mut self, batches: &[(SocketAddr, usize, Option<usize>)]) -> Drained {
        let mut machine = Script {
            batches: batches.to_vec(),
            forward_to: None,
        };
        self.endpoint
            .transmit(&mut machine, 10, &mut self.stats, self.now)
            .unwrap()
            .0
    }

    /// The first byte of each of the next datagrams.
    fn received(&self, count: usize) -> Vec<u8> {
        let mut bytes = [0; 2_000];
        (0..count)
            .map(|_| self.peer.recv(&mut bytes).map(|_| bytes[0]).unwrap())
            .collect()
    }
}

#[test]
fn a_blocked_batch_is_kept_and_sent_later() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    bench.answer(&[Some(Errno::AGAIN)]);
    assert_eq!(
        bench.transmit(&[(peer, 2_500, Some(1_000)), (peer, 9, None)]),
        Drained::Blocked
    );
    assert!(bench.endpoint.is_blocked());
    bench.endpoint.flush(&mut bench.stats, bench.now).unwrap();
    assert!(!bench.endpoint.is_blocked());
    assert_eq!(bench.received(3), [0, 1, 2]);
    assert_eq!((bench.stats.blocked, bench.stats.sent_datagrams), (1, 3));
    assert!(bench.stats.drops.is_empty());
}

#[test]
fn a_refused_segmentation_is_split_and_tried_again_later() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    bench.answer(&[Some(Errno::IO), None, Some(Errno::AGAIN)]);
    assert_eq!(bench.transmit(&[(peer, 2_500, Some(1_000))]), Drained::Blocked);
    bench.endpoint.flush(&mut bench.stats, bench.now).unwrap();
    assert_eq!(bench.received(3), [0, 1, 2]);
    assert_eq!(
        (bench.stats.sent_batches, bench.stats.segmentation_refused),
        (3, 1)
    );
    // Still off…
    bench.transmit(&[(peer, 2_000, Some(1_000))]);
    assert_eq!(bench.stats.sent_batches, 5);
    // … and on again.
    bench.now += Duration::from_secs(61);
    bench.transmit(&[(peer, 2_000, Some(1_000))]);
    assert_eq!((bench.stats.sent_batches, bench.stats.sent_datagrams), (6, 7));
}

#[test]
fn an_address_the_kernel_rejects_does_not_end_segmentation() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    bench.answer(&[Some(Errno::INVAL), Some(Errno::INVAL)]);
    bench.transmit(&[(peer, 2_000, Some(1_000))]);
    assert_eq!(bench.stats.dropped(UdpDrop::Other), 1);
    let before = bench.stats.sent_batches;
    bench.transmit(&[(peer, 3_000, Some(1_000))]);
    assert_eq!(bench.stats.sent_batches, before + 1, "in one call");
}

#[test]
fn errors_cost_the_datagrams_at_hand_and_nothing_else() {
    let cases = [
        (Errno::CONNREFUSED, UdpDrop::Refused),
        (Errno::NETUNREACH, UdpDrop::Unreachable),
        (Errno::HOSTUNREACH, UdpDrop::Unreachable),
        (Errno::PERM, UdpDrop::Denied),
        (Errno::MSGSIZE, UdpDrop::TooLarge),
        (Errno::NOBUFS, UdpDrop::Other),
    ];
    for (errno, reason) in cases {
        let mut bench = Bench::new();
        let peer = bench.peer();
        bench.answer(&[Some(errno)]);
        assert_eq!(
            bench.transmit(&[(peer, 2_500, Some(1_000)), (peer, 9, None)]),
            Drained::Empty
        );
        assert_eq!(
            (bench.stats.dropped(reason), bench.stats.sent_datagrams),
            (3, 1),
            "{errno}"
        );
    }
}

#[test]
fn only_the_loss_of_the_socket_is_an_error() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    bench.answer(&[Some(Errno::BADF)]);
    let mut machine = Script {
        batches: vec![(peer, 9, None)],
        forward_to: None,
    };
    let result = bench
        .endpoint
        .transmit(&mut machine, 10, &mut bench.stats, bench.now);
    assert_eq!(
        result.unwrap_err().raw_os_error(),
        Some(Errno::BADF.raw_os_error())
    );
}

#[test]
fn unusable_destinations_and_shapes_never_reach_the_kernel() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let bad = [
        "127.0.0.1:0",
        "0.0.0.0:9",
        "224.0.0.1:9",
        "255.255.255.255:9",
        "[::1]:9",
        "[::]:9",
        "[ff02::1]:9",
    ];
    for address in bad {
        bench.transmit(&[(address.parse().unwrap(), 30, Some(10))]);
    }
    assert_eq!(bench.stats.dropped(UdpDrop::Destination), 3 * bad.len() as u64);
    assert_eq!(
        bench.transmit(&[(peer, 0, None), (peer, 70_000, None)]),
        Drained::Empty
    );
    assert_eq!(
        (bench.stats.dropped(UdpDrop::Shape), bench.stats.sent_batches),
        (2, 0)
    );
}

#[test]
fn more_segments_than_one_call_takes_are_sent_in_several() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    bench.transmit(&[(peer, 200 * 10, Some(10))]);
    assert_eq!((bench.stats.sent_datagrams, bench.stats.sent_batches), (200, 4));
    assert_eq!(bench.received(200), (0..200).collect::<Vec<u8>>());
}

#[test]
fn a_blocked_forward_waits_in_the_receive_buffer() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let to = bench.endpoint.local_addr();
    bench.peer.send_to(b"first", to).unwrap();
    bench.peer.send_to(b"second", to).unwrap();
    let mut machine = Script {
        batches: Vec::new(),
        forward_to: Some(peer),
    };
    bench.endpoint.hint_readable();
    bench.answer(&[Some(Errno::AGAIN), Some(Errno::AGAIN)]);
    bench
        .endpoint
        .receive(&mut machine, 64, 512, &mut bench.stats, bench.now)
        .unwrap();
    assert!(bench.endpoint.is_blocked());
    assert_eq!(
        bench.stats.received_datagrams, 1,
        "the second waits for the first"
    );
    assert!(!bench.endpoint.wants_turn(), "no spinning while blocked");
    bench.endpoint.flush(&mut bench.stats, bench.now).unwrap();
    assert!(bench.endpoint.is_blocked());
    bench.endpoint.flush(&mut bench.stats, bench.now).unwrap();
    assert!(bench.endpoint.wants_turn());
    bench
        .endpoint
        .receive(&mut machine, 64, 512, &mut bench.stats, bench.now)
        .unwrap();
    assert_eq!(bench.received(2), b"fs");
    assert_eq!((bench.stats.forwarded_datagrams, bench.stats.blocked), (2, 2));
}
