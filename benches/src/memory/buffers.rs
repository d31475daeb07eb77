//! Buffers between machines that are allocated once: what moves is only counted against who writes or reads it.

use proto_core::machine::Transmit;

/// Batches that may wait: more than the machines here write in one turn.
const SLOTS: usize = 128;

/// One batch at most: the largest UDP payload.
const SLOT: usize = 65_507;

/// A queue of batches.
#[derive(Debug)]
pub(super) struct Buffers {
    slots: Vec<Box<[u8]>>,
    filled: Vec<Transmit>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| vec![0; SLOT].into_boxed_slice()).collect(),
            filled: Vec::with_capacity(SLOTS),
        }
    }
}

impl Buffers {
    pub(super) fn clear(&mut self) {
        self.filled.clear();
    }

    /// Lets `write` fill the next buffer; `false` if it wrote nothing or there is no buffer left.
    pub(super) fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> Option<Transmit>) -> bool {
        let Some(slot) = self.slots.get_mut(self.filled.len()) else {
            return false;
        };
        let Some(transmit) = write(slot) else { return false };
        self.filled.push(transmit);
        true
    }

    pub(super) fn iter(&mut self) -> impl Iterator<Item = (Transmit, &mut [u8])> {
        let slots = self.slots.iter_mut().zip(&self.filled);
        slots.map(|(slot, transmit)| (*transmit, &mut slot[..transmit.len]))
    }
}
