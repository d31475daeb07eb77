//! Values that an agent without a tunnel interface exchanges with the shell about local sockets.
//!
//! The shell owns listeners, accepted sockets, and the standard streams; the machine decides what becomes of each and
//! when it ends. Timeouts and back-pressure therefore live in the core and are tested in virtual time.

use std::net::SocketAddr;

use crate::backend::FlowId;

/// The position of a listener in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerIndex(pub u16);

/// A request to the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum ToLocal<'a> {
    /// Bytes wait for a local stream: take them with `drain_stream`, and again whenever the descriptor is writable.
    Readable {
        /// An accepted stream.
        flow: FlowId,
    },
    /// There is room for bytes of a local stream: read it into `fill_stream`.
    Resume {
        /// An accepted stream.
        flow: FlowId,
    },
    /// No byte will follow those already waiting: when they are written, shut the write side.
    HalfClose {
        /// An accepted stream.
        flow: FlowId,
    },
    /// Both directions are done: drop the descriptor. The flow id is dead.
    Close {
        /// Any stream or relay.
        flow: FlowId,
    },
    /// The connection failed or was refused: abort the socket with a reset. The flow id is dead.
    Reset {
        /// Any stream.
        flow: FlowId,
    },
    /// Open a UDP socket beside the listener of a stream; answer with [`FromLocal::Relaying`].
    Relay {
        /// The stream that asked for it; both end together.
        flow: FlowId,
    },
    /// Send one UDP payload (possibly empty) to a local program, from a listener.
    Datagram {
        /// The socket.
        from: DatagramSocket,
        /// The program.
        to: SocketAddr,
        /// The payload.
        payload: &'a [u8],
    },
}

/// A local UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatagramSocket {
    /// One of the configuration.
    Listener(ListenerIndex),
    /// One that was opened by [`ToLocal::Relay`].
    Relay(FlowId),
}

/// A report from the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum FromLocal<'a> {
    /// The program will send no more; everything before was given to `fill_stream`.
    HalfClosed {
        /// An accepted stream.
        flow: FlowId,
    },
    /// The program reset its connection, or the descriptor failed. The flow id is dead.
    Reset {
        /// An accepted stream.
        flow: FlowId,
    },
    /// The UDP socket of [`ToLocal::Relay`], or `None` if there could be none.
    Relaying {
        /// The stream that asked for it.
        flow: FlowId,
        /// Where programs send to.
        at: Option<SocketAddr>,
    },
    /// A program sent one UDP payload.
    Datagram {
        /// The socket.
        to: DatagramSocket,
        /// The program.
        from: SocketAddr,
        /// The payload, possibly empty.
        payload: &'a [u8],
    },
}
