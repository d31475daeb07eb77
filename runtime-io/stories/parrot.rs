//! A machine with local sockets that says back whatever it hears, and does as it is told besides.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use proto_core::backend::FlowId;
use proto_core::local::{DatagramSocket, FromLocal, ListenerIndex, ToLocal};
use proto_core::machine::{Deadline, Forward, Locals, Machine, Received, Transmit, Wake};

/// What the machine noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    Accepted(FlowId),
    Refused,
    HalfClosed(FlowId),
    Reset(FlowId),
    Relaying(Option<SocketAddr>),
    Datagram(DatagramSocket),
}

#[derive(Clone, Debug)]
enum Request {
    Readable(FlowId),
    Resume(FlowId),
    HalfClose(FlowId),
    Reset(FlowId),
    Relay(FlowId),
    Datagram(DatagramSocket, SocketAddr, Vec<u8>),
}

/// Bytes that a stream may hold: less than what kernels buffer, so that both directions are held back.
const ROOM: usize = 30_000;

#[derive(Debug)]
pub(crate) struct Parrot {
    /// Connections that are taken; any more are refused.
    pub(crate) room: usize,
    streams: BTreeMap<FlowId, VecDeque<u8>>,
    requests: VecDeque<Request>,
    payload: Vec<u8>,
    events: VecDeque<Noticed>,
    now: Option<Instant>,
    ending: bool,
    /// Whether it waits for its streams to end before it is drained.
    pub(crate) patient: bool,
}

impl Default for Parrot {
    fn default() -> Self {
        Self {
            room: usize::MAX,
            streams: BTreeMap::new(),
            requests: VecDeque::new(),
            payload: Vec::new(),
            events: VecDeque::new(),
            now: None,
            ending: false,
            patient: false,
        }
    }
}

impl Parrot {
    pub(crate) fn reset(&mut self, flow: FlowId) {
        self.streams.remove(&flow);
        self.requests.push_back(Request::Reset(flow));
    }

    pub(crate) fn relay(&mut self, flow: FlowId) {
        self.requests.push_back(Request::Relay(flow));
    }
}

impl Machine for Parrot {
    type Event = Noticed;

    fn handle_datagram(&mut self, _: Received<'_>, _: Instant) -> Forward {
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
    }

    fn poll_transmit(&mut self, _: &mut [u8], _: Instant) -> Option<Transmit> {
        None
    }

    fn poll_event(&mut self) -> Option<Noticed> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let at = self.now.filter(|_| !self.requests.is_empty())?;
        Some(Deadline {
            at,
            wake: Wake::QueuedOutput,
        })
    }

    fn shut_down(&mut self, _: Instant) {
        self.ending = true;
    }

    fn is_drained(&self) -> bool {
        self.ending && (!self.patient || self.streams.is_empty())
    }
}

impl Locals for Parrot {
    fn accept(&mut self, _: ListenerIndex, _: Option<SocketAddr>, now: Instant) -> Option<FlowId> {
        self.now = Some(now);
        if self.streams.len() >= self.room {
            self.events.push_back(Noticed::Refused);
            return None;
        }
        let used = |index| self.streams.keys().any(|flow| flow.index == index);
        let index = (0..).find(|index| !used(*index))?;
        let generation = self.events.len() as u32;
        let flow = FlowId { index, generation };
        self.streams.insert(flow, VecDeque::new());
        self.events.push_back(Noticed::Accepted(flow));
        Some(flow)
    }

    fn poll_local(&mut self) -> Option<ToLocal<'_>> {
        Some(match self.requests.pop_front()? {
            Request::Readable(flow) => ToLocal::Readable { flow },
            Request::Resume(flow) => ToLocal::Resume { flow },
            Request::HalfClose(flow) => ToLocal::HalfClose { flow },
            Request::Reset(flow) => ToLocal::Reset { flow },
            Request::Relay(flow) => ToLocal::Relay { flow },
            Request::Datagram(from, to, payload) => {
                self.payload = payload;
                ToLocal::Datagram {
                    from,
                    to,
                    payload: &self.payload,
                }
            }
        })
    }

    fn handle_local(&mut self, from: FromLocal<'_>, now: Instant) {
        self.now = Some(now);
        let noticed = match from {
            FromLocal::HalfClosed { flow } => {
                self.requests.push_back(Request::HalfClose(flow));
                Noticed::HalfClosed(flow)
            }
            FromLocal::Reset { flow } => {
                self.streams.remove(&flow);
                Noticed::Reset(flow)
            }
            FromLocal::Relaying { at, .. } => Noticed::Relaying(at),
            FromLocal::Datagram { to, from, payload } => {
                self.requests
                    .push_back(Request::Datagram(to, from, payload.to_vec()));
                Noticed::Datagram(to)
            }
        };
        self.events.push_back(noticed);
    }

    fn drain_stream(&mut self, flow: FlowId, now: Instant, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.now = Some(now);
        let Some(held) = self.streams.get_mut(&flow).filter(|held| !held.is_empty()) else {
            return 0;
        };
        let was_full = held.len() >= ROOM;
        let taken = take(held.as_slices().0);
        held.drain(..taken);
        if was_full && taken > 0 {
            self.requests.push_back(Request::Resume(flow));
        }
        taken
    }

    fn fill_stream(
        &mut self,
        flow: FlowId,
        now: Instant,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.now = Some(now);
        let held = self.streams.get_mut(&flow)?;
        let mut room = [0; 4096];
        let room = &mut room[..4096.min(ROOM - held.len())];
        if room.is_empty() {
            return None;
        }
        let count = fill(room);
        held.extend(&room[..count]);
        if count > 0 {
            self.requests.push_back(Request::Readable(flow));
        }
        Some(count)
    }
}
