//! What a pool is told, what it tells, and what it counts.

use crate::id::ConnId;
use crate::machine::FourTuple;
use crate::quic::CloseReason;

/// Whose first packets a pool answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nobody's: this side only opens connections.
    Nobody,
    /// Anybody's (a server). With `retry` every client has to prove its address before any state exists (RFC 9000 §8.1.2).
    Anybody {
        /// Whether it has to.
        retry: bool,
    },
    /// Those that come through a carrier, and those from an address that was invited.
    Invited,
}

/// What a pool does and how much it may hold.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Whose first packets are answered.
    pub admission: Admission,
    /// Keep payloads that are not QUIC for [`Pool::poll_raw`](super::Pool::poll_raw), and send such.
    pub raw: bool,
    /// The key of stateless reset tokens; one that survives restarts makes peers notice a restart at once.
    pub reset_key: Option<[u8; 32]>,
    /// Most connections at one time; further ones are not answered.
    pub max_connections: usize,
    /// Most connections that are still in their handshake; further ones are not answered.
    pub max_handshakes: usize,
    /// Largest UDP payload to send, in bytes.
    pub max_udp_payload: usize,
}

/// What a pool tells the role above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// The handshake is complete and the peer's certificate was accepted.
    Established(ConnId),
    /// Packets came: take all DATAGRAMs with [`Pool::poll_datagram`](super::Pool::poll_datagram), read the streams, and write
    /// to them again what they did not take before.
    Readable(ConnId),
    /// The peer is now reached at another address, validated.
    PathChanged(ConnId, FourTuple),
    /// The connection is gone; the id is dead.
    Closed(ConnId, CloseReason),
}

/// Counters of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections opened.
    pub opened: u64,
    /// Payloads that are not QUIC.
    pub not_quic: u64,
    /// Packets for connections that do not exist.
    pub unknown_connection: u64,
    /// First packets of connections from where nobody was invited.
    pub uninvited: u64,
    /// Frames of channels that this side does not have, or not from the intermediate's address.
    pub unknown_channel: u64,
    /// Packets that came another way than their connection takes: through a channel, or beside it.
    pub wrong_way: u64,
    /// Payloads beside QUIC that were not kept, because too many waited or they are too long.
    pub raw_dropped: u64,
    /// Initials shorter than 1,200 bytes (RFC 9000 §14.1).
    pub short_initial: u64,
    /// Retry packets sent.
    pub retries_sent: u64,
    /// Tokens that proved an address.
    pub tokens_valid: u64,
    /// Tokens that did not.
    pub tokens_invalid: u64,
    /// Version Negotiation packets sent.
    pub versions_negotiated: u64,
    /// Stateless resets sent.
    pub resets_sent: u64,
    /// Connections not accepted because the pool or its handshakes were full.
    pub refused_full: u64,
    /// Stateless answers dropped because their queue was full.
    pub stateless_dropped: u64,
    /// DATAGRAMs that waited to be sent and were dropped because the path turned out to carry less than they have.
    pub outgrown: u64,
    /// Bytes dropped on streams that nobody uses, while others were read.
    pub foreign_stream_bytes: u64,
}
