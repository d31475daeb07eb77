//! Between flows and the backends that take them: whether the agent may come, which backend is asked, what it is told about
//! the agent, and what the agent hears if there is none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Flow, Netstack, Slot};
use crate::backend::{FlowId, Refusal, Transport};
use crate::expiring::list::Links;
use crate::id::{LaneId, ServiceIndex};
use crate::quic::Datagram;
use crate::quic::identity::Fingerprint;
use crate::routing::packet::{self, FiveTuple, Fragment, Parsed, Unreachable};
use crate::service::access::Peer;
use crate::service::{NoBackend, Pick, Services};

impl Netstack {
    /// The services and their backends.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The services and their backends, to fetch what is to be said about them.
    pub fn services_mut(&mut self) -> &mut Services {
        &mut self.services
    }

    /// Whether a service lets an agent in; a service that is not there lets in nobody.
    pub fn is_permitted(&self, service: ServiceIndex, (fingerprint, name): (Fingerprint, &str)) -> bool {
        self.services.permits(service, Some(&peer(fingerprint, name)))
    }

    /// Takes a packet of an agent that the intermediate introduces with it; a packet that is cut is the introduction alone.
    ///
    /// Whoever was behind the flow before is not any more: what it left there ends. On a lane whose agent is known nobody
    /// else can be introduced.
    pub fn handle_introduced(
        &mut self,
        lane: LaneId,
        (fingerprint, name): (Fingerprint, &str),
        packet: Datagram,
        now: Instant,
    ) {
        self.advance(now);
        let Some(service) = self.lanes.service(lane) else {
            return;
        };
        if self.lanes.peer(lane).is_some() {
            return self.handle_packet(lane, packet, now);
        }
        let Ok(tuple) = packet::flow_of(&packet) else {
            self.stats.malformed += 1;
            return;
        };
        let key = (lane, tuple);
        let session = self.tcp.get(&key).copied();
        let flow = session.or_else(|| self.udp.touch(&key, self.now).copied());
        let before = flow.and_then(|flow| self.peer_of(flow));
        if before.is_none_or(|before| before.fingerprint != fingerprint) {
            let peer = peer(fingerprint, name);
            let is_newcomer = before.is_some() || !self.services.permits(service, Some(&peer));
            match flow.and_then(|flow| self.slots.get_mut(flow.index as usize)) {
                // Nobody knew who it was: an intermediate that introduces its agents has taken the place of one that does not.
                Some(slot) if !is_newcomer => slot.peer = Some(peer),
                Some(_) | None => {
                    flow.into_iter().for_each(|flow| self.drop_flow(flow));
                    self.arriving = Some(peer);
                }
            }
        }
        let fragment = packet::parse(&packet).map(|parsed| parsed.fragment);
        // The packet itself comes later, or its other fragments do.
        if fragment != Ok(Fragment::No)
            && let Some(peer) = self.arriving.take()
        {
            self.known.insert(key, peer, self.now);
        }
        if fragment.is_ok() {
            self.handle_packet(lane, packet, now);
        }
        self.arriving = None;
    }

    /// Whether a ping is let in.
    pub(super) fn admits_echo(
        &mut self,
        (lane, service): (LaneId, ServiceIndex),
        parsed: &Parsed,
        packet: &[u8],
    ) -> bool {
        if !self.services.is_restricted(service) {
            return true;
        }
        let peer = self.newcomer(lane, parsed.flow);
        let admitted = self.services.permits(service, peer.as_deref());
        if !admitted {
            self.services.tell_denied(service, peer.as_deref(), self.now);
        }
        match peer {
            // The next echo request comes without introduction.
            Some(peer) if admitted && self.lanes.peer(lane).is_none() => {
                self.known.insert((lane, parsed.flow), peer, self.now);
            }
            Some(_) | None => {}
        }
        if !admitted {
            self.stats.denied += 1;
            self.answer_unreachable(lane, parsed, packet, Unreachable::AdminProhibited);
        }
        admitted
    }

    /// Who is behind a flow that has no slot yet.
    fn newcomer(&mut self, lane: LaneId, tuple: FiveTuple) -> Option<Arc<Peer>> {
        if let Some(peer) = self.lanes.peer(lane) {
            return Some(Arc::clone(peer));
        }
        let known = self.known.remove(&(lane, tuple));
        self.arriving.clone().or(known)
    }

    fn peer_of(&self, id: FlowId) -> Option<&Peer> {
        let slot = self.slots.get(id.index as usize)?;
        slot.peer.as_deref().filter(|_| slot.generation == id.generation)
    }

    /// The backend of a new flow; without one the agent is answered and the packet is done with.
    pub(super) fn pick(
        &mut self,
        lane: LaneId,
        transport: Transport,
        parsed: &Parsed,
        packet: &[u8],
    ) -> Option<Pick> {
        let port = parsed.flow.destination_port;
        let service = self.lanes.service(lane)?;
        self.arriving = self.newcomer(lane, parsed.flow);
        if !self.services.permits(service, self.arriving.as_deref()) {
            self.stats.denied += 1;
            let peer = self.arriving.take();
            self.services.tell_denied(service, peer.as_deref(), self.now);
            match transport {
                Transport::Tcp => self.answer_reset(lane, parsed, packet),
                Transport::Udp => {
                    self.answer_unreachable(lane, parsed, packet, Unreachable::AdminProhibited);
                }
            }
            return None;
        }
        match self.services.pick(service, transport, port, None, self.now) {
            Ok(pick) => return Some(pick),
            Err(NoBackend::NotListened) => self.stats.unsupported += 1,
            Err(NoBackend::NoneHealthy) => self.stats.no_backend += 1,
        }
        self.arriving = None;
        match transport {
            Transport::Tcp => self.answer_reset(lane, parsed, packet),
            Transport::Udp => self.answer_unreachable(lane, parsed, packet, Unreachable::Port),
        }
        None
    }

    pub(super) fn open(&mut self, flow: Flow, transport: Transport, pick: Pick) -> FlowId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let peer = self.arriving.take();
        let lane = flow.lane();
        let preamble = match (&flow, self.lanes.service(lane)) {
            (Flow::Tcp(session), Some(service)) => {
                let tuple = session.tuple();
                let source = SocketAddr::new(tuple.source, tuple.source_port);
                let destination = SocketAddr::new(tuple.destination, tuple.destination_port);
                self.services
                    .preamble(service, source, destination, peer.as_deref())
            }
            (Flow::Tcp(_) | Flow::Udp { .. }, _) => None,
        };
        let index = self.slots.insert(Slot {
            generation,
            flow,
            target: Some(pick.target),
            retried: false,
            peer,
            preamble: preamble.unwrap_or_default(),
            links: Links::default(),
        });
        self.lanes.begin_flow(lane, &mut self.slots, index);
        let index = index as u32;
        let id = FlowId { index, generation };
        self.backend.open(id, transport, pick.address);
        id
    }

    /// Tries a flow over with another backend, once, before its agent hears that the first did not take it. The socket of
    /// the first is gone, so the flow has another id from now on.
    pub(super) fn try_another(&mut self, id: FlowId, reason: Refusal) -> Option<FlowId> {
        // Another socket would not be had either.
        if reason == Refusal::Exhausted {
            return None;
        }
        let slot = self
            .slots
            .get(id.index as usize)
            .filter(|slot| slot.generation == id.generation && !slot.retried)?;
        let (transport, port) = match &slot.flow {
            Flow::Udp { tuple, .. } => (Transport::Udp, tuple.destination_port),
            Flow::Tcp(session) => (Transport::Tcp, session.tuple().destination_port),
        };
        let service = self.lanes.service(slot.flow.lane())?;
        let first = slot.target?;
        self.services.shun(first, self.now);
        let pick = self
            .services
            .pick(service, transport, port, Some(first), self.now)
            .ok()?;
        self.services.release(first);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.generation = generation;
        slot.target = Some(pick.target);
        slot.retried = true;
        self.stats.retried += 1;
        let next = FlowId {
            index: id.index,
            generation,
        };
        self.backend.open(next, transport, pick.address);
        Some(next)
    }

    /// Offers what a TCP backend is sent first; `None` if that is done.
    pub(super) fn drain_preamble(
        &mut self,
        id: FlowId,
        take: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Option<usize> {
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation && !slot.preamble.is_empty())?;
        let taken = take(&slot.preamble).min(slot.preamble.len());
        slot.preamble.drain(..taken);
        Some(taken)
    }

    /// The socket of a flow is closed: its backend counts it no longer.
    pub(super) fn release(&mut self, id: FlowId) {
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation);
        if let Some(target) = slot.and_then(|slot| slot.target.take()) {
            self.services.release(target);
        }
    }
}

pub(super) fn peer(fingerprint: Fingerprint, name: &str) -> Arc<Peer> {
    Arc::new(Peer {
        fingerprint,
        name: name.into(),
    })
}
