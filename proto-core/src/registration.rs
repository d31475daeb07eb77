//! Who uses and who publishes which service, on both sides of a connection to the intermediate.
//!
//! [`Registrar`] stands in an agent or a connector: it asks, repeats, and knows which services are registered.
//! [`Registry`] stands in the intermediate: it answers, and says where a packet for a service goes. Both exchange
//! values only; the roles above encode the messages, carry them, and judge certificates. A registration lives exactly as
//! long as the QUIC connection it was made on.

mod client;
mod server;

pub use client::{REGISTER_RETRIES, REGISTER_RETRY_INTERVAL, Registrar, RegistrationEvent};
pub use server::{Owner, Registry, RegistryLimits, Route, Unroutable, Verdict};
