//! Packets longer than the tunnel carries: put together on the way in, cut on the way out.

use super::Netstack;
use crate::id::LaneId;
use crate::routing::packet::{self, Parsed};

impl Netstack {
    pub(super) fn on_fragment(&mut self, lane: LaneId, parsed: &Parsed, fragment: &[u8]) {
        let now = self.now;
        let holder = self.lanes.holder(lane, parsed.flow.source);
        let whole = self.fragments.take_from(lane, holder, fragment, parsed, now);
        self.count_fragments();
        if let Some(whole) = whole {
            // No fragment any more, so this comes here once only.
            self.handle_packet(lane, whole.into(), now);
        }
    }

    /// Gives up packets that waited too long; their senders are told (RFC 1122 §3.3.2, RFC 4443 §3.3).
    pub(super) fn expire_fragments(&mut self) {
        while let Some((lane, first)) = self.fragments.pop_expired(self.now) {
            let mut answer = Vec::new();
            let is_due = first.is_some_and(|first| {
                packet::parse(&first)
                    .is_ok_and(|parsed| packet::reassembly_timed_out(&first, &parsed, &mut answer))
            });
            if is_due {
                self.queue_error(lane, answer);
            }
        }
        self.count_fragments();
    }

    /// Cuts a packet for the tunnel. Only what is made here comes this way: datagrams of backends and echo replies.
    pub(super) fn queue_fragments(&mut self, lane: LaneId, packet: &[u8], mtu: usize) {
        let id = self.rng.next_u64() as u32;
        let (lanes, mut lost) = (&mut self.lanes, 0);
        let cut = packet::split(packet, mtu, id, &mut |fragment| {
            lost += u64::from(!lanes.push(lane, fragment.into()));
        });
        self.stats.tunnel_full += lost;
        if cut {
            self.stats.fragmented += 1;
        } else {
            self.stats.too_large += 1;
        }
    }

    pub(super) fn count_fragments(&mut self) {
        let stats = self.fragments.stats();
        self.stats.reassembled = stats.whole;
        self.stats.fragments = stats.timed_out + stats.evicted + stats.inconsistent;
    }
}
