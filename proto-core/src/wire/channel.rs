//! Frames that the intermediate carries without keys, and packets that travel twice.
//!
//! | where | bytes | meaning |
//! |---|---|---|
//! | UDP payload, or DATAGRAM of the control connection | `[21][channel u32][QUIC packet]` | a packet of the connection between the two ends of a channel |
//! | DATAGRAM of the connection between agent and connector | `[23][sequence u32][IP packet]` | an IP packet that is sent on two paths at once |
//!
//! The channel number is that of the client's end: the intermediate writes the other end's number over it and changes
//! nothing else. A frame is worth something only if it comes from the address that QUIC has validated for that end.

/// The first byte of a channel frame.
pub const CHANNEL: u8 = 0x21;

/// The first byte of a packet that is sent on two paths.
pub const TWICE: u8 = 0x23;

/// Bytes before the QUIC packet of a channel frame, and before the IP packet of one that is sent twice.
pub const PREFIX_LEN: usize = 5;

/// What stands before each packet of a channel.
pub fn channel_prefix(channel: u32) -> [u8; PREFIX_LEN] {
    prefix(CHANNEL, channel)
}

/// What stands before an IP packet that is sent on two paths.
pub fn twice_prefix(sequence: u32) -> [u8; PREFIX_LEN] {
    prefix(TWICE, sequence)
}

/// The channel of a frame; the QUIC packet follows behind [`PREFIX_LEN`] bytes. `None` if it is no channel frame, or holds
/// no packet.
pub fn parse_channel(frame: &[u8]) -> Option<u32> {
    number(CHANNEL, frame)
}

/// Writes another channel number into a frame.
pub fn set_channel(frame: &mut [u8], channel: u32) {
    if let Some(prefix) = frame.first_chunk_mut() {
        *prefix = channel_prefix(channel);
    }
}

/// The sequence number of a packet that was sent on two paths; the IP packet follows behind [`PREFIX_LEN`] bytes. `None`
/// if it is none.
pub fn parse_twice(datagram: &[u8]) -> Option<u32> {
    number(TWICE, datagram)
}

fn prefix(first: u8, number: u32) -> [u8; PREFIX_LEN] {
    let [a, b, c, d] = number.to_be_bytes();
    [first, a, b, c, d]
}

fn number(first: u8, bytes: &[u8]) -> Option<u32> {
    match bytes {
        [byte, a, b, c, d, _, ..] if *byte == first => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}
