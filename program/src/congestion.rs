//! Which congestion control the TCP of this program's tunnel end has.

use proto_core::tcp::Algorithm;

use crate::settings::{Settings, SettingsError};

/// The key.
pub const KEY: &str = "congestion_control";

const CHOICES: [(&str, Algorithm); 2] = [("bbr", Algorithm::Bbr), ("cubic", Algorithm::Cubic)];

/// Reads it.
///
/// # Errors
/// If it is neither of the two.
pub fn read(settings: &Settings) -> Result<Algorithm, SettingsError> {
    settings.or(KEY, Algorithm::default(), |input| input.choice(&CHOICES))
}
