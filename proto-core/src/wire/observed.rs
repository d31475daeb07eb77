//! QUIC address discovery (QAD), v1 form: `[01][IPv4, 4 bytes][port u16]`.
//!
//! The intermediate tells a client which address it sees, when the connection is established and whenever the address
//! changes. There is no IPv6 form in v1, so an IPv6 client is told nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Malformed, Reader};

/// The first byte.
pub const TYPE: u8 = 0x01;

/// The length of the message in bytes.
pub const LEN: usize = 7;

/// Reads the message, type byte included. Bytes after it are ignored, as in every v1 control message.
///
/// # Errors
/// If it is too short or of another type.
pub fn parse(message: &[u8]) -> Result<SocketAddrV4, Malformed> {
    let mut reader = Reader(message);
    reader.expect(TYPE)?;
    let ip = Ipv4Addr::from(reader.array::<4>()?);
    Ok(SocketAddrV4::new(ip, u16::from_be_bytes(reader.array()?)))
}

/// Writes the message, type byte included.
pub fn write(address: SocketAddrV4) -> [u8; LEN] {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [TYPE, a, b, c, d, high, low]
}
