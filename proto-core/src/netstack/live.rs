//! Changes of services and lanes while the stack runs.
//!
//! A service that changes keeps its flows, unless their agent is not let in any more; one that is removed loses them, and
//! their agents hear a reset. Its lanes are searched for then, and only then. A lane that is closed loses its flows, and
//! nobody hears of it: there is no way left to say it.

use std::time::Instant;

use super::backends::peer;
use super::{Flow, Netstack, NetstackService, Unreachable};
use crate::backend::FlowId;
use crate::id::{LaneId, ServiceIndex};
use crate::quic::identity::Fingerprint;
use crate::routing::packet::{self, Kind};

impl Netstack {
    /// Serves a service so from now on, also one that was not there before.
    pub fn install(&mut self, service: ServiceIndex, config: NetstackService, now: Instant) {
        self.advance(now);
        let index = usize::from(service.0);
        if self.addresses.len() <= index {
            self.addresses.resize_with(index + 1, Vec::new);
        }
        if let Some(addresses) = self.addresses.get_mut(index) {
            *addresses = config.virtual_addresses;
        }
        self.services.install(service, config.offer, self.now);
        for flow in self.flows_of(service) {
            let peer = self
                .slots
                .get(flow.index as usize)
                .and_then(|slot| slot.peer.as_deref());
            if !self.services.permits(service, peer) {
                self.end_flow(flow);
            }
        }
    }

    /// Serves a service no more. Its agents hear a reset, for which its lanes should stay a little; they are their owner's to
    /// close.
    pub fn remove(&mut self, service: ServiceIndex, now: Instant) {
        self.advance(now);
        for flow in self.flows_of(service) {
            self.end_flow(flow);
        }
        self.services.remove(service);
    }

    /// Opens a way in and out of a service. `mtu` is the largest packet that it carries until [`Netstack::set_mtu`] says
    /// otherwise.
    ///
    /// Where the agent is known, all packets are its, and nobody needs to introduce it; otherwise there may be many, who are
    /// told apart by their addresses. How many lanes there are is their owner's to limit.
    pub fn open_lane(
        &mut self,
        service: ServiceIndex,
        agent: Option<(Fingerprint, &str)>,
        mtu: usize,
    ) -> LaneId {
        let peer = agent.map(|(fingerprint, name)| peer(fingerprint, name));
        self.lanes.open(service, peer, mtu)
    }

    /// Whether a service lets an agent in; where it does not, that is told.
    pub fn admits(&mut self, service: ServiceIndex, agent: (Fingerprint, &str), now: Instant) -> bool {
        self.advance(now);
        let peer = peer(agent.0, agent.1);
        let admitted = self.services.permits(service, Some(&peer));
        if !admitted {
            self.services.tell_denied(service, Some(&peer), self.now);
        }
        admitted
    }

    /// Whether a packet belongs to a flow that this agent has in a lane.
    pub fn holds(&self, lane: LaneId, packet: &[u8], agent: Fingerprint) -> bool {
        let Ok(parsed) = packet::parse(packet) else {
            return false;
        };
        let key = (lane, parsed.flow);
        let flow = match parsed.kind {
            Kind::Udp => self.udp.get(&key),
            Kind::Tcp(_) => self.tcp.get(&key),
            Kind::EchoRequest | Kind::EchoReply | Kind::IcmpError | Kind::Other => None,
        };
        let slot = flow.and_then(|flow| self.slots.get(flow.index as usize));
        let peer = slot.and_then(|slot| slot.peer.as_deref());
        peer.is_some_and(|peer| peer.fingerprint == agent)
    }

    /// Closes a lane: its flows end, and what waits for it goes.
    pub fn close_lane(&mut self, lane: LaneId, now: Instant) {
        self.advance(now);
        for flow in self.lanes.flows(lane, &mut self.slots) {
            self.drop_flow(flow);
        }
        if self.fragments.waiting() > 0 {
            self.fragments.forget_scope(lane);
            self.count_fragments();
        }
        self.lanes.close(lane);
    }

    /// The service of a lane, while it is open.
    pub fn lane_service(&self, lane: LaneId) -> Option<ServiceIndex> {
        self.lanes.service(lane)
    }

    /// The flows of a lane, those included that only remember their end.
    pub fn lane_flows(&self, lane: LaneId) -> usize {
        self.lanes.flow_count(lane)
    }

    fn flows_of(&mut self, service: ServiceIndex) -> Vec<FlowId> {
        let lanes = self.lanes.of_service(service);
        let slots = &mut self.slots;
        lanes
            .into_iter()
            .flat_map(|lane| self.lanes.flows(lane, slots))
            .collect()
    }

    /// Ends a flow whose agent is gone: its lane is closed, or its addresses are another's now, who must not hear of it.
    pub(super) fn drop_flow(&mut self, id: FlowId) {
        self.stats.ended += 1;
        match self.flow(id) {
            Some(Flow::Tcp(_)) => self.drop_session(id),
            Some(Flow::Udp { lane, tuple, .. }) => {
                let key = (*lane, *tuple);
                self.udp.remove(&key);
                self.forget(id);
                self.backend.close(id);
            }
            None => {}
        }
    }

    /// Ends a flow for its agent and for its backend.
    pub(super) fn end_flow(&mut self, id: FlowId) {
        self.stats.ended += 1;
        match self.flow(id) {
            Some(Flow::Tcp(_)) => self.end_session(id),
            Some(Flow::Udp { lane, tuple, .. }) => {
                let (lane, tuple) = (*lane, *tuple);
                self.udp.remove(&(lane, tuple));
                self.forget(id);
                self.backend.close(id);
                self.say_unreachable(lane, tuple, Unreachable::AdminProhibited);
            }
            None => {}
        }
    }
}
