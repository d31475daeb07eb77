//! What the shell did, in numbers; read by the metrics endpoint.

use std::collections::BTreeMap;

use proto_core::backend::Refusal;
use proto_core::machine::Wake;

/// Counters of one shell since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellStats {
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns in which the machine's deadline was due, by the reason it gave.
    pub wakes: BTreeMap<Wake, u64>,
    /// Commands run.
    pub commands: u64,
    /// Drains after which the machine was still due at once, against its contract; the shell then paused briefly.
    pub restless: u64,
    /// The UDP socket.
    pub udp: UdpStats,
    /// The tunnel interface.
    pub tun: TunStats,
    /// Backend sockets.
    pub backends: BackendStats,
    /// Local sockets.
    pub locals: LocalStats,
}

/// Counters of local sockets, seen from us: read is what local programs send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStats {
    /// Connections open now.
    pub open: u64,
    /// Connections taken.
    pub accepted: u64,
    /// Connections reset at once, because there was no room.
    pub refused: u64,
    /// Times a listener could not accept.
    pub accept_errors: u64,
    /// Connections that the program reset, or that failed.
    pub resets: u64,
    /// Stream bytes read.
    pub bytes_read: u64,
    /// Stream bytes written.
    pub bytes_written: u64,
    /// UDP payloads received.
    pub datagrams_received: u64,
    /// UDP payloads sent.
    pub datagrams_sent: u64,
    /// UDP payloads that a socket did not take.
    pub datagrams_dropped: u64,
}

/// Counters of the tunnel interface, seen from us: read is what this host sends into the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunStats {
    /// Packets and super-packets read.
    pub reads: u64,
    /// Packets in them.
    pub packets_read: u64,
    /// Bytes in those.
    pub bytes_read: u64,
    /// Packets the machine did not take; it knows the reasons.
    pub packets_refused: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Batches written.
    pub writes: u64,
    /// Packets in them.
    pub packets_written: u64,
    /// Bytes in those.
    pub bytes_written: u64,
    /// Batches that the interface did not take, or not whole.
    pub write_errors: u64,
    /// Super-packets among what was read: the kernel's offload at work.
    pub super_packets_read: u64,
    /// The largest packet that the interface takes now.
    pub mtu: u16,
    /// Whether the kernel hands over and takes TCP super-packets.
    pub tcp_offload: bool,
    /// The same for UDP; kernels before 6.2 do not.
    pub udp_offload: bool,
}

/// Counters of the sockets towards services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Sockets open now.
    pub open: u64,
    /// Flows opened.
    pub opened: u64,
    /// Flows refused, by reason.
    pub refused: BTreeMap<Refusal, u64>,
    /// TCP connections that failed after they had opened.
    pub resets: u64,
    /// Bytes written to TCP backends.
    pub bytes_sent: u64,
    /// Bytes read from TCP backends.
    pub bytes_received: u64,
    /// UDP payloads sent to backends.
    pub datagrams_sent: u64,
    /// UDP payloads received from backends.
    pub datagrams_received: u64,
    /// UDP payloads that a socket did not take.
    pub datagrams_dropped: u64,
}

/// Counters of the UDP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Batches handed to the machine: one source, one stride.
    pub received_batches: u64,
    /// Datagrams in them.
    pub received_datagrams: u64,
    /// Payload bytes in them.
    pub received_bytes: u64,
    /// Send calls that were taken.
    pub sent_batches: u64,
    /// Datagrams in them, forwarded ones included.
    pub sent_datagrams: u64,
    /// Payload bytes in them.
    pub sent_bytes: u64,
    /// Datagrams sent straight out of the receive buffer.
    pub forwarded_datagrams: u64,
    /// Times the socket had no room; what was to be sent was kept.
    pub blocked: u64,
    /// Times the kernel refused to segment, and the batch was split here.
    pub segmentation_refused: u64,
    /// Errors reported by a receive call.
    pub receive_errors: u64,
    /// Datagrams dropped, by reason; both directions.
    pub drops: BTreeMap<UdpDrop, u64>,
}

/// Why a datagram was dropped by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UdpDrop {
    /// Received from port 0, or from an address that nobody can have; it could not be answered.
    Source,
    /// Received without a byte of payload.
    Empty,
    /// To be sent to port 0, a group, a broadcast or unspecified address, or to a family the socket lacks.
    Destination,
    /// The machine described bytes that are not in the buffer.
    Shape,
    /// No route, or the host or network is not reachable.
    Unreachable,
    /// A firewall of this host said no.
    Denied,
    /// Larger than the path carries.
    TooLarge,
    /// A host answered earlier that nobody listens.
    Refused,
    /// Any other error of a send call.
    Other,
}

impl UdpDrop {
    /// The name for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Empty => "empty",
            Self::Destination => "destination",
            Self::Shape => "shape",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

impl ShellStats {
    pub(crate) fn woke(&mut self, wake: Wake) {
        *self.wakes.entry(wake).or_default() += 1;
    }
}

impl UdpStats {
    pub(crate) fn drop(&mut self, reason: UdpDrop, datagrams: usize) {
        *self.drops.entry(reason).or_default() += datagrams as u64;
    }

    /// Datagrams dropped for one reason.
    pub fn dropped(&self, reason: UdpDrop) -> u64 {
        self.drops.get(&reason).copied().unwrap_or(0)
    }
}
