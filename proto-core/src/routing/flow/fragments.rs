//! Which flow a later fragment belongs to: that of the first, which alone has ports.
//!
//! A first fragment goes the way of its flow, and how it went is remembered for as long as its receiver waits for the
//! others. On the way to a connector every fragmented packet gets an identification of its own, because agents that use
//! one address number their packets independently, and the connector would mix them. A later fragment that overtook its
//! first one is dropped: the sender repeats the whole.

use std::net::IpAddr;
use std::time::Instant;

use crate::expiring::Expiring;
use crate::id::ConnId;
use crate::rng::Rng;
use crate::routing::packet::{self, Malformed, Parsed, Piece};
use crate::routing::reassembly::WAIT;

/// Fragmented packets remembered in each direction; the one that rested longest gives way.
const PACKETS: usize = 4096;

/// A fragmented packet on its way: where it comes from, and what its fragments share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    from: ConnId,
    /// The connector, on the way to one; to itself otherwise.
    to: ConnId,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// How the first fragment went to a connector.
#[derive(Clone, Copy, Debug)]
struct Outbound {
    source: IpAddr,
    id: u32,
}

/// How the first fragment went to an agent.
#[derive(Clone, Copy, Debug)]
struct Inbound {
    agent: ConnId,
    destination: IpAddr,
}

#[derive(Debug)]
pub(super) struct Fragments {
    outbound: Expiring<Key, Outbound>,
    inbound: Expiring<Key, Inbound>,
    next_id: u32,
}

impl Fragments {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            outbound: Expiring::new(PACKETS, rng),
            inbound: Expiring::new(PACKETS, rng),
            next_id: rng.next_u64() as u32,
        }
    }

    /// Takes note of a first fragment that its flow let through to a connector under `source`.
    pub(super) fn sent(
        &mut self,
        ends: (ConnId, ConnId),
        parsed: &Parsed,
        source: IpAddr,
        packet: &mut [u8],
        now: Instant,
    ) -> Result<(), Malformed> {
        self.expire(now);
        let key = Key::of(ends, parsed, packet).ok_or(Malformed)?;
        // A repeated first fragment keeps its number.
        let known = self.outbound.get(&key).map(|known| known.id);
        let id = known.unwrap_or_else(|| {
            self.next_id = self.next_id.wrapping_add(1);
            self.next_id
        });
        packet::set_identification(packet, parsed, id)?;
        self.outbound.insert(key, Outbound { source, id }, now);
        Ok(())
    }

    /// Sends a later fragment after its first; `None` if that is not known.
    pub(super) fn send(&mut self, ends: (ConnId, ConnId), parsed: &Parsed, packet: &mut [u8]) -> Option<()> {
        let Outbound { source, id } = *self.outbound.get(&Key::of(ends, parsed, packet)?)?;
        packet::set_identification(packet, parsed, id).ok()?;
        if source != parsed.flow.source {
            packet::rewrite_source(packet, source).ok()?;
        }
        Some(())
    }

    /// Takes note of a first fragment of a connector that belongs to a flow of `agent`, which calls itself `destination`.
    pub(super) fn returned(
        &mut self,
        connector: ConnId,
        parsed: &Parsed,
        packet: &[u8],
        agent: ConnId,
        destination: IpAddr,
        now: Instant,
    ) {
        self.expire(now);
        if let Some(key) = Key::of((connector, connector), parsed, packet) {
            self.inbound.insert(key, Inbound { agent, destination }, now);
        }
    }

    /// Finds the agent of a later fragment of a connector.
    pub(super) fn receive(
        &mut self,
        connector: ConnId,
        parsed: &Parsed,
        packet: &mut [u8],
    ) -> Option<ConnId> {
        let key = Key::of((connector, connector), parsed, packet)?;
        let Inbound { agent, destination } = *self.inbound.get(&key)?;
        if destination != parsed.flow.destination {
            packet::rewrite_destination(packet, destination).ok()?;
        }
        Some(agent)
    }

    fn expire(&mut self, now: Instant) {
        while self.outbound.pop_expired(now, WAIT).is_some() {}
        while self.inbound.pop_expired(now, WAIT).is_some() {}
    }
}

impl Key {
    fn of((from, to): (ConnId, ConnId), parsed: &Parsed, packet: &[u8]) -> Option<Self> {
        Some(Self {
            from,
            to,
            source: parsed.flow.source,
            destination: parsed.flow.destination,
            protocol: parsed.flow.protocol,
            id: Piece::of(packet, parsed)?.id,
        })
    }
}
