//! Changes of the services while the stack runs.
//!
//! A service that changes keeps its flows, unless their agent is not let in any more; one that is removed loses them, and
//! their agents hear a reset. The flows are searched for then, and only then.

use std::time::Instant;

use super::{Flow, Netstack, NetstackService, Unreachable};
use crate::backend::FlowId;
use crate::id::ServiceIndex;

impl Netstack {
    /// Serves a service so from now on, also one that was not there before.
    pub fn install(&mut self, service: ServiceIndex, config: NetstackService, mtu: usize, now: Instant) {
        self.advance(now);
        let index = usize::from(service.0);
        if self.addresses.len() <= index {
            self.addresses.resize_with(index + 1, Vec::new);
            self.mtu.resize(index + 1, mtu);
            self.tunnel.grow(index + 1);
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

    /// Serves a service no more. Its agents hear a reset, for which its tunnel should stay a little.
    pub fn remove(&mut self, service: ServiceIndex, now: Instant) {
        self.advance(now);
        for flow in self.flows_of(service) {
            self.end_flow(flow);
        }
        self.services.remove(service);
    }

    /// Drops what still waits for the tunnel of a service that was removed.
    pub fn clear(&mut self, service: ServiceIndex) {
        self.tunnel.clear(service);
    }

    fn flows_of(&self, service: ServiceIndex) -> Vec<FlowId> {
        let slots = self.slots.iter().filter(|(_, slot)| match &slot.flow {
            Flow::Udp { service: of, .. } => *of == service,
            Flow::Tcp(session) => session.service() == service,
        });
        slots
            .map(|(index, slot)| FlowId {
                index: index as u32,
                generation: slot.generation,
            })
            .collect()
    }

    /// Ends a flow whose agent is gone: its addresses are another's now, who must not hear of it.
    pub(super) fn drop_flow(&mut self, id: FlowId) {
        self.stats.ended += 1;
        match self.flow(id) {
            Some(Flow::Tcp(_)) => self.drop_session(id),
            Some(Flow::Udp { service, tuple, .. }) => {
                let key = (*service, *tuple);
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
            Some(Flow::Udp { service, tuple, .. }) => {
                let (service, tuple) = (*service, *tuple);
                self.udp.remove(&(service, tuple));
                self.forget(id);
                self.backend.close(id);
                self.say_unreachable(service, tuple, Unreachable::AdminProhibited);
            }
            None => {}
        }
    }
}
