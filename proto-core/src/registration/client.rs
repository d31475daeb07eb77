//! A client's registrations: asked for on every connection, repeated until answered.
//!
//! Registrations and answers are DATAGRAMs and get lost, so each is repeated every 2 s, 3 times; still unanswered, it is
//! reported and left to the caller, who should connect anew. What a refusal means:
//!
//! | status | meaning | what follows |
//! |---|---|---|
//! | 01 invalid, 02 not authorised | will be the same for this certificate and configuration | nothing, until the next connection |
//! | 03 taken, 04 at capacity, later ones | may pass by itself | asked again on this connection, after 2 s doubling to 30 s |
//!
//! "Taken" is the normal case for a connector that crashed and came back without a certificate: the intermediate keeps
//! its old connection until the idle timeout of 30 s, and only then is the service free. Connecting anew would not
//! help, so the registration waits on the connection it has. The delays carry no jitter: clients that lost one
//! intermediate together are spread by the jitter of their reconnects, from which these delays count.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::id::{ServiceId, ServiceIndex};
use crate::wire::datagram::{NackStatus, Role};

/// How long a registration waits for its answer before it is repeated.
pub const REGISTER_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How often an unanswered registration is repeated.
pub const REGISTER_RETRIES: u8 = 3;

/// The first and the longest wait after a refusal that may pass. Five waits reach past the idle timeout of 30 s.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
const REFUSED_WAIT_CAP: Duration = Duration::from_secs(30);

/// A shorter lease is taken for this one: nobody is made to ask without end.
const LEAST_LEASE: Duration = Duration::from_secs(4);

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationEvent {
    /// The intermediate holds it now.
    Registered(ServiceIndex),
    /// The intermediate refused it. For a status that may pass it is asked again by itself.
    Denied(ServiceIndex, NackStatus),
    /// No answer to any repetition: connect anew.
    Unanswered(ServiceIndex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No connection, or asked in vain: nothing happens until the next connection.
    Idle,
    /// Asked, or about to be; repeated at `due`.
    Asking { repeats: u8, due: Instant },
    /// The intermediate holds it; where it does so for a time only, it is asked again at `renew`.
    Registered { renew: Option<Instant> },
    /// Refused for good on this connection.
    Denied,
    /// Refused for now; asked again at `due`.
    Waiting { due: Instant },
}

impl State {
    fn due(self) -> Option<Instant> {
        match self {
            Self::Asking { due, .. } | Self::Waiting { due } => Some(due),
            Self::Registered { renew } => renew,
            Self::Idle | Self::Denied => None,
        }
    }

    fn is_registered(self) -> bool {
        matches!(self, Self::Registered { .. })
    }
}

#[derive(Debug)]
struct Service {
    id: ServiceId,
    state: State,
    /// Whether a registration went out on this connection: an answer to nothing is ignored.
    asked: bool,
    /// Whether it stands in the send queue.
    queued: bool,
    /// The wait after the next refusal that may pass.
    wait: Duration,
    /// How long the intermediate holds the registration unless it is renewed.
    lease: Option<Duration>,
    /// The newest thing to report. A later one replaces it, so no flood of answers piles up.
    event: Option<RegistrationEvent>,
}

/// The registrations of one client.
#[derive(Debug)]
pub struct Registrar {
    role: Role,
    services: Vec<Service>,
    /// The services by name.
    by_name: Vec<ServiceIndex>,
    /// What is to be done when; exactly the `due` of every service that has one.
    due: BTreeSet<(Instant, ServiceIndex)>,
    sends: VecDeque<ServiceIndex>,
    events: VecDeque<ServiceIndex>,
    registered: usize,
    connected: bool,
    /// The newest `now` seen: what is queued has been due since then.
    latest: Option<Instant>,
}

impl Registrar {
    /// Takes the services of the configuration, in its order. Nothing is asked before a connection is reported.
    ///
    /// Services past the 65,535th are dropped.
    pub fn new(role: Role, services: Vec<ServiceId>) -> Self {
        let services: Vec<Service> = services
            .into_iter()
            .take(usize::from(u16::MAX))
            .map(|id| Service {
                id,
                state: State::Idle,
                asked: false,
                queued: false,
                wait: REFUSED_WAIT,
                lease: None,
                event: None,
            })
            .collect();
        let mut by_name: Vec<ServiceIndex> = (0..).map(ServiceIndex).take(services.len()).collect();
        by_name.sort_by_key(|index| {
            services
                .get(usize::from(index.0))
                .map(|service| service.id.clone())
        });
        Self {
            role,
            services,
            by_name,
            due: BTreeSet::new(),
            sends: VecDeque::new(),
            events: VecDeque::new(),
            registered: 0,
            connected: false,
            latest: None,
        }
    }

    /// As what the services are registered.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The id of a service; `None` for an index that is not of this registrar.
    pub fn service(&self, index: ServiceIndex) -> Option<&ServiceId> {
        self.entry(index).map(|service| &service.id)
    }

    /// A connection to the intermediate is established: every service is to be registered on it.
    pub fn handle_connected(&mut self, now: Instant) {
        self.handle_disconnected();
        self.connected = true;
        let now = self.observe(now);
        for index in (0..).map(ServiceIndex).take(self.services.len()) {
            self.ask(index, 0, now);
        }
    }

    /// Takes the place of `before` on the connection that it has: what it has registered stays so, and is reported again
    /// because its index may be another; the rest is asked for.
    pub fn succeed(&mut self, before: &Self, now: Instant) {
        self.handle_disconnected();
        if !before.connected {
            return;
        }
        self.connected = true;
        let now = self.observe(now);
        let held = before.services.iter();
        let held: BTreeMap<ServiceId, (State, Option<Duration>)> = held
            .filter(|service| service.state.is_registered())
            .map(|service| (service.id.clone(), (service.state, service.lease)))
            .collect();
        for index in (0..).map(ServiceIndex).take(self.services.len()) {
            let Some(entry) = self.entry_mut(index) else {
                continue;
            };
            if let Some((state, lease)) = held.get(&entry.id).copied() {
                entry.asked = true;
                entry.lease = lease;
                self.set_state(index, state);
                self.report(index, RegistrationEvent::Registered(index));
            } else {
                self.ask(index, 0, now);
            }
        }
    }

    /// The connection is gone, and every registration with it.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        self.registered = 0;
        self.due.clear();
        self.sends.clear();
        for service in &mut self.services {
            service.state = State::Idle;
            service.asked = false;
            service.queued = false;
            service.wait = REFUSED_WAIT;
            service.lease = None;
            service.event = None;
        }
        // What was not fetched yet is about a connection that is no more.
        self.events.clear();
    }

    /// The intermediate has accepted a registration. Late, repeated and unasked answers are harmless.
    pub fn handle_registered(&mut self, service: &[u8], now: Instant) {
        self.handle_leased(service, None, now);
    }

    /// The same, for a time: it is asked for again after half of that.
    pub fn handle_leased(&mut self, service: &[u8], lease: Option<Duration>, now: Instant) {
        let now = self.observe(now);
        let lease = lease.map(|lease| lease.max(LEAST_LEASE));
        let renew = lease.map(|lease| now + lease / 2);
        for index in self.asked(service) {
            let Some(entry) = self.entry_mut(index) else {
                continue;
            };
            match entry.state {
                State::Asking { .. } | State::Waiting { .. } | State::Idle => {
                    entry.wait = REFUSED_WAIT;
                    entry.lease = lease;
                    self.set_state(index, State::Registered { renew });
                    self.report(index, RegistrationEvent::Registered(index));
                }
                State::Registered { .. } => {
                    entry.lease = lease;
                    self.set_state(index, State::Registered { renew });
                }
                // "Denied" ends with the connection: an answer that overtook the refusal does not undo it.
                State::Denied => {}
            }
        }
    }

    /// The intermediate has refused a registration, or taken it back.
    pub fn handle_refused(&mut self, service: &[u8], status: NackStatus, now: Instant) {
        let now = self.observe(now);
        for index in self.asked(service) {
            let Some(entry) = self.entry_mut(index) else {
                continue;
            };
            let state = match (entry.state, status) {
                (State::Denied, _) => continue,
                (_, NackStatus::InvalidId | NackStatus::NotAuthorised) => State::Denied,
                // The answer to a repetition that was under way: the wait has begun already.
                (State::Waiting { .. }, _) => continue,
                (_, NackStatus::Taken | NackStatus::AtCapacity | NackStatus::Other(_)) => {
                    let due = now + entry.wait;
                    entry.wait = entry.wait.saturating_mul(2).min(REFUSED_WAIT_CAP);
                    State::Waiting { due }
                }
            };
            self.set_state(index, state);
            self.report(index, RegistrationEvent::Denied(index, status));
        }
    }

    /// The next service for which a registration is to be sent now.
    pub fn poll_send(&mut self) -> Option<ServiceIndex> {
        loop {
            let index = self.sends.pop_front()?;
            let Some(service) = self.entry_mut(index) else {
                continue;
            };
            service.queued = false;
            // An answer may have come while it waited in the queue.
            if matches!(
                service.state,
                State::Asking { .. } | State::Registered { renew: Some(_) }
            ) {
                service.asked = true;
                return Some(index);
            }
        }
    }

    /// The next thing to report, one per service at most: a newer one replaces what was not yet fetched.
    pub fn poll_event(&mut self) -> Option<RegistrationEvent> {
        loop {
            let index = self.events.pop_front()?;
            let event = self.entry_mut(index).and_then(|service| service.event.take());
            if event.is_some() {
                return event;
            }
        }
    }

    /// When [`Registrar::handle_timeout`] is wanted; not later than now if anything is queued.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.sends.is_empty() && self.events.is_empty() {
            return self.due.first().map(|(due, _)| *due);
        }
        self.latest
    }

    /// Repeats what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.observe(now);
        while let Some(&(due, index)) = self.due.first() {
            if due > now {
                return;
            }
            match self.entry(index).map_or(State::Idle, |service| service.state) {
                State::Asking {
                    repeats: REGISTER_RETRIES..,
                    ..
                } => {
                    self.set_state(index, State::Idle);
                    self.report(index, RegistrationEvent::Unanswered(index));
                }
                State::Asking { repeats, .. } => self.ask(index, repeats + 1, now),
                State::Waiting { .. } => self.ask(index, 0, now),
                // These have no deadline; dropping a stray one keeps the loop finite.
                State::Registered { renew: Some(_) } => self.renew(index, now),
                State::Idle | State::Registered { renew: None } | State::Denied => {
                    let _ = self.due.pop_first();
                }
            }
        }
    }

    /// Whether the intermediate holds this registration.
    pub fn is_registered(&self, index: ServiceIndex) -> bool {
        self.entry(index)
            .is_some_and(|service| service.state.is_registered())
    }

    /// The service with this name; `None` if there is none.
    pub fn find(&self, name: &[u8]) -> Option<ServiceIndex> {
        let id = |index: &ServiceIndex| self.entry(*index).map(|service| service.id.as_bytes());
        let place = self.by_name.binary_search_by(|index| id(index).cmp(&Some(name)));
        self.by_name.get(place.ok()?).copied()
    }

    /// Whether the client is connected and the intermediate holds every registration.
    pub fn all_registered(&self) -> bool {
        self.connected && self.registered == self.services.len()
    }

    fn entry(&self, index: ServiceIndex) -> Option<&Service> {
        self.services.get(usize::from(index.0))
    }

    fn entry_mut(&mut self, index: ServiceIndex) -> Option<&mut Service> {
        self.services.get_mut(usize::from(index.0))
    }

    /// The services that an answer is about and that were asked for on this connection: one, unless the configuration
    /// names a service twice.
    fn asked(&self, name: &[u8]) -> Vec<ServiceIndex> {
        let id = |index: &ServiceIndex| self.entry(*index).map(|service| service.id.as_bytes());
        let start = self.by_name.partition_point(|index| id(index) < Some(name));
        let named = self
            .by_name
            .iter()
            .skip(start)
            .take_while(|index| id(index) == Some(name));
        named
            .copied()
            .filter(|index| self.entry(*index).is_some_and(|service| service.asked))
            .collect()
    }

    fn ask(&mut self, index: ServiceIndex, repeats: u8, now: Instant) {
        self.set_state(
            index,
            State::Asking {
                repeats,
                due: now + REGISTER_RETRY_INTERVAL,
            },
        );
        let Some(service) = self.entry_mut(index) else {
            return;
        };
        if !service.queued {
            service.queued = true;
            self.sends.push_back(index);
        }
    }

    /// Asks again for what is held. Until the answer it stays so; without one, it is asked once more after half of what is left.
    fn renew(&mut self, index: ServiceIndex, now: Instant) {
        let Some(service) = self.entry_mut(index) else {
            return;
        };
        let lease = service.lease.unwrap_or(LEAST_LEASE);
        let queued = std::mem::replace(&mut service.queued, true);
        let renew = Some(now + lease / 4);
        self.set_state(index, State::Registered { renew });
        if !queued {
            self.sends.push_back(index);
        }
    }

    fn set_state(&mut self, index: ServiceIndex, state: State) {
        let Some(service) = self.services.get_mut(usize::from(index.0)) else {
            return;
        };
        let before = std::mem::replace(&mut service.state, state);
        if let Some(due) = before.due() {
            self.due.remove(&(due, index));
        }
        if let Some(due) = state.due() {
            self.due.insert((due, index));
        }
        self.registered -= usize::from(before.is_registered());
        self.registered += usize::from(state.is_registered());
    }

    fn report(&mut self, index: ServiceIndex, event: RegistrationEvent) {
        let Some(service) = self.entry_mut(index) else {
            return;
        };
        if service.event.replace(event).is_none() {
            self.events.push_back(index);
        }
    }

    /// Clamps a clock that ran backwards.
    fn observe(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        now
    }
}
