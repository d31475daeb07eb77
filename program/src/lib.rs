//! What all programs of the overlay do the same way around their machine.
//!
//! # Map
//! * [`settings`]: flags, environment and file, and one clear line for whatever is wrong in them; [`args`]: those that
//!   every program has.
//! * [`endpoint`], [`services`]: settings that agents and connectors share.
//! * [`tls`], [`pki`]: certificates and keys.
//! * [`station`]: a machine at work, with [`http`] and [`metrics`] beside it.
//! * [`client`], [`resolve`]: what agents and connectors do alike.
//! * [`logging`], [`explain`], [`redact`]: what is said, and what is not; [`exit`]: how it ends.

pub mod args;
pub mod client;
pub mod congestion;
pub mod endpoint;
pub mod exit;
pub mod explain;
pub mod http;
pub mod logging;
pub mod lookup;
pub mod metrics;
pub mod pki;
pub mod redact;
pub mod reload;
pub mod resolve;
pub mod services;
pub mod settings;
pub mod station;
pub mod tls;
