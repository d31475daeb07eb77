//! The PROXY protocol, version 2, as a sender: what a TCP backend is told before the agent's first byte.
//!
//! Specification: HAProxy, "The PROXY protocol", section 2.2. The source is the agent's inner address and port, the
//! destination the virtual address and port that it spoke to. Who it is stands in the TLVs: the name of its certificate
//! as `PP2_SUBTYPE_SSL_CN` inside `PP2_TYPE_SSL`, the SHA-256 of its certificate in a custom TLV.

use std::net::{IpAddr, SocketAddr};

use super::access::Peer;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 in the upper half; the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Address family in the upper half, STREAM in the lower.
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_CN: u8 = 0x22;

/// The first of the types left to applications: the SHA-256 of the agent's certificate.
pub const TYPE_FINGERPRINT: u8 = 0xe0;

/// The client came over TLS and gave a certificate, on this connection and on this session.
const SSL_CLIENT: u8 = 0x01 | 0x02 | 0x04;

/// The longest header: addresses of IPv6, a name of 255 bytes, and a fingerprint.
pub const MAX_HEADER: usize = 16 + 36 + (3 + 5 + 3 + 255) + (3 + 32);

/// The header of a connection that the connector makes for itself, such as a health check.
pub fn local() -> [u8; 16] {
    let mut header = [0; 16];
    header[..12].copy_from_slice(&SIGNATURE);
    header[12] = LOCAL;
    header[13] = UNSPEC;
    header
}

/// The header of an agent's connection.
pub fn header(source: SocketAddr, destination: SocketAddr, peer: Option<&Peer>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&SIGNATURE);
    out.push(PROXY);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => TCP4,
        (IpAddr::V6(_), IpAddr::V6(_)) => TCP6,
        // Both ends of a flow are of one family.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => UNSPEC,
    };
    out.extend_from_slice(&[family, 0, 0]);
    if family != UNSPEC {
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
        out.extend_from_slice(&source.port().to_be_bytes());
        out.extend_from_slice(&destination.port().to_be_bytes());
    }
    if let Some(peer) = peer {
        let mut ssl = vec![SSL_CLIENT, 0, 0, 0, 0];
        if !peer.name.is_empty() {
            tlv(SUBTYPE_SSL_CN, peer.name.as_bytes(), &mut ssl);
        }
        tlv(TYPE_SSL, &ssl, &mut out);
        tlv(TYPE_FINGERPRINT, &peer.fingerprint.0, &mut out);
    }
    let len = (out.len() - 16) as u16;
    out[14..16].copy_from_slice(&len.to_be_bytes());
    out
}

/// Type, length, value; a value longer than the wire's names cannot come here and would be cut.
fn tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    let len = value.len().min(1024);
    out.push(kind);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend(value.iter().take(len));
}
