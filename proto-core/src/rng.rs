//! Randomness that comes in from outside, once: a seed, stretched by ChaCha20.
//!
//! The shell draws the seed from the operating system; tests pass a constant, and the same inputs then give the same
//! outputs byte for byte. ChaCha20 keeps what is drawn unpredictable to peers (connection ids, nonces, jitter).

use std::collections::HashMap;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// 32 bytes of entropy, drawn by the shell.
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A deterministic, cryptographically strong generator.
#[derive(Debug)]
pub struct Rng(ChaCha20Rng);

/// A hash map whose hasher is fast and seeded, so that no peer can aim at its buckets.
pub type SeededMap<K, V> = HashMap<K, V, SeedableRandomState>;

impl Rng {
    /// Starts the stream of a seed.
    pub fn new(seed: &Seed) -> Self {
        Self(ChaCha20Rng::from_seed(seed.0))
    }

    /// An independent generator for a child machine.
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 for a bound of 0. The bias of the multiplication is below 2^-32 for bounds in use.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A duration between `low` and `high`, uniformly.
    pub fn duration_between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.below(span))
    }

    /// An empty map with a hasher of its own.
    pub fn map<K, V>(&mut self) -> SeededMap<K, V> {
        HashMap::with_hasher(SeedableRandomState::with_seed(
            self.next_u64(),
            SharedSeed::global_fixed(),
        ))
    }
}
