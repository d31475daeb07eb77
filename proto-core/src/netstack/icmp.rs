//! ICMP echo: the connector answers for its services, so that `ping` tells whether the path to it works.

use super::Netstack;
use crate::id::ServiceIndex;
use crate::routing::packet::{self, Parsed};

impl Netstack {
    pub(super) fn on_echo(&mut self, service: ServiceIndex, parsed: &Parsed, request: &[u8]) {
        let mut reply = Vec::with_capacity(parsed.len);
        if packet::echo_reply(request, parsed, &mut reply) {
            self.stats.echoes += 1;
            self.queue(service, reply);
        }
    }
}
