//! One backend at one address, and which of several takes a new flow.
//!
//! The one with the fewest flows, of those that are well; by turns where they are equal. One that has just refused a
//! connection is asked only if there is no other, for a short while: it has no flows, so it would be asked first.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use slab::Slab;

use super::health::{Health, Standing};
use super::{Backend, Host, NoBackend, Pick};
use crate::backend::{Protocol, Transport};
use crate::id::ServiceIndex;

/// How long a backend that refused a connection is asked last.
pub(super) const SHUNNED: Duration = Duration::from_secs(2);

/// A backend at an address, while it is configured; never reused while a flow may still name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId {
    /// The slot, dense.
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A check under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checking {
    /// Which check of this slot it is.
    pub(super) generation: u32,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) generation: u32,
    pub(super) service: ServiceIndex,
    pub(super) backend: Backend,
    pub(super) ip: IpAddr,
    /// The port that is checked if the backend has none of its own.
    pub(super) check_port: u16,
    pub(super) active: u32,
    pub(super) shunned: Option<Instant>,
    pub(super) health: Health,
    pub(super) checking: Option<Checking>,
}

impl Target {
    pub(super) fn is_up(&self) -> bool {
        self.health.standing == Standing::Up
    }

    /// As people know it.
    pub(super) fn describe(&self) -> String {
        match self.backend.host {
            Host::Address(_) => self.backend.to_string(),
            Host::Name(_) => format!("{} ({})", self.backend, self.ip),
        }
    }

    /// Where its checks go.
    pub(super) fn check_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.backend.port.unwrap_or(self.check_port))
    }
}

/// Some ports of a service at work.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) ports: RangeInclusive<u16>,
    pub(super) protocol: Protocol,
    /// The backends, each with the place of its name among the names.
    pub(super) backends: Vec<(Backend, Option<u32>)>,
    /// The slots of its targets.
    pub(super) members: Vec<u32>,
    /// Who is asked first among equals.
    pub(super) turn: usize,
}

impl Listening {
    pub(super) fn is_for(&self, transport: Transport, port: u16) -> bool {
        self.protocol.speaks(transport) && self.ports.contains(&port)
    }

    /// The target of a new flow, other than `not`.
    pub(super) fn pick(
        &mut self,
        targets: &mut Slab<Target>,
        port: u16,
        not: Option<TargetId>,
        now: Instant,
    ) -> Result<Pick, NoBackend> {
        let count = self.members.len();
        let mut best: Option<((bool, u32), u32, usize)> = None;
        let mut well = 0;
        for step in 0..count {
            let place = (self.turn + step) % count;
            let Some(index) = self.members.get(place).copied() else {
                continue;
            };
            let Some(target) = targets.get(index as usize) else {
                continue;
            };
            let excluded = not.is_some_and(|not| not.index == index && not.generation == target.generation);
            if !target.is_up() || excluded {
                continue;
            }
            well += 1;
            let shunned = target.shunned.is_some_and(|until| until > now);
            let rank = (shunned, target.active);
            if best.is_none_or(|(least, ..)| rank < least) {
                best = Some((rank, index, place));
            }
        }
        let (_, index, place) = best.ok_or(NoBackend::NoneHealthy)?;
        self.turn = (place + 1) % count.max(1);
        let target = targets.get_mut(index as usize).ok_or(NoBackend::NoneHealthy)?;
        target.active += 1;
        Ok(Pick {
            target: TargetId {
                index,
                generation: target.generation,
            },
            address: SocketAddr::new(target.ip, target.backend.port.unwrap_or(port)),
            alternative: well > 1,
        })
    }
}
