//! Values that a connector exchanges with the shell about backends.
//!
//! The machine decides when a backend socket opens, half-closes and goes; the shell owns the socket and reports. All
//! timeouts and back-pressure therefore live in the core and are tested in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::service::health::Awaited;

/// A flow between the tunnel and one backend socket; never reused while either side may still name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// The slot, dense: usable as an index.
    pub index: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// The transport protocol of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The transport protocols of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// Both, at the same address and port.
    Both,
}

/// A request to the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum ToBackend<'a> {
    /// Open a socket to `address`; answer with [`FromBackend::Opened`] or [`FromBackend::Refused`].
    Open {
        /// The new flow.
        flow: FlowId,
        /// Which kind of socket.
        transport: Transport,
        /// Where the backend listens.
        address: SocketAddr,
    },
    /// Send one UDP payload (possibly empty) to the backend.
    Datagram {
        /// An open UDP flow.
        flow: FlowId,
        /// The payload.
        payload: &'a [u8],
    },
    /// Bytes wait for a TCP backend: take them with `drain_stream`, and again whenever the socket is writable.
    Readable {
        /// An open TCP flow.
        flow: FlowId,
    },
    /// There is room again for bytes from a TCP backend: read the socket into `fill_stream`.
    Resume {
        /// An open TCP flow.
        flow: FlowId,
    },
    /// No byte will follow those already waiting: when they are written, shut the socket's write side.
    HalfClose {
        /// An open TCP flow.
        flow: FlowId,
    },
    /// Both directions are done, or the flow has expired: drop the socket. The flow id is dead.
    Close {
        /// Any flow, also one that is still opening.
        flow: FlowId,
    },
    /// The agent reset the connection: abort the socket, with a reset for TCP. The flow id is dead.
    Reset {
        /// Any flow, also one that is still opening.
        flow: FlowId,
    },
    /// A question that has no flow.
    Ask(Ask<'a>),
}

/// Why a backend could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The host answered that nobody listens.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The host or its network is not reachable.
    Unreachable,
    /// This process has no socket left to give.
    Exhausted,
}

/// What an ICMP error said about a UDP backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendUnreachable {
    /// Nobody listens on the port.
    Port,
    /// The host or its network cannot be reached.
    Host,
    /// A rule forbids it.
    Prohibited,
}

/// A report from the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum FromBackend<'a> {
    /// The TCP connection is established, or the UDP socket is ready.
    Opened {
        /// The flow of the request.
        flow: FlowId,
    },
    /// The socket could not be opened or connected. The flow id is dead.
    Refused {
        /// The flow of the request.
        flow: FlowId,
        /// Why.
        reason: Refusal,
    },
    /// The backend sent one UDP payload.
    Datagram {
        /// An open UDP flow.
        flow: FlowId,
        /// The payload, possibly empty.
        payload: &'a [u8],
    },
    /// An ICMP error came back for what was sent to a UDP backend. The flow lives on.
    Unreachable {
        /// An open UDP flow.
        flow: FlowId,
        /// What it said.
        why: BackendUnreachable,
    },
    /// The TCP backend will send no more; everything before was given to `fill_stream`.
    HalfClosed {
        /// An open TCP flow.
        flow: FlowId,
    },
    /// The TCP backend reset the connection, or its socket failed. The flow id is dead.
    Reset {
        /// An open TCP flow.
        flow: FlowId,
    },
    /// The answer to a question.
    Answer(Answer<'a>),
}

/// A check of a backend's health; never reused while either side may still name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId {
    /// Dense: usable as an index, of its own, apart from those of flows.
    pub index: u32,
    /// Which use of the index.
    pub generation: u32,
}

/// A host name that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId {
    /// Dense.
    pub index: u32,
    /// Which use of the index.
    pub generation: u32,
}

/// What a connector wants to know about its backends, apart from any flow. Time limits are the machine's.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Open a socket, send these bytes, and report what is awaited. The socket is then closed.
    Probe {
        /// The check.
        probe: ProbeId,
        /// Which kind of socket.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// What is sent first; may be empty, and is then not sent.
        send: &'a [u8],
        /// What ends it.
        awaited: Awaited,
    },
    /// The machine does not wait for a check any more: close its socket.
    EndProbe {
        /// The check, which may have ended by itself.
        probe: ProbeId,
    },
    /// Look up all addresses of a name.
    Resolve {
        /// The name.
        name: NameId,
        /// As text.
        host: &'a str,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A check has ended.
    Probed {
        /// The check.
        probe: ProbeId,
        /// What was received, at most [`ANSWER`](crate::service::health::ANSWER) bytes; empty for a mere connection.
        result: Result<&'a [u8], Refusal>,
    },
    /// A name was looked up.
    Resolved {
        /// The name.
        name: NameId,
        /// What was found; `None` if nothing.
        found: Option<Found<'a>>,
    },
}

/// The addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Of both families, at least one.
    pub addresses: &'a [IpAddr],
    /// How long they hold.
    pub ttl: Duration,
}
