//! The sans-IO core of a zero-trust network overlay: every protocol decision, no I/O, no clock, no entropy.
//!
//! Three machines are built from it, one per role: `Agent`, `Intermediate` and `Connector`. A shell (see the
//! `runtime-*` crates) moves bytes and time in and out of them and decides nothing.
//!
//! # Map
//! * [`machine`]: the contract between a machine and its shell.
//! * [`backend`]: the values a connector exchanges with the shell that owns its backend sockets.
//! * [`routing`]: inner IP packets, parsed, rewritten and answered.
//! * [`quic`]: the seam to a QUIC implementation, and the pool of connections above it.
//! * [`agent`]: the roles, composed of [`link`] (a client's connection to an intermediate, watched by [`keepalive`])
//!   and the pool; configured by [`config`] values.
//! * [`wire`]: the bytes of the protocol, and nothing about what they mean.
//! * [`registration`]: who uses and who publishes which service, on both sides; [`backoff`]: when to try again.
//! * [`expiring`]: a bounded map that knows which of its entries has rested longest.

pub mod agent;
pub mod backend;
pub mod backoff;
pub mod config;
pub mod connector;
pub mod expiring;
pub mod id;
pub mod intermediate;
pub mod keepalive;
pub mod link;
pub mod machine;
pub mod netstack;
pub mod quic;
pub mod registration;
pub mod rng;
pub mod routing;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod test_origin;
pub mod timer;
pub mod wire;
