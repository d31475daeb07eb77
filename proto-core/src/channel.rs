//! Relay channels: pairs of clients between which an intermediate forwards packets that it cannot read.
//!
//! A [`ChannelTable`] decides which frames are forwarded and where. Each end of a channel has a number of its own, and a
//! frame is worth something only if it came from the address that QUIC has validated for the client that owns its number; it goes
//! to the validated address of the other end, with the other end's number written over it. Nothing else is read or changed, so
//! a batch received with offload is sent with offload, out of the very buffer it came in.
//!
//! The number says where the channel stands in the table and which end it is, so a frame costs no search: an index, a comparison
//! of the address, five bytes.

mod bucket;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ::slab::Slab;

use bucket::Bucket;

use crate::id::{ConnId, ServiceId};
use crate::machine::{Forward, FourTuple, Received, Run};
use crate::rng::{Rng, SeededMap};
use crate::wire::channel::{parse_channel, set_channel};
use crate::wire::control::ChannelEnd;

/// Bounds of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Channels in all.
    pub channels: usize,
    /// Channels of one client.
    pub per_client: usize,
    /// Services that one channel is for.
    pub services: usize,
    /// Bytes per second that a channel may carry in each direction; `None` is no bound.
    pub rate: Option<u64>,
    /// How long a channel may carry nothing.
    pub idle: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            channels: 100_000,
            per_client: 4096,
            services: 256,
            rate: None,
            idle: Duration::from_secs(300),
        }
    }
}

/// Bits of a number that say where the channel stands; one more says which end.
const INDEX_BITS: u32 = 20;

/// Most channels that numbers can tell apart.
pub const MAX_CHANNELS: usize = 1 << INDEX_BITS;

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Agent,
    Connector,
}

impl End {
    const fn index(self) -> usize {
        match self {
            Self::Agent => 0,
            Self::Connector => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Agent => Self::Connector,
            Self::Connector => Self::Agent,
        }
    }
}

#[derive(Debug)]
struct Side {
    client: ConnId,
    /// Where the client's QUIC connection was validated.
    path: FourTuple,
    number: u32,
    bucket: Bucket,
    /// Frames go to this end inside its control connection.
    inside: bool,
}

#[derive(Debug)]
struct Channel {
    sides: [Side; 2],
    services: BTreeSet<ServiceId>,
    used: Instant,
}

/// Counters of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Channels opened.
    pub opened: u64,
    /// Channels closed.
    pub closed: u64,
    /// Frames forwarded.
    pub forwarded: u64,
    /// Their bytes.
    pub forwarded_bytes: u64,
    /// Frames with a number that leads to no channel, or without a packet.
    pub unknown: u64,
    /// Frames from another address than the owner's.
    pub foreign: u64,
    /// Frames beyond the quota of their channel.
    pub over_quota: u64,
    /// Frames of batches that were split too often.
    pub scattered: u64,
}

/// Why no channel is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The table holds as many channels as it may.
    Table,
    /// One of the two clients, or the channel between them, has as much as it may.
    Client,
}

/// A channel as its two ends know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The number of the agent's end.
    pub agent: u32,
    /// The number of the connector's end.
    pub connector: u32,
    /// Whether it was there before, for whatever service.
    pub existed: bool,
    /// Whether it was there before, for this service.
    pub known: bool,
}

/// An end of a channel that is over: whom to tell, by which number, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The client.
    pub client: ConnId,
    /// The number of its end.
    pub number: u32,
    /// Why.
    pub reason: ChannelEnd,
}

/// Where a frame that travels inside a control connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// As a bare UDP payload.
    Bare(FourTuple),
    /// As a DATAGRAM of this client's control connection.
    Inside(ConnId),
}

/// The channels of an intermediate.
#[derive(Debug)]
pub struct ChannelTable {
    limits: ChannelLimits,
    channels: Slab<Channel>,
    by_pair: SeededMap<(ConnId, ConnId), usize>,
    by_client: SeededMap<ConnId, BTreeSet<usize>>,
    /// Distinguishes uses of a place in the table.
    generation: u32,
    swept: Option<Instant>,
    stats: ChannelStats,
}

impl ChannelTable {
    /// An empty table.
    pub fn new(limits: ChannelLimits, rng: &mut Rng) -> Self {
        Self {
            limits: ChannelLimits {
                channels: limits.channels.min(MAX_CHANNELS),
                ..limits
            },
            channels: Slab::new(),
            by_pair: rng.map(),
            by_client: rng.map(),
            generation: rng.next_u64() as u32,
            swept: None,
            stats: ChannelStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> ChannelStats {
        self.stats
    }

    /// Channels that are open.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether no channel is open.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The channel between an agent and a connector, for one more service. Whether both may is the caller's business.
    ///
    /// # Errors
    /// If a bound is reached.
    pub fn open(
        &mut self,
        agent: (ConnId, FourTuple),
        connector: (ConnId, FourTuple),
        service: &ServiceId,
        now: Instant,
    ) -> Result<Opened, Full> {
        let pair = (agent.0, connector.0);
        if let Some(channel) = self
            .by_pair
            .get(&pair)
            .and_then(|index| self.channels.get_mut(*index))
        {
            if channel.services.len() >= self.limits.services && !channel.services.contains(service) {
                return Err(Full::Client);
            }
            let known = !channel.services.insert(service.clone());
            return Ok(Opened {
                agent: channel.sides[0].number,
                connector: channel.sides[1].number,
                existed: true,
                known,
            });
        }
        if self.channels.len() >= self.limits.channels {
            return Err(Full::Table);
        }
        let held = |client: &ConnId| self.by_client.get(client).map_or(0, BTreeSet::len);
        if held(&agent.0) >= self.limits.per_client || held(&connector.0) >= self.limits.per_client {
            return Err(Full::Client);
        }
        let entry = self.channels.vacant_entry();
        let index = entry.key();
        self.generation = self.generation.wrapping_add(1);
        let number =
            |end: End| (self.generation << (INDEX_BITS + 1)) | ((index as u32) << 1) | end.index() as u32;
        let side = |(client, path): (ConnId, FourTuple), end| Side {
            client,
            path,
            number: number(end),
            bucket: Bucket::new(self.limits.rate, now),
            inside: false,
        };
        let sides = [side(agent, End::Agent), side(connector, End::Connector)];
        let opened = Opened {
            agent: sides[0].number,
            connector: sides[1].number,
            existed: false,
            known: false,
        };
        entry.insert(Channel {
            sides,
            services: BTreeSet::from([service.clone()]),
            used: now,
        });
        self.by_pair.insert(pair, index);
        for client in [agent.0, connector.0] {
            self.by_client.entry(client).or_default().insert(index);
        }
        self.stats.opened += 1;
        Ok(opened)
    }

    /// Takes frames of one received batch, which begin `offset` bytes behind its own beginning: rewrites their numbers and
    /// says where they go. What travels on inside a control connection is copied out through `inside`: it is the
    /// exception, for networks that let nothing else through.
    pub fn forward(
        &mut self,
        received: &mut Received<'_>,
        offset: usize,
        forward: &mut Forward,
        now: Instant,
        mut inside: impl FnMut(ConnId, &[u8]),
    ) {
        let mut run: Option<Run> = None;
        let size = received.segment_size();
        let from = received.path;
        let mut start = offset;
        for frame in received.payload.chunks_mut(size) {
            let end = start + frame.len();
            match self.admit(frame, from, now) {
                Some(Onward::Bare(path)) => match &mut run {
                    Some(open) if open.path == path && open.end == start => open.end = end,
                    Some(_) | None => self.push(forward, run.replace(Run { start, end, path }), size),
                },
                Some(Onward::Inside(client)) => inside(client, frame),
                None => {}
            }
            start = end;
        }
        self.push(forward, run, size);
    }

    /// Takes one frame that came inside the control connection of `client`, and says where it goes on.
    pub fn forward_inside(&mut self, frame: &mut [u8], client: ConnId, now: Instant) -> Option<Onward> {
        let number = parse_channel(frame);
        let owner = number
            .and_then(|number| self.find(number))
            .map(|(index, end)| (index, end.index()));
        let owns = owner.is_some_and(|(index, end)| {
            self.channels
                .get(index)
                .is_some_and(|channel| channel.sides[end].client == client)
        });
        let Some((index, end)) = owner.filter(|_| owns) else {
            self.stats.unknown += 1;
            return None;
        };
        let path = self.channels.get(index)?.sides[end].path;
        self.admit(frame, path, now)
    }

    /// How frames shall reach one end from now on. Whether the client owns the number is checked.
    pub fn set_inside(&mut self, client: ConnId, number: u32, inside: bool) -> bool {
        let Some((index, end)) = self.find(number) else {
            return false;
        };
        let side = self
            .channels
            .get_mut(index)
            .map(|channel| &mut channel.sides[end.index()]);
        match side.filter(|side| side.client == client) {
            Some(side) => {
                side.inside = inside;
                true
            }
            None => false,
        }
    }

    /// QUIC has validated another address of a client: its channels follow.
    pub fn set_path(&mut self, client: ConnId, path: FourTuple) {
        for index in self.by_client.get(&client).into_iter().flatten() {
            let sides = self.channels.get_mut(*index).map(|channel| &mut channel.sides);
            for side in sides.into_iter().flatten().filter(|side| side.client == client) {
                side.path = path;
            }
        }
    }

    /// A client closes one of its channels. The ends to tell; none if the number is not its own.
    pub fn close(&mut self, client: ConnId, number: u32) -> Option<Closed> {
        let (index, end) = self.find(number)?;
        let owner = self.channels.get(index)?.sides[end.index()].client;
        if owner != client {
            return None;
        }
        self.remove(index, ChannelEnd::PeerGone)
            .into_iter()
            .flatten()
            .find(|closed| closed.client != client)
    }

    /// A client is gone, and its channels with it. The other ends, to be told.
    pub fn remove_client(&mut self, client: ConnId) -> Vec<Closed> {
        let indices = self.by_client.get(&client).cloned().unwrap_or_default();
        let closed = indices
            .into_iter()
            .filter_map(|index| self.remove(index, ChannelEnd::PeerGone));
        closed
            .flatten()
            .filter(|closed| closed.client != client)
            .collect()
    }

    /// A client has lost a service: channels that were for nothing else are over. Both ends, to be told.
    pub fn remove_service(&mut self, client: ConnId, service: &ServiceId) -> Vec<Closed> {
        let indices = self.by_client.get(&client).cloned().unwrap_or_default();
        let mut closed = Vec::new();
        for index in indices {
            let Some(channel) = self.channels.get_mut(index) else {
                continue;
            };
            channel.services.remove(service);
            if channel.services.is_empty() {
                closed.extend(self.remove(index, ChannelEnd::NoService).into_iter().flatten());
            }
        }
        closed
    }

    /// Ends channels that carried nothing for too long. Looks at all of them, a few times per idle time.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Closed> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.swept = Some(now);
        let idle = self.limits.idle;
        let over = self.channels.iter();
        let over = over.filter(|(_, channel)| now.saturating_duration_since(channel.used) >= idle);
        let over: Vec<usize> = over.map(|(index, _)| index).collect();
        let closed = over
            .into_iter()
            .filter_map(|index| self.remove(index, ChannelEnd::Idle));
        closed.flatten().collect()
    }

    /// When [`ChannelTable::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (_, first) = self.channels.iter().next()?;
        // A new table is swept for the first time when its first channel may be over.
        Some(self.swept.map_or(first.used + self.limits.idle, |swept| {
            swept + self.limits.idle / 4
        }))
    }

    /// Checks a frame, and writes the number of the other end into it.
    fn admit(&mut self, frame: &mut [u8], from: FourTuple, now: Instant) -> Option<Onward> {
        let Some((index, end)) = parse_channel(frame).and_then(|number| self.find(number)) else {
            self.stats.unknown += 1;
            return None;
        };
        let channel = self.channels.get_mut(index)?;
        let sender = &mut channel.sides[end.index()];
        if sender.path.remote != from.remote {
            self.stats.foreign += 1;
            return None;
        }
        if !sender.bucket.take(frame.len() as u64, now) {
            self.stats.over_quota += 1;
            return None;
        }
        channel.used = now;
        let receiver = &channel.sides[end.other().index()];
        set_channel(frame, receiver.number);
        self.stats.forwarded += 1;
        self.stats.forwarded_bytes += frame.len() as u64;
        Some(if receiver.inside {
            Onward::Inside(receiver.client)
        } else {
            Onward::Bare(receiver.path)
        })
    }

    fn push(&mut self, forward: &mut Forward, run: Option<Run>, size: usize) {
        if let Some(run) = run
            && !forward.push(run)
        {
            let frames = (run.end - run.start).div_ceil(size) as u64;
            self.stats.forwarded -= frames;
            self.stats.forwarded_bytes -= (run.end - run.start) as u64;
            self.stats.scattered += frames;
        }
    }

    /// The channel and the end that a number names.
    fn find(&self, number: u32) -> Option<(usize, End)> {
        let end = if number & 1 == 0 {
            End::Agent
        } else {
            End::Connector
        };
        let index = ((number >> 1) as usize) & (MAX_CHANNELS - 1);
        let channel = self.channels.get(index)?;
        (channel.sides[end.index()].number == number).then_some((index, end))
    }

    /// Takes a channel out of the table; what each end is told.
    fn remove(&mut self, index: usize, reason: ChannelEnd) -> Option<[Closed; 2]> {
        let channel = self.channels.try_remove(index)?;
        self.stats.closed += 1;
        let [agent, connector] = &channel.sides;
        self.by_pair.remove(&(agent.client, connector.client));
        for client in [agent.client, connector.client] {
            if let Some(held) = self.by_client.get_mut(&client) {
                held.remove(&index);
                if held.is_empty() {
                    self.by_client.remove(&client);
                }
            }
        }
        Some(channel.sides.map(|side| Closed {
            client: side.client,
            number: side.number,
            reason,
        }))
    }
}
