//! The instant at which the virtual time of unit tests begins.

use std::time::Instant;

/// Any instant will do; what is tested depends on differences only.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock; tests count from it"
)]
pub(crate) fn origin() -> Instant {
    Instant::now()
}
