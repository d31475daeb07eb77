//! One end between arbitrary segments, arbitrary calls and time: nothing panics, buffers keep to their limits, timers lie in
//! the future, what is sent is well-formed and fits, and a reset leaves nothing.

use std::time::Duration;

use proptest::prelude::*;
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::harness::flow;
use crate::routing::packet::{self, Kind};
use crate::tcp::{Budget, Config, Connection, Segment};
use crate::test_origin::origin;

const BUFFER: usize = 32 * 1024;
const ISN: u32 = 0xffff_ff00;

/// Numbers are distances from what the end has said it expects, or from what it has sent.
#[derive(Clone, Debug)]
enum Step {
    Segment {
        control: u8,
        sequence: i32,
        acknowledgement: Option<i32>,
        window: u16,
        blocks: Vec<(i32, i32)>,
        timestamp: Option<(i32, u32)>,
        len: usize,
    },
    Fill(usize),
    Drain(usize),
    Finish,
    Send {
        mtu: usize,
        most: usize,
    },
    Pass(u64),
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(0), 3 => -3000..5000, 1 => -200_000..200_000, 1 => any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let blocks = proptest::collection::vec((near(), near()), 0..4);
    let segment = (
        0_u8..5,
        near(),
        proptest::option::weighted(0.95, near()),
        any::<u16>(),
        blocks,
        proptest::option::of((near(), any::<u32>())),
        0_usize..1400,
    );
    let segment = segment.prop_map(
        |(control, sequence, acknowledgement, window, blocks, timestamp, len)| Step::Segment {
            control,
            sequence,
            acknowledgement,
            window,
            blocks,
            timestamp,
            len,
        },
    );
    prop_oneof![
        10 => segment,
        3 => (0_usize..20_000).prop_map(Step::Fill),
        2 => (0_usize..20_000).prop_map(Step::Drain),
        1 => Just(Step::Finish),
        5 => (0_usize..1500, 0_usize..20).prop_map(|(mtu, most)| Step::Send { mtu, most }),
        3 => (0_u64..400).prop_map(Step::Pass),
        1 => (0_u64..100_000).prop_map(Step::Pass),
    ]
}

/// What the peer has seen of the end.
#[derive(Default)]
struct Seen {
    sent: u32,
    expected: u32,
}

impl Seen {
    fn note(&mut self, bytes: &[u8], mtu: usize) {
        assert!(bytes.len() <= mtu.max(576), "{}", bytes.len());
        let parsed = packet::parse(bytes).unwrap();
        assert!(packet::verify_checksums(&parsed, bytes));
        let segment = Segment::parse(&parsed, bytes).unwrap();
        let len = u32::try_from(segment.len()).unwrap();
        self.sent = segment.sequence().wrapping_add(len);
        if let Some(acknowledgement) = segment.acknowledgement() {
            self.expected = acknowledgement;
        }
    }

    fn segment(&self, step: &Step) -> Option<Vec<u8>> {
        let Step::Segment {
            control,
            sequence,
            acknowledgement,
            window,
            blocks,
            timestamp,
            len,
        } = step
        else {
            return None;
        };
        let controls = [
            TcpControl::None,
            TcpControl::Psh,
            TcpControl::Fin,
            TcpControl::Syn,
            TcpControl::Rst,
        ];
        let control = controls[usize::from(*control)];
        let at = |base: u32, distance: i32| base.wrapping_add(distance as u32);
        let mut sack_ranges = [None; 3];
        for (place, (start, end)) in sack_ranges.iter_mut().zip(blocks) {
            *place = Some((at(self.sent, *start), at(self.sent, *end)));
        }
        let flow = flow(false).reversed();
        let number = |number: u32| TcpSeqNumber(number as i32);
        let syn = control == TcpControl::Syn;
        let repr = TcpRepr {
            src_port: flow.source_port,
            dst_port: flow.destination_port,
            control,
            seq_number: number(at(self.expected, *sequence)),
            ack_number: acknowledgement.map(|distance| number(at(self.sent, distance))),
            window_len: *window,
            window_scale: syn.then_some((window % 16) as u8),
            max_seg_size: syn.then_some(*window),
            sack_permitted: syn,
            sack_ranges: if syn { [None; 3] } else { sack_ranges },
            timestamp: timestamp.map(|(value, echo)| TcpTimestampRepr::new(value as u32, echo)),
            payload: &[],
        };
        let mut bytes = Vec::new();
        assert!(packet::tcp(&flow, &repr, (&vec![7; *len], &[]), &mut bytes));
        Some(bytes)
    }
}

fn open(calls: bool, sack: bool, budget: &Budget) -> (Connection, Seen) {
    let config = Config {
        send_buffer: BUFFER,
        receive_buffer: BUFFER,
        ..Config::default()
    };
    let now = origin();
    let mut seen = Seen::default();
    let syn = Step::Segment {
        control: 3,
        sequence: 0,
        acknowledgement: calls.then_some(0),
        window: 60_000,
        blocks: Vec::new(),
        timestamp: sack.then_some((1, 0)),
        len: 0,
    };
    let mut connection = calls.then(|| Connection::connect(flow(false), config, ISN, budget, now));
    if let Some(connection) = &mut connection {
        seen.note(&connection.send(1280, now).unwrap(), 1280);
    }
    let bytes = seen.segment(&syn).unwrap();
    let parsed = packet::parse(&bytes).unwrap();
    let segment = Segment::parse(&parsed, &bytes).unwrap();
    let connection = match connection {
        Some(mut connection) => {
            connection.receive(&segment, now);
            connection
        }
        None => Connection::accept(&segment, config, ISN, budget, now).unwrap(),
    };
    (connection, seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_does_harm(
        (calls, sack) in (any::<bool>(), any::<bool>()),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let budget = Budget::new(1 << 20);
        let (mut connection, mut seen) = open(calls, sack, &budget);
        let mut now = origin();
        for step in steps {
            match &step {
                Step::Segment { .. } => {
                    let bytes = seen.segment(&step).unwrap();
                    let parsed = packet::parse(&bytes).unwrap();
                    assert!(matches!(parsed.kind, Kind::Tcp(_)));
                    if let Some(segment) = Segment::parse(&parsed, &bytes) {
                        connection.receive(&segment, now);
                    }
                }
                Step::Fill(most) => {
                    let most = *most;
                    connection.fill(&mut |room| room.len().min(most), now);
                }
                Step::Drain(most) => {
                    let most = *most;
                    connection.drain(&mut |bytes| bytes.len().min(most), now);
                }
                Step::Finish => connection.finish(),
                Step::Send { mtu, most } => {
                    for _ in 0..*most {
                        let Some(bytes) = connection.send(*mtu, now) else { break };
                        seen.note(&bytes, *mtu);
                    }
                }
                Step::Pass(millis) => now += Duration::from_millis(*millis),
            }
            connection.handle_timeout(now);
            // A ring's size is a power of two.
            prop_assert!(connection.memory() <= 4 * BUFFER, "{}", connection.memory());
            prop_assert_eq!(connection.memory(), budget.used());
        }
        for _ in 0..10_000 {
            let Some(bytes) = connection.send(1280, now) else { break };
            seen.note(&bytes, 1280);
        }
        prop_assert!(connection.send(1280, now).is_none(), "it never comes to rest");
        prop_assert!(connection.poll_timeout().is_none_or(|at| at > now));
        connection.abort();
        let _ = connection.send(1280, now);
        prop_assert!(connection.send(1280, now).is_none() && connection.is_over());
        prop_assert_eq!(budget.used(), 0);
        prop_assert_eq!(connection.poll_timeout(), None);
    }
}
