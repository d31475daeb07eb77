//! v1 agents that reach this connector directly.
//!
//! Who is let in is decided in [`v1peer`](crate::v1peer); here its messages find their links, and packets their lanes. A v1
//! agent takes no packets on its direct path, so what its lane answers goes through the intermediate: where that speaks v2,
//! with the session before it that joined the two; where it speaks v1, bare, and the intermediate finds the agent.
//!
//! An agent changes to its direct path in the middle of everything. Flows that it opened through the intermediate go on as they
//! were; those that it opens now are its lane's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::Connector;
use crate::id::{ConnId, LaneId, ServiceIndex};
use crate::link::{Link, LinkNews};
use crate::machine::FourTuple;
use crate::quic::identity::{Fingerprint, Identity};
use crate::quic::{ALPN_V1, Datagram, DatagramError, Provider};
use crate::rng::Rng;
use crate::session::own_candidates;
use crate::v1peer::{Door, INVITATION, Offered, V1PeerStats, V1Peers};
use crate::wire::control::SignalingMessage;
use crate::wire::datagram::in_session_prefix;

/// The application error code for an agent that may not come in.
const CODE_NOT_AUTHORISED: u64 = 3;

/// Packets of one lane before it is another's turn.
const TURN: usize = 16;

/// The shared link, for [`v1peer`](crate::v1peer); those of single services follow it.
pub(super) const SHARED_LINK: u32 = 0;

/// The number of the link of a single service.
pub(super) fn single_link(service: ServiceIndex) -> u32 {
    SHARED_LINK + 1 + u32::from(service.0)
}

/// An agent on a connection of its own.
#[derive(Debug)]
struct Guest {
    service: ServiceIndex,
    lane: LaneId,
    fingerprint: Fingerprint,
    session: u64,
}

/// All of them, no more than there are meetings.
#[derive(Debug)]
pub(super) struct Guests {
    peers: V1Peers,
    guests: BTreeMap<ConnId, Guest>,
    lanes: BTreeMap<LaneId, ConnId>,
    /// Lanes that may have packets.
    active: VecDeque<LaneId>,
    /// Lanes that have packets, and whose link has no room.
    waiting: VecDeque<LaneId>,
    /// Whose offer is next on the shared link.
    announced: Option<(u64, Fingerprint)>,
}

impl Guests {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            peers: V1Peers::new(rng),
            guests: BTreeMap::new(),
            lanes: BTreeMap::new(),
            active: VecDeque::new(),
            waiting: VecDeque::new(),
            announced: None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.poll_timeout()
    }

    pub(super) fn has_turn(&self) -> bool {
        !self.active.is_empty()
    }

    pub(super) fn owns(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    pub(super) fn activate(&mut self, lane: LaneId) {
        if !self.active.contains(&lane) {
            self.active.push_back(lane);
        }
    }

    /// A link may have got room.
    pub(super) fn wake(&mut self) {
        self.active.append(&mut self.waiting);
    }
}

impl<Q: Provider> Connector<Q> {
    /// Counters of the direct paths of v1 agents.
    pub fn v1_stats(&self) -> V1PeerStats {
        self.guests.peers.stats()
    }

    /// v1 agents that are connected directly.
    pub fn v1_agents(&self) -> usize {
        self.guests.guests.len()
    }

    /// Sessions of v1 signalling under way, and those whose agent is connected.
    pub fn v1_meetings(&self) -> usize {
        self.guests.peers.len().0
    }

    /// Takes what a link has heard of v1 agents.
    pub(super) fn on_signal(&mut self, link: u32, news: LinkNews, now: Instant) {
        match news {
            LinkNews::OfferFrom { session, agent } => self.guests.announced = Some((session, agent)),
            LinkNews::Signal(SignalingMessage::CandidateOffer {
                session,
                service,
                candidates,
            }) => {
                let announced = self.guests.announced.take();
                let agent = announced.filter(|(announced, _)| *announced == session);
                let index = self.service_named(&service);
                let published = index.and_then(|index| self.services.get(usize::from(index.0))?.as_ref());
                let own = if self.takes_direct() {
                    own_candidates(&self.surroundings(link))
                } else {
                    Vec::new()
                };
                let offered = Offered {
                    service: index.zip(published.map(|published| &published.id)),
                    own: &own,
                    speaks_v6: self.local.is_ipv6(),
                };
                let agent = agent.map(|(_, agent)| agent);
                let peers = &mut self.guests.peers;
                peers.handle_offer(link, session, &candidates, agent, offered, now);
            }
            LinkNews::Signal(message) => self.guests.peers.handle_signal(link, &message, now),
            LinkNews::Down => {
                self.guests.announced = None;
                self.guests.peers.on_link_down(link);
            }
            LinkNews::Up
            | LinkNews::Observed(_)
            | LinkNews::ChannelOpened { .. }
            | LinkNews::ChannelRefused { .. }
            | LinkNews::ChannelClosed { .. } => {}
        }
        self.settle_guests(now);
    }

    /// A payload beside QUIC that is no check of a session.
    pub(super) fn on_v1_message(&mut self, payload: &[u8], path: FourTuple, now: Instant) {
        self.guests.peers.handle_raw(path.remote, payload, now);
        self.settle_guests(now);
    }

    /// A connection from an address that a v1 agent named is established.
    pub(super) fn on_guest(&mut self, id: ConnId, identity: Option<&Identity>, now: Instant) {
        let speaks_v1 = self.pool.alpn(id) == ALPN_V1;
        let remote = self.pool.peer_address(id).filter(|_| speaks_v1);
        let admitted = remote.and_then(|remote| self.guests.peers.admit(id, remote, identity));
        let (Some(admitted), Some(identity)) = (admitted, identity) else {
            let why = b"nobody offered a session from here with this certificate";
            self.pool.close(id, CODE_NOT_AUTHORISED, why, now);
            return;
        };
        let agent = (identity.fingerprint(), identity.name());
        if self.netstack.admits(admitted.service, agent, now) {
            let mtu = self.pool.max_datagram_len(id).unwrap_or(1280);
            let lane = self.netstack.open_lane(admitted.service, Some(agent), mtu);
            let guest = Guest {
                service: admitted.service,
                lane,
                fingerprint: identity.fingerprint(),
                session: admitted.session,
            };
            self.guests.lanes.insert(lane, id);
            self.guests.guests.insert(id, guest);
        } else {
            self.guests.peers.on_closed(id);
            let why = b"the service does not let this agent in";
            self.pool.close(id, CODE_NOT_AUTHORISED, why, now);
        }
        self.settle_guests(now);
    }

    /// Something came on a connection; `false` if it is no v1 agent's.
    pub(super) fn read_guest(&mut self, id: ConnId, now: Instant) -> bool {
        let Some(guest) = self.guests.guests.get(&id) else {
            return false;
        };
        let own = guest.lane;
        let shared = self.services.get(usize::from(guest.service.0));
        let shared = shared.and_then(|published| Some(published.as_ref()?.lane));
        while let Some(packet) = self.pool.poll_datagram(id) {
            let begun = shared.filter(|lane| self.netstack.holds(*lane, &packet, guest.fingerprint));
            self.stats.received += 1;
            self.netstack.handle_packet(begun.unwrap_or(own), packet, now);
        }
        self.pool.discard_streams(id);
        true
    }

    /// A connection has moved, with its agent behind a NAT that changed its mind.
    pub(super) fn on_guest_moved(&mut self, id: ConnId, path: FourTuple, now: Instant) {
        if self.guests.guests.contains_key(&id) {
            self.guests.peers.on_moved(id, path.remote, now);
            self.settle_guests(now);
        }
    }

    pub(super) fn on_guest_closed(&mut self, id: ConnId, now: Instant) {
        let Some(guest) = self.guests.guests.remove(&id) else {
            return;
        };
        self.guests.lanes.remove(&guest.lane);
        self.guests.active.retain(|lane| *lane != guest.lane);
        self.guests.waiting.retain(|lane| *lane != guest.lane);
        self.netstack.close_lane(guest.lane, now);
        self.guests.peers.on_closed(id);
        self.settle_guests(now);
    }

    /// Sends v1 agents away: those of a service that is no more, or all.
    pub(super) fn close_guests(&mut self, service: Option<ServiceIndex>, now: Instant) {
        let guests = self.guests.guests.iter();
        let gone = guests.filter(|(_, guest)| service.is_none_or(|service| guest.service == service));
        let gone: Vec<ConnId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.pool.close(id, 0, b"going away", now);
            self.on_guest_closed(id, now);
        }
    }

    pub(super) fn handle_guest_timeouts(&mut self, now: Instant) {
        self.guests.peers.handle_timeout(now);
        self.settle_guests(now);
    }

    /// Sends what is to be said, and opens and closes the door.
    fn settle_guests(&mut self, now: Instant) {
        if !self.guests.peers.has_output() {
            return;
        }
        while let Some((link, message)) = self.guests.peers.poll_signal() {
            let service = link.checked_sub(SHARED_LINK + 1);
            let link = match service.map(|service| self.services.get_mut(service as usize)) {
                None => &mut self.uplink.link,
                Some(Some(Some(published))) => &mut published.link,
                Some(Some(None) | None) => continue,
            };
            link.signal(&mut self.pool, &message, now);
        }
        while let Some((remote, payload)) = self.guests.peers.poll_raw() {
            let local = self.local;
            self.pool.send_raw(FourTuple { local, remote }, &payload);
        }
        while let Some(door) = self.guests.peers.poll_door() {
            match door {
                Door::Open(address) => self.pool.invite(address, INVITATION),
                Door::Close(address) => self.pool.uninvite(address),
            }
        }
    }

    /// Moves packets for v1 agents from the netstack to the links while those have room.
    pub(super) fn pump_guests(&mut self, now: Instant) {
        while let Some(lane) = self.guests.active.pop_front() {
            let id = self.guests.lanes.get(&lane);
            let Some(guest) = id.and_then(|id| self.guests.guests.get(id)) else {
                continue;
            };
            let is_shared = self.uplink.is_shared();
            let single = self.services.get_mut(usize::from(guest.service.0));
            let link: Option<&mut Link> = match single {
                _ if is_shared => Some(&mut self.uplink.link),
                Some(Some(published)) => Some(&mut published.link),
                Some(None) | None => None,
            };
            let connection = link.and_then(|link| Some((link.connection()?, link)));
            let Some((connection, link)) = connection else {
                self.guests.waiting.push_back(lane);
                continue;
            };
            let prefix = in_session_prefix(guest.session);
            let prefix: &[u8] = if link.is_v2() { &prefix } else { &[] };
            if let Some(longest) = self.pool.max_datagram_len(connection) {
                self.netstack.set_mtu(lane, longest.saturating_sub(prefix.len()));
            }
            let mut left = self.pool.datagram_space(connection).min(TURN);
            if left == 0 {
                self.guests.waiting.push_back(lane);
                continue;
            }
            while left > 0
                && let Some(packet) = self.netstack.poll_packet(lane, now)
            {
                left -= 1;
                match link.send(&mut self.pool, prefixed(prefix, packet), now) {
                    Ok(()) => self.stats.sent += 1,
                    Err(DatagramError::NotReady) => self.stats.not_ready += 1,
                    Err(DatagramError::TooLarge) => self.stats.too_large += 1,
                    Err(DatagramError::Full) => self.stats.queue_full += 1,
                }
            }
            if left == 0 {
                self.guests.active.push_back(lane);
            }
        }
    }
}

fn prefixed(prefix: &[u8], mut packet: Datagram) -> Datagram {
    if !prefix.is_empty() {
        packet.prepend(prefix);
    }
    packet
}
