//! A client's connection to an intermediate, as agents and connectors keep it.
//!
//! The link decides when to connect and to which address, when a connection is dead, and how long to pause before the
//! next attempt; it registers the services and reads control messages. The pause grows until a registration succeeds: an
//! intermediate that accepts connections but serves nobody is not hammered. What IP packets mean is the role's
//! business.
//!
//! It offers `ztna-v2` and `ztna-v1`. What it says is the same in both: in v2 it says so on a stream, and there is more to say
//! (`link::control`).

mod control;
mod signals;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use control::Control;
pub(crate) use control::LinkNews;

use crate::backoff::Backoff;
use crate::config::IntermediateEndpoint;
use crate::config::limits::EVENT_QUEUE;
use crate::config::timing::{HANDSHAKE_TIMEOUT, RECONNECT_CAP, RECONNECT_FIRST};
use crate::failover::PathKind;
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::keepalive::{Action, Keepalive};
use crate::machine::{Deadline, FourTuple, Wake};
use crate::messages::MessageStream;
use crate::quic::identity::Fingerprint;
use crate::quic::{CloseReason, Datagram, DatagramError, Pool, Provider};
use crate::registration::{Registrar, RegistrationEvent};
use crate::rng::Rng;
use crate::wire::control::ControlMessage;
use crate::wire::datagram::{FromIntermediate, NackStatus, Role, parse_from_intermediate, write_register};

/// What a client learns from its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and authenticated; registration follows.
    Connected {
        /// The address of the intermediate.
        remote: SocketAddr,
    },
    /// The intermediate accepted a registration.
    Registered(ServiceIndex),
    /// The intermediate refused a registration.
    Denied(ServiceIndex, NackStatus),
    /// The intermediate sees this client at another address than before.
    Observed(SocketAddr),
    /// Packets of a service take another way: through a relay, straight, or none at all.
    Path(ServiceIndex, Option<PathKind>),
    /// The connection is gone; the next attempt follows by itself.
    Disconnected(CloseReason),
    /// No connection could be made; the next attempt follows by itself.
    Unreachable {
        /// The address that was tried.
        remote: SocketAddr,
        /// What was heard, if anything.
        reason: Option<CloseReason>,
    },
}

/// An IP packet that a link has received.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) packet: Datagram,
    /// The service that it is for, where one connection carries several.
    pub(crate) service: Option<ServiceIndex>,
    /// Whose it is, if the intermediate said so.
    pub(crate) agent: Option<(Fingerprint, String)>,
}

impl Incoming {
    fn bare(packet: Datagram) -> Self {
        Self {
            packet,
            service: None,
            agent: None,
        }
    }
}

/// The intermediate sends UTF-8; another one's bytes are shown as well as they can be.
fn introduced(fingerprint: &[u8; 32], name: &[u8]) -> (Fingerprint, String) {
    (
        Fingerprint(*fingerprint),
        String::from_utf8_lossy(name).into_owned(),
    )
}

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Connections established after the first.
    pub reconnections: u64,
    /// Connections established.
    pub connections: u64,
    /// Control messages that could not be read.
    pub malformed: u64,
    /// Events dropped because the program did not take them.
    pub events_dropped: u64,
}

impl LinkStats {
    /// The sum of two.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            reconnections: self.reconnections + other.reconnections,
            connections: self.connections + other.connections,
            malformed: self.malformed + other.malformed,
            events_dropped: self.events_dropped + other.events_dropped,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not connected; the next attempt is due then.
    Down { retry_at: Instant },
    /// A handshake is under way.
    Connecting {
        id: ConnId,
        remote: SocketAddr,
        until: Instant,
    },
    /// Connected.
    Up {
        id: ConnId,
        remote: SocketAddr,
        keepalive: Keepalive,
    },
    /// Not wanted at present.
    Withdrawn,
    /// Shut down for good.
    Closed,
}

/// One client connection to one intermediate.
#[derive(Debug)]
pub(crate) struct Link {
    role: Role,
    services: Vec<ServiceId>,
    endpoint: IntermediateEndpoint,
    next_address: usize,
    local: SocketAddr,
    state: State,
    registrar: Registrar,
    backoff: Backoff,
    rng: Rng,
    observed: Option<SocketAddr>,
    /// What v2 adds, while the connection speaks it.
    control: Option<Control>,
    /// What v1 has instead, while the connection speaks that, for connectors.
    signals: Option<MessageStream>,
    /// The same for every connection of this process.
    instance: u64,
    /// Whether this side takes channels.
    takes_channels: bool,
    news: VecDeque<LinkNews>,
    events: VecDeque<LinkEvent>,
    stats: LinkStats,
}

/// The application error code of an orderly end.
pub(crate) const CODE_GOODBYE: u64 = 0;

/// The application error code for an intermediate that does not answer registrations.
const CODE_UNANSWERED: u64 = 1;

impl Link {
    pub(crate) fn new(
        role: Role,
        services: Vec<ServiceId>,
        endpoint: IntermediateEndpoint,
        local: SocketAddr,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        Self {
            control: None,
            signals: None,
            instance: rng.next_u64(),
            takes_channels: false,
            news: VecDeque::new(),
            role,
            registrar: Registrar::new(role, services.clone()),
            services,
            endpoint,
            next_address: 0,
            local,
            state: State::Down { retry_at: now },
            backoff: Backoff::new(RECONNECT_FIRST, RECONNECT_CAP),
            rng,
            observed: None,
            events: VecDeque::new(),
            stats: LinkStats::default(),
        }
    }

    /// The connection, while it is established.
    pub(crate) fn connection(&self) -> Option<ConnId> {
        match self.state {
            State::Up { id, .. } => Some(id),
            State::Down { .. } | State::Connecting { .. } | State::Withdrawn | State::Closed => None,
        }
    }

    /// The connection, established or not.
    pub(crate) fn any_connection(&self) -> Option<ConnId> {
        match self.state {
            State::Up { id, .. } | State::Connecting { id, .. } => Some(id),
            State::Down { .. } | State::Withdrawn | State::Closed => None,
        }
    }

    pub(crate) fn is_registered(&self, service: ServiceIndex) -> bool {
        self.connection().is_some() && self.registrar.is_registered(service)
    }

    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    pub(crate) fn stats(&self) -> LinkStats {
        self.stats
    }

    pub(crate) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Queues a DATAGRAM on the connection.
    pub(crate) fn send<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        datagram: Datagram,
        now: Instant,
    ) -> Result<(), DatagramError> {
        let State::Up { id, keepalive, .. } = &mut self.state else {
            return Err(DatagramError::NotReady);
        };
        pool.send_datagram(*id, datagram)?;
        keepalive.on_sent(
            || pool.connection_stats(*id).map_or(0, |stats| stats.received),
            now,
        );
        Ok(())
    }

    /// Replaces the addresses, after the host name was resolved again. The current connection stays; a new address is
    /// tried at once, because the pause so far was for the old ones.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        if addresses.is_empty() {
            return;
        }
        let known = &self.endpoint.addresses;
        let fresh = addresses.iter().position(|address| !known.contains(address));
        self.endpoint.addresses = addresses;
        if let (Some(fresh), State::Down { retry_at }) = (fresh, &mut self.state) {
            self.next_address = fresh;
            *retry_at = (*retry_at).min(now);
        }
    }

    /// Registers for these services from now on, over the connection there is. One that stays is in use throughout.
    pub(crate) fn set_services<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        services: Vec<ServiceId>,
        now: Instant,
    ) {
        let mut registrar = Registrar::new(self.role, services.clone());
        self.unregister_others(pool, &services, now);
        if self.connection().is_some() {
            registrar.succeed(&self.registrar, now);
        }
        self.registrar = registrar;
        self.services = services;
        // What was said about the old ones would be taken for the new ones.
        self.events.retain(|event| match event {
            LinkEvent::Registered(_) | LinkEvent::Denied(..) | LinkEvent::Path(..) => false,
            LinkEvent::Connected { .. }
            | LinkEvent::Observed(_)
            | LinkEvent::Disconnected(_)
            | LinkEvent::Unreachable { .. } => true,
        });
        if self.connection().is_some() {
            self.drive_registrar(pool, now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Deadline> {
        let deadline = |at, wake| Some(Deadline { at, wake });
        match self.state {
            State::Down { retry_at } => deadline(retry_at, Wake::Reconnect),
            State::Connecting { until, .. } => deadline(until, Wake::Reconnect),
            State::Up { keepalive, .. } => Deadline::earliest(
                deadline(keepalive.next(), Wake::Keepalive),
                self.registrar.poll_timeout().map(|at| Deadline {
                    at,
                    wake: Wake::Registration,
                }),
            ),
            State::Withdrawn | State::Closed => None,
        }
    }

    pub(crate) fn handle_timeout<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        match self.state {
            State::Down { retry_at } if retry_at <= now => self.connect(pool, now),
            State::Connecting { id, remote, until } if until <= now => {
                pool.discard(id);
                self.tell(LinkEvent::Unreachable { remote, reason: None });
                self.retry_later(now);
            }
            State::Up {
                id,
                remote,
                mut keepalive,
            } => {
                let received = pool.connection_stats(id).map_or(0, |stats| stats.received);
                let action = keepalive.poll(received, now);
                self.state = State::Up {
                    id,
                    remote,
                    keepalive,
                };
                match action {
                    Some(Action::Ping) => pool.ping(id),
                    Some(Action::GiveUp) => {
                        pool.discard(id);
                        self.disconnected(CloseReason::TimedOut, now);
                        return;
                    }
                    None => {}
                }
                self.registrar.handle_timeout(now);
                self.drive_registrar(pool, now);
            }
            State::Down { .. } | State::Connecting { .. } | State::Withdrawn | State::Closed => {}
        }
    }

    pub(crate) fn on_established<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        let State::Connecting { id, remote, .. } = self.state else {
            return;
        };
        self.state = State::Up {
            id,
            remote,
            keepalive: Keepalive::new(now),
        };
        self.stats.reconnections += u64::from(self.stats.connections > 0);
        self.stats.connections += 1;
        self.tell(LinkEvent::Connected { remote });
        self.begin_control(pool, id);
        self.registrar.handle_connected(now);
        self.drive_registrar(pool, now);
    }

    pub(crate) fn on_closed(&mut self, reason: CloseReason, now: Instant) {
        match self.state {
            State::Connecting { remote, .. } => {
                self.tell(LinkEvent::Unreachable {
                    remote,
                    reason: Some(reason),
                });
                self.retry_later(now);
            }
            State::Up { .. } => self.disconnected(reason, now),
            State::Down { .. } | State::Withdrawn | State::Closed => {}
        }
    }

    /// Reads one DATAGRAM: control is handled here; an IP packet is given back.
    pub(crate) fn on_datagram<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        datagram: Datagram,
        now: Instant,
    ) -> Option<Incoming> {
        if self.control.is_some() {
            return self.on_v2_datagram(pool, datagram, now);
        }
        let mut datagram = datagram;
        match parse_from_intermediate(&datagram) {
            Ok(FromIntermediate::Packet) => {
                self.heard(now);
                return Some(Incoming::bare(datagram));
            }
            Ok(FromIntermediate::Introduced {
                fingerprint,
                name,
                packet_at,
            }) if self.role == Role::Connector => {
                let agent = introduced(fingerprint, name);
                datagram.advance(packet_at);
                self.heard(now);
                return Some(Incoming {
                    packet: datagram,
                    service: None,
                    agent: Some(agent),
                });
            }
            Ok(FromIntermediate::Introduced { .. }) => self.stats.malformed += 1,
            Ok(FromIntermediate::Observed(address)) => self.on_observed(SocketAddr::V4(address)),
            Ok(FromIntermediate::Registered { service }) => {
                self.registrar.handle_registered(service, now);
                self.drive_registrar(pool, now);
            }
            Ok(FromIntermediate::Refused { status, service }) => {
                self.registrar.handle_refused(service, status, now);
                self.drive_registrar(pool, now);
            }
            Err(_) => self.stats.malformed += 1,
        }
        None
    }

    fn on_observed(&mut self, address: SocketAddr) {
        if self.observed.replace(address) != Some(address) {
            self.tell(LinkEvent::Observed(address));
            self.report(LinkNews::Observed(address));
        }
    }

    /// Says goodbye and why, if connected, and waits for [`Link::publish`].
    pub(crate) fn withdraw<Q: Provider>(&mut self, pool: &mut Pool<Q>, why: &'static [u8], now: Instant) {
        if let State::Closed | State::Withdrawn = self.state {
            return;
        }
        if let Some(id) = self.any_connection() {
            pool.close(id, CODE_GOODBYE, why, now);
        }
        self.forget_connection();
        self.state = State::Withdrawn;
    }

    /// Connects at once, if it was withdrawn.
    pub(crate) fn publish(&mut self, now: Instant) {
        if let State::Withdrawn = self.state {
            self.backoff.reset();
            self.state = State::Down { retry_at: now };
        }
    }

    /// Says goodbye and never connects again.
    pub(crate) fn shut_down<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        if let Some(id) = self.any_connection() {
            pool.close(id, CODE_GOODBYE, b"going away", now);
        }
        self.forget_connection();
        self.state = State::Closed;
    }

    /// Another connection to the same intermediate was lost.
    pub(crate) fn doubt(&mut self, now: Instant) {
        if let State::Up { keepalive, .. } = &mut self.state {
            keepalive.doubt(now);
        }
    }

    fn heard(&mut self, now: Instant) {
        if let State::Up { keepalive, .. } = &mut self.state {
            keepalive.on_heard(now);
        }
    }

    fn connect<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        let count = self.endpoint.addresses.len().max(1);
        let Some(remote) = self.endpoint.addresses.get(self.next_address % count).copied() else {
            self.retry_later(now);
            return;
        };
        self.next_address = (self.next_address + 1) % count;
        let path = FourTuple {
            local: self.local,
            remote,
        };
        match pool.connect(self.endpoint.server_name.as_deref(), path, now) {
            Ok(id) => {
                self.state = State::Connecting {
                    id,
                    remote,
                    until: now + HANDSHAKE_TIMEOUT,
                }
            }
            Err(_) => {
                self.tell(LinkEvent::Unreachable { remote, reason: None });
                self.retry_later(now);
            }
        }
    }

    /// What was so on the connection is not so any more.
    fn forget_connection(&mut self) {
        self.registrar.handle_disconnected();
        self.observed = None;
        let had_signals = self.signals.take().is_some();
        if self.control.take().is_some() || had_signals {
            self.report(LinkNews::Down);
        }
    }

    fn disconnected(&mut self, reason: CloseReason, now: Instant) {
        self.forget_connection();
        self.tell(LinkEvent::Disconnected(reason));
        self.retry_later(now);
    }

    fn retry_later(&mut self, now: Instant) {
        self.state = State::Down {
            retry_at: now + self.backoff.next_delay(&mut self.rng),
        };
    }

    fn drive_registrar<Q: Provider>(&mut self, pool: &mut Pool<Q>, now: Instant) {
        while let Some(service) = self.registrar.poll_send() {
            let Some(name) = self.services.get(usize::from(service.0)) else {
                continue;
            };
            if self.control.is_some() {
                let service = name.as_str().to_owned();
                self.say(pool, &ControlMessage::Register { service }, now);
                continue;
            }
            // A full queue or a closing connection loses the message: the registrar repeats it.
            let _ = self.send(pool, write_register(self.role, name).into(), now);
        }
        while let Some(event) = self.registrar.poll_event() {
            match event {
                RegistrationEvent::Registered(service) => {
                    self.backoff.reset();
                    self.tell(LinkEvent::Registered(service));
                }
                RegistrationEvent::Denied(service, status) => self.tell(LinkEvent::Denied(service, status)),
                RegistrationEvent::Unanswered(_) => {
                    if let Some(id) = self.connection() {
                        pool.close(id, CODE_UNANSWERED, b"registration unanswered", now);
                    }
                    self.disconnected(CloseReason::TimedOut, now);
                    return;
                }
            }
        }
    }

    /// Tells the program of a service's way.
    pub(crate) fn tell_path(&mut self, service: ServiceIndex, path: Option<PathKind>) {
        self.tell(LinkEvent::Path(service, path));
    }

    fn tell(&mut self, event: LinkEvent) {
        if self.events.len() >= EVENT_QUEUE {
            self.events.pop_front();
            self.stats.events_dropped += 1;
        }
        self.events.push_back(event);
    }
}
