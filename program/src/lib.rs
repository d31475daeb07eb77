//! What all programs of the overlay do the same way around their machine.
//!
//! # Map
//! * [`settings`]: flags, environment and file, and one clear line for whatever is wrong in them.
//! * [`endpoint`], [`services`]: settings that agents and connectors share.
//! * [`resolve`]: host names, in the background.
//! * [`tls`], [`pki`]: certificates and keys.
//! * [`explain`], [`redact`]: what is said in logs, and what is not.

pub mod endpoint;
pub mod explain;
pub mod pki;
pub mod redact;
pub mod resolve;
pub mod services;
pub mod settings;
pub mod tls;
