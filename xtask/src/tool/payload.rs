//! What an echo client sends: bytes that name their sender, so that a reply to somebody else cannot pass for one's own.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::SockRef;

/// Sender and sequence number; shorter payloads are filler alone.
pub(crate) const HEADER: usize = 12;

/// The payload that sender `id` sends as its `sequence`-th, of `size` bytes.
pub(crate) fn make(id: u32, sequence: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size.max(HEADER));
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    let mut state = u64::from(id) << 32 ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// What a reply turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Ours, unharmed.
    Own(u64),
    /// Somebody else's.
    Foreign,
    /// Ours by its header, but not what was sent; or too short to tell.
    Corrupt,
}

/// Judges a reply that sender `id` received, when it sends payloads of `size` bytes.
pub(crate) fn judge(id: u32, size: usize, reply: &[u8]) -> Reply {
    let Some((header, _)) = reply.split_first_chunk::<HEADER>() else {
        return Reply::Corrupt;
    };
    let [a, b, c, d, sequence @ ..] = *header;
    if u32::from_be_bytes([a, b, c, d]) != id {
        return Reply::Foreign;
    }
    let sequence = u64::from_be_bytes(sequence);
    if make(id, sequence, size) == reply {
        Reply::Own(sequence)
    } else {
        Reply::Corrupt
    }
}

/// A socket bound to `bind` and connected to `to`, with room for bursts.
pub(crate) fn socket(bind: Option<SocketAddr>, to: SocketAddr) -> Result<UdpSocket> {
    let bind = bind.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    widen(&socket);
    socket.connect(to).with_context(|| format!("connect {to}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    Ok(socket)
}

/// Asks for large buffers: an instrument must not lose what it measures.
pub(crate) fn widen(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    // Less than asked for is still right, only smaller.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
}

#[cfg(test)]
mod tests;
