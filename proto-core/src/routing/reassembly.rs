//! Fragments of IP packets, put together again within bounds (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Decides when a packet is complete, and what is given up: fragments that overlap (RFC 5722; a stack that takes them can
//! be fooled about ports), packets that wait too long, and the ones that wait longest when memory is full. The caller
//! says where fragments come from ([`Reassembler::take`]'s `scope`), so that those of strangers are never mixed, and may
//! say whose room they take ([`Reassembler::take_from`]'s `holder`), where an address may be anyone's.

#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::{Fragment, Parsed, Piece};
use crate::expiring::{Expiring, Inserted};
use crate::rng::{Rng, SeededMap};

/// How long fragments wait for the rest of their packet: Linux's default, between RFC 791's 15 s and RFC 8200's 60 s.
pub const WAIT: Duration = Duration::from_secs(30);

/// What is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Incomplete packets.
    pub packets: usize,
    /// Incomplete packets of one holder: a source address, unless the caller says otherwise.
    pub per_source: usize,
    /// Bytes of all fragments that wait.
    pub bytes: usize,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        // 64 of the longest packets.
        Self {
            packets: 512,
            per_source: 32,
            bytes: 4 << 20,
        }
    }
}

/// What happened to fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyStats {
    /// Packets put together.
    pub whole: u64,
    /// Packets given up because a fragment was missing for too long.
    pub timed_out: u64,
    /// Packets given up for lack of room, or refused because their source has too many.
    pub evicted: u64,
    /// Packets given up, or fragments refused, because fragments contradict themselves or each other.
    pub inconsistent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<S, H> {
    scope: S,
    holder: H,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Debug, Default)]
struct Partial {
    /// What came, as half-open ranges, in order; neighbours are merged.
    ranges: Vec<(usize, usize)>,
    data: Vec<u8>,
    /// The length of the whole, once the last fragment came.
    total: Option<usize>,
    first: Option<(Piece, Vec<u8>)>,
}

/// Packets of which some fragments came.
#[derive(Debug)]
pub struct Reassembler<S, H = IpAddr> {
    partial: Expiring<Key<S, H>, Partial>,
    holders: SeededMap<H, usize>,
    bytes: usize,
    limits: ReassemblyLimits,
    stats: ReassemblyStats,
}

impl<S: Copy + Eq + Hash> Reassembler<S> {
    /// Takes a fragment; the whole packet if it was the last that was missing.
    pub fn take(&mut self, scope: S, packet: &[u8], parsed: &Parsed, now: Instant) -> Option<Vec<u8>> {
        self.take_from(scope, parsed.flow.source, packet, parsed, now)
    }
}

impl<S: Copy + Eq + Hash, H: Copy + Eq + Hash> Reassembler<S, H> {
    /// Without fragments.
    pub fn new(limits: ReassemblyLimits, rng: &mut Rng) -> Self {
        Self {
            partial: Expiring::new(limits.packets, rng),
            holders: rng.map(),
            bytes: 0,
            limits,
            stats: ReassemblyStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> ReassemblyStats {
        self.stats
    }

    /// Packets that wait for fragments.
    pub fn waiting(&self) -> usize {
        self.partial.len()
    }

    /// As [`Reassembler::take`], for fragments that take the room of this holder.
    pub fn take_from(
        &mut self,
        scope: S,
        holder: H,
        packet: &[u8],
        parsed: &Parsed,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let Some(piece) = Piece::of(packet, parsed) else {
            self.stats.inconsistent += 1;
            return None;
        };
        let key = Key {
            scope,
            holder,
            source: parsed.flow.source,
            destination: parsed.flow.destination,
            protocol: parsed.flow.protocol,
            id: piece.id,
        };
        if !self.has_room(&key, piece.data.len(), now) {
            return None;
        }
        let partial = self.partial.get_mut(&key)?;
        let before = partial.bytes();
        let added = partial.add(&piece, packet, parsed);
        let complete = partial.is_complete();
        self.bytes = self.bytes + partial.bytes() - before;
        if added.is_none() {
            self.stats.inconsistent += 1;
            self.forget(&key);
            return None;
        }
        if !complete {
            return None;
        }
        let partial = self.forget(&key)?;
        let (piece, first) = partial.first?;
        let whole = piece.whole(&first, &partial.data);
        match whole {
            Some(_) => self.stats.whole += 1,
            None => self.stats.inconsistent += 1,
        }
        whole
    }

    /// When [`Reassembler::pop_expired`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.partial.next_expiry(WAIT)
    }

    /// Gives up a packet that waited too long; its first fragment, if that came, may be answered with ICMP. To be called
    /// until `None`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(S, Option<Vec<u8>>)> {
        let (key, partial) = self.partial.pop_expired(now, WAIT)?;
        self.gone(&key, &partial);
        self.stats.timed_out += 1;
        Some((key.scope, partial.first.map(|(_, first)| first)))
    }

    /// Forgets what came in this scope; nobody is told. It looks at every packet that waits.
    pub fn forget_scope(&mut self, scope: S) {
        let of_scope = self.partial.keys().filter(|key| key.scope == scope);
        let keys: Vec<Key<S, H>> = of_scope.copied().collect();
        for key in keys {
            self.forget(&key);
            self.stats.evicted += 1;
        }
    }

    /// Makes room for a fragment and its place in the table; `false` if it has to be dropped.
    fn has_room(&mut self, key: &Key<S, H>, len: usize, now: Instant) -> bool {
        while self.bytes + len > self.limits.bytes {
            let Some((key, partial)) = self.partial.pop_oldest() else {
                break;
            };
            self.gone(&key, &partial);
            self.stats.evicted += 1;
        }
        if self.partial.get(key).is_some() {
            return true;
        }
        let of_holder = self.holders.get(&key.holder).copied().unwrap_or(0);
        if of_holder >= self.limits.per_source {
            self.stats.evicted += 1;
            return false;
        }
        if let Inserted::Evicted(key, partial) = self.partial.insert(*key, Partial::default(), now) {
            self.gone(&key, &partial);
            self.stats.evicted += 1;
        }
        *self.holders.entry(key.holder).or_insert(0) += 1;
        true
    }

    fn forget(&mut self, key: &Key<S, H>) -> Option<Partial> {
        let partial = self.partial.remove(key)?;
        self.gone(key, &partial);
        Some(partial)
    }

    /// Keeps the books after a packet left the table.
    fn gone(&mut self, key: &Key<S, H>, partial: &Partial) {
        self.bytes = self.bytes.saturating_sub(partial.bytes());
        if let Some(count) = self.holders.get_mut(&key.holder) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&key.holder);
            }
        }
    }
}

impl Partial {
    fn bytes(&self) -> usize {
        self.data.len() + self.first.as_ref().map_or(0, |(_, first)| first.len())
    }

    /// `None` if the fragment contradicts what came before.
    fn add(&mut self, piece: &Piece, packet: &[u8], parsed: &Parsed) -> Option<()> {
        let (start, end) = (piece.offset, piece.offset + piece.data.len());
        let bytes = packet.get(piece.data.clone())?;
        let ends_beyond = self.total.is_some_and(|total| end > total);
        let is_short = !piece.more && self.data.len() > end;
        if ends_beyond || is_short || (!piece.more && self.total.is_some_and(|total| total != end)) {
            return None;
        }
        let at = self.ranges.partition_point(|(_, known)| *known <= start);
        if let Some(&(known_start, known_end)) = self.ranges.get(at)
            && known_start < end
        {
            // The same fragment twice is harmless; anything else that overlaps is not.
            let inside = known_start <= start && end <= known_end;
            return (inside && self.data.get(start..end)? == bytes).then_some(());
        }
        if !piece.more {
            self.total = Some(end);
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data.get_mut(start..end)?.copy_from_slice(bytes);
        self.ranges.insert(at, (start, end));
        self.merge(at);
        if parsed.fragment == Fragment::First {
            self.first = Some((piece.clone(), packet.get(..parsed.len)?.to_vec()));
        }
        Some(())
    }

    /// Joins a range with its neighbours, so that their number stays that of the gaps.
    fn merge(&mut self, at: usize) {
        for left in [at, at.saturating_sub(1)] {
            if let (Some(&(start, end)), Some(&(next, far))) =
                (self.ranges.get(left), self.ranges.get(left + 1))
                && end == next
            {
                self.ranges[left] = (start, far);
                self.ranges.remove(left + 1);
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.first.is_some() && self.total.is_some_and(|total| self.ranges == [(0, total)])
    }
}
