//! Sets of numbers kept as ranges: packet numbers received, crypto bytes received.

/// Ascending, disjoint, non-touching half-open ranges; at most a fixed number of them, the lowest forgotten first.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    ranges: Vec<(u64, u64)>,
    limit: usize,
    /// Everything below counts as contained: it was, or it has been forgotten.
    floor: u64,
}

impl Ranges {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ranges: Vec::new(),
            limit,
            floor: 0,
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        number < self.floor
            || self
                .ranges
                .iter()
                .rev()
                .any(|&(start, end)| (start..end).contains(&number))
    }

    /// Adds `start..end`.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.ranges.partition_point(|range| range.1 < start);
        let last = self.ranges.partition_point(|range| range.0 <= end);
        let merged = self.ranges[first..last]
            .iter()
            .fold((start, end), |merged, range| {
                (merged.0.min(range.0), merged.1.max(range.1))
            });
        if first < last {
            self.ranges[first] = merged;
            self.ranges.drain(first + 1..last);
        } else {
            self.ranges.insert(first, merged);
        }
        if self.ranges.len() > self.limit {
            let forgotten = self.ranges.remove(0);
            self.floor = forgotten.1;
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes out the lowest range, at most `count` numbers of it.
    pub(super) fn take_first(&mut self, count: u64) -> Option<(u64, u64)> {
        let first = self.ranges.first_mut()?;
        let (start, end) = *first;
        let cut = end.min(start.saturating_add(count));
        if cut < end {
            first.0 = cut;
        } else {
            self.ranges.remove(0);
        }
        Some((start, cut))
    }

    /// Takes out everything below `number`.
    pub(super) fn remove_below(&mut self, number: u64) {
        self.ranges.retain(|range| range.1 > number);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(number);
        }
    }

    /// The largest number contained.
    pub(super) fn largest(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.1 - 1)
    }

    /// How many numbers from zero on are there without a gap.
    pub(super) fn prefix(&self) -> u64 {
        self.ranges
            .first()
            .filter(|range| range.0 == 0)
            .map_or(0, |range| range.1)
    }

    /// The ranges, highest first.
    pub(super) fn descending(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().rev().copied()
    }
}
