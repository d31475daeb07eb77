//! Which agent a connector's packet goes back to.
//!
//! v1 packets from a connector travel bare: nothing but their addresses and ports says whose they are. So the
//! intermediate remembers, for every connector, which agent opened each flow, and returns a packet to exactly that
//! agent or to nobody. Which connector a packet goes to is decided by the registry; this table decides the way back.
//!
//! Agents choose their inner addresses by themselves, so two of them may use one flow towards one connector. The first
//! keeps it. A later one is given an alias: its packets get a source address that belongs to its connection alone, and
//! what comes back gets the original destination again. Where that does not work either, the packet is refused.
//! Alias addresses cannot be occupied beforehand: a packet whose own source is one is given its sender's alias, too.
//!
//! Only agents open flows. Packets of a connector, and ICMP errors of either side, belong to a flow or are dropped.
//! Later fragments follow their first.
//!
//! Per packet: one hash look-up, for translated flows two, no allocation, no scan. A flow ends when it rests too long (by
//! protocol), when its agent exceeds its limit (its own flow that rested longest, never another's), or with its agent.
//! The flows of a connector that left are not searched for: connection ids are never reused, so no packet finds them,
//! and they go when their agent opens flows, leaves, or when room is needed.

mod alias;
mod class;
mod fragments;
mod report;
mod sweep;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use super::packet::{self, FiveTuple, Fragment, Kind, Parsed};
use crate::expiring::list::{Linked, Links, List};
use crate::id::ConnId;
use crate::rng::{Rng, SeededMap};
use class::Class;
use fragments::Fragments;
pub use report::{FlowLimits, FlowRefusal, FlowStats};

/// A flow that its connector has not answered for so long is introduced with its next packet.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Packets of an unanswered flow that are all introduced: one of them arrives.
const EAGER: u8 = 8;

/// After that, a flow in one direction only costs no more than this.
const AGAIN: Duration = Duration::from_secs(1);

/// How many flows are found without a hash: as many as send at the same moment.
const RECENT: usize = 64;

/// A flow as the connector sees it, in the direction of the agent's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    connector: ConnId,
    tuple: FiveTuple,
}

impl Key {
    /// Its place among the recent ones; whoever aims at it gains no more than an ordinary look-up.
    fn shelf(&self) -> usize {
        let FiveTuple {
            source_port,
            destination_port,
            ..
        } = self.tuple;
        usize::from(source_port ^ destination_port) % RECENT
    }
}

#[derive(Debug)]
struct Flow {
    key: Key,
    agent: ConnId,
    /// The source address that the agent uses; another than in `key` if the flow is translated.
    original: IpAddr,
    class: Class,
    touched: Instant,
    /// When the connector last sent a packet of this flow.
    answered: Option<Instant>,
    /// How often it was introduced since then, up to [`EAGER`], and when last.
    introduced: (u8, Option<Instant>),
    links: Links,
}

impl Linked for Flow {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// What one agent has in the table.
#[derive(Debug)]
struct Agent {
    generation: u32,
    flows: usize,
    /// By class: within one, the order of use is the order of expiry.
    order: [List; Class::COUNT],
}

/// The flows of all agents through one intermediate.
#[derive(Debug)]
pub struct FlowTable {
    limits: FlowLimits,
    by_key: SeededMap<Key, usize>,
    flows: Slab<Flow>,
    /// By the index of the connection, which is dense.
    agents: Vec<Option<Agent>>,
    /// The generation of the living connector, by the index of the connection.
    connectors: Vec<Option<u32>>,
    fragments: Fragments,
    /// Where the search for flows to expire goes on when the table is full.
    hand: usize,
    latest: Option<Instant>,
    /// Where flows were found lately.
    recent: [usize; RECENT],
    /// The flow of the packet last taken note of, and whether that was a SYN.
    last: Option<(usize, bool)>,
    stats: FlowStats,
}

impl FlowTable {
    /// An empty table. `rng` seeds the hasher, so that no peer can aim at its buckets.
    pub fn new(limits: FlowLimits, rng: &mut Rng) -> Self {
        Self {
            limits,
            by_key: rng.map(),
            flows: Slab::new(),
            agents: Vec::new(),
            connectors: Vec::new(),
            fragments: Fragments::new(rng),
            hand: 0,
            latest: None,
            recent: [0; RECENT],
            last: None,
            stats: FlowStats::default(),
        }
    }

    /// How many flows are remembered, those that rested too long and were not met since included.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether no flow is remembered.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What happened so far.
    pub fn stats(&self) -> &FlowStats {
        &self.stats
    }

    /// Takes note of a packet on its way from a live agent to a live connector; its source address may be rewritten.
    ///
    /// # Errors
    /// If the packet must not be forwarded.
    pub fn outbound(
        &mut self,
        agent: ConnId,
        connector: ConnId,
        packet: &mut [u8],
        now: Instant,
    ) -> Result<(), FlowRefusal> {
        let now = self.observe(now);
        self.last = None;
        let verdict = self.admit(agent, connector, packet, now);
        if let Err(refusal) = verdict {
            *self.stats.refused(refusal) += 1;
        }
        verdict
    }

    /// Whether the connector should be told whose packet was taken note of last: it opens a TCP connection, or its flow has
    /// not been answered for a while, so that the connector may not know it, or not know it any more. A flow that is
    /// never answered is introduced with its first packets, and then now and then.
    pub fn wants_introduction(&mut self, now: Instant) -> bool {
        let Some((index, opens)) = self.last else {
            return false;
        };
        let Some(flow) = self.flows.get_mut(index) else {
            return false;
        };
        let over = |at: Option<Instant>, rest| at.is_none_or(|at| now.saturating_duration_since(at) >= rest);
        let (count, last) = flow.introduced;
        let wanted = opens || over(flow.answered, UNANSWERED) && (count < EAGER || over(last, AGAIN));
        if wanted {
            flow.introduced = (count.saturating_add(1).min(EAGER), Some(now));
        }
        wanted
    }

    /// Finds the agent to which a connector's packet goes; its destination address is rewritten back.
    ///
    /// `None` if the packet belongs to no living flow: drop it, it has been counted.
    pub fn inbound(&mut self, connector: ConnId, packet: &mut [u8], now: Instant) -> Option<ConnId> {
        let now = self.observe(now);
        let agent = self.receiver(connector, packet, now);
        self.stats.unmatched += u64::from(agent.is_none());
        agent
    }

    /// Forgets a connection that ended, agent or connector. Costs the agent's flows; for a connector, nothing.
    pub fn remove(&mut self, conn: ConnId) {
        if let Some(living) = self.connectors.get_mut(conn.index as usize)
            && *living == Some(conn.generation)
        {
            *living = None;
        }
        while let Some(flow) = self.agent(conn).and_then(|agent| self.oldest(agent)) {
            self.forget(flow);
        }
        if self.agent(conn).is_some()
            && let Some(place) = self.agents.get_mut(conn.index as usize)
        {
            *place = None;
        }
    }

    fn admit(
        &mut self,
        agent: ConnId,
        connector: ConnId,
        packet: &mut [u8],
        now: Instant,
    ) -> Result<(), FlowRefusal> {
        let parsed = packet::parse(packet).map_err(|_| FlowRefusal::Malformed)?;
        let ends = (agent, connector);
        match parsed.fragment {
            Fragment::No => self.admit_flow(agent, connector, packet, &parsed, now).map(drop),
            Fragment::First => {
                let source = self.admit_flow(agent, connector, packet, &parsed, now)?;
                self.fragments
                    .sent(ends, &parsed, source, packet, now)
                    .map_err(|_| FlowRefusal::Malformed)
            }
            Fragment::Later => self
                .fragments
                .send(ends, &parsed, packet)
                .ok_or(FlowRefusal::Fragment),
        }
    }

    /// Finds or opens the flow of a packet that has ports; its source address at the connector.
    fn admit_flow(
        &mut self,
        agent: ConnId,
        connector: ConnId,
        packet: &mut [u8],
        parsed: &Parsed,
        now: Instant,
    ) -> Result<IpAddr, FlowRefusal> {
        let direct = Key {
            connector,
            tuple: parsed.flow,
        };
        let reserved = alias::is_reserved(parsed.flow.source);
        let holder = if reserved { None } else { self.living(&direct, now) };
        if let Some((flow, holder)) = holder
            && holder == agent
        {
            self.touch(flow, parsed, now);
            return Ok(parsed.flow.source);
        }
        // A flow that was translated stays so, even if the first holder of the addresses has gone by now.
        let alias = alias::of(agent, parsed.flow.source).filter(|_| alias::is_translatable(parsed));
        let translated = alias.map(|source| Key {
            connector,
            tuple: FiveTuple {
                source,
                ..parsed.flow
            },
        });
        if let (Some(alias), Some(key)) = (alias, translated)
            && let Some((flow, holder)) = self.living(&key, now)
        {
            // Two own addresses of the agent may meet under its one alias; the replies could not be told apart.
            if holder != agent
                || self
                    .flows
                    .get(flow)
                    .is_none_or(|flow| flow.original != parsed.flow.source)
            {
                return Err(FlowRefusal::Taken);
            }
            packet::rewrite_source(packet, alias).map_err(|_| FlowRefusal::Malformed)?;
            self.touch(flow, parsed, now);
            return Ok(alias);
        }
        if parsed.kind == Kind::IcmpError {
            return Err(FlowRefusal::NoFlow);
        }
        let key = if holder.is_none() && !reserved {
            direct
        } else {
            translated.ok_or(FlowRefusal::Taken)?
        };
        self.make_room(agent, now)?;
        if key != direct {
            packet::rewrite_source(packet, key.tuple.source).map_err(|_| FlowRefusal::Malformed)?;
            self.stats.translated += 1;
        }
        self.open(agent, key, parsed, now);
        Ok(key.tuple.source)
    }

    fn receiver(&mut self, connector: ConnId, packet: &mut [u8], now: Instant) -> Option<ConnId> {
        let parsed = packet::parse(packet).ok()?;
        if parsed.fragment == Fragment::Later {
            let agent = self.fragments.receive(connector, &parsed, packet)?;
            // A connection that ended has nothing left, whatever is remembered of it.
            return self.agent(agent).map(|_| agent);
        }
        let key = Key {
            connector,
            tuple: parsed.flow.reversed(),
        };
        let (index, agent) = self.living(&key, now)?;
        let original = self.flows.get(index)?.original;
        if parsed.fragment == Fragment::First {
            self.fragments
                .returned(connector, &parsed, packet, agent, original, now);
        }
        if original != key.tuple.source {
            packet::rewrite_destination(packet, original).ok()?;
        }
        self.touch(index, &parsed, now);
        if parsed.kind != Kind::IcmpError
            && let Some(flow) = self.flows.get_mut(index)
        {
            flow.answered = Some(now);
            flow.introduced.0 = 0;
        }
        Some(agent)
    }

    /// The flow of a key and its agent, unless it is over: then it ends here.
    fn living(&mut self, key: &Key, now: Instant) -> Option<(usize, ConnId)> {
        // A flow has one place, so whoever stands where the last one of its kind stood and has the key is the one.
        let recent = &mut self.recent[key.shelf()];
        let index = match self.flows.get(*recent) {
            Some(flow) if flow.key == *key => *recent,
            Some(_) | None => *self.by_key.get(key)?,
        };
        *recent = index;
        if self.is_over(index, now) {
            self.expire(index);
            return None;
        }
        Some((index, self.flows.get(index)?.agent))
    }

    fn open(&mut self, agent: ConnId, key: Key, parsed: &Parsed, now: Instant) {
        let (original, class) = (parsed.flow.source, Class::of(parsed, None));
        let flow = Flow {
            key,
            agent,
            original,
            class,
            touched: now,
            answered: None,
            introduced: (0, None),
            links: Links::default(),
        };
        let index = self.flows.insert(flow);
        self.last = Some((index, is_opening(parsed)));
        let Self {
            agents,
            connectors,
            flows,
            ..
        } = self;
        if let Some(living) = place(connectors, key.connector) {
            *living = Some(key.connector.generation);
        }
        let Some(place) = place(agents, agent) else { return };
        let fresh = || Agent {
            generation: agent.generation,
            flows: 0,
            order: Default::default(),
        };
        let record = place.get_or_insert_with(fresh);
        record.flows += 1;
        if let Some(order) = record.order.get_mut(class.index()) {
            order.push_newest(flows, index);
        }
        self.by_key.insert(key, index);
        self.stats.opened += 1;
    }

    /// A packet of a flow begins its rest anew. An ICMP error does not (RFC 5508 §4).
    fn touch(&mut self, index: usize, parsed: &Parsed, now: Instant) {
        if parsed.kind == Kind::IcmpError {
            return;
        }
        let Some(flow) = self.flows.get_mut(index) else {
            return;
        };
        let before = flow.class;
        self.last = Some((index, is_opening(parsed)));
        flow.touched = now;
        flow.class = Class::of(parsed, Some(before));
        let (agent, class) = (flow.agent, flow.class);
        let Some(Some(record)) = self.agents.get_mut(agent.index as usize) else {
            return;
        };
        if class == before
            && record
                .order
                .get(class.index())
                .is_some_and(|order| order.newest() == Some(index))
        {
            return;
        }
        if let Some(order) = record.order.get_mut(before.index()) {
            order.unlink(&mut self.flows, index);
        }
        if let Some(order) = record.order.get_mut(class.index()) {
            order.push_newest(&mut self.flows, index);
        }
    }

    /// Removes a flow from everywhere.
    fn forget(&mut self, index: usize) {
        let Some(flow) = self.flows.get(index) else { return };
        let (agent, class) = (flow.agent, flow.class);
        self.by_key.remove(&flow.key);
        if let Some(Some(record)) = self.agents.get_mut(agent.index as usize) {
            record.flows -= 1;
            if let Some(order) = record.order.get_mut(class.index()) {
                order.unlink(&mut self.flows, index);
            }
        }
        self.flows.try_remove(index);
    }

    fn agent(&self, conn: ConnId) -> Option<&Agent> {
        let agent = self.agents.get(conn.index as usize)?.as_ref()?;
        (agent.generation == conn.generation).then_some(agent)
    }

    fn observe(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        now
    }
}

/// Whether a packet is the first of a TCP connection.
fn is_opening(parsed: &Parsed) -> bool {
    matches!(parsed.kind, Kind::Tcp(flags) if flags.syn && !flags.ack)
}

impl Flow {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.touched) >= self.class.idle()
    }
}

/// The place of a connection in a table by index, which grows to hold it.
fn place<T>(table: &mut Vec<Option<T>>, conn: ConnId) -> Option<&mut Option<T>> {
    let index = conn.index as usize;
    if index >= table.len() {
        table.resize_with(index + 1, || None);
    }
    table.get_mut(index)
}
