//! Making room: which flow ends so that another may begin.
//!
//! Work per new flow is bounded: the ends of the agent's own lists, and while the table is full, a few places of the slab
//! under a hand that goes round.

use std::time::Instant;

use super::{Agent, FlowRefusal, FlowTable};
use crate::id::ConnId;

/// Most flows of an agent that expire when it opens one. More than one, so that they go faster than they come.
const EXPIRE_PER_OPENING: usize = 4;

/// Places examined for one opening while the table is full.
const EXAMINED_WHILE_FULL: usize = 16;

impl FlowTable {
    /// Makes sure that `agent` may open one more flow.
    pub(super) fn make_room(&mut self, agent: ConnId, now: Instant) -> Result<(), FlowRefusal> {
        self.forget_predecessor(agent);
        for _ in 0..EXPIRE_PER_OPENING {
            let Some(index) = self.agent(agent).and_then(|agent| self.over(agent, now)) else {
                break;
            };
            self.expire(index);
        }
        let own = self.agent(agent).map_or(0, |agent| agent.flows);
        if own < self.limits.per_agent {
            if self.flows.len() >= self.limits.total {
                self.sweep(now);
            }
            if self.flows.len() < self.limits.total {
                return Ok(());
            }
        }
        let oldest = self
            .agent(agent)
            .and_then(|agent| self.oldest(agent))
            .ok_or(FlowRefusal::Full)?;
        self.stats.evicted += 1;
        self.forget(oldest);
        Ok(())
    }

    /// The flow of an agent that rested longest, of any class.
    pub(super) fn oldest(&self, agent: &Agent) -> Option<usize> {
        let ends = agent.order.iter().filter_map(|order| order.oldest());
        ends.min_by_key(|index| self.flows.get(*index).map(|flow| flow.touched))
    }

    /// Ends a flow that is over.
    pub(super) fn expire(&mut self, index: usize) {
        self.stats.expired += 1;
        self.forget(index);
    }

    /// A flow of an agent that is over, if one stands at the end of a list.
    fn over(&self, agent: &Agent, now: Instant) -> Option<usize> {
        let mut ends = agent.order.iter().filter_map(|order| order.oldest());
        ends.find(|index| self.is_over(*index, now))
    }

    /// Whether a flow has rested too long, or its connector has left.
    pub(super) fn is_over(&self, index: usize, now: Instant) -> bool {
        let Some(flow) = self.flows.get(index) else {
            return false;
        };
        let connector = flow.key.connector;
        let living = self.connectors.get(connector.index as usize).copied().flatten();
        living != Some(connector.generation) || flow.is_expired(now)
    }

    /// Examines the next places of the slab and ends what is over there.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..EXAMINED_WHILE_FULL {
            // The table is full, so the slab has no more places than the limit.
            self.hand = (self.hand + 1) % self.limits.total.max(1);
            if self.is_over(self.hand, now) {
                self.expire(self.hand);
            }
        }
    }

    /// A connection in the same place of the pool with another generation is gone, whether or not we were told.
    fn forget_predecessor(&mut self, conn: ConnId) {
        let Some(Some(agent)) = self.agents.get(conn.index as usize) else {
            return;
        };
        if agent.generation != conn.generation {
            self.remove(ConnId {
                index: conn.index,
                generation: agent.generation,
            });
        }
    }
}
