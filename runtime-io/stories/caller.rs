//! A machine with one backend flow at a time, worked by commands; everything it hears becomes an event.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use proto_core::backend::{
    Answer, Ask, BackendUnreachable, FlowId, FromBackend, ProbeId, Refusal, ToBackend, Transport,
};
use proto_core::machine::{Backends, Deadline, Forward, Machine, Received, Transmit, Wake};
use proto_core::service::health::Awaited;

/// What the machine heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Opened(u32),
    Refused(u32, Refusal),
    Datagram(Vec<u8>),
    Unreachable(BackendUnreachable),
    /// The window is full: nothing is read until `resume`.
    Full,
    HalfClosed,
    Reset,
    /// The newest check has ended.
    Probed(Result<Vec<u8>, Refusal>),
}

#[derive(Clone, Debug)]
enum Request {
    Open(FlowId, Transport, SocketAddr),
    Datagram(Vec<u8>),
    Readable,
    Resume,
    HalfClose,
    Close,
    Reset,
    Probe(ProbeId, Transport, SocketAddr, &'static [u8], Awaited),
    EndProbe(ProbeId),
}

#[derive(Debug, Default)]
pub(crate) struct Caller {
    flow: Option<FlowId>,
    requests: VecDeque<Request>,
    payload: Vec<u8>,
    events: VecDeque<Heard>,
    outgoing: Vec<u8>,
    taken: usize,
    pub(crate) incoming: Vec<u8>,
    /// How many more bytes may come in.
    room: usize,
    seen: Option<Instant>,
    ending: bool,
    /// How many checks there were before the newest; all have the one place.
    probes: u32,
}

impl Caller {
    fn current(&self) -> FlowId {
        self.flow.expect("an open flow")
    }

    fn ask(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    pub(crate) fn open(&mut self, index: u32, transport: Transport, address: SocketAddr) {
        let generation = self.flow.map_or(0, |flow| flow.generation + 1);
        let flow = FlowId { index, generation };
        self.flow = Some(flow);
        self.ask(Request::Open(flow, transport, address));
    }

    pub(crate) fn probe(
        &mut self,
        transport: Transport,
        address: SocketAddr,
        send: &'static [u8],
        awaited: Awaited,
    ) {
        self.probes += 1;
        self.ask(Request::Probe(
            self.newest_probe(),
            transport,
            address,
            send,
            awaited,
        ));
    }

    pub(crate) fn end_probe(&mut self) {
        self.ask(Request::EndProbe(self.newest_probe()));
    }

    fn newest_probe(&self) -> ProbeId {
        ProbeId {
            index: 0,
            generation: self.probes,
        }
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.ask(Request::Datagram(payload.to_vec()));
    }

    pub(crate) fn write(&mut self, bytes: Vec<u8>) {
        self.outgoing = bytes;
        self.taken = 0;
        self.ask(Request::Readable);
    }

    pub(crate) fn resume(&mut self, room: usize) {
        self.room += room;
        self.ask(Request::Resume);
    }

    pub(crate) fn half_close(&mut self) {
        self.ask(Request::HalfClose);
    }

    pub(crate) fn close(&mut self) {
        self.ask(Request::Close);
    }

    pub(crate) fn reset(&mut self) {
        self.ask(Request::Reset);
    }
}

impl Machine for Caller {
    type Event = Heard;

    fn handle_datagram(&mut self, _: Received<'_>, _: Instant) -> Forward {
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.seen = Some(now);
    }

    fn poll_transmit(&mut self, _: &mut [u8], _: Instant) -> Option<Transmit> {
        None
    }

    fn poll_event(&mut self) -> Option<Heard> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let at = self.seen.filter(|_| !self.requests.is_empty())?;
        Some(Deadline {
            at,
            wake: Wake::QueuedOutput,
        })
    }

    fn shut_down(&mut self, _: Instant) {
        self.ending = true;
    }

    fn is_drained(&self) -> bool {
        self.ending
    }
}

impl Backends for Caller {
    fn poll_backend(&mut self) -> Option<ToBackend<'_>> {
        let request = self.requests.pop_front()?;
        Some(match request {
            // These are about no flow.
            Request::Probe(probe, transport, address, send, awaited) => ToBackend::Ask(Ask::Probe {
                probe,
                transport,
                address,
                send,
                awaited,
            }),
            Request::EndProbe(probe) => ToBackend::Ask(Ask::EndProbe { probe }),
            Request::Open(flow, transport, address) => ToBackend::Open {
                flow,
                transport,
                address,
            },
            Request::Datagram(payload) => {
                self.payload = payload;
                ToBackend::Datagram {
                    flow: self.current(),
                    payload: &self.payload,
                }
            }
            Request::Readable => ToBackend::Readable { flow: self.current() },
            Request::Resume => ToBackend::Resume { flow: self.current() },
            Request::HalfClose => ToBackend::HalfClose { flow: self.current() },
            Request::Close => ToBackend::Close { flow: self.current() },
            Request::Reset => ToBackend::Reset { flow: self.current() },
        })
    }

    fn handle_backend(&mut self, from: FromBackend<'_>, _: Instant) {
        let (flow, heard) = match from {
            FromBackend::Opened { flow } => (flow, Heard::Opened(flow.index)),
            FromBackend::Refused { flow, reason } => (flow, Heard::Refused(flow.index, reason)),
            FromBackend::Datagram { flow, payload } => (flow, Heard::Datagram(payload.to_vec())),
            FromBackend::Unreachable { flow, why } => (flow, Heard::Unreachable(why)),
            FromBackend::HalfClosed { flow } => (flow, Heard::HalfClosed),
            FromBackend::Reset { flow } => (flow, Heard::Reset),
            FromBackend::Answer(Answer::Probed { probe, result }) => {
                assert_eq!(probe, self.newest_probe(), "only the newest check is heard of");
                self.events.push_back(Heard::Probed(result.map(<[u8]>::to_vec)));
                return;
            }
            FromBackend::Answer(Answer::Resolved { .. }) => return,
        };
        assert_eq!(flow, self.current(), "only the open flow is heard of");
        self.events.push_back(heard);
    }

    fn drain_stream(&mut self, flow: FlowId, _: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        assert_eq!(flow, self.current());
        let waiting = &self.outgoing[self.taken..];
        if waiting.is_empty() {
            return 0;
        }
        let count = take(&waiting[..waiting.len().min(70_000)]);
        self.taken += count;
        count
    }

    fn fill_stream(
        &mut self,
        flow: FlowId,
        _: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        assert_eq!(flow, self.current());
        if self.room == 0 {
            return None;
        }
        let start = self.incoming.len();
        self.incoming.resize(start + self.room.min(30_000), 0);
        let count = fill(&mut self.incoming[start..]);
        self.incoming.truncate(start + count);
        self.room -= count;
        if self.room == 0 {
            self.events.push_back(Heard::Full);
        }
        Some(count)
    }
}
