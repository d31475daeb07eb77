//! The seam to a QUIC implementation.
//!
//! [`Provider`] makes connections, [`Connection`] is one of them; both are sans-IO. Two implementations stand behind
//! one conformance suite: the real one (`quic::quiche`, the only file that names that crate) and a deterministic fake for
//! simulations. `quic::Pool` keeps many connections, finds the one a packet belongs to, and knows which of them
//! want to send and when. Nothing here knows what travels in a DATAGRAM.

pub mod accept;
#[cfg(any(test, feature = "sim"))]
pub mod conformance;
mod datagram;
#[cfg(any(test, feature = "sim"))]
pub mod fake;
pub mod header;
pub mod identity;
mod mtu;
mod pool;
pub mod quiche;
#[cfg(any(test, feature = "sim"))]
pub mod testing;
mod tls;

use std::fmt;
use std::time::Instant;

pub use datagram::Datagram;
pub use pool::{
    ACK_AFTER, ACK_BEHIND, ACK_HOLD, ACK_QUIET, Admission, CROWDED, MAX_RAW_LEN, Origin, Pool, PoolConfig,
    PoolEvent, PoolStats, STATELESS_SLOTS, Via,
};

use crate::machine::FourTuple;

/// Longest connection id of QUIC version 1 (RFC 9000 §17.2).
pub const MAX_CID_LEN: usize = 20;

/// The length of the connection ids that we give out.
pub const LOCAL_CID_LEN: usize = 8;

/// A QUIC connection id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    len: u8,
    bytes: [u8; MAX_CID_LEN],
}

impl Cid {
    /// Takes up to 20 bytes; `None` if there are more.
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_CID_LEN];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self {
            len: id.len() as u8,
            bytes,
        })
    }

    /// The id itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The application protocol of the seed document.
pub const ALPN_V1: &[u8] = b"ztna-v1";

/// The application protocol between a client and an intermediate that carries channels.
pub const ALPN_V2: &[u8] = b"ztna-v2";

/// The application protocol between an agent and a connector.
pub const ALPN_SESSION: &[u8] = b"ztna-e2e-v2";

/// What a connection is for: it decides the application protocols, and how long packets may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Between a client and its intermediate.
    Control,
    /// Between an agent and a connector, on a path of its own.
    Session,
    /// The same inside frames of a channel, whose prefix takes from every packet.
    Carried,
}

/// A connection to be opened.
#[derive(Debug)]
pub struct Connect<'a> {
    /// The name that the server's certificate must carry; `None` checks no name.
    pub server_name: Option<&'a str>,
    /// Our connection id.
    pub scid: Cid,
    /// Local and remote address.
    pub path: FourTuple,
    /// What it is for.
    pub purpose: Purpose,
}

/// A connection to be accepted, from an Initial that the front door let through.
#[derive(Debug)]
pub struct Accept {
    /// Our connection id.
    pub scid: Cid,
    /// After a Retry: the destination id of the client's very first Initial. The id that the Retry gave is then the
    /// destination id of this Initial.
    pub retry: Option<RetryIds>,
    /// The token with which this server can later say that it has lost the connection (RFC 9000 §10.3).
    pub reset_token: [u8; 16],
    /// Local and remote address.
    pub path: FourTuple,
    /// What it is for.
    pub purpose: Purpose,
}

/// The connection ids of a Retry, which the handshake authenticates (RFC 9000 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryIds {
    /// The destination id of the client's first Initial.
    pub original: Cid,
    /// The source id of the Retry.
    pub retry: Cid,
}

/// Why a connection could not be made: configuration, not network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotConnect(pub String);

impl fmt::Display for CannotConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotConnect {}

/// A maker of connections: it holds the TLS identity, the trust anchors and the transport parameters.
pub trait Provider {
    /// What it makes.
    type Connection: Connection;

    /// Opens a connection as a client.
    ///
    /// # Errors
    /// If the server name or the configuration is unusable.
    fn connect(&mut self, connect: Connect<'_>, now: Instant) -> Result<Self::Connection, CannotConnect>;

    /// Accepts a connection as a server. The Initial itself is handed to the new connection afterwards.
    ///
    /// # Errors
    /// If the configuration is unusable.
    fn accept(&mut self, accept: Accept, now: Instant) -> Result<Self::Connection, CannotConnect>;

    /// Whether this version can be spoken.
    fn is_supported(&self, version: u32) -> bool;

    /// Writes a Retry packet (RFC 9000 §17.2.5); `None` if `out` is too small.
    fn write_retry(&self, retry: WriteRetry<'_>, out: &mut [u8]) -> Option<usize>;

    /// Writes a Version Negotiation packet (RFC 9000 §17.2.1) that answers a packet with these ids.
    fn write_version_negotiation(
        &self,
        client_scid: &Cid,
        client_dcid: &Cid,
        out: &mut [u8],
    ) -> Option<usize>;
}

/// The fields of a Retry packet.
#[derive(Debug)]
pub struct WriteRetry<'a> {
    /// The source id of the client's Initial.
    pub client_scid: Cid,
    /// The destination id of the client's Initial.
    pub original_dcid: Cid,
    /// The id that the client shall use from now on.
    pub retry_scid: Cid,
    /// The token that it shall bring back.
    pub token: &'a [u8],
    /// The version of the client's Initial.
    pub version: u32,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake is under way; nothing is authenticated.
    Handshaking,
    /// The handshake is complete and the peer's certificate was accepted.
    Established,
    /// One side has said goodbye; packets may still have to be sent.
    Closing,
    /// Over; the connection may be dropped.
    Closed,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing was heard for the idle timeout, or the handshake got no answer.
    TimedOut,
    /// The peer closed it, with its error code and reason phrase.
    Peer {
        /// Whether the code is the application's (`true`) or the transport's.
        application: bool,
        /// The error code; TLS alerts are 0x100 + alert.
        code: u64,
        /// The reason phrase, lossily decoded and cut to a length fit for a log.
        reason: String,
    },
    /// This side closed it.
    Local {
        /// Whether the code is the application's (`true`) or the transport's.
        application: bool,
        /// The error code.
        code: u64,
    },
    /// The peer has lost its state (stateless reset), or the connection never came to be.
    Reset,
}

/// Why a DATAGRAM was not queued; it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// Longer than the path and the peer allow: [`Connection::max_datagram_len`].
    TooLarge,
    /// The send queue is full.
    Full,
    /// Not established, closing, or the peer takes no DATAGRAMs.
    NotReady,
}

/// One packet written by [`Connection::poll_packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// Bytes written.
    pub len: usize,
    /// Where it goes.
    pub path: FourTuple,
    /// Whether it is longer than the path is known to carry: it may well be lost, and nothing else should be with it.
    pub is_probe: bool,
}

/// One QUIC connection, sans-IO.
pub trait Connection: fmt::Debug {
    /// Takes one QUIC packet (or several coalesced in one datagram). Errors change the state, never the caller.
    fn handle_packet(&mut self, packet: &mut [u8], path: FourTuple, now: Instant);

    /// Whether `packet` ends with the token by which the peer says that it has lost this connection (RFC 9000 §10.3.1).
    /// Its connection id is random, so the pool asks; on `true` it hands the packet to `handle_packet`.
    fn is_stateless_reset(&self, packet: &[u8]) -> bool;

    /// Writes the next packet, no longer than `out`; `None` when nothing is to be sent that fits.
    fn poll_packet(&mut self, out: &mut [u8], now: Instant) -> Option<PacketOut>;

    /// When [`Connection::handle_timeout`] is wanted.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Lets time pass.
    fn handle_timeout(&mut self, now: Instant);

    /// Queues a DATAGRAM, moving the buffer.
    ///
    /// # Errors
    /// If it cannot be queued; the buffer is dropped.
    fn send_datagram(&mut self, datagram: Datagram) -> Result<(), DatagramError>;

    /// The next received DATAGRAM, moved out.
    fn poll_datagram(&mut self) -> Option<Datagram>;

    /// The largest DATAGRAM payload that can be sent now; `None` before the handshake tells.
    fn max_datagram_len(&self) -> Option<usize>;

    /// The largest DATAGRAM payload that the path carries. While that is being searched it is what was known before, or the
    /// most that can come of it, and more than can be sent now: for whoever remembers for long what they are told.
    fn path_datagram_len(&self) -> Option<usize>;

    /// The largest UDP payload that the path carries, as [`Connection::path_datagram_len`].
    fn packet_size(&self) -> usize;

    /// DATAGRAMs dropped from the send queue since the last call, because the path turned out to carry less than they have.
    fn take_outgrown(&mut self) -> u64;

    /// How many more DATAGRAMs the send queue takes.
    fn datagram_space(&self) -> usize;

    /// How many DATAGRAMs wait to be sent.
    fn datagrams_queued(&self) -> usize;

    /// Queues bytes on one of the two bidirectional streams that this overlay uses: 0, which the client opens, or 1, which
    /// the server opens (RFC 9000 §2.1). Returns how many were taken, from the front: fewer than there are, or none, where
    /// flow control, congestion or the state forbid more, and on the other side's stream before that side has opened it.
    /// Try again after the next event.
    fn send_stream(&mut self, stream: u64, bytes: &[u8]) -> usize;

    /// The next bytes of stream 0 or 1, in order, and which stream it is; `None` when nothing waits. What other streams
    /// carry is dropped here: [`Connection::take_discarded`] counts it. A stream that the peer ends or resets just falls silent.
    fn read_stream(&mut self, out: &mut [u8]) -> Option<(u64, usize)>;

    /// Bytes of other streams that [`Connection::read_stream`] has dropped since the last call.
    fn take_discarded(&mut self) -> u64;

    /// Reads and drops everything that streams carry, so that flow control never wedges; returns the bytes dropped.
    fn discard_streams(&mut self) -> usize;

    /// Asks for an acknowledgement from the peer (a PING frame) with the next packet.
    fn ping(&mut self);

    /// Where the connection stands.
    fn state(&self) -> State;

    /// Why it ended, once `state` is `Closing` or `Closed`.
    fn close_reason(&self) -> Option<CloseReason>;

    /// Closes it with an application error code.
    fn close(&mut self, code: u64, reason: &[u8], now: Instant);

    /// The peer's certificate, DER, once established; `None` if it sent none.
    fn peer_certificate(&self) -> Option<&[u8]>;

    /// The agreed application protocol, empty before it is known.
    fn alpn(&self) -> &[u8];

    /// The next validated change of the peer's address; `None` if there is none to report.
    fn poll_path_change(&mut self) -> Option<FourTuple>;

    /// How many more connection ids of ours the peer would take.
    fn cids_wanted(&self) -> usize;

    /// Gives the peer one more connection id of ours.
    fn provide_cid(&mut self, cid: Cid, reset_token: [u8; 16]);

    /// The next connection id of ours that the peer has retired.
    fn poll_retired_cid(&mut self) -> Option<Cid>;

    /// Counters and estimates, for status and metrics.
    fn stats(&self) -> ConnectionStats;
}

/// Counters and estimates of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Packets received and authenticated.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// A measure of what the peer has acknowledged: it grows with every acknowledgement of something new.
    pub acknowledged: u64,
    /// Smoothed round-trip time.
    pub rtt: std::time::Duration,
}
