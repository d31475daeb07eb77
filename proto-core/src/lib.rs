//! The sans-IO core of a zero-trust network overlay: every protocol decision, no I/O, no clock, no entropy.
//!
//! Three machines are built from it, one per role: [`Agent`], [`Intermediate`] and [`Connector`]. A shell (see the
//! `runtime-*` crates) moves bytes and time in and out of them and decides nothing.
//!
//! # The loop
//! Whatever drives a machine keeps one invariant: **after any input, drain every output until there is none, then sleep
//! until the machine's own deadline or the next input.** A machine that has something queued says so by a deadline that
//! is due now; nothing is ever lost by sleeping as long as it says.
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use std::time::{Duration, Instant};
//!
//! use proto_core::machine::{Ecn, FourTuple, Machine, Received};
//!
//! /// The smallest shell there is: one blocking socket, one datagram at a time.
//! fn run<M: Machine>(mut machine: M, socket: &UdpSocket) -> std::io::Result<()> {
//!     let mut buffer = vec![0; 65_535];
//!     let local = socket.local_addr()?;
//!     while !machine.is_drained() {
//!         // Drain: datagrams to the socket (a batch may hold several of equal size), events to whoever cares.
//!         while let Some(transmit) = machine.poll_transmit(&mut buffer, Instant::now()) {
//!             let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
//!             for datagram in buffer[..transmit.len].chunks(size) {
//!                 socket.send_to(datagram, transmit.path.remote)?;
//!             }
//!         }
//!         while machine.poll_event().is_some() {}
//!         // Sleep: until the deadline, or until something arrives.
//!         let now = Instant::now();
//!         let until = machine.poll_timeout().map(|deadline| deadline.at.saturating_duration_since(now));
//!         if until.is_some_and(|wait| wait.is_zero()) {
//!             machine.handle_timeout(now);
//!             continue;
//!         }
//!         socket.set_read_timeout(until.map(|wait| wait.max(Duration::from_micros(1))))?;
//!         match socket.recv_from(&mut buffer) {
//!             Ok((len, remote)) => {
//!                 let path = FourTuple { local, remote };
//!                 let payload = &mut buffer[..len];
//!                 let received = Received { path, ecn: Ecn::NotEct, stride: None, payload };
//!                 let forward = machine.handle_datagram(received, Instant::now());
//!                 for run in forward.runs() {
//!                     socket.send_to(&buffer[run.start..run.end], run.path.remote)?;
//!                 }
//!             }
//!             // Nothing came in time, or the network said no: neither ends a machine.
//!             Err(_) => machine.handle_timeout(Instant::now()),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Map
//! | module | decides |
//! |---|---|
//! | [`machine`], [`backend`] | the contract between a machine and its shell; the values about backend sockets |
//! | [`agent`], [`intermediate`], [`connector`] | the roles: which packet goes where, and who may |
//! | [`forward`], [`local`] | an agent without a tunnel interface: local sockets instead, SOCKS, a TCP client |
//! | [`link`], [`keepalive`], [`backoff`] | a client's connection to an intermediate: when to connect, whether it is alive |
//! | [`registration`] | who uses and who publishes which service, on both sides |
//! | [`routing`] | inner IP packets, an agent's routes, the intermediate's flow table |
//! | [`netstack`] | a connector's TCP, UDP and ICMP between tunnel packets and backends |
//! | [`tcp`] | one end of a TCP connection, opened by either side |
//! | [`service`] | a connector's backends: who takes a flow, who is well, whose name has which addresses, who may come |
//! | [`messages`] | control messages on a stream: put together from what arrives, kept until the stream takes them |
//! | [`quic`] | the seam to a QUIC implementation, the pool of connections above it, identities in certificates |
//! | [`session`] | what an agent and a connector have between them: paths, the choice for each packet, the search for a direct one |
//! | [`v1peer`] | a connector's side of the direct paths of v1 agents: whom it asks, answers and lets in |
//! | [`wire`] | the bytes of the protocol, and nothing about what they mean |
//! | [`config`], [`id`] | what the roles are configured with: every duration and every limit, with its argument |
//! | [`timer`], [`expiring`], [`rng`] | deadlines by slot, bounded maps in the order of use, seeded randomness |

pub mod agent;
pub mod backend;
pub mod backoff;
pub mod channel;
pub mod config;
pub mod connector;
pub mod expiring;
pub mod failover;
pub mod forward;
pub mod id;
pub mod intermediate;
pub mod keepalive;
pub mod link;
pub mod local;
pub mod machine;
pub mod messages;
pub mod netstack;
pub mod punch;
pub mod quic;
pub mod registration;
pub mod rng;
pub mod routing;
pub mod service;
pub mod session;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod tcp;
#[cfg(test)]
mod test_origin;
pub mod timer;
pub mod v1peer;
pub mod window;
pub mod wire;

pub use agent::Agent;
pub use connector::Connector;
pub use forward::Forwarder;
pub use intermediate::Intermediate;
pub use machine::{Backends, Locals, Machine, Tunnel};
