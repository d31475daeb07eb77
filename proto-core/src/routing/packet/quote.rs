//! What an ICMP error says beside whom it is about.

use super::{Extent, ICMP_HEADER, Kind, Network, Parsed, TCP, word};

/// A path that carries less than was sent (RFC 1191 §4, RFC 8201 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// What the path carries.
    pub mtu: usize,
    /// The sequence number of the segment that was too long, if it was one of TCP: proof that the error is about
    /// something that was sent (RFC 5927 §7.2).
    pub sequence: Option<u32>,
}

impl TooBig {
    /// Reads "fragmentation needed" or "packet too big"; `None` if it is another error, or an old one without an MTU.
    pub fn read(error: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.kind != Kind::IcmpError {
            return None;
        }
        let message = error.get(parsed.transport.clone())?;
        let (kind, high, low) = (
            word(message, 0).ok()?,
            word(message, 4).ok()?,
            word(message, 6).ok()?,
        );
        let mtu = match (parsed.flow.source.is_ipv4(), kind) {
            (true, 0x0304) => usize::from(low),
            (false, 0x0200) => usize::from(high) << 16 | usize::from(low),
            (_, _) => return None,
        };
        let quote = message.get(ICMP_HEADER..)?;
        let quoted = Network::parse(quote, Extent::Quoted).ok()?;
        let segment = quote.get(quoted.transport.clone()).unwrap_or_default();
        let sequence = match (quoted.protocol, word(segment, 4), word(segment, 6)) {
            (TCP, Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
            (_, _, _) => None,
        };
        (mtu > 0).then_some(Self { mtu, sequence })
    }
}
