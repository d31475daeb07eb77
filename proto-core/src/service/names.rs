//! When a host name is looked up: at once, again when its answer expires, and with growing pauses while it fails.
//!
//! An answer that was right once stays in use while the resolver fails: a backend that moved is rarer than a name server
//! that is down.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use super::ADDRESSES_PER_NAME;
use crate::backend::NameId;
use crate::backoff::Backoff;
use crate::rng::Rng;
use crate::timer::DeadlineIndex;

/// What a time to live is clamped to. Zero would ask without a pause; a day would outlive a move.
const TTL_LEAST: Duration = Duration::from_secs(1);
const TTL_MOST: Duration = Duration::from_secs(3600);

/// The pauses after failures.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// After this the question counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Name {
    pub(super) host: Box<str>,
    pub(super) addresses: Vec<IpAddr>,
    generation: u32,
    users: usize,
    asked: bool,
    pub(super) failing: bool,
    backoff: Backoff,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) addresses: bool,
    /// Failure began or ended.
    pub(super) standing: bool,
}

/// All names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Slab<Name>,
    timers: DeadlineIndex,
    generation: u32,
}

impl Names {
    /// Begins to use a name; one that is in use already is shared.
    pub(super) fn enter(&mut self, host: &str, now: Instant) -> u32 {
        if let Some((index, name)) = self.names.iter_mut().find(|(_, name)| *name.host == *host) {
            name.users += 1;
            return index as u32;
        }
        self.generation = self.generation.wrapping_add(1);
        let index = self.names.insert(Name {
            host: host.into(),
            addresses: Vec::new(),
            generation: self.generation,
            users: 1,
            asked: false,
            failing: false,
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MOST),
        }) as u32;
        self.timers.set(index, Some(now));
        index
    }

    /// Ends one use of a name.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(name) = self.names.get_mut(index as usize) else {
            return;
        };
        name.users -= 1;
        if name.users == 0 {
            self.names.remove(index as usize);
            self.timers.set(index, None);
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Name> {
        self.names.get(index as usize)
    }

    /// The name that an answer or a question is about, if it is still in use.
    pub(super) fn find(&self, id: NameId) -> Option<&Name> {
        self.get(id.index).filter(|name| name.generation == id.generation)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    /// A name that is to be asked for now; or one whose question was lost, which has then failed.
    pub(super) fn pop_due(&mut self, now: Instant, rng: &mut Rng) -> Option<Due> {
        let index = self.timers.pop_due(now)?;
        let name = self.names.get_mut(index as usize)?;
        let id = NameId {
            index,
            generation: name.generation,
        };
        if name.asked {
            return Some(Due::Lost(id, self.answered(id, None, rng, now)));
        }
        name.asked = true;
        self.timers.set(index, Some(now + PATIENCE));
        Some(Due::Ask(id))
    }

    /// Takes an answer: addresses and how long they hold, or none.
    pub(super) fn answered(
        &mut self,
        id: NameId,
        answer: Option<(&[IpAddr], Duration)>,
        rng: &mut Rng,
        now: Instant,
    ) -> Changed {
        let Some(name) = self
            .names
            .get_mut(id.index as usize)
            .filter(|name| name.generation == id.generation && name.asked)
        else {
            return Changed::default();
        };
        name.asked = false;
        let answer = answer.filter(|(addresses, _)| !addresses.is_empty());
        let failing = answer.is_none();
        let mut changed = Changed {
            addresses: false,
            standing: std::mem::replace(&mut name.failing, failing) != failing,
        };
        let pause = match answer {
            Some((addresses, ttl)) => {
                name.backoff.reset();
                let mut addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(ADDRESSES_PER_NAME);
                changed.addresses = name.addresses != addresses;
                name.addresses = addresses;
                ttl.clamp(TTL_LEAST, TTL_MOST)
            }
            None => name.backoff.next_delay(rng),
        };
        self.timers.set(id.index, Some(now + pause));
        changed
    }
}

/// What a name's timer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Ask(NameId),
    Lost(NameId, Changed),
}
