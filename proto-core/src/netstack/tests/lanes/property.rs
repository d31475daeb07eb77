//! Whatever agents with equal addresses and their backends do: what comes out of a lane is about what went into it.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::backend::Refusal;
use crate::rng::Rng;

const LANES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Udp { lane: usize, port: u16 },
    Syn { lane: usize, port: u16 },
    Ping { lane: usize },
    Fragment { lane: usize, last: bool },
    Opened(usize),
    Refused(usize),
    Answer { flow: usize, len: usize },
    Close { lane: usize },
    Poll { lane: usize },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let lane = 0..LANES;
    prop_oneof![
        (lane.clone(), 1..3_u16).prop_map(|(lane, port)| Step::Udp { lane, port }),
        (lane.clone(), 1..3_u16).prop_map(|(lane, port)| Step::Syn { lane, port }),
        lane.clone().prop_map(|lane| Step::Ping { lane }),
        (lane.clone(), any::<bool>()).prop_map(|(lane, last)| Step::Fragment { lane, last }),
        (0..8_usize).prop_map(Step::Opened),
        (0..8_usize).prop_map(Step::Refused),
        (0..8_usize, prop_oneof![1..100_usize, 1000..4000_usize])
            .prop_map(|(flow, len)| Step::Answer { flow, len }),
        lane.clone().prop_map(|lane| Step::Close { lane }),
        lane.prop_map(|lane| Step::Poll { lane }),
        (0..20_000_u64).prop_map(Step::Pass),
    ]
}

struct Bench {
    stack: Netstack,
    now: Instant,
    lanes: [LaneId; LANES],
    /// The mark of what goes into each lane; a lane that takes the place of another has another.
    marks: [u8; LANES],
    next_mark: u8,
    flows: Vec<(FlowId, Transport, u8)>,
    /// Who puts together what the lanes say, by mark.
    hosts: HashMap<u8, Reassembler<()>>,
}

impl Bench {
    fn new() -> Self {
        let now = origin();
        let config = NetstackConfig {
            services: vec![offer(None)],
            limits: NetstackLimits::default(),
        };
        let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
        // One of a relay link, the others of agents.
        let lanes = std::array::from_fn(|lane| open(&mut stack, lane));
        Self {
            stack,
            now,
            lanes,
            marks: std::array::from_fn(|lane| lane as u8 + 1),
            next_mark: LANES as u8 + 1,
            flows: Vec::new(),
            hosts: HashMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Udp { lane, port } => {
                let packet = udp(&format!("10.9.0.1:{port}"), VIRTUAL, &[self.marks[lane]; 9]);
                self.give(lane, packet);
            }
            Step::Syn { lane, port } => {
                let number = u32::from(self.marks[lane]) << 8;
                self.give(lane, people::syn_at(port, number));
            }
            Step::Ping { lane } => {
                let mut request = echo_request([10, 9, 0, 1], [10, 100, 0, 1]);
                // The identifier.
                let mark = self.marks[lane];
                let checksum = u16::from_be_bytes([request[22], request[23]]);
                request[25] -= mark;
                request[22..24].copy_from_slice(&(checksum + u16::from(mark)).to_be_bytes());
                self.give(lane, request.into());
            }
            Step::Fragment { lane, last } => {
                let whole = udp("10.9.0.1:1", VIRTUAL, &[self.marks[lane]; 1500]);
                let mut pieces: Vec<Datagram> = Vec::new();
                packet::split(&whole, 1280, 3, &mut |piece| pieces.push(piece.into()));
                self.give(lane, pieces.swap_remove(usize::from(last)));
            }
            Step::Opened(flow) => {
                if let Some((flow, ..)) = self.flows.get(flow).copied() {
                    self.stack.handle_backend(FromBackend::Opened { flow }, now);
                }
            }
            Step::Refused(flow) => {
                if let Some((flow, ..)) = self.flows.get(flow).copied() {
                    let reason = Refusal::TimedOut;
                    self.stack
                        .handle_backend(FromBackend::Refused { flow, reason }, now);
                }
            }
            Step::Answer { flow, len } => self.answer(flow, len),
            Step::Close { lane } => {
                self.stack.close_lane(self.lanes[lane], now);
                assert!(self.stack.poll_packet(self.lanes[lane], now).is_none());
                self.lanes[lane] = open(&mut self.stack, lane);
                (self.marks[lane], self.next_mark) = (self.next_mark, self.next_mark + 1);
            }
            Step::Poll { lane } => self.poll(lane),
            Step::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.stack.handle_timeout(self.now);
            }
        }
        self.requests();
        let flows: usize = self.lanes.iter().map(|lane| self.stack.lane_flows(*lane)).sum();
        assert_eq!(flows, self.stack.flows());
    }

    fn give(&mut self, lane: usize, packet: Datagram) {
        self.stack.handle_packet(self.lanes[lane], packet, self.now);
        let mark = self.marks[lane];
        while let Some(request) = self.stack.poll_backend() {
            match request {
                ToBackend::Open { flow, transport, .. } => self.flows.insert(0, (flow, transport, mark)),
                // What reaches a backend came from the lane of its flow.
                ToBackend::Datagram { flow, payload } => {
                    assert!(payload.iter().all(|byte| *byte == mark));
                    assert!(
                        self.flows
                            .iter()
                            .any(|(open, _, of)| *open == flow && *of == mark)
                    );
                }
                ToBackend::Close { .. }
                | ToBackend::Reset { .. }
                | ToBackend::Readable { .. }
                | ToBackend::Resume { .. }
                | ToBackend::HalfClose { .. }
                | ToBackend::Ask(_) => {}
            }
        }
    }

    fn answer(&mut self, flow: usize, len: usize) {
        let Some((flow, transport, mark)) = self.flows.get(flow).copied() else {
            return;
        };
        match transport {
            Transport::Udp => {
                let payload = &vec![mark; len][..];
                self.stack
                    .handle_backend(FromBackend::Datagram { flow, payload }, self.now);
            }
            Transport::Tcp => {
                self.stack.fill_stream(flow, self.now, &mut |room| {
                    let len = len.min(room.len());
                    room[..len].fill(mark);
                    len
                });
            }
        }
    }

    fn requests(&mut self) {
        while let Some(request) = self.stack.poll_backend() {
            assert!(!matches!(request, ToBackend::Open { .. }), "{request:?}");
        }
    }

    fn poll(&mut self, lane: usize) {
        while let Some(ready) = self.stack.poll_ready() {
            assert!(self.lanes.contains(&ready), "a lane that is closed is not ready");
        }
        let mark = self.marks[lane];
        let host = self
            .hosts
            .entry(mark)
            .or_insert_with(|| Reassembler::new(ReassemblyLimits::default(), &mut Rng::new(&Seed([9; 32]))));
        while let Some(packet) = self.stack.poll_packet(self.lanes[lane], self.now) {
            let parsed = packet::parse(&packet).unwrap();
            if parsed.fragment == Fragment::No {
                inspect(&packet, mark);
            } else if let Some(whole) = host.take((), &packet, &parsed, self.now) {
                inspect(&whole, mark);
            }
        }
    }
}

fn open(stack: &mut Netstack, lane: usize) -> LaneId {
    let agent = [None, Some(ALICE), Some(BOB), Some(BOB)][lane];
    stack.open_lane(SERVICE, agent, 1280)
}

/// A packet from a lane bears the mark of the lane.
fn inspect(bytes: &[u8], mark: u8) {
    let parsed = packet::parse(bytes).unwrap();
    match parsed.kind {
        Kind::Udp => assert!(bytes[parsed.payload].iter().all(|byte| *byte == mark)),
        Kind::EchoReply => assert_eq!(bytes[25], 0x34 - mark),
        Kind::Tcp(flags) => {
            let acknowledged = u32::from_be_bytes(bytes[28..32].try_into().unwrap());
            assert!(flags.ack);
            assert_eq!(acknowledged, (u32::from(mark) << 8) + 1);
            assert!(bytes[parsed.payload].iter().all(|byte| *byte == mark));
        }
        Kind::IcmpError => {
            // Quoted is a SYN, a ping or the beginning of a datagram; an empty datagram says nothing.
            let quoted = &bytes[28..];
            if quoted[9] == packet::TCP {
                assert_eq!(quoted[24..28], (u32::from(mark) << 8).to_be_bytes());
            } else if let Some(byte) = quoted.get(28) {
                assert_eq!(*byte, mark);
            }
        }
        Kind::EchoRequest | Kind::Other => panic!("{:?}", parsed.kind),
    }
}

proptest! {
    #[test]
    fn answers_leave_by_the_lane_they_belong_to(steps in vec(step(), 0..150)) {
        let mut bench = Bench::new();
        for step in steps.into_iter().take(150) {
            // Marks are told apart by the identifiers of pings.
            if bench.next_mark < 50 {
                bench.take(step);
            }
        }
        (0..LANES).for_each(|lane| bench.poll(lane));
        for lane in bench.lanes {
            bench.stack.close_lane(lane, bench.now);
        }
        while bench.stack.poll_backend().is_some() {}
        prop_assert_eq!(bench.stack.flows(), 0);
        prop_assert_eq!(bench.stack.poll_timeout(), None);
        prop_assert!(!bench.stack.has_output());
        prop_assert_eq!(bench.stack.fragments.waiting(), 0);
        prop_assert!(bench.stack.tcp.is_empty() && bench.stack.timers.is_empty());
    }
}
