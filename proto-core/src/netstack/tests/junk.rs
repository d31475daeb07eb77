//! Arbitrary packets, reports and delays: nothing panics, every table keeps its bound, and everything is forgotten in the
//! end.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::backend::Refusal;
use crate::rng::{Rng, Seed};
use crate::test_origin::origin;

#[derive(Clone, Debug)]
enum Step {
    Junk(Vec<u8>),
    Udp {
        port: u16,
        payload: Vec<u8>,
    },
    Tcp {
        port: u16,
        flags: u8,
        sequence: u8,
        acknowledged: u8,
        payload: Vec<u8>,
        options: Vec<u8>,
    },
    /// A segment that continues what the stack said last.
    Continue {
        flags: u8,
        payload: Vec<u8>,
        window: u16,
        offset: i8,
    },
    /// A whole handshake.
    Call(u16),
    Report {
        kind: u8,
        flow: usize,
        bytes: usize,
    },
    Drain,
    Poll,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let payload = || vec(any::<u8>(), 0..40);
    let flags = prop_oneof![Just(2_u8), Just(16), Just(17), Just(4), Just(18), any::<u8>()];
    prop_oneof![
        vec(any::<u8>(), 0..100).prop_map(Step::Junk),
        (0..4_u16, payload()).prop_map(|(port, payload)| Step::Udp { port, payload }),
        (
            0..4_u16,
            flags.clone(),
            any::<[u8; 2]>(),
            payload(),
            vec(any::<u8>(), 0..40)
        )
            .prop_map(
                |(port, flags, [sequence, acknowledged], payload, options)| Step::Tcp {
                    port,
                    flags,
                    sequence,
                    acknowledged,
                    payload,
                    options
                }
            ),
        (flags, payload(), any::<u16>(), -2..3_i8).prop_map(|(flags, payload, window, offset)| {
            Step::Continue {
                flags,
                payload,
                window,
                offset,
            }
        }),
        (0..7_u8, 0..6_usize, 0..5000_usize).prop_map(|(kind, flow, bytes)| Step::Report {
            kind,
            flow,
            bytes
        }),
        Just(Step::Drain),
        (4..8_u16).prop_map(Step::Call),
        Just(Step::Poll),
        prop_oneof![0..50_u64, 0..400_000_u64].prop_map(Step::Pass),
    ]
}

/// A segment with right checksums, of which everything else is up to the caller.
struct Segment<'a> {
    port: u16,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    window: u16,
    options: &'a [u8],
    payload: &'a [u8],
}

impl Segment<'_> {
    fn packet(&self) -> Vec<u8> {
        let header = (20 + self.options.len()).div_ceil(4) * 4;
        let mut body = vec![0; header + self.payload.len()];
        body[..2].copy_from_slice(&self.port.to_be_bytes());
        body[2..4].copy_from_slice(&80_u16.to_be_bytes());
        body[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        body[8..12].copy_from_slice(&self.acknowledged.to_be_bytes());
        body[12] = (header as u8 / 4) << 4;
        body[13] = self.flags;
        body[14..16].copy_from_slice(&self.window.to_be_bytes());
        body[20..20 + self.options.len()].copy_from_slice(self.options);
        body[header..].copy_from_slice(self.payload);
        let mut packet = vec![
            0x45,
            0,
            0,
            0,
            0,
            0,
            0x40,
            0,
            64,
            packet::TCP,
            0,
            0,
            10,
            9,
            0,
            1,
            10,
            100,
            0,
            1,
        ];
        packet[2..4].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
        let checksum = naive(&packet, 0);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let pseudo = u32::from(packet::TCP) + body.len() as u32 + sum(&packet[12..20]);
        let checksum = naive(&body, pseudo);
        body[16..18].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&body);
        packet
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum()
}

fn naive(bytes: &[u8], before: u32) -> u16 {
    let mut total = before + sum(bytes);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

struct Junk {
    stack: Netstack,
    now: Instant,
    flows: Vec<FlowId>,
    /// Port, sequence and acknowledgement number of the last segment that the stack sent, and what it spans.
    last: (u16, u32, u32),
}

impl Junk {
    fn new() -> Self {
        let now = origin();
        let service = NetstackService {
            offer: Offer::single("192.0.2.9:7".parse().unwrap(), Protocol::Both),
            virtual_addresses: Vec::new(),
        };
        let limits = NetstackLimits {
            tcp_sessions: 6,
            tcp_pending_per_source: 4,
            udp_flows: 2,
            tunnel_queue: 5,
            backend_queue: 4,
            ..NetstackLimits::default()
        };
        let config = NetstackConfig {
            services: vec![service],
            limits,
        };
        let mut stack = Netstack::new(config, Rng::new(&Seed([9; 32])), now);
        assert_eq!(stack.open_lane(SERVICE, None, 600), LANE);
        Self {
            stack,
            now,
            flows: Vec::new(),
            last: (1, 0, 0),
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Junk(bytes) => self.stack.handle_packet(LANE, bytes.into(), now),
            Step::Udp { port, payload } => {
                let mut packet = Vec::new();
                let source = SocketAddr::new([10, 9, 0, 1].into(), port);
                assert!(packet::udp(
                    source,
                    "10.100.0.1:53".parse().unwrap(),
                    &payload,
                    &mut packet
                ));
                self.stack.handle_packet(LANE, packet.into(), now);
            }
            Step::Tcp {
                port,
                flags,
                sequence,
                acknowledged,
                payload,
                options,
            } => self.segment(&Segment {
                port,
                flags,
                sequence: u32::from(sequence),
                acknowledged: u32::from(acknowledged),
                window: 1000,
                options: &options,
                payload: &payload,
            }),
            Step::Continue {
                flags,
                payload,
                window,
                offset,
            } => {
                let (port, next, expected) = self.last;
                let sequence = expected.wrapping_add_signed(i32::from(offset));
                self.segment(&Segment {
                    port,
                    flags,
                    sequence,
                    acknowledged: next,
                    window,
                    options: &[],
                    payload: &payload,
                });
            }
            Step::Report { kind, flow, bytes } => self.report(kind, flow, bytes),
            Step::Drain => {
                for flow in self.flows.clone() {
                    self.stack
                        .drain_stream(flow, now, &mut |bytes| bytes.len().min(100));
                    self.stack
                        .fill_stream(flow, now, &mut |room| room.len().min(3000));
                }
            }
            Step::Call(port) => self.call(port),
            Step::Poll => self.poll(),
            Step::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.stack.handle_timeout(self.now);
            }
        }
        self.requests();
        let limits = self.stack.limits;
        assert!(self.stack.tcp.len() <= limits.tcp_sessions && self.stack.udp.len() <= limits.udp_flows);
        assert_eq!(self.stack.flows(), self.stack.tcp.len() + self.stack.udp.len());
        assert!(self.stack.lingering.len() <= self.stack.tcp.len());
    }

    fn call(&mut self, port: u16) {
        let (options, payload) = (&[2, 4, 2, 0, 3, 3, 2, 0][..], &[][..]);
        let mut segment = Segment {
            port,
            flags: 2,
            sequence: 1000,
            acknowledged: 0,
            window: 1000,
            options,
            payload,
        };
        self.segment(&segment);
        self.requests();
        self.report(0, 0, 0);
        self.poll();
        (_, segment.acknowledged, segment.sequence) = self.last;
        (segment.flags, segment.options) = (16, &[]);
        self.segment(&segment);
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.stack.handle_packet(LANE, segment.packet().into(), self.now);
    }

    fn report(&mut self, kind: u8, flow: usize, bytes: usize) {
        let Some(flow) = self.flows.get(flow).copied() else {
            return;
        };
        let payload = vec![7; bytes];
        let report = match kind {
            0 | 1 => FromBackend::Opened { flow },
            2 => FromBackend::Refused {
                flow,
                reason: Refusal::TimedOut,
            },
            3 => FromBackend::Datagram {
                flow,
                payload: &payload,
            },
            4 => FromBackend::Unreachable {
                flow,
                why: crate::backend::BackendUnreachable::Port,
            },
            5 => FromBackend::HalfClosed { flow },
            _ => FromBackend::Reset { flow },
        };
        self.stack.handle_backend(report, self.now);
    }

    fn requests(&mut self) {
        while let Some(request) = self.stack.poll_backend() {
            if let ToBackend::Open { flow, .. } = request {
                self.flows.insert(0, flow);
                self.flows.truncate(6);
            }
        }
    }

    fn poll(&mut self) {
        while self.stack.poll_ready().is_some() {}
        while let Some(packet) = self.stack.poll_packet(LANE, self.now) {
            let parsed = packet::parse(&packet).unwrap();
            assert!(packet::verify_checksums(&parsed, &packet) && packet.len() <= 600);
            if let Kind::Tcp(flags) = parsed.kind {
                let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                let spans = parsed.payload.len() as u32 + u32::from(flags.syn) + u32::from(flags.fin);
                self.last = (
                    parsed.flow.destination_port,
                    number(24).wrapping_add(spans),
                    number(28),
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn junk_neither_panics_nor_stays(steps in vec(step(), 0..120)) {
        let mut junk = Junk::new();
        for step in steps {
            junk.take(step);
        }
        // The agent is silent from here on, and the tunnel takes everything.
        for _ in 0..2000 {
            junk.stack.handle_timeout(junk.now);
            junk.requests();
            junk.poll();
            junk.requests();
            let Some(at) = junk.stack.poll_timeout() else { break };
            prop_assert!(at > junk.now, "a drained stack asks for no wake-up at the same instant");
            junk.now = at;
        }
        prop_assert_eq!(junk.stack.flows(), 0);
        prop_assert!(junk.stack.timers.is_empty() && junk.stack.tcp_pending.is_empty());
    }
}
