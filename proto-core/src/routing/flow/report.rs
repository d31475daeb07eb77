//! What the flow table is told to hold, and what it tells: limits, refusals, counters.

/// How many flows are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Of one agent, over all its connectors.
    pub per_agent: usize,
    /// Of all agents together.
    pub total: usize,
}

/// Why a packet of an agent was not forwarded. It is dropped and has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowRefusal {
    /// Not one well-formed IP packet.
    Malformed,
    /// A later fragment whose first has not been seen: nothing in it says to which flow it belongs.
    Fragment,
    /// An ICMP error about no flow of this agent.
    NoFlow,
    /// Another agent has this flow, and this agent's alias cannot be used for it.
    Taken,
    /// The table is full, and the agent has no flow of its own to give up.
    Full,
}

/// What happened, since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Flows opened, translated ones included.
    pub opened: u64,
    /// Flows opened under an alias.
    pub translated: u64,
    /// Flows that ended because they rested too long, or because their connector has left.
    pub expired: u64,
    /// Flows given up for newer ones of the same agent.
    pub evicted: u64,
    /// Packets of agents refused as [`FlowRefusal::Malformed`].
    pub malformed: u64,
    /// Packets of agents refused as [`FlowRefusal::Fragment`].
    pub fragments: u64,
    /// Packets of agents refused as [`FlowRefusal::NoFlow`].
    pub no_flow: u64,
    /// Packets of agents refused as [`FlowRefusal::Taken`].
    pub taken: u64,
    /// Packets of agents refused as [`FlowRefusal::Full`].
    pub full: u64,
    /// Packets of connectors dropped: malformed, fragments, or of no living flow.
    pub unmatched: u64,
}

impl FlowStats {
    /// The counter of a refusal.
    pub(super) fn refused(&mut self, refusal: FlowRefusal) -> &mut u64 {
        match refusal {
            FlowRefusal::Malformed => &mut self.malformed,
            FlowRefusal::Fragment => &mut self.fragments,
            FlowRefusal::NoFlow => &mut self.no_flow,
            FlowRefusal::Taken => &mut self.taken,
            FlowRefusal::Full => &mut self.full,
        }
    }
}
