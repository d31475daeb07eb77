//! Machines as the world drives them, each with a simple model of what is on its own side.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use super::trace::Digest;
use crate::backend::{
    Answer, Ask, FlowId, Found, FromBackend, NameId, ProbeId, Refusal, ToBackend, Transport,
};
use crate::machine::{Backends, Deadline, Forward, Machine, Received, Transmit, Tunnel};

/// A machine together with what it talks to on its own side, so that a world can drive it without knowing its kind.
pub trait Host: Any {
    /// See [`Machine::handle_datagram`].
    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward;

    /// See [`Machine::handle_timeout`].
    fn handle_timeout(&mut self, now: Instant);

    /// See [`Machine::poll_transmit`].
    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit>;

    /// See [`Machine::poll_timeout`].
    fn poll_timeout(&self) -> Option<Deadline>;

    /// Takes one thing that the machine has for its own side (an event, an IP packet, a request to a backend), adds it
    /// to the digest and acts on it; `false` if there was nothing.
    fn poll_local(&mut self, digest: &mut Digest, now: Instant) -> bool;
}

/// The name of a host in a world, which remembers its type.
pub struct HostId<H> {
    pub(super) index: usize,
    kind: PhantomData<fn() -> H>,
}

impl<H> HostId<H> {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            kind: PhantomData,
        }
    }

    /// The same host without its type: enough for faults, which strike hosts of every kind.
    pub fn erased(self) -> HostId<()> {
        HostId::new(self.index)
    }
}

impl<H> Clone for HostId<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for HostId<H> {}

impl<H> Debug for HostId<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostId({})", self.index)
    }
}

/// A machine that has only a network, and events.
#[derive(Debug)]
pub struct MachineHost<M: Machine> {
    /// The machine.
    pub machine: M,
    /// All its events so far, oldest first.
    pub events: Vec<M::Event>,
}

impl<M: Machine> MachineHost<M> {
    /// Takes a machine.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            events: Vec::new(),
        }
    }
}

/// A machine with a tunnel interface that remembers what came out of it.
#[derive(Debug)]
pub struct TunnelHost<M: Tunnel> {
    /// The machine.
    pub machine: M,
    /// All its events so far, oldest first.
    pub events: Vec<M::Event>,
    /// All IP packets that came out of the tunnel, oldest first.
    pub packets: Vec<Vec<u8>>,
}

impl<M: Tunnel> TunnelHost<M> {
    /// Takes a machine.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            events: Vec::new(),
            packets: Vec::new(),
        }
    }
}

/// A machine with backends, which a model stands for.
#[derive(Debug)]
pub struct BackendsHost<M: Backends, B> {
    /// The machine.
    pub machine: M,
    /// All its events so far, oldest first.
    pub events: Vec<M::Event>,
    /// The model of its backends.
    pub backend: B,
    /// Open TCP flows, and whether the backend's half-close has been reported.
    streams: BTreeMap<FlowId, bool>,
}

impl<M: Backends, B: BackendModel> BackendsHost<M, B> {
    /// Takes a machine and the model of its backends.
    pub fn new(machine: M, backend: B) -> Self {
        Self {
            machine,
            events: Vec::new(),
            backend,
            streams: BTreeMap::new(),
        }
    }

    /// Moves bytes between the machine and the backend of a TCP flow as far as they go.
    ///
    /// Happens by itself after every request; call it when the model has got new bytes of its own accord.
    pub fn pump(&mut self, flow: FlowId, now: Instant) {
        let Self {
            machine,
            backend,
            streams,
            ..
        } = self;
        let Some(half_closed) = streams.get_mut(&flow) else {
            return;
        };
        // What goes out may make room for what comes in.
        loop {
            let taken = machine.drain_stream(flow, now, &mut |bytes| backend.take(flow, bytes));
            let filled = machine.fill_stream(flow, now, &mut |room| backend.fill(flow, room));
            if taken == 0 && filled.is_none_or(|len| len == 0) {
                break;
            }
        }
        if !*half_closed && backend.is_finished(flow) {
            *half_closed = true;
            machine.handle_backend(FromBackend::HalfClosed { flow }, now);
        }
    }

    fn on_request(&mut self, request: Request, now: Instant) {
        match request {
            Request::Open {
                flow,
                transport,
                address,
            } => match self.backend.open(flow, transport, address) {
                Ok(()) => {
                    if transport == Transport::Tcp {
                        self.streams.insert(flow, false);
                    }
                    self.machine.handle_backend(FromBackend::Opened { flow }, now);
                    self.pump(flow, now);
                }
                Err(reason) => self
                    .machine
                    .handle_backend(FromBackend::Refused { flow, reason }, now),
            },
            Request::Datagram { flow, payload } => {
                for reply in self.backend.datagram(flow, &payload) {
                    self.machine.handle_backend(
                        FromBackend::Datagram {
                            flow,
                            payload: &reply,
                        },
                        now,
                    );
                }
            }
            Request::Move { flow } => self.pump(flow, now),
            Request::HalfClose { flow } => {
                self.pump(flow, now);
                self.backend.half_close(flow);
                self.pump(flow, now);
            }
            Request::Close { flow } => {
                self.streams.remove(&flow);
                self.backend.close(flow);
            }
            Request::Probe { probe, address } => {
                if let Some(result) = self.backend.probe(address) {
                    let result = match &result {
                        Ok(answer) => Ok(&answer[..]),
                        Err(refusal) => Err(*refusal),
                    };
                    let answer = Answer::Probed { probe, result };
                    self.machine.handle_backend(FromBackend::Answer(answer), now);
                }
            }
            Request::Resolve { name, host } => {
                let found = self.backend.resolve(&host);
                let found = found
                    .as_ref()
                    .map(|(addresses, ttl)| Found { addresses, ttl: *ttl });
                let answer = Answer::Resolved { name, found };
                self.machine.handle_backend(FromBackend::Answer(answer), now);
            }
            Request::Nothing => {}
        }
    }
}

/// A request to the shell, owned, so that the machine is free to be called.
enum Request {
    Open {
        flow: FlowId,
        transport: Transport,
        address: std::net::SocketAddr,
    },
    Datagram {
        flow: FlowId,
        payload: Vec<u8>,
    },
    Move {
        flow: FlowId,
    },
    HalfClose {
        flow: FlowId,
    },
    Close {
        flow: FlowId,
    },
    Probe {
        probe: ProbeId,
        address: std::net::SocketAddr,
    },
    Resolve {
        name: NameId,
        host: String,
    },
    Nothing,
}

impl From<ToBackend<'_>> for Request {
    fn from(request: ToBackend<'_>) -> Self {
        match request {
            ToBackend::Open {
                flow,
                transport,
                address,
            } => Self::Open {
                flow,
                transport,
                address,
            },
            ToBackend::Datagram { flow, payload } => Self::Datagram {
                flow,
                payload: payload.to_vec(),
            },
            ToBackend::Readable { flow } | ToBackend::Resume { flow } => Self::Move { flow },
            ToBackend::HalfClose { flow } => Self::HalfClose { flow },
            ToBackend::Close { flow } | ToBackend::Reset { flow } => Self::Close { flow },
            ToBackend::Ask(Ask::Probe { probe, address, .. }) => Self::Probe { probe, address },
            ToBackend::Ask(Ask::EndProbe { .. }) => Self::Nothing,
            ToBackend::Ask(Ask::Resolve { name, host }) => Self::Resolve {
                name,
                host: host.to_owned(),
            },
        }
    }
}

/// What stands behind the services of a connector.
pub trait BackendModel: 'static {
    /// A flow is opened.
    ///
    /// # Errors
    /// If the backend is not to be had.
    fn open(
        &mut self,
        flow: FlowId,
        transport: Transport,
        address: std::net::SocketAddr,
    ) -> Result<(), Refusal>;

    /// A UDP payload has arrived; returns the answers.
    fn datagram(&mut self, flow: FlowId, payload: &[u8]) -> Vec<Vec<u8>>;

    /// Stream bytes are offered; returns how many are taken.
    fn take(&mut self, flow: FlowId, bytes: &[u8]) -> usize;

    /// Writes stream bytes for the tunnel; returns how many.
    fn fill(&mut self, flow: FlowId, room: &mut [u8]) -> usize;

    /// No more bytes will be offered.
    fn half_close(&mut self, flow: FlowId);

    /// Whether the backend has sent its last byte.
    fn is_finished(&self, flow: FlowId) -> bool;

    /// The flow is over.
    fn close(&mut self, flow: FlowId);

    /// A backend's health is checked: its answer, or `None` for silence.
    fn probe(&mut self, _: std::net::SocketAddr) -> Option<Result<Vec<u8>, Refusal>> {
        Some(Ok(Vec::new()))
    }

    /// A name is looked up: its addresses and how long they hold, or `None` if there are none.
    fn resolve(&mut self, _: &str) -> Option<(Vec<std::net::IpAddr>, Duration)> {
        None
    }
}

/// Backends that send back everything: datagrams at once, stream bytes until the other side is done.
#[derive(Debug, Default)]
pub struct EchoBackends {
    /// Bytes under way back per open flow, and whether more may come.
    streams: BTreeMap<FlowId, (Vec<u8>, bool)>,
    /// How many flows were ever opened.
    pub opened: usize,
    /// How many are open now.
    pub open: usize,
    /// Where the newest was opened.
    pub last: Option<std::net::SocketAddr>,
    /// Whether nobody listens: checks and new flows are refused. What is open stays.
    pub sick: bool,
    /// Where nobody listens, whatever else is well.
    pub sick_at: Option<std::net::SocketAddr>,
}

/// How many bytes an echoing stream holds before it takes no more.
const ECHO_WINDOW: usize = 64 * 1024;

impl BackendModel for EchoBackends {
    fn open(&mut self, flow: FlowId, _: Transport, address: std::net::SocketAddr) -> Result<(), Refusal> {
        if self.sick || self.sick_at == Some(address) {
            return Err(Refusal::Refused);
        }
        self.last = Some(address);
        self.streams.insert(flow, (Vec::new(), true));
        self.opened += 1;
        self.open = self.streams.len();
        Ok(())
    }

    fn datagram(&mut self, _: FlowId, payload: &[u8]) -> Vec<Vec<u8>> {
        vec![payload.to_vec()]
    }

    fn take(&mut self, flow: FlowId, bytes: &[u8]) -> usize {
        let Some((held, _)) = self.streams.get_mut(&flow) else {
            return 0;
        };
        let count = bytes.len().min(ECHO_WINDOW - held.len());
        held.extend_from_slice(&bytes[..count]);
        count
    }

    fn fill(&mut self, flow: FlowId, room: &mut [u8]) -> usize {
        let Some((held, _)) = self.streams.get_mut(&flow) else {
            return 0;
        };
        let count = room.len().min(held.len());
        room[..count].copy_from_slice(&held[..count]);
        held.drain(..count);
        count
    }

    fn half_close(&mut self, flow: FlowId) {
        if let Some((_, more)) = self.streams.get_mut(&flow) {
            *more = false;
        }
    }

    fn probe(&mut self, address: std::net::SocketAddr) -> Option<Result<Vec<u8>, Refusal>> {
        Some(if self.sick || self.sick_at == Some(address) {
            Err(Refusal::Refused)
        } else {
            Ok(Vec::new())
        })
    }

    fn is_finished(&self, flow: FlowId) -> bool {
        self.streams
            .get(&flow)
            .is_some_and(|(held, more)| held.is_empty() && !more)
    }

    fn close(&mut self, flow: FlowId) {
        self.streams.remove(&flow);
        self.open = self.streams.len();
    }
}

/// The parts that all hosts share.
macro_rules! drive_machine {
    () => {
        fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
            self.machine.handle_datagram(received, now)
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.machine.handle_timeout(now);
        }

        fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
            self.machine.poll_transmit(buf, now)
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            self.machine.poll_timeout()
        }
    };
}

impl<M> Host for MachineHost<M>
where
    M: Machine + 'static,
    M::Event: Debug,
{
    drive_machine!();

    fn poll_local(&mut self, digest: &mut Digest, _: Instant) -> bool {
        let Some(event) = self.machine.poll_event() else {
            return false;
        };
        digest.debug(&event);
        self.events.push(event);
        true
    }
}

impl<M> Host for TunnelHost<M>
where
    M: Tunnel + 'static,
    M::Event: Debug,
{
    drive_machine!();

    fn poll_local(&mut self, digest: &mut Digest, _: Instant) -> bool {
        if let Some(event) = self.machine.poll_event() {
            digest.debug(&event);
            self.events.push(event);
            return true;
        }
        let mut buf = [0; 2048];
        let Some(len) = self.machine.poll_packet(&mut buf) else {
            return false;
        };
        digest.bytes(&buf[..len]);
        self.packets.push(buf[..len].to_vec());
        true
    }
}

impl<M, B> Host for BackendsHost<M, B>
where
    M: Backends + 'static,
    M::Event: Debug,
    B: BackendModel,
{
    drive_machine!();

    fn poll_local(&mut self, digest: &mut Digest, now: Instant) -> bool {
        if let Some(event) = self.machine.poll_event() {
            digest.debug(&event);
            self.events.push(event);
            return true;
        }
        let Some(request) = self.machine.poll_backend() else {
            return false;
        };
        digest.debug(&request);
        if let ToBackend::Datagram { payload, .. } = &request {
            digest.bytes(payload);
        }
        let request = Request::from(request);
        self.on_request(request, now);
        true
    }
}
