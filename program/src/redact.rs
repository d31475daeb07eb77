//! Addresses of people in logs: shown at DEBUG and below, replaced by a tag above it.
//!
//! The tag is the same for the same address within one run, so that lines about one peer can be put together, and
//! different in the next run, so that it cannot be looked up.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::OnceLock;

use log::LevelFilter;

/// An address that is shown only to those who asked for DEBUG.
#[derive(Clone, Copy)]
pub struct Redacted<T>(pub T);

static KEY: OnceLock<RandomState> = OnceLock::new();

impl<T: Into<IpAddr> + Copy + fmt::Display> Redacted<T> {
    fn tag(self) -> String {
        let ip: IpAddr = self.0.into();
        let hash = KEY.get_or_init(RandomState::new).hash_one(ip.to_canonical());
        format!("peer-{:04x}", hash & 0xffff)
    }

    fn show(self, verbosity: LevelFilter) -> String {
        if verbosity >= LevelFilter::Debug {
            self.0.to_string()
        } else {
            self.tag()
        }
    }
}

impl<T: Into<IpAddr> + Copy + fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show(log::max_level()))
    }
}

impl<T: Into<IpAddr> + Copy + fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
