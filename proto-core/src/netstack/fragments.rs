//! Packets longer than the tunnel carries: put together on the way in, cut on the way out.

use super::Netstack;
use crate::id::ServiceIndex;
use crate::routing::packet::{self, Parsed};

impl Netstack {
    pub(super) fn on_fragment(&mut self, service: ServiceIndex, parsed: &Parsed, fragment: &[u8]) {
        let now = self.now;
        let whole = self.fragments.take(service, fragment, parsed, now);
        self.count_fragments();
        if let Some(whole) = whole {
            // No fragment any more, so this comes here once only.
            self.handle_packet(service, whole.into(), now);
        }
    }

    /// Gives up packets that waited too long; their senders are told (RFC 1122 §3.3.2, RFC 4443 §3.3).
    pub(super) fn expire_fragments(&mut self) {
        while let Some((service, first)) = self.fragments.pop_expired(self.now) {
            let mut answer = Vec::new();
            let is_due = first.is_some_and(|first| {
                packet::parse(&first)
                    .is_ok_and(|parsed| packet::reassembly_timed_out(&first, &parsed, &mut answer))
            });
            if is_due {
                self.queue_error(service, answer);
            }
        }
        self.count_fragments();
    }

    /// Cuts a packet for the tunnel. Only what is made here comes this way: datagrams of backends and echo replies.
    pub(super) fn queue_fragments(&mut self, service: ServiceIndex, packet: &[u8], mtu: usize) {
        let id = self.rng.next_u64() as u32;
        let (tunnel, mut lost) = (&mut self.tunnel, 0);
        let cut = packet::split(packet, mtu, id, &mut |fragment| {
            lost += u64::from(!tunnel.push(service, fragment.into()));
        });
        self.stats.tunnel_full += lost;
        if cut {
            self.stats.fragmented += 1;
        } else {
            self.stats.too_large += 1;
        }
    }

    fn count_fragments(&mut self) {
        let stats = self.fragments.stats();
        self.stats.reassembled = stats.whole;
        self.stats.fragments = stats.timed_out + stats.evicted + stats.inconsistent;
    }
}
