//! ICMP: the connector answers echo for its services, so that `ping` tells whether the path to it works; errors are sent
//! within an allowance, and those of agents end the flows they are about.

use std::time::{Duration, Instant};

use super::{Flow, Netstack};
use crate::id::LaneId;
use crate::routing::packet::{self, Parsed, TooBig, UDP};

/// ICMP errors sent at once at most, and how long one takes to be allowed again: 1,000 a second. Enough for the
/// traceroutes and misdirected sockets of many agents, and no amplifier.
const BURST: u32 = 200;
const PER_ERROR: Duration = Duration::from_millis(1);

/// How many ICMP errors may be sent now: a bucket that fills with time.
#[derive(Debug)]
pub(super) struct Allowance {
    /// When the bucket was, or will be, full.
    full_at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one; `false` if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + PER_ERROR;
        let allowed = full_at <= now + PER_ERROR * BURST;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

impl Netstack {
    pub(super) fn on_echo(&mut self, lane: LaneId, parsed: &Parsed, request: &[u8]) {
        let mut reply = Vec::with_capacity(parsed.len);
        if packet::echo_reply(request, parsed, &mut reply) {
            self.stats.echoes += 1;
            self.queue(lane, reply);
        }
    }

    /// Queues an ICMP error, if the allowance permits.
    pub(super) fn queue_error(&mut self, lane: LaneId, error: Vec<u8>) {
        if self.icmp.take(self.now) {
            self.queue(lane, error);
        } else {
            self.stats.icmp_limited += 1;
        }
    }

    /// The agent's host says that nobody takes what a UDP flow sends: its backend socket goes. The path says that it
    /// carries less: the session's segments become shorter. Other errors change nothing: a stream has its own end (RFC
    /// 5927 §5.2).
    pub(super) fn on_icmp_error(&mut self, lane: LaneId, parsed: &Parsed, error: &[u8]) {
        if let Some(TooBig {
            mtu,
            sequence: Some(sequence),
        }) = TooBig::read(error, parsed)
        {
            self.on_segment_too_big((lane, parsed.flow), mtu, sequence);
            return;
        }
        let kind = error.get(parsed.transport.start..parsed.transport.start + 2);
        let port_unreachable = match kind {
            Some([3, 3]) => parsed.flow.source.is_ipv4(),
            Some([1, 4]) => parsed.flow.source.is_ipv6(),
            Some(_) | None => false,
        };
        let key = (lane, parsed.flow);
        if !port_unreachable || parsed.flow.protocol != UDP {
            self.stats.unsupported += 1;
            return;
        }
        let Some(flow) = self.udp.remove(&key) else {
            self.stats.unsupported += 1;
            return;
        };
        self.stats.icmp_errors += 1;
        if let Some(Flow::Udp { .. }) = self.forget(flow) {
            self.backend.close(flow);
        }
    }
}
