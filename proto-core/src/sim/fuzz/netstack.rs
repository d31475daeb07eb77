//! The network stack between arbitrary packets and arbitrary backends.
//!
//! Packets are either any bytes or TCP segments and UDP packets that belong to a conversation: the script chooses flags,
//! offsets and options, the numbers are taken from what the stack has said. Some are introduced with the agent they come
//! from, who may be another one each time; others come on lanes of their own, from the same addresses. Whatever happens,
//! what comes out is well-formed and leaves by a lane that is open, tables keep to their limits, timers lie in the future,
//! and long silence leaves nothing behind.

mod options;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::backend::{FlowId, FromBackend, Refusal, ToBackend, Transport};
use crate::config::Protocol;
use crate::id::{LaneId, ServiceIndex};
use crate::netstack::{Netstack, NetstackConfig, NetstackLimits, NetstackService};
use crate::quic::identity::Fingerprint;
use crate::rng::{Rng, Seed};
use crate::routing::packet::{self, Kind};
use crate::routing::reassembly::ReassemblyLimits;
use crate::service::Offer;
use crate::service::access::{AllowList, Allowed};
use crate::sim::{Clock as _, ManualClock};
use crate::tcp::Algorithm;

const LIMITS: NetstackLimits = NetstackLimits {
    tcp_sessions: 3,
    tcp_pending_per_source: 2,
    tcp_buffer: 64 << 10,
    tcp_memory: 256 << 10,
    congestion: Algorithm::Bbr,
    udp_flows: 3,
    udp_flows_per_source: 2,
    reassembly: ReassemblyLimits {
        packets: 3,
        per_source: 2,
        bytes: 4096,
    },
    tunnel_queue: 8,
    tunnel_packets: 20,
    backend_queue: 8,
};

/// The largest packet of the tunnel, at most.
const MTU: usize = 1280;

/// What the lanes are: the service, and the agent if it is known. The third agent is not let in by the second service.
const LANES: [(u16, Option<u8>); 5] = [(0, None), (1, None), (0, Some(0)), (1, Some(1)), (1, Some(2))];

/// Longer than any flow survives silence.
const FORGOTTEN: Duration = Duration::from_secs(4 * 3600);

const TCP_ACK: u8 = 0x10;

/// So many packets or requests in a row are a stack that never stops.
const MAX_DRAIN: usize = 10_000;

/// Drives a stack by a script.
///
/// # Panics
/// If the stack does, or breaks one of the rules above.
pub fn netstack(bytes: &[u8]) {
    let mut bench = Bench::new();
    let mut script = Script(bytes);
    let mut steps = 0;
    while let (Some(kind), true) = (script.byte(), steps < 500) {
        steps += 1;
        bench.step(kind, &mut script);
        bench.drain();
    }
    bench.forget();
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn u8(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.u8()).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head.to_vec()
    }
}

/// One side of a TCP conversation, as far as the fuzzer keeps it.
#[derive(Clone, Copy, Default)]
struct Conversation {
    /// The next number of ours that the stack expects.
    next: u32,
    /// The next number of the stack's that we expect.
    acknowledged: u32,
    /// The newest timestamp of the stack's.
    stamp: u32,
}

/// A backend socket.
#[derive(Clone, Copy)]
struct Backend {
    flow: FlowId,
    transport: Transport,
    stage: Stage,
}

/// How far a backend socket has come: what may be reported about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    /// It will send no more.
    HalfClosed,
    /// Closed by the stack, or reported dead.
    Gone,
}

struct Bench {
    stack: Netstack,
    now: Instant,
    mtu: usize,
    lanes: [LaneId; LANES.len()],
    /// By lane and our port.
    conversations: [Conversation; 4 * LANES.len()],
    /// Flows that the stack has asked for and not closed.
    flows: Vec<Backend>,
    /// Flows that are gone.
    stale: Vec<Backend>,
}

impl Bench {
    fn new() -> Self {
        let service = |number: u8, protocol| NetstackService {
            offer: Offer::single(
                SocketAddr::from(([192, 0, 2, 9], u16::from(number) + 7)),
                protocol,
            ),
            virtual_addresses: vec![virtual_address(number)],
        };
        let mut restricted = service(1, Protocol::Udp);
        restricted.offer.allow = Some(AllowList::new([Allowed::Certificate(fingerprint(1))]));
        let config = NetstackConfig {
            services: vec![service(0, Protocol::Both), restricted],
            limits: LIMITS,
        };
        let now = ManualClock::new().now();
        let mut stack = Netstack::new(config, Rng::new(&Seed([4; 32])), now);
        Self {
            lanes: LANES.map(|lane| open(&mut stack, lane, MTU)),
            stack,
            now,
            mtu: MTU,
            conversations: [Conversation::default(); 4 * LANES.len()],
            flows: Vec::new(),
            stale: Vec::new(),
        }
    }

    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        match kind {
            0..80 => {
                let (port, flags, offset) = (script.u8(), script.u8(), script.u8());
                let options = match kind {
                    0..50 => Vec::new(),
                    50.. => options::draw(&self.conversations[conversation(port)], script),
                };
                let introduced = (kind >= 70).then(|| script.u8());
                let payload = script.bytes();
                let bytes = self.segment(port, flags, offset, &options, &payload);
                self.give(usize::from(port / 128) * 2, bytes, introduced);
            }
            80..110 => {
                let (lane, port) = (script.u8(), script.u8() % 6);
                let lane = match lane {
                    0..128 => lane % 2,
                    128.. => 2 + lane % 3,
                };
                let service = LANES[usize::from(lane)].0 as u8;
                let mut bytes = Vec::new();
                let source = SocketAddr::new(agent(port / 4), 5000 + u16::from(port));
                let destination = SocketAddr::new(virtual_address(service), 9999);
                packet::udp(source, destination, &script.bytes(), &mut bytes);
                let introduced = (kind >= 98).then(|| script.u8());
                self.give(usize::from(lane), bytes, introduced);
            }
            110..120 => {
                let lane = script.u8() % 6;
                let introduced = (kind >= 115).then(|| script.u8());
                let bytes = script.bytes();
                self.give(usize::from(lane), bytes, introduced);
            }
            120..220 => self.backend(kind, script),
            220..235 => self.pass(Duration::from_millis(u64::from(script.u8()))),
            235..245 => self.pass(Duration::from_millis(u64::from(script.u8()) * 100)),
            245..250 => self.pass(Duration::from_secs(u64::from(script.u8()) * 10)),
            250..253 => {
                self.mtu = 68 + usize::from(script.u8()) * 4;
                for lane in self.lanes {
                    self.stack.set_mtu(lane, self.mtu);
                }
                self.mtu = MTU.max(self.mtu);
            }
            253..=255 => self.replace(usize::from(script.u8()) % LANES.len()),
        }
    }

    /// Hands a packet over, perhaps introduced with one of three agents; perhaps the introduction is all there is.
    fn give(&mut self, lane: usize, mut bytes: Vec<u8>, introduced: Option<u8>) {
        let nowhere = LaneId {
            index: 1,
            generation: 0,
        };
        let lane = self.lanes.get(lane).copied().unwrap_or(nowhere);
        let Some(by) = introduced else {
            return self.stack.handle_packet(lane, bytes.into(), self.now);
        };
        if by >= 128 {
            bytes.truncate(usize::from(by) / 2);
        }
        let agent = by % 3;
        let name = ["", "laptop", "agent.*.ztna"][usize::from(agent)];
        let agent = (fingerprint(agent), name);
        self.stack.handle_introduced(lane, agent, bytes.into(), self.now);
    }

    /// Closes a lane, which ends what it carried, and opens another in its place.
    fn replace(&mut self, index: usize) {
        let lane = self.lanes[index];
        self.stack.close_lane(lane, self.now);
        assert_eq!(self.stack.lane_flows(lane), 0);
        assert!(self.stack.poll_packet(lane, self.now).is_none());
        self.lanes[index] = open(&mut self.stack, LANES[index], MTU);
    }

    /// A TCP segment of the conversation from one of four ports of a lane.
    fn segment(&mut self, port: u8, flags: u8, offset: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let number = conversation(port);
        let Conversation {
            next, acknowledged, ..
        } = self.conversations[number];
        // Mostly in order; sometimes before or behind.
        let sequence = match offset {
            0..200 => next,
            near => next.wrapping_add(u32::from(near) * 100).wrapping_sub(22_000),
        };
        let flags = flags & 0x3f;
        let bytes = tcp(
            5000 + u16::from(port % 4),
            (sequence, acknowledged),
            flags,
            options,
            payload,
        );
        if sequence == next {
            let consumed = payload.len() as u32 + u32::from(flags & 0x03 != 0);
            self.conversations[number].next = next.wrapping_add(consumed);
        }
        bytes
    }

    /// Something that a backend does: what the contract allows in its stage, or anything at all once it is gone.
    fn backend(&mut self, kind: u8, script: &mut Script<'_>) {
        let now = self.now;
        let Some(Backend {
            flow,
            transport,
            stage,
        }) = self.pick(script.u8())
        else {
            return;
        };
        let gone = stage == Stage::Gone;
        let tcp = transport == Transport::Tcp;
        let open = stage == Stage::Open || gone;
        match kind {
            120..150 if stage == Stage::Opening || gone => {
                self.stack.handle_backend(FromBackend::Opened { flow }, now);
                self.advance(flow, Stage::Open);
            }
            150..160 if tcp && stage != Stage::Opening => {
                let mut limit = usize::from(script.u8());
                self.stack.drain_stream(flow, now, &mut |bytes| {
                    let count = limit.min(bytes.len());
                    limit -= count;
                    count
                });
            }
            160..185 if tcp && open => {
                let payload = script.bytes();
                self.stack.fill_stream(flow, now, &mut |room| {
                    let count = payload.len().min(room.len());
                    room[..count].copy_from_slice(&payload[..count]);
                    count
                });
            }
            160..195 if !tcp && open => {
                let payload = &script.bytes();
                self.stack
                    .handle_backend(FromBackend::Datagram { flow, payload }, now);
            }
            195..205 if tcp && open => {
                self.stack.handle_backend(FromBackend::HalfClosed { flow }, now);
                self.advance(flow, Stage::HalfClosed);
            }
            205..209 if tcp && stage != Stage::Opening => {
                self.stack.handle_backend(FromBackend::Reset { flow }, now);
                self.close(flow);
            }
            209..213 if stage == Stage::Opening || gone => {
                let reasons = [
                    Refusal::Refused,
                    Refusal::TimedOut,
                    Refusal::Unreachable,
                    Refusal::Exhausted,
                ];
                let reason = reasons[usize::from(script.u8() % 4)];
                self.stack
                    .handle_backend(FromBackend::Refused { flow, reason }, now);
                self.close(flow);
            }
            213..220 if !tcp && open => self.stack.handle_backend(
                FromBackend::Unreachable {
                    flow,
                    why: crate::backend::BackendUnreachable::Port,
                },
                now,
            ),
            _ => {}
        }
    }

    fn advance(&mut self, flow: FlowId, stage: Stage) {
        let open = self.flows.iter_mut().find(|open| open.flow == flow);
        open.into_iter().for_each(|open| open.stage = stage);
    }

    fn is_known(&self, flow: FlowId) -> bool {
        self.flows.iter().any(|open| open.flow == flow)
    }

    fn close(&mut self, flow: FlowId) {
        let Some(index) = self.flows.iter().position(|open| open.flow == flow) else {
            return;
        };
        let closed = self.flows.swap_remove(index);
        self.stale.push(Backend {
            stage: Stage::Gone,
            ..closed
        });
        let excess = self.stale.len().saturating_sub(4);
        self.stale.drain(..excess);
    }

    fn pick(&self, number: u8) -> Option<Backend> {
        let all: Vec<Backend> = self.flows.iter().chain(&self.stale).copied().collect();
        all.get(usize::from(number) % all.len().max(1)).copied()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.stack.handle_timeout(self.now);
    }

    /// Takes everything the stack has, and holds it to the rules.
    fn drain(&mut self) {
        for _ in 0..MAX_DRAIN {
            self.take_requests();
            let Some(lane) = self.stack.poll_ready() else {
                if self.stack.has_output() {
                    continue;
                }
                let deadline = self.stack.poll_timeout();
                if deadline.is_some_and(|at| at <= self.now) {
                    self.stack.handle_timeout(self.now);
                    continue;
                }
                let most = LIMITS.tcp_sessions + LIMITS.udp_flows;
                assert!(self.stack.flows() <= most, "{} flows", self.stack.flows());
                return;
            };
            let number = self.lanes.iter().position(|open| *open == lane);
            let number = number.expect("a closed lane is not ready");
            while let Some(packet) = self.stack.poll_packet(lane, self.now) {
                self.inspect(number, &packet);
            }
        }
        panic!("the stack never comes to rest");
    }

    fn take_requests(&mut self) {
        while let Some(request) = self.stack.poll_backend() {
            match request {
                ToBackend::Open { flow, transport, .. } => {
                    let known = self.is_known(flow);
                    assert!(!known, "a flow is opened twice");
                    self.flows.push(Backend {
                        flow,
                        transport,
                        stage: Stage::Opening,
                    });
                }
                ToBackend::Close { flow } | ToBackend::Reset { flow } => {
                    let known = self.is_known(flow);
                    assert!(known, "a flow is closed that is not open");
                    self.close(flow);
                }
                ToBackend::Datagram { flow, .. }
                | ToBackend::Readable { flow }
                | ToBackend::Resume { flow }
                | ToBackend::HalfClose { flow } => {
                    assert!(self.is_known(flow), "a request about a flow that is not open");
                }
                ToBackend::Ask(_) => {}
            }
        }
    }

    /// A packet for the tunnel is well-formed, small enough, and comes from the service of its lane.
    fn inspect(&mut self, lane: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.mtu, "{} bytes", bytes.len());
        let parsed = packet::parse(bytes).expect("the stack makes packets");
        assert!(packet::verify_checksums(&parsed, bytes));
        let service = LANES[lane].0 as u8;
        assert_eq!(parsed.flow.source, virtual_address(service), "{:?}", parsed.flow);
        let Kind::Tcp(flags) = parsed.kind else { return };
        let port = usize::from(parsed.flow.destination_port.wrapping_sub(5000));
        if port > 3 {
            return;
        }
        let conversation = &mut self.conversations[port + 4 * lane];
        let number = |at: usize| {
            let field = bytes.get(parsed.transport.start + at..)?.first_chunk()?;
            Some(u32::from_be_bytes(*field))
        };
        let consumed = parsed.payload.len() as u32 + u32::from(flags.syn) + u32::from(flags.fin);
        conversation.acknowledged = number(4).unwrap_or(0).wrapping_add(consumed);
        if flags.ack {
            conversation.next = number(8).unwrap_or(0);
        }
        if let Some(stamp) = options::stamp(&bytes[parsed.transport.start..parsed.payload.start]) {
            conversation.stamp = stamp;
        }
    }

    /// The backends answer nothing more and the agents are silent: everything goes.
    fn forget(&mut self) {
        let end = self.now + FORGOTTEN;
        for _ in 0..MAX_DRAIN {
            self.drain();
            match self.stack.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = at;
                    self.stack.handle_timeout(at);
                }
                None => break,
            }
        }
        assert_eq!(self.stack.poll_timeout(), None, "a timer runs for nobody");
        assert_eq!(self.stack.flows(), 0, "a flow is kept for nobody");
    }
}

fn open(stack: &mut Netstack, (service, agent): (u16, Option<u8>), mtu: usize) -> LaneId {
    let agent = agent.map(|agent| (fingerprint(agent), "laptop"));
    stack.open_lane(ServiceIndex(service), agent, mtu)
}

/// The conversation that a byte of the script means: from one of four ports, on the first lane or the third.
fn conversation(port: u8) -> usize {
    usize::from(port % 4 + port / 128 * 8)
}

fn virtual_address(service: u8) -> IpAddr {
    Ipv4Addr::new(10, 100, 0, service + 1).into()
}

fn agent(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, number + 1).into()
}

fn fingerprint(agent: u8) -> Fingerprint {
    Fingerprint([agent; 32])
}

/// A TCP segment (RFC 9293 §3.1) to the first service, made out of a UDP packet of the same length.
fn tcp(
    port: u16,
    (sequence, acknowledged): (u32, u32),
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    const UDP_HEADER: usize = 8;
    const TCP_HEADER: usize = 20;
    let (source, destination) = (
        SocketAddr::new(agent(0), port),
        SocketAddr::new(virtual_address(0), 80),
    );
    let mut bytes = Vec::new();
    let room = vec![0; TCP_HEADER - UDP_HEADER + options.len() + payload.len()];
    packet::udp(source, destination, &room, &mut bytes);
    bytes[9] = packet::TCP;
    let ack = if flags & TCP_ACK != 0 { acknowledged } else { 0 };
    let header = &mut bytes[20..];
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    let words = (5 + options.len() / 4) as u8;
    header[12..20].copy_from_slice(&[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header[TCP_HEADER..][..options.len()].copy_from_slice(options);
    header[TCP_HEADER + options.len()..].copy_from_slice(payload);
    let pseudo = [
        &bytes[12..20],
        &[0, packet::TCP],
        &(bytes.len() as u16 - 20).to_be_bytes(),
    ]
    .concat();
    let sum = ones_complement(&[&pseudo, &bytes[20..]].concat());
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes[10..12].copy_from_slice(&[0, 0]);
    let sum = ones_complement(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The internet checksum (RFC 1071).
fn ones_complement(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
