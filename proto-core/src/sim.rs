//! A world in virtual time for whole scenarios.

pub mod clock;

pub use clock::{Clock, ManualClock};
