//! Initial sequence numbers that nobody outside can guess (RFC 6528).

use std::net::IpAddr;
use std::time::Instant;

use ring::hmac;

use crate::rng::Rng;
use crate::routing::packet::FiveTuple;

/// One tick of the clock in the number is four microseconds (RFC 9293 §3.4.1).
const TICK_MICROS: u128 = 4;

/// Draws initial sequence numbers: a clock plus a keyed hash of the connection, so that those of one pair of ports grow
/// and those of different pairs have nothing to do with each other.
pub struct IsnSource {
    key: hmac::Key,
    start: Instant,
}

impl std::fmt::Debug for IsnSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IsnSource(..)")
    }
}

impl IsnSource {
    /// A source with a key from `rng`.
    pub fn new(rng: &mut Rng, start: Instant) -> Self {
        let mut key = [0; 32];
        rng.fill(&mut key);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            start,
        }
    }

    /// The number for a connection that is opened at `now`.
    pub fn draw(&self, flow: &FiveTuple, now: Instant) -> u32 {
        let mut context = hmac::Context::with_key(&self.key);
        for address in [flow.source, flow.destination] {
            match address {
                IpAddr::V4(address) => context.update(&address.octets()),
                IpAddr::V6(address) => context.update(&address.octets()),
            }
        }
        context.update(&flow.source_port.to_be_bytes());
        context.update(&flow.destination_port.to_be_bytes());
        let tag = context.sign();
        let hash = tag
            .as_ref()
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let ticks = now.saturating_duration_since(self.start).as_micros() / TICK_MICROS;
        hash.wrapping_add(ticks as u32)
    }
}
