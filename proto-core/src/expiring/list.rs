//! Lists in the order of use, linked through the entries of a slab.
//!
//! A list holds positions, not entries: the slab owns those, and several lists may share one slab as long as each
//! entry stands in one of them at most. Whoever removes an entry from the slab unlinks it first.

use slab::Slab;

/// Where no entry is.
const NOWHERE: usize = usize::MAX;

/// The neighbours of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    newer: usize,
    older: usize,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            newer: NOWHERE,
            older: NOWHERE,
        }
    }
}

/// An entry that can stand in a [`List`].
pub(crate) trait Linked {
    /// Its neighbours; for the list only.
    fn links(&mut self) -> &mut Links;
}

/// Entries of a slab, from the newest to the oldest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    newest: usize,
    oldest: usize,
}

impl Default for List {
    fn default() -> Self {
        Self {
            newest: NOWHERE,
            oldest: NOWHERE,
        }
    }
}

impl List {
    /// The position of the oldest entry.
    pub(crate) fn oldest(&self) -> Option<usize> {
        (self.oldest != NOWHERE).then_some(self.oldest)
    }

    /// The position of the newest entry.
    pub(crate) fn newest(&self) -> Option<usize> {
        (self.newest != NOWHERE).then_some(self.newest)
    }

    /// The position of the entry that is newer than this one of the list by one.
    pub(crate) fn newer<T: Linked>(self, slab: &mut Slab<T>, index: usize) -> Option<usize> {
        let newer = slab.get_mut(index)?.links().newer;
        (newer != NOWHERE).then_some(newer)
    }

    /// Puts an entry that stands in no list to the newest end.
    pub(crate) fn push_newest<T: Linked>(&mut self, slab: &mut Slab<T>, index: usize) {
        let Some(entry) = slab.get_mut(index) else { return };
        *entry.links() = Links {
            newer: NOWHERE,
            older: self.newest,
        };
        match slab.get_mut(self.newest) {
            Some(neighbour) => neighbour.links().newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    /// Takes an entry of this list out of it; it stays in the slab.
    pub(crate) fn unlink<T: Linked>(&mut self, slab: &mut Slab<T>, index: usize) {
        let Some(entry) = slab.get_mut(index) else { return };
        let Links { newer, older } = std::mem::take(entry.links());
        match slab.get_mut(newer) {
            Some(neighbour) => neighbour.links().older = older,
            None => self.newest = older,
        }
        match slab.get_mut(older) {
            Some(neighbour) => neighbour.links().newer = newer,
            None => self.oldest = newer,
        }
    }
}
