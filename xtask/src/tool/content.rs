//! A large file that nobody has to store: every byte follows from its place.

use std::fmt::Write as _;
use std::io::{self, Write};

use sha2::{Digest, Sha256};

const CHUNK: usize = 1 << 16;

/// Writes the first `length` bytes of the file.
pub(crate) fn write(to: &mut impl Write, length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut written = 0;
    while written < length {
        fill(&mut chunk, written);
        let rest = usize::try_from(length - written).unwrap_or(usize::MAX).min(CHUNK);
        to.write_all(chunk.get(..rest).unwrap_or_default())?;
        written += rest as u64;
    }
    Ok(())
}

/// The SHA-256 of the first `length` bytes, in hexadecimal.
pub(crate) fn digest(length: u64) -> String {
    let mut hash = Hash::default();
    // Hashing cannot fail; only real writers can.
    let _ = write(&mut hash, length);
    hash.finish()
}

/// Fills a piece, whole words of it, that starts at `offset`, a multiple of 8.
pub(crate) fn fill(chunk: &mut [u8], offset: u64) {
    for (index, word) in (offset / 8..).zip(chunk.chunks_exact_mut(8)) {
        let mut x = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(x ^ x >> 31).to_le_bytes());
    }
}

/// SHA-256 as a writer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hash {
    state: Sha256,
    length: u64,
}

impl Hash {
    /// Bytes taken in so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The digest in hexadecimal.
    pub(crate) fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.state.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
