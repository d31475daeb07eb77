//! Lanes: the ways in and out of a service.
//!
//! A lane decides what belongs together: packets that came in on it, the flows they began, and the answers, which leave by
//! it and no other. Two lanes may carry the same addresses and ports and mean different agents. The lane of a relay link
//! carries many agents, whom the intermediate tells apart by their addresses; the lane of a session carries one, who is
//! known, and whose addresses are its own business: what it may hold is counted for the lane then, not for an address.
//!
//! A lane holds packets that are ready and the sessions that may have a segment to send. Ready packets are bounded for each
//! lane and for all together, so that agents which take nothing cannot fill the memory. A lane without traffic costs its
//! entry in the table, and its name if it has one.

mod queue;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ::slab::Slab;

use super::Slot;
use crate::backend::FlowId;
use crate::expiring::list::List;
use crate::id::{LaneId, ServiceIndex};
use crate::quic::Datagram;
use crate::service::access::Peer;
use queue::Queue;

/// Packets that may wait for any lane, even where all lanes together have too many.
const FLOOR: usize = 4;

/// For whom something is counted that one agent may not have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Holder {
    /// An address that the intermediate vouches for.
    Address(IpAddr),
    /// The one agent of a lane.
    Lane(LaneId),
}

#[derive(Debug)]
struct Lane {
    generation: u32,
    service: ServiceIndex,
    /// The agent, if it is known and the only one.
    peer: Option<Arc<Peer>>,
    /// The largest packet that it carries now.
    mtu: u32,
    flows: List,
    flow_count: u32,
    queue: Queue,
    /// It stands among those that are ready.
    announced: bool,
}

/// The lanes of a stack.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Slab<Lane>,
    generation: u32,
    ready: VecDeque<LaneId>,
    /// Packets that wait, of all lanes.
    waiting: usize,
    /// The most of one lane, and of all.
    limit: usize,
    total: usize,
}

impl Lanes {
    pub(super) fn new(limit: usize, total: usize) -> Self {
        Self {
            lanes: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            waiting: 0,
            limit,
            total,
        }
    }

    pub(super) fn open(&mut self, service: ServiceIndex, peer: Option<Arc<Peer>>, mtu: usize) -> LaneId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.lanes.insert(Lane {
            generation,
            service,
            peer,
            mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
            flows: List::default(),
            flow_count: 0,
            queue: Queue::default(),
            announced: false,
        }) as u32;
        LaneId { index, generation }
    }

    /// Forgets a lane and what waits for it. Its flows have to be gone.
    pub(super) fn close(&mut self, id: LaneId) {
        if self.get(id).is_none() {
            return;
        }
        let lane = self.lanes.remove(id.index as usize);
        self.waiting -= lane.queue.packets();
        if lane.announced {
            self.ready.retain(|ready| *ready != id);
        }
    }

    /// Bytes of the table and the queues, what the packets themselves hold not included.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let names = self.lanes.iter().filter_map(|(_, lane)| lane.peer.as_ref());
        let names = names.map(|peer| size_of::<Peer>() + 2 * size_of::<usize>() + peer.name.len());
        let queues = self.lanes.iter().map(|(_, lane)| lane.queue.memory());
        names.chain(queues).sum::<usize>() + self.lanes.capacity() * (size_of::<Lane>() + size_of::<usize>())
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many sessions are entered, those that ended since included.
    #[cfg(test)]
    pub(super) fn entered(&self, id: LaneId) -> usize {
        self.get(id).map_or(0, |lane| lane.queue.entered())
    }

    pub(super) fn service(&self, id: LaneId) -> Option<ServiceIndex> {
        self.get(id).map(|lane| lane.service)
    }

    pub(super) fn peer(&self, id: LaneId) -> Option<&Arc<Peer>> {
        self.get(id)?.peer.as_ref()
    }

    pub(super) fn mtu(&self, id: LaneId) -> Option<usize> {
        self.get(id).map(|lane| lane.mtu as usize)
    }

    pub(super) fn set_mtu(&mut self, id: LaneId, mtu: usize) {
        if let Some(lane) = self.get_mut(id) {
            lane.mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
        }
    }

    /// Whose share a packet with this source takes.
    pub(super) fn holder(&self, id: LaneId, source: IpAddr) -> Holder {
        match self.peer(id) {
            Some(_) => Holder::Lane(id),
            None => Holder::Address(source),
        }
    }

    /// The lanes of a service; it looks at every lane.
    pub(super) fn of_service(&self, service: ServiceIndex) -> Vec<LaneId> {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.service == service);
        lanes
            .map(|(index, lane)| LaneId {
                index: index as u32,
                generation: lane.generation,
            })
            .collect()
    }

    /// Enters the flow of a slot.
    pub(super) fn begin_flow(&mut self, id: LaneId, slots: &mut Slab<Slot>, index: usize) {
        if let Some(lane) = self.get_mut(id) {
            lane.flows.push_newest(slots, index);
            lane.flow_count += 1;
        }
    }

    /// Takes out the flow of a slot, before the slot goes.
    pub(super) fn end_flow(&mut self, id: LaneId, slots: &mut Slab<Slot>, index: usize) {
        if let Some(lane) = self.get_mut(id) {
            lane.flows.unlink(slots, index);
            lane.flow_count -= 1;
            if lane.flow_count == 0 {
                lane.queue.rest();
            }
        }
    }

    pub(super) fn flow_count(&self, id: LaneId) -> usize {
        self.get(id).map_or(0, |lane| lane.flow_count as usize)
    }

    /// The flows of a lane, oldest first.
    pub(super) fn flows(&self, id: LaneId, slots: &mut Slab<Slot>) -> Vec<FlowId> {
        let Some(lane) = self.get(id) else {
            return Vec::new();
        };
        let mut flows = Vec::with_capacity(lane.flow_count as usize);
        let mut next = lane.flows.oldest();
        while let Some(index) = next
            && let Some(slot) = slots.get(index)
        {
            flows.push(FlowId {
                index: index as u32,
                generation: slot.generation,
            });
            next = lane.flows.newer(slots, index);
        }
        flows
    }

    /// `false` if too much waits already; the packet is dropped.
    pub(super) fn push(&mut self, id: LaneId, packet: Datagram) -> bool {
        // No more than half of what the others leave, so that many can wait and none takes all.
        let share = (self.total.saturating_sub(self.waiting) / 2).max(FLOOR);
        let limit = self.limit.min(share);
        let Some(lane) = self.get_mut(id).filter(|lane| lane.queue.packets() < limit) else {
            return false;
        };
        lane.queue.push(packet);
        self.waiting += 1;
        self.announce(id);
        true
    }

    /// Whether packets are asked before sessions this time.
    pub(super) fn turn(&mut self, id: LaneId) -> bool {
        self.get_mut(id).is_none_or(|lane| lane.queue.turn())
    }

    pub(super) fn pop(&mut self, id: LaneId) -> Option<Datagram> {
        let packet = self.get_mut(id)?.queue.pop()?;
        self.waiting -= 1;
        Some(packet)
    }

    /// Gives back the memory of a lane's queue, if nothing is left that would use it.
    pub(super) fn rest(&mut self, id: LaneId) {
        if let Some(lane) = self.get_mut(id).filter(|lane| lane.flow_count == 0) {
            lane.queue.rest();
        }
    }

    /// Enters a session that may have a segment to send; the session itself remembers that it is entered.
    pub(super) fn enter(&mut self, id: LaneId, flow: FlowId) {
        if let Some(lane) = self.get_mut(id) {
            lane.queue.enter(flow);
            self.announce(id);
        }
    }

    /// An entered session has ended.
    pub(super) fn abandon(&mut self, id: LaneId, slots: &Slab<Slot>) {
        if let Some(lane) = self.get_mut(id) {
            lane.queue.abandon(|flow| {
                let slot = slots.get(flow.index as usize);
                slot.is_some_and(|slot| slot.generation == flow.generation)
            });
        }
    }

    /// The session whose turn it is: the front one, moved behind the others.
    pub(super) fn next_session(&mut self, id: LaneId) -> Option<FlowId> {
        self.get_mut(id)?.queue.next_session()
    }

    /// The session just named has nothing to send, or has ended.
    pub(super) fn session_done(&mut self, id: LaneId, ended: bool) {
        if let Some(lane) = self.get_mut(id) {
            lane.queue.session_done(ended);
        }
    }

    pub(super) fn poll_ready(&mut self) -> Option<LaneId> {
        let id = self.ready.pop_front()?;
        if let Some(lane) = self.get_mut(id) {
            lane.announced = false;
        }
        Some(id)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn announce(&mut self, id: LaneId) {
        if let Some(lane) = self.get_mut(id)
            && !std::mem::replace(&mut lane.announced, true)
        {
            self.ready.push_back(id);
        }
    }

    fn get(&self, id: LaneId) -> Option<&Lane> {
        let lane = self.lanes.get(id.index as usize)?;
        (lane.generation == id.generation).then_some(lane)
    }

    fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(id.index as usize)?;
        (lane.generation == id.generation).then_some(lane)
    }
}
