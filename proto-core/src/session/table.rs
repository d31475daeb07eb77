//! The sessions of a host: found by the connection that something came on, by the number in a check, and by time.

use std::time::Instant;

use ::slab::Slab;

use crate::id::ConnId;
use crate::rng::{Rng, SeededMap};
use crate::timer::DeadlineIndex;

/// Entries with a number that peers know them by. `T` is what the role keeps of one.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Slab<T>,
    numbers: SeededMap<u32, usize>,
    /// By the index of the connection.
    owners: Vec<Option<(ConnId, usize)>>,
    timers: DeadlineIndex,
    rng: Rng,
}

impl<T> Table<T> {
    pub(crate) fn new(mut rng: Rng) -> Self {
        Self {
            entries: Slab::new(),
            numbers: rng.map(),
            owners: Vec::new(),
            timers: DeadlineIndex::default(),
            rng,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number that no entry has, and that says nothing of how many there are.
    pub(crate) fn fresh_number(&mut self) -> u32 {
        loop {
            let number = self.rng.next_u64() as u32;
            if !self.numbers.contains_key(&number) {
                return number;
            }
        }
    }

    pub(crate) fn fork_rng(&mut self) -> Rng {
        self.rng.fork()
    }

    pub(crate) fn insert(&mut self, entry: T) -> usize {
        self.entries.insert(entry)
    }

    /// Lets a number lead to an entry.
    pub(crate) fn number(&mut self, number: u32, at: usize) {
        self.numbers.insert(number, at);
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        self.numbers.get(&number).copied()
    }

    /// Lets a connection lead to an entry.
    pub(crate) fn own(&mut self, id: ConnId, at: usize) {
        let index = id.index as usize;
        if self.owners.len() <= index {
            self.owners.resize(index + 1, None);
        }
        if let Some(owner) = self.owners.get_mut(index) {
            *owner = Some((id, at));
        }
    }

    pub(crate) fn disown(&mut self, id: ConnId) {
        if let Some(owner) = self.owners.get_mut(id.index as usize) {
            owner.take_if(|(owned, _)| *owned == id);
        }
    }

    pub(crate) fn owner(&self, id: ConnId) -> Option<usize> {
        let (owned, at) = (*self.owners.get(id.index as usize)?)?;
        (owned == id).then_some(at)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.entries.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.entries.get_mut(at)
    }

    /// Removes an entry and the number that led to it. The connections that lead to it are to be disowned before.
    pub(crate) fn remove(&mut self, at: usize, number: Option<u32>) -> Option<T> {
        self.timers.set(at as u32, None);
        if let Some(number) = number {
            self.numbers.remove(&number);
        }
        self.entries.try_remove(at)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter()
    }

    pub(crate) fn indices(&self) -> Vec<usize> {
        self.entries.iter().map(|(index, _)| index).collect()
    }

    pub(crate) fn set_timer(&mut self, at: usize, when: Option<Instant>) {
        self.timers.set(at as u32, when);
    }

    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        self.timers.pop_due(now).map(|index| index as usize)
    }
}
