//! Identifiers that cannot be mixed up, and the names of services.

use std::fmt;

/// A QUIC connection of a pool: an index that is dense, and a generation that tells uses of the slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The slot, dense: usable as an index.
    pub index: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// A lane of the connector's netstack: one way in and out of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The slot, dense: usable as an index.
    pub index: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// The position of a service in a role's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceIndex(pub u16);

/// The name of a service: 1 to 255 bytes of UTF-8, as it stands in registrations and routed packets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(Box<str>);

/// Why bytes are not the name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidServiceId {
    /// No byte at all.
    Empty,
    /// More than 255 bytes: the length field of the wire is one byte.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
}

impl fmt::Display for InvalidServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a service id must not be empty",
            Self::TooLong => "a service id has at most 255 bytes",
            Self::NotUtf8 => "a service id must be UTF-8",
        })
    }
}

impl std::error::Error for InvalidServiceId {}

impl ServiceId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// If it is empty, longer than 255 bytes or not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidServiceId> {
        if bytes.is_empty() {
            return Err(InvalidServiceId::Empty);
        }
        if bytes.len() > 255 {
            return Err(InvalidServiceId::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidServiceId::NotUtf8)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it travels.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
