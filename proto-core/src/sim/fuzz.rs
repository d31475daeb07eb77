//! The entry points of fuzzers: functions from any bytes to nothing, which panic if anything is wrong.
//!
//! They are ordinary functions, so that a stable compiler replays a corpus through the very code that a fuzzer drives.
//! Each decides by itself what its bytes mean; [`TARGETS`] lists them by the name of their corpus.

mod messages;
mod netstack;
mod roles;

use crate::rng::Rng;

pub use messages::{datagram, packet, signaling, socks};
pub use netstack::netstack;
pub use roles::{agent, connector, intermediate};

/// Something to be fuzzed.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("agent", agent),
    ("connector", connector),
    ("datagram", datagram),
    ("encounter", encounter),
    ("intermediate", intermediate),
    ("netstack", netstack),
    ("packet", packet),
    ("signaling", signaling),
    ("socks", socks),
    ("world", world),
];

/// A generated world: see [`story`](crate::sim::story).
pub fn world(bytes: &[u8]) {
    crate::sim::story::tell(bytes);
}

/// A generated encounter behind translators: see [`encounter`](crate::sim::encounter).
pub fn encounter(bytes: &[u8]) {
    crate::sim::encounter::meet(bytes);
}

/// Changes an input as a fuzzer would: bits, bytes, lengths, order.
pub fn mutate(input: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u64() as u8),
            2 => {
                let tail = bytes.split_off(at);
                bytes.splice(0..0, tail);
            }
            3 => bytes.extend_from_within(at..),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if rng.below(2) == 0 {
                        *byte ^ (1 << rng.below(8))
                    } else {
                        rng.next_u64() as u8
                    };
                }
            }
        }
    }
    bytes.truncate(4096);
    bytes
}
