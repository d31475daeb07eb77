//! The payload of a DATAGRAM frame, owned and movable.
//!
//! A relay takes it from one connection and gives it to another without copying. Stripping a header from the front
//! moves an offset; the bytes stay where they are.

/// An owned DATAGRAM payload with a cheap way to drop bytes from its front.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Datagram {
    bytes: Vec<u8>,
    start: usize,
}

impl Datagram {
    /// Drops `count` bytes from the front (all, if there are fewer).
    pub fn advance(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }

    /// Takes `count` bytes back that were dropped from the front (all, if there were fewer).
    pub fn retreat(&mut self, count: usize) {
        self.start = self.start.saturating_sub(count);
    }

    /// Puts bytes in front: into room that was dropped there, if it is enough.
    pub fn prepend(&mut self, bytes: &[u8]) {
        match self.start.checked_sub(bytes.len()) {
            Some(start) => {
                self.bytes[start..self.start].copy_from_slice(bytes);
                self.start = start;
            }
            None => {
                let mut whole = Vec::with_capacity(bytes.len() + self.len());
                whole.extend_from_slice(bytes);
                whole.extend_from_slice(self);
                *self = whole.into();
            }
        }
    }

    /// The last `count` bytes that were dropped from the front (all, if there were fewer).
    pub fn before(&self, count: usize) -> &[u8] {
        &self.bytes[self.start.saturating_sub(count)..self.start]
    }

    /// Drops everything past the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<u8>> for Datagram {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl AsMut<[u8]> for Datagram {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl std::ops::Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl std::ops::DerefMut for Datagram {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut()
    }
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Datagram({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests;
