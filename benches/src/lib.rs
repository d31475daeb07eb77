//! What measurements share: the clients of a relay without tunnel or program, the relay in memory, a bare QUIC relay to
//! compare it with, a count of allocations, and sockets that keep up.
//!
//! The figures themselves come from the criterion benches (`benches/`), the allocation test (`tests/`), and from
//! `ztna-load`, which `cargo xtask bench` runs in network namespaces around the real programs.

pub mod attributed;
pub mod client;
pub mod count;
pub mod cpu;
pub mod load;
pub mod memory;
pub mod packet;
pub mod socket;
