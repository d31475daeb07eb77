//! A bounded map that knows which of its entries has rested longest.
//!
//! It decides the order and the bound: an insertion into a full map pushes out the entry that rested longest. How long
//! an entry may rest, and what its end means, is decided by the caller: [`Expiring::pop_expired`].
//!
//! Entries stand in a slab and are linked through it from the newest to the oldest, so every operation is one look-up and
//! a few writes, whatever the size. The hasher is seeded, so that no peer can aim at its buckets.

pub(crate) mod grouped;
pub(crate) mod list;
#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::rng::{Rng, SeededMap};
use list::{Linked, Links, List};

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    touched: Instant,
    links: Links,
}

impl<K, V> Linked for Entry<K, V> {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// What an insertion did beside inserting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted<K, V> {
    /// Nothing.
    Added,
    /// The key had this value before.
    Replaced(V),
    /// The map was full: this entry rested longest and had to leave.
    Evicted(K, V),
}

/// A bounded map in the order of use; the module documentation has the whole.
#[derive(Debug)]
pub struct Expiring<K, V> {
    by_key: SeededMap<K, usize>,
    entries: Slab<Entry<K, V>>,
    order: List,
    capacity: usize,
    /// The newest time seen: the order of use is the order of time even if the clock runs backwards.
    latest: Option<Instant>,
}

impl<K: Clone + Eq + Hash, V> Expiring<K, V> {
    /// An empty map for at most `capacity` entries, one at least. Memory grows with its content.
    pub fn new(capacity: usize, rng: &mut Rng) -> Self {
        Self {
            by_key: rng.map(),
            entries: Slab::new(),
            order: List::default(),
            capacity: capacity.max(1),
            latest: None,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key; its rest goes on.
    pub fn get(&self, key: &K) -> Option<&V> {
        let index = *self.by_key.get(key)?;
        self.entries.get(index).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed; its rest goes on.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = *self.by_key.get(key)?;
        self.entries.get_mut(index).map(|entry| &mut entry.value)
    }

    /// The value of a key, which begins to rest anew.
    pub fn touch(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        let index = *self.by_key.get(key)?;
        let now = self.observe(now);
        self.order.unlink(&mut self.entries, index);
        self.order.push_newest(&mut self.entries, index);
        let entry = self.entries.get_mut(index)?;
        entry.touched = now;
        Some(&mut entry.value)
    }

    /// Puts a value in, as the newest. What had to leave for it is handed back.
    pub fn insert(&mut self, key: K, value: V, now: Instant) -> Inserted<K, V> {
        if let Some(old) = self.touch(&key, now) {
            return Inserted::Replaced(std::mem::replace(old, value));
        }
        let evicted = if self.len() >= self.capacity {
            self.pop_oldest()
        } else {
            None
        };
        let touched = self.observe(now);
        let index = self.entries.insert(Entry {
            key: key.clone(),
            value,
            touched,
            links: Links::default(),
        });
        self.order.push_newest(&mut self.entries, index);
        self.by_key.insert(key, index);
        evicted.map_or(Inserted::Added, |(key, value)| Inserted::Evicted(key, value))
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = *self.by_key.get(key)?;
        self.take(index).map(|(_, value)| value)
    }

    /// Takes out the entry that rested longest.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.take(self.order.oldest()?)
    }

    /// Takes out the entry that rested longest, if that is `idle` or longer. To be called until `None`.
    pub fn pop_expired(&mut self, now: Instant, idle: Duration) -> Option<(K, V)> {
        let index = self.order.oldest()?;
        let touched = self.entries.get(index)?.touched;
        if now.saturating_duration_since(touched) < idle {
            return None;
        }
        self.take(index)
    }

    /// When [`Expiring::pop_expired`] has something next, if nothing is touched until then.
    pub fn next_expiry(&self, idle: Duration) -> Option<Instant> {
        let touched = self.entries.get(self.order.oldest()?)?.touched;
        touched.checked_add(idle)
    }

    /// The keys of all entries, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|(_, entry)| &entry.key)
    }

    fn take(&mut self, index: usize) -> Option<(K, V)> {
        self.order.unlink(&mut self.entries, index);
        let entry = self.entries.try_remove(index)?;
        self.by_key.remove(&entry.key);
        Some((entry.key, entry.value))
    }

    fn observe(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        now
    }
}
