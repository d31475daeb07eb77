//! Golden bytes, round trips, truncations and junk for every message.

mod control;
mod datagram;
mod framing;
mod raw;
mod session;

use super::{UdpPayload, classify};

/// Bytes written by a v1 peer, one message a line: name, hex, length in brackets.
const VECTORS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ztna-v1.txt"));

/// Bytes of v2, in the same form.
const VECTORS_V2: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ztna-v2.txt"));

/// The bytes of a named vector of v1.
fn vector(name: &str) -> Vec<u8> {
    vector_of(VECTORS, name)
}

fn vector_of(vectors: &str, name: &str) -> Vec<u8> {
    let line = vectors
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no vector {name:?}"));
    let (digits, len) = line.split_once(" (").unwrap_or((line, ""));
    let bytes = unhex(digits);
    if let Some(len) = len.strip_suffix(" B)") {
        assert_eq!(bytes.len().to_string(), len, "length of {name}");
    }
    bytes
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn a_udp_payload_is_told_by_its_first_byte() {
    assert_eq!(classify(&[]), UdpPayload::Foreign);
    for first in 0..=u8::MAX {
        let expected = match first {
            0x5A => UdpPayload::QuicOrRaw,
            0x21 => UdpPayload::Channel,
            0x22 => UdpPayload::Check,
            0x00..0x40 => UdpPayload::Foreign,
            0x40.. => UdpPayload::Quic,
        };
        assert_eq!(classify(&[first, 0]), expected, "{first:#04x}");
    }
}
