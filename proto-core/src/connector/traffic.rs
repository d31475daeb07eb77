//! Packets between the links and the netstack.
//!
//! A link takes packets while its connection has room; what has none stays in the netstack. Where services share a
//! connection they take turns, a few packets each.

use std::time::Instant;

use super::uplink::Owner;
use super::{Connector, Published};
use crate::id::{ConnId, ServiceIndex};
use crate::link::{Incoming, Link};
use crate::quic::{DatagramError, Provider};

/// Packets of one service before it is another's turn.
const TURN: usize = 16;

impl<Q: Provider> Connector<Q> {
    pub(super) fn read(&mut self, id: ConnId, now: Instant) {
        match self.owner_of(id) {
            Some(Owner::Shared) => self.read_shared(id, now),
            Some(Owner::Service(service)) => self.read_single(id, service, now),
            None if self.read_guest(id, now) => {}
            None => self.read_session(id, now),
        }
    }

    fn read_shared(&mut self, id: ConnId, now: Instant) {
        while let Some(datagram) = self.pool.poll_datagram(id) {
            let incoming = self.uplink.link.on_datagram(&mut self.pool, datagram, now);
            let Some(incoming) = incoming else { continue };
            let service = incoming.service.and_then(|index| self.uplink.service(index));
            if let Some(service) = service {
                self.take_in(service, incoming, now);
            }
        }
        self.uplink.link.on_readable(&mut self.pool, id, now);
        self.guests.wake();
        self.settle_shared();
    }

    fn read_single(&mut self, id: ConnId, service: ServiceIndex, now: Instant) {
        while let Some(datagram) = self.pool.poll_datagram(id) {
            let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
                return;
            };
            if let Some(incoming) = published.link.on_datagram(&mut self.pool, datagram, now) {
                self.take_in(service, incoming, now);
            }
        }
        if let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) {
            published.link.on_readable(&mut self.pool, id, now);
        }
        self.guests.wake();
        // An acknowledgement may have made room for packets that waited.
        self.activate(service);
        self.settle(service);
    }

    fn take_in(&mut self, service: ServiceIndex, incoming: Incoming, now: Instant) {
        let Some(Some(published)) = self.services.get(usize::from(service.0)) else {
            return;
        };
        let (lane, packet) = (published.lane, incoming.packet);
        self.stats.received += 1;
        match incoming.agent {
            None => self.netstack.handle_packet(lane, packet, now),
            Some((fingerprint, name)) => {
                self.netstack
                    .handle_introduced(lane, (fingerprint, &*name), packet, now);
            }
        }
    }

    /// Moves packets from the netstack to the links while those have room.
    pub(super) fn pump(&mut self, now: Instant) {
        while let Some(lane) = self.netstack.poll_ready() {
            if self.sessions.owns(lane) {
                self.sessions.activate(lane);
            } else if self.guests.owns(lane) {
                self.guests.activate(lane);
            } else if let Some(service) = self.netstack.lane_service(lane) {
                self.activate(service);
            }
        }
        self.pump_sessions(now);
        self.pump_guests(now);
        if self.uplink.is_shared() {
            return self.pump_shared(now);
        }
        while let Some(service) = self.next_active() {
            self.pump_service(service, usize::MAX, now);
            self.settle(service);
        }
    }

    /// Without a connection, or without room on it, those whose turn it is stay as they are.
    fn pump_shared(&mut self, now: Instant) {
        let Some(id) = self.uplink.link.connection() else {
            return;
        };
        let mut sent = false;
        while self.pool.datagram_space(id) > 0
            && let Some(service) = self.next_active()
        {
            sent = true;
            if self.pump_service(service, TURN, now) {
                self.activate(service);
            }
        }
        if sent {
            self.settle_shared();
        }
    }

    /// Sends packets of a service, so many at most; whether there may be more.
    fn pump_service(&mut self, service: ServiceIndex, most: usize, now: Instant) -> bool {
        let is_shared = self.uplink.is_shared();
        let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
            return false;
        };
        let Published {
            link, lane, prefix, ..
        } = published;
        let link: &mut Link = if is_shared { &mut self.uplink.link } else { link };
        let Some(id) = link.connection() else { return false };
        let prefix: &[u8] = if link.is_v2() { prefix } else { &[] };
        // Segments are cut for what can be sent now.
        if let Some(longest) = self.pool.max_datagram_len(id) {
            self.netstack.set_mtu(*lane, longest.saturating_sub(prefix.len()));
        }
        for _ in 0..self.pool.datagram_space(id).min(most) {
            let Some(mut packet) = self.netstack.poll_packet(*lane, now) else {
                return false;
            };
            if !prefix.is_empty() {
                packet.prepend(prefix);
            }
            match link.send(&mut self.pool, packet, now) {
                Ok(()) => self.stats.sent += 1,
                Err(DatagramError::NotReady) => self.stats.not_ready += 1,
                Err(DatagramError::TooLarge) => self.stats.too_large += 1,
                Err(DatagramError::Full) => self.stats.queue_full += 1,
            }
        }
        true
    }

    pub(super) fn activate(&mut self, service: ServiceIndex) {
        let Some(active) = self.is_active.get_mut(usize::from(service.0)) else {
            return;
        };
        if !std::mem::replace(active, true) {
            self.active.push_back(service);
        }
    }

    /// The service whose turn it is.
    fn next_active(&mut self) -> Option<ServiceIndex> {
        let service = self.active.pop_front()?;
        if let Some(active) = self.is_active.get_mut(usize::from(service.0)) {
            *active = false;
        }
        Some(service)
    }

    /// Whether a service has its turn and there is room for its packets.
    pub(super) fn has_turn(&self) -> bool {
        let room = || match self.uplink.link.connection() {
            Some(id) => self.pool.datagram_space(id) > 0,
            None => false,
        };
        !self.active.is_empty() && (!self.uplink.is_shared() || room())
    }

    /// The connection of a service is new: its size holds for the service's packets.
    pub(super) fn adopt_mtu(&mut self, index: usize) {
        let service = ServiceIndex(index as u16);
        let link = self.link_of(service);
        let Some((id, is_v2)) = link.and_then(|link| Some((link.connection()?, link.is_v2()))) else {
            return;
        };
        if let (Some(Some(published)), Some(longest)) =
            (self.services.get(index), self.pool.max_datagram_len(id))
        {
            let prefix = if is_v2 { published.prefix.len() } else { 0 };
            self.netstack
                .set_mtu(published.lane, longest.saturating_sub(prefix));
            self.activate(service);
        }
    }
}
