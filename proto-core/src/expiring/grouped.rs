//! A bounded map whose entries belong to groups, none of which can push out the entries of another.
//!
//! It decides who gives way. A group at its own bound gives up its own entry that rested longest. When the whole map is
//! full, the largest group gives up one: a group that takes much loses to those that take little, and the newcomer only
//! to itself if it is the largest. The order of use and expiry over all groups are [`Expiring`]'s.
//!
//! A touch is one look-up and a few writes. Only opening and closing looks for the largest group, in a tree.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::{Duration, Instant};

use slab::Slab;

use super::Expiring;
use super::list::{Linked, Links, List};
use crate::rng::{Rng, SeededMap};

#[derive(Debug)]
struct Member<G, K> {
    group: G,
    key: K,
    links: Links,
}

impl<G, K> Linked for Member<G, K> {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

#[derive(Debug, Default)]
struct Group {
    count: usize,
    order: List,
}

/// A bounded map in groups; the module documentation has the whole.
#[derive(Debug)]
pub(crate) struct Grouped<G, K, V> {
    entries: Expiring<K, (V, usize)>,
    members: Slab<Member<G, K>>,
    groups: SeededMap<G, Group>,
    by_size: BTreeSet<(usize, G)>,
    capacity: usize,
    per_group: usize,
}

impl<G: Copy + Eq + Hash + Ord, K: Copy + Eq + Hash, V> Grouped<G, K, V> {
    /// An empty map for at most `capacity` entries, `per_group` of one group; one at least of both.
    pub(crate) fn new(capacity: usize, per_group: usize, rng: &mut Rng) -> Self {
        Self {
            entries: Expiring::new(capacity, rng),
            members: Slab::new(),
            groups: rng.map(),
            by_size: BTreeSet::new(),
            capacity: capacity.max(1),
            per_group: per_group.max(1),
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of a key; its rest goes on.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// The value of a key, which begins to rest anew.
    pub(crate) fn touch(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        let (value, member) = self.entries.touch(key, now)?;
        if let Some(group) = self
            .members
            .get(*member)
            .map(|member| member.group)
            .and_then(|group| self.groups.get_mut(&group))
        {
            group.order.unlink(&mut self.members, *member);
            group.order.push_newest(&mut self.members, *member);
        }
        Some(value)
    }

    /// Makes room for a new entry of a group, by taking out at most one; call it before every [`Grouped::insert`].
    pub(crate) fn make_room(&mut self, group: G) -> Option<(K, V)> {
        let of_group = self.groups.get(&group).map_or(0, |group| group.count);
        let loser = if of_group >= self.per_group {
            group
        } else if self.entries.len() >= self.capacity {
            self.by_size.last()?.1
        } else {
            return None;
        };
        let oldest = self.groups.get(&loser)?.order.oldest()?;
        let key = self.members.get(oldest)?.key;
        let value = self.remove(&key)?;
        Some((key, value))
    }

    /// Puts a new key in, as the newest of its group. Nothing happens if it is there already.
    pub(crate) fn insert(&mut self, group: G, key: K, value: V, now: Instant) {
        if self.entries.get(&key).is_some() {
            return;
        }
        let member = self.members.insert(Member {
            group,
            key,
            links: Links::default(),
        });
        self.entries.insert(key, (value, member), now);
        let record = self.groups.entry(group).or_default();
        record.order.push_newest(&mut self.members, member);
        self.by_size.remove(&(record.count, group));
        record.count += 1;
        self.by_size.insert((record.count, group));
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, member) = self.entries.remove(key)?;
        self.leave(member);
        Some(value)
    }

    /// Takes out the entry that rested longest, if that is `idle` or longer. To be called until `None`.
    pub(crate) fn pop_expired(&mut self, now: Instant, idle: Duration) -> Option<(K, V)> {
        let (key, (value, member)) = self.entries.pop_expired(now, idle)?;
        self.leave(member);
        Some((key, value))
    }

    /// When [`Grouped::pop_expired`] has something next, if nothing is touched until then.
    pub(crate) fn next_expiry(&self, idle: Duration) -> Option<Instant> {
        self.entries.next_expiry(idle)
    }

    fn leave(&mut self, member: usize) {
        let Some(group) = self.members.get(member).map(|member| member.group) else {
            return;
        };
        if let Some(record) = self.groups.get_mut(&group) {
            record.order.unlink(&mut self.members, member);
            self.by_size.remove(&(record.count, group));
            record.count -= 1;
            if record.count > 0 {
                self.by_size.insert((record.count, group));
            } else {
                self.groups.remove(&group);
            }
        }
        self.members.try_remove(member);
    }
}
