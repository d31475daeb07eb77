//! The loop: time moves to the next thing that happens, machines are driven as the contract says, datagrams travel.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::link::Link;
use super::neighbourhood::{Outward, Realm};
use super::trace::{Digest, Entry};
use super::{Clock, Happening, World};
use crate::machine::{Deadline, Ecn, FourTuple, Received, Transmit, Wake};

/// So many steps at one instant are a loop that time cannot get out of.
const MAX_STEPS: usize = 100_000;

/// So many things out of one drain are a machine that never stops.
const MAX_DRAIN: usize = 100_000;

impl<C: Clock + 'static> World<C> {
    /// Lets time pass.
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) {
        self.reaches(|_| false, time);
    }

    /// Lets time pass until `condition` holds.
    ///
    /// # Panics
    /// If it does not hold `within` that time.
    #[track_caller]
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool, within: Duration) {
        if !self.reaches(condition, within) {
            self.fail("the condition was not reached");
        }
    }

    /// Lets time pass until `condition` holds, at most `within`; whether it held.
    #[track_caller]
    pub fn reaches(&mut self, condition: impl Fn(&Self) -> bool, within: Duration) -> bool {
        let end = self.now() + within;
        for index in 0..self.hosts.len() {
            self.settle(index);
        }
        let (mut steps, mut last) = (0, self.now());
        loop {
            if condition(self) {
                return true;
            }
            let queued = self.queue.keys().next().map(|key| key.0);
            let awake = self.hosts.iter().filter(|slot| !slot.down);
            let next = awake.filter_map(|slot| slot.wake_at).chain(queued).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.clock.advance_to(end);
                return false;
            };
            self.clock.advance_to(next);
            steps = if self.now() == last { steps + 1 } else { 0 };
            last = self.now();
            if steps > MAX_STEPS {
                self.fail("time stands still");
            }
            self.step();
        }
    }

    /// Does everything that is due now.
    #[track_caller]
    fn step(&mut self) {
        let now = self.now();
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Happening::Arrival {
                    realm,
                    from,
                    to,
                    payload,
                } => self.arrive(realm, from, to, payload),
                Happening::Action(action) => action(self),
            }
        }
        for index in 0..self.hosts.len() {
            let slot = &mut self.hosts[index];
            if !slot.down && slot.wake_at.is_some_and(|at| at <= now) {
                self.wake(index);
                self.settle(index);
            }
        }
    }

    fn wake(&mut self, index: usize) {
        let now = self.now();
        let slot = &mut self.hosts[index];
        let why = slot
            .host
            .poll_timeout()
            .map_or(Wake::QueuedOutput, |deadline| deadline.wake);
        slot.host.handle_timeout(now);
        if !self.silent {
            let (host, why) = (slot.name.clone(), format!("{why:?}"));
            self.record(Entry::Woken { host, why });
        }
    }

    /// Drains a host until it is quiet, and holds it to the contract.
    #[track_caller]
    pub(super) fn settle(&mut self, index: usize) {
        if self.hosts[index].down {
            return;
        }
        let now = self.now();
        let due = |deadline: Option<Deadline>| deadline.filter(|deadline| deadline.at <= now);
        let mut timeouts = 0;
        loop {
            let announced = due(self.hosts[index].host.poll_timeout()).is_some();
            if self.drain(index) {
                if !announced {
                    self.blame(
                        index,
                        "rule 2: it had something to give and had not asked to be woken now",
                    );
                }
                continue;
            }
            let deadline = self.hosts[index].host.poll_timeout();
            self.hosts[index].wake_at = deadline.map(|deadline| deadline.at);
            let Some(deadline) = due(deadline) else { return };
            if deadline.wake == Wake::QueuedOutput {
                self.blame(index, "rule 3: drained, it still claims to have something queued");
            }
            // A timer that falls due at the very time of another input: handled like by any shell, but only once.
            timeouts += 1;
            if timeouts > 2 {
                self.blame(
                    index,
                    &format!("rule 3: still due after its timeout was handled: {deadline:?}"),
                );
            }
            self.wake(index);
        }
    }

    #[track_caller]
    fn blame(&self, index: usize, why: &str) -> ! {
        self.fail(&format!("{} breaks {why}", self.hosts[index].name));
    }

    /// Takes everything a host has; whether there was anything.
    fn drain(&mut self, index: usize) -> bool {
        let now = self.now();
        let mut count = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(transmit) = self.hosts[index].host.poll_transmit(&mut buffer, now) {
            self.send(index, &buffer, transmit);
            count += 1;
            assert!(
                count < MAX_DRAIN,
                "{} never stops sending",
                self.hosts[index].name
            );
        }
        self.buffer = buffer;
        loop {
            let mut digest = Digest::new();
            let slot = &mut self.hosts[index];
            if !slot.host.poll_local(&mut digest, now) {
                return count > 0;
            }
            count += 1;
            assert!(
                count < MAX_DRAIN,
                "{} never stops talking to its own side",
                slot.name
            );
            let entry = Entry::Local {
                host: slot.name.clone(),
                what: digest.value(),
            };
            self.record(entry);
        }
    }

    /// Sends what a machine wrote into the buffer, datagram by datagram.
    fn send(&mut self, index: usize, buffer: &[u8], transmit: Transmit) {
        let Transmit {
            path,
            len,
            segment_size,
            ..
        } = transmit;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            self.blame(index, "the rules: a transmit is empty or longer than its buffer");
        };
        let size = segment_size.map_or(len, NonZeroUsize::get);
        for datagram in bytes.chunks(size) {
            self.post(index, path, datagram);
        }
    }

    /// Puts one datagram of a host on its way.
    fn post(&mut self, index: usize, path: FourTuple, payload: &[u8]) {
        let addresses = &self.hosts[index].addresses;
        let known = addresses
            .iter()
            .find(|(local, _)| *local == path.local)
            .or(addresses.first());
        let Some(&(_, from)) = known else { return };
        let to = path.remote;
        self.stats.sent += 1;
        if !self.silent {
            let mut digest = Digest::new();
            digest.bytes(payload);
            self.record(Entry::Sent {
                from,
                to,
                len: payload.len(),
                payload: digest.value(),
            });
        }
        let (realm, from, peer) = match self.outward(self.hosts[index].realm, from, to) {
            Outward::Travels { realm, from, host } => (realm, from, host),
            Outward::Lost(why) => return self.drop_datagram(from, to, why),
        };
        let now = self.now();
        let config = self.default_link;
        let link = self
            .links
            .entry((index, peer))
            .or_insert_with(|| Link::new(config));
        let arrivals = if self.frugal {
            link.carry(payload.len(), &mut self.rng, now)
        } else {
            link.carry(payload.len(), &mut self.rng.fork(), now)
        };
        match arrivals {
            Ok(arrivals) => {
                for at in [Some(arrivals.first), arrivals.second].into_iter().flatten() {
                    self.schedule(
                        at,
                        Happening::Arrival {
                            realm,
                            from,
                            to,
                            payload: payload.to_vec(),
                        },
                    );
                }
            }
            Err(why) => self.drop_datagram(from, to, why),
        }
    }

    fn drop_datagram(&mut self, from: SocketAddr, to: SocketAddr, why: &'static str) {
        self.stats.dropped += 1;
        self.record(Entry::Dropped { from, to, why });
    }

    pub(super) fn schedule(&mut self, at: Instant, happening: Happening<C>) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Hands a datagram to its host, together with those that arrive along with it.
    #[track_caller]
    fn arrive(&mut self, realm: Realm, from: SocketAddr, to: SocketAddr, mut payload: Vec<u8>) {
        let (index, at) = match self.inward(realm, from, to) {
            Ok(found) => found,
            Err(why) => return self.drop_datagram(from, to, why),
        };
        if self.hosts[index].down {
            return self.drop_datagram(from, to, "the host is down");
        }
        let size = payload.len();
        let stride = self.coalesce(from, to, &mut payload);
        self.stats.delivered += payload.len().div_ceil(size.max(1)).max(1) as u64;
        self.record(Entry::Arrived {
            from,
            to,
            len: payload.len(),
        });
        let now = self.now();
        let slot = &mut self.hosts[index];
        let local = slot
            .addresses
            .iter()
            .find(|(_, public)| *public == at)
            .map_or(at, |(local, _)| *local);
        let received = Received {
            path: FourTuple { local, remote: from },
            ecn: Ecn::NotEct,
            stride,
            payload: &mut payload,
        };
        let forward = slot.host.handle_datagram(received, now);
        for run in forward.runs() {
            let Some(bytes) = payload.get(run.start..run.end) else {
                self.blame(index, "the rules: it forwards bytes beyond what it received");
            };
            for datagram in bytes.to_vec().chunks(size.max(1)) {
                self.post(index, run.path, datagram);
            }
        }
        self.settle(index);
    }

    /// Appends what arrives now on the same path as receive offload would: equal sizes, the last may be shorter.
    fn coalesce(&mut self, from: SocketAddr, to: SocketAddr, payload: &mut Vec<u8>) -> Option<NonZeroUsize> {
        let (now, size) = (self.now(), payload.len());
        let stride = NonZeroUsize::new(size).filter(|_| self.coalescing)?;
        let mut batched = false;
        while let Some(next) = self.queue.first_entry() {
            let (due, more) = match next.get() {
                Happening::Arrival {
                    from: source,
                    to: target,
                    payload: bytes,
                    ..
                } => {
                    let same = (*source, *target) == (from, to) && !bytes.is_empty() && bytes.len() <= size;
                    (next.key().0 <= now && same, bytes.len() == size)
                }
                Happening::Action(_) => (false, false),
            };
            if !due || payload.len() + size > super::BATCH {
                break;
            }
            if let Happening::Arrival { payload: bytes, .. } = next.remove() {
                payload.extend_from_slice(&bytes);
                batched = true;
            }
            if !more {
                break;
            }
        }
        batched.then_some(stride)
    }
}
