//! Entropy for the machines, drawn from the operating system.

use std::fmt;

use proto_core::rng::Seed;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The operating system gave no random bytes; nothing that needs secrets can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gave no random bytes")
    }
}

impl std::error::Error for NoEntropy {}

/// Draws a seed for one machine.
///
/// # Errors
/// If the operating system's generator fails.
pub fn seed() -> Result<Seed, NoEntropy> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(Seed(bytes))
}
