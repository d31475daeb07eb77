//! An index of deadlines: one per slot, the earliest in front, changed in O(log n).
//!
//! A binary heap that knows where each slot stands, so that no stale entry is ever left behind and nothing is scanned.

use std::time::Instant;

const ABSENT: u32 = u32::MAX;

/// Deadlines of slots that are named by small dense indices.
#[derive(Debug, Default)]
pub struct DeadlineIndex {
    heap: Vec<(Instant, u32)>,
    position: Vec<u32>,
}

impl DeadlineIndex {
    /// Sets, moves or removes the deadline of a slot.
    pub fn set(&mut self, slot: u32, at: Option<Instant>) {
        let index = slot as usize;
        if self.position.len() <= index {
            self.position.resize(index + 1, ABSENT);
        }
        let position = self.position[index];
        match (at, position) {
            (None, ABSENT) => {}
            (None, position) => self.remove_at(position as usize),
            (Some(at), ABSENT) => {
                self.heap.push((at, slot));
                let last = self.heap.len() - 1;
                self.position[index] = last as u32;
                self.up(last);
            }
            (Some(at), position) => {
                let position = position as usize;
                self.heap[position].0 = at;
                let position = self.up(position);
                self.down(position);
            }
        }
    }

    /// The deadline of a slot.
    pub fn of(&self, slot: u32) -> Option<Instant> {
        let position = *self.position.get(slot as usize)?;
        self.heap.get(position as usize).map(|entry| entry.0)
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.0)
    }

    /// Takes out a slot that is due at `now`; the earliest first.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, slot) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove_at(0);
        Some(slot)
    }

    /// The number of slots with a deadline.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no slot has one.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn remove_at(&mut self, position: usize) {
        let last = self.heap.len() - 1;
        self.swap(position, last);
        if let Some((_, slot)) = self.heap.pop() {
            self.position[slot as usize] = ABSENT;
        }
        if position < last {
            let position = self.up(position);
            self.down(position);
        }
    }

    fn up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= self.heap[position] {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let Some(first) = self.heap.get(left) else { return };
            let right_first = self.heap.get(left + 1).is_some_and(|right| right < first);
            let child = if right_first { left + 1 } else { left };
            if self.heap[position] <= self.heap[child] {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1 as usize] = a as u32;
        self.position[self.heap[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests;
