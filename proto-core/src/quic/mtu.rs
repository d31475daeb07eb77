//! What size of packet a path carries (RFC 8899), as far as one end of a connection knows.
//!
//! The library searches: it sends padded probes and learns which arrive. This decides what others may rely on meanwhile,
//! and when a size that was right has stopped being right. Two sizes are told apart:
//!
//! - the *limit*, which packets may have at this moment. It falls to [`BASE`] whenever a search begins anew;
//! - the *size told*, by which packets are made. It stays where it was until a search is over: a host that is told "too
//!   big" remembers it for ten minutes (RFC 1191 §6.3), far longer than the few round trips of a search. What is made in
//!   that time and is longer than the limit is lost, as it is wherever the doubt was right.
//!
//! A *black hole* is a path that swallows long packets and says nothing. Three of four long packets of half a second lost are
//! taken for one: a wrong alarm costs one round trip of long packets, a missed one the connection.

use std::time::{Duration, Instant};

/// The size that every path of QUIC carries (RFC 9000 §14).
pub(crate) const BASE: usize = 1_200;

/// How long a search may take before its present state is told. A path of 100 ms has answered thrice three probes by then.
pub(crate) const SEARCH: Duration = Duration::from_secs(3);

/// How long long packets are watched before they are judged, at least; doubles with each alarm up to [`CALM`].
const WATCH: Duration = Duration::from_millis(500);

/// The longest watch, for a path that loses nearly everything.
const CALM: Duration = Duration::from_secs(64);

/// A watch that has found no loss for so long begins anew.
const HEALTHY: Duration = Duration::from_millis(100);

/// Fewer long packets than this say nothing.
const LEAST: u64 = 3;

/// A watch that found fewer is forgotten after this time.
const STALE: Duration = Duration::from_secs(10);

/// The sizes of one end.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathSize {
    limit: usize,
    told: usize,
    /// Until when a search is waited for.
    searching: Option<Instant>,
    watch: Option<Watch>,
    watch_for: Duration,
}

/// Long packets since the first of them.
#[derive(Clone, Copy, Debug)]
struct Watch {
    since: Instant,
    sent: u64,
    lost_before: u64,
    /// Whether there was a loss since.
    lossy: bool,
}

impl PathSize {
    /// Before anything is known: the search for `most` begins when the handshake is over.
    pub(super) fn new(most: usize) -> Self {
        Self {
            limit: BASE.min(most),
            told: most,
            searching: None,
            watch: None,
            watch_for: WATCH,
        }
    }

    /// What packets may have now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What packets should be made for.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// Whether the outcome of a search is waited for.
    pub(super) fn is_searching(&self) -> bool {
        self.searching.is_some()
    }

    /// When the present state of a search is to be told.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.searching
    }

    /// A search begins; `most` is the largest size that can come of it.
    pub(super) fn search(&mut self, most: usize, now: Instant) {
        self.told = self.told.min(most);
        self.searching = Some(now + SEARCH);
        self.watch = None;
    }

    /// How far the library is. Returns whether the limit fell, so that what waits to be sent has to be looked through.
    pub(super) fn found(&mut self, limit: usize, is_final: bool, now: Instant) -> bool {
        let fell = limit < self.limit;
        if limit != self.limit {
            self.watch = None;
        }
        self.limit = limit;
        let goes_on = self.searching.is_some_and(|until| now < until);
        if is_final || limit >= self.told || !goes_on {
            self.searching = None;
            self.told = limit;
        }
        fell
    }

    /// A packet of ordinary traffic left.
    pub(super) fn on_sent(&mut self, len: usize, lost: impl FnOnce() -> u64, now: Instant) {
        if len <= BASE {
            return;
        }
        // A moment without loss says nothing about the next one; it would outweigh it.
        let is_old = |watch: &Watch| now.saturating_duration_since(watch.since) >= HEALTHY;
        if self
            .watch
            .as_ref()
            .is_none_or(|watch| !watch.lossy && is_old(watch))
        {
            let lost = lost();
            match &mut self.watch {
                Some(watch) if watch.lost_before != lost => watch.lossy = true,
                watch => {
                    *watch = Some(Watch {
                        since: now,
                        sent: 0,
                        lost_before: lost,
                        lossy: false,
                    });
                }
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.sent += 1;
        }
    }

    /// Whether it is time to look at the long packets.
    pub(super) fn is_judgement_due(&self, now: Instant) -> bool {
        self.watch
            .is_some_and(|watch| now.saturating_duration_since(watch.since) >= self.watch_for)
    }

    /// Whether the long packets vanish; starts the next watch unless too little was sent to tell.
    pub(super) fn is_black_hole(&mut self, lost: u64, rtt: Duration, now: Instant) -> bool {
        let Some(watch) = self.watch else { return false };
        let age = now.saturating_duration_since(watch.since);
        // A loss is noticed with the acknowledgement of something later.
        if age < rtt * 8 || (watch.sent < LEAST && age < STALE) {
            return false;
        }
        let lost = lost.saturating_sub(watch.lost_before);
        let vanish = watch.sent >= LEAST && lost >= LEAST && lost * 4 >= watch.sent * 3;
        // The loss of the last ones may not have been noticed yet.
        if !vanish && lost * 2 >= watch.sent && age < STALE {
            return false;
        }
        self.watch = None;
        self.watch_for = if vanish {
            (self.watch_for * 2).min(CALM)
        } else {
            WATCH
        };
        vanish
    }
}

#[cfg(test)]
mod tests;
