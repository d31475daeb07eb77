//! All services of a connector with their backends: the machine around [`super::targets`] and its neighbours.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use super::access::{AllowList, Peer};
use super::health::{Ailment, Health, HealthCheck, Standing};
use super::names::{Changed, Due, Names};
use super::targets::{Checking, Listening, SHUNNED, Target, TargetId};
use super::{Backend, BackendStatus, Host, Listener, NoBackend, Offer, Pick, ServiceEvent, proxy};
use crate::backend::{Answer, Ask, NameId, ProbeId, Transport};
use crate::config::limits::EVENT_QUEUE;
use crate::id::ServiceIndex;
use crate::rng::Rng;
use crate::timer::DeadlineIndex;

/// Checks under way at a time: each is a socket of the shell. Those beyond wait their turn.
const CHECKS: usize = 256;

/// How long a check waits for its turn.
const TURN: Duration = Duration::from_millis(50);

/// The first checks are spread over this, so that a start with many backends is no burst.
const SPREAD: Duration = Duration::from_millis(100);

/// Most often that it is said that somebody was not let in, per service; all are counted.
const DENIALS: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Service {
    listening: Vec<Listening>,
    health: Option<HealthCheck>,
    proxy_protocol: bool,
    allow: Option<AllowList>,
    available: bool,
    /// When it was last said that somebody was not let in.
    denied: Option<Instant>,
}

/// Something to ask of the shell, oldest first; what it is about may be gone by the time it is fetched.
#[derive(Clone, Copy, Debug)]
enum Request {
    Probe(ProbeId),
    EndProbe(ProbeId),
    Resolve(NameId),
}

/// The services of a connector.
#[derive(Debug)]
pub struct Services {
    services: Vec<Option<Service>>,
    targets: Slab<Target>,
    generation: u32,
    names: Names,
    /// Of targets: the next check, or the end of the one under way.
    timers: DeadlineIndex,
    checks: usize,
    requests: VecDeque<Request>,
    events: VecDeque<(ServiceIndex, ServiceEvent)>,
    events_dropped: u64,
    /// What the shell borrows while it looks at a request.
    lent: Vec<u8>,
    rng: Rng,
}

impl Services {
    /// Without a service.
    pub fn new(rng: Rng) -> Self {
        Self {
            services: Vec::new(),
            targets: Slab::new(),
            generation: 0,
            names: Names::default(),
            timers: DeadlineIndex::default(),
            checks: 0,
            requests: VecDeque::new(),
            events: VecDeque::new(),
            events_dropped: 0,
            lent: Vec::new(),
            rng,
        }
    }

    /// Serves a service so from now on. Backends that it had before keep their flows and their health.
    pub fn install(&mut self, service: ServiceIndex, offer: Offer, now: Instant) {
        let index = usize::from(service.0);
        if self.services.len() <= index {
            self.services.resize_with(index + 1, || None);
        }
        let old = self.services.get_mut(index).and_then(Option::take);
        let Offer {
            listeners,
            health,
            proxy_protocol,
            allow,
        } = offer;
        let listening = listeners
            .into_iter()
            .map(|listener| self.listen(listener, now))
            .collect();
        let mut fresh = Service {
            listening,
            health,
            proxy_protocol,
            allow,
            available: old.as_ref().is_some_and(|old| old.available),
            denied: None,
        };
        if let Some(old) = old {
            self.inherit(&mut fresh, old, now);
        }
        if let Some(place) = self.services.get_mut(index) {
            *place = Some(fresh);
        }
        self.fill(service, now);
        self.judge(service);
    }

    /// Forgets a service.
    pub fn remove(&mut self, service: ServiceIndex) {
        let Some(old) = self
            .services
            .get_mut(usize::from(service.0))
            .and_then(Option::take)
        else {
            return;
        };
        for listening in old.listening {
            self.drop_listening(listening);
        }
    }

    /// Whether a backend of the service is well.
    pub fn is_available(&self, service: ServiceIndex) -> bool {
        self.service(service).is_some_and(|service| service.available)
    }

    /// Whether a service lets an agent in.
    pub fn permits(&self, service: ServiceIndex, peer: Option<&Peer>) -> bool {
        self.service(service)
            .is_some_and(|service| service.allow.as_ref().is_none_or(|allow| allow.permits(peer)))
    }

    /// Whether a service lets in only some.
    pub fn is_restricted(&self, service: ServiceIndex) -> bool {
        self.service(service)
            .is_some_and(|service| service.allow.is_some())
    }

    /// Says that an agent was not let in, once a second at most.
    pub fn tell_denied(&mut self, service: ServiceIndex, peer: Option<&Peer>, now: Instant) {
        let Some(Some(entry)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        if entry.denied.is_some_and(|last| now < last + DENIALS) {
            return;
        }
        entry.denied = Some(now);
        let name = peer.map(|peer| peer.name.clone());
        self.tell(service, ServiceEvent::Denied { name });
    }

    /// The bytes that a TCP backend of this service is sent before the agent's.
    pub fn preamble(
        &self,
        service: ServiceIndex,
        source: SocketAddr,
        destination: SocketAddr,
        peer: Option<&Peer>,
    ) -> Option<Vec<u8>> {
        self.service(service)?
            .proxy_protocol
            .then(|| proxy::header(source, destination, peer))
    }

    /// The backend of a new flow, other than `not`. The flow counts there until it is released.
    ///
    /// # Errors
    /// If nobody listens, or nobody is well.
    pub fn pick(
        &mut self,
        service: ServiceIndex,
        transport: Transport,
        port: u16,
        not: Option<TargetId>,
        now: Instant,
    ) -> Result<Pick, NoBackend> {
        let listening = self
            .services
            .get_mut(usize::from(service.0))
            .and_then(Option::as_mut)
            .and_then(|service| {
                let mut all = service.listening.iter_mut();
                all.find(|listening| listening.is_for(transport, port))
            })
            .ok_or(NoBackend::NotListened)?;
        listening.pick(&mut self.targets, port, not, now)
    }

    /// A flow has ended.
    pub fn release(&mut self, id: TargetId) {
        if let Some(target) = self.target(id) {
            target.active = target.active.saturating_sub(1);
        }
    }

    /// A backend did not take a flow: others are asked before it, for a while.
    pub fn shun(&mut self, id: TargetId, now: Instant) {
        if let Some(target) = self.target(id) {
            target.shunned = Some(now + SHUNNED);
        }
    }

    /// Takes an answer of the shell. One to a question that was taken back is ignored.
    pub fn handle_answer(&mut self, answer: Answer<'_>, now: Instant) {
        match answer {
            Answer::Probed { probe, result } => {
                let Some(check) = self.check_of(probe) else { return };
                let verdict = match result {
                    Ok(bytes) => check.question.judge(bytes),
                    Err(refusal) => Err(Ailment::Unreachable(refusal)),
                };
                self.checked(probe, &check, verdict, now);
            }
            Answer::Resolved { name, found } => {
                let found = found.map(|found| (found.addresses, found.ttl));
                let changed = self.names.answered(name, found, &mut self.rng, now);
                self.renamed(name, changed, now);
            }
        }
    }

    /// When [`Services::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.earliest(), self.names.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.names.pop_due(now, &mut self.rng) {
            match due {
                Due::Ask(name) => self.requests.push_back(Request::Resolve(name)),
                Due::Lost(name, changed) => self.renamed(name, changed, now),
            }
        }
        while let Some(index) = self.timers.pop_due(now) {
            self.on_timer(index, now);
        }
    }

    /// The next question to the shell.
    pub fn poll_ask(&mut self) -> Option<Ask<'_>> {
        loop {
            match self.requests.pop_front()? {
                Request::EndProbe(probe) => return Some(Ask::EndProbe { probe }),
                Request::Resolve(name) => {
                    if self.names.find(name).is_none() {
                        continue;
                    }
                    let host = self.names.find(name).map_or("", |name| &*name.host);
                    return Some(Ask::Resolve { name, host });
                }
                Request::Probe(probe) => {
                    let Some(check) = self.check_of(probe) else {
                        continue;
                    };
                    let Some(target) = self.targets.get(probe.index as usize) else {
                        continue;
                    };
                    self.lent.clear();
                    let transport = check.question.transport();
                    let proxied = self
                        .service(target.service)
                        .is_some_and(|service| service.proxy_protocol);
                    if proxied && transport == Transport::Tcp {
                        self.lent.extend_from_slice(&proxy::local());
                    }
                    check.question.write(&target.backend.host, &mut self.lent);
                    return Some(Ask::Probe {
                        probe,
                        transport,
                        address: target.check_address(),
                        send: &self.lent,
                        awaited: check.question.awaits(),
                    });
                }
            }
        }
    }

    /// Whether [`Services::poll_ask`] may have something.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether [`Services::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next thing to be said about a service.
    pub fn poll_event(&mut self) -> Option<(ServiceIndex, ServiceEvent)> {
        self.events.pop_front()
    }

    /// Events that nobody took.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped
    }

    /// The backends of a service.
    pub fn backends(&self, service: ServiceIndex) -> Vec<BackendStatus> {
        let listening = self
            .service(service)
            .into_iter()
            .flat_map(|service| &service.listening);
        let targets = listening
            .flat_map(|listening| &listening.members)
            .filter_map(|index| self.targets.get(*index as usize));
        targets
            .map(|target| BackendStatus {
                backend: target.describe(),
                up: target.is_up(),
                flows: target.active,
            })
            .collect()
    }

    fn service(&self, service: ServiceIndex) -> Option<&Service> {
        self.services.get(usize::from(service.0))?.as_ref()
    }

    fn target(&mut self, id: TargetId) -> Option<&mut Target> {
        self.targets
            .get_mut(id.index as usize)
            .filter(|target| target.generation == id.generation)
    }

    fn listen(&mut self, listener: Listener, now: Instant) -> Listening {
        let enter = |backend: Backend| {
            let name = match &backend.host {
                Host::Name(host) => Some(self.names.enter(host, now)),
                Host::Address(_) => None,
            };
            (backend, name)
        };
        Listening {
            ports: listener.ports,
            protocol: listener.protocol,
            backends: listener.backends.into_iter().map(enter).collect(),
            members: Vec::new(),
            turn: 0,
        }
    }

    /// Moves the targets that are still wanted from the old form of a service to the new one, and drops the rest.
    fn inherit(&mut self, fresh: &mut Service, old: Service, now: Instant) {
        let checked = fresh.health.is_some();
        let same_check = fresh.health == old.health;
        for mut listening in old.listening {
            let heir = fresh
                .listening
                .iter_mut()
                .find(|new| new.ports == listening.ports && new.protocol == listening.protocol);
            if let Some(heir) = heir {
                let targets = &self.targets;
                let (kept, gone): (Vec<u32>, Vec<u32>) = listening.members.iter().partition(|index| {
                    let target = targets.get(**index as usize);
                    target.is_some_and(|target| {
                        heir.backends
                            .iter()
                            .any(|(backend, _)| *backend == target.backend)
                    })
                });
                heir.members = kept;
                listening.members = gone;
                for index in heir.members.clone() {
                    if !same_check {
                        self.recheck(index, checked, now);
                    }
                }
            }
            self.drop_listening(listening);
        }
    }

    /// A target whose check is another from now on; it keeps its standing until that has answered.
    fn recheck(&mut self, index: u32, checked: bool, now: Instant) {
        self.stop_check(index);
        let Some(target) = self.targets.get_mut(index as usize) else {
            return;
        };
        if !checked || target.health.standing == Standing::Unchecked {
            target.health = Health::new(checked);
        }
        self.timers.set(index, checked.then_some(now));
    }

    fn drop_listening(&mut self, listening: Listening) {
        for index in listening.members {
            self.drop_target(index);
        }
        for (_, name) in listening.backends {
            if let Some(name) = name {
                self.names.leave(name);
            }
        }
    }

    fn drop_target(&mut self, index: u32) {
        self.stop_check(index);
        self.timers.set(index, None);
        self.targets.try_remove(index as usize);
    }

    fn stop_check(&mut self, index: u32) {
        let Some(target) = self.targets.get_mut(index as usize) else {
            return;
        };
        if let Some(Checking { generation }) = target.checking.take() {
            self.checks -= 1;
            self.requests
                .push_back(Request::EndProbe(ProbeId { index, generation }));
        }
    }

    /// Makes the targets of a service those that its backends and their names say now.
    fn fill(&mut self, service: ServiceIndex, now: Instant) {
        let Some(mut entry) = self
            .services
            .get_mut(usize::from(service.0))
            .and_then(Option::take)
        else {
            return;
        };
        let checked = entry.health.is_some();
        for listening in &mut entry.listening {
            let mut wanted: Vec<(Backend, IpAddr)> = Vec::new();
            for (backend, name) in &listening.backends {
                match &backend.host {
                    Host::Address(ip) => wanted.push((backend.clone(), *ip)),
                    Host::Name(_) => {
                        let known = name.and_then(|name| self.names.get(name));
                        let addresses = known.map_or(&[][..], |name| &name.addresses);
                        wanted.extend(addresses.iter().map(|ip| (backend.clone(), *ip)));
                    }
                }
            }
            let (kept, gone): (Vec<u32>, Vec<u32>) = listening.members.iter().partition(|index| {
                let target = self.targets.get(**index as usize);
                target.is_some_and(|target| {
                    wanted
                        .iter()
                        .any(|(backend, ip)| *backend == target.backend && *ip == target.ip)
                })
            });
            for index in gone {
                self.drop_target(index);
            }
            let check_port = *listening.ports.start();
            listening.members = wanted
                .into_iter()
                .map(|(backend, ip)| {
                    let known = kept.iter().copied().find(|index| {
                        let target = self.targets.get(*index as usize);
                        target.is_some_and(|target| target.backend == backend && target.ip == ip)
                    });
                    known.unwrap_or_else(|| {
                        let check_port = check_port.max(1);
                        self.add_target(service, backend, ip, check_port, checked, now)
                    })
                })
                .collect();
        }
        if let Some(place) = self.services.get_mut(usize::from(service.0)) {
            *place = Some(entry);
        }
    }

    fn add_target(
        &mut self,
        service: ServiceIndex,
        backend: Backend,
        ip: IpAddr,
        check_port: u16,
        checked: bool,
        now: Instant,
    ) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let index = self.targets.insert(Target {
            generation: self.generation,
            service,
            backend,
            ip,
            check_port,
            active: 0,
            shunned: None,
            health: Health::new(checked),
            checking: None,
        }) as u32;
        if checked {
            let first = now + self.rng.duration_between(Duration::ZERO, SPREAD);
            self.timers.set(index, Some(first));
        }
        index
    }

    /// The check that a probe belongs to, if it is still waited for.
    fn check_of(&self, probe: ProbeId) -> Option<HealthCheck> {
        let target = self.targets.get(probe.index as usize)?;
        let checking = target.checking?;
        if checking.generation != probe.generation {
            return None;
        }
        self.service(target.service)?.health.clone()
    }

    fn on_timer(&mut self, index: u32, now: Instant) {
        let Some(target) = self.targets.get(index as usize) else {
            return;
        };
        let service = target.service;
        let Some(check) = self.service(service).and_then(|service| service.health.clone()) else {
            return;
        };
        if let Some(Checking { generation }) = target.checking {
            let probe = ProbeId { index, generation };
            self.requests.push_back(Request::EndProbe(probe));
            self.checked(probe, &check, check.question.silence(), now);
            return;
        }
        if self.checks >= CHECKS {
            self.timers.set(index, Some(now + TURN));
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        if let Some(target) = self.targets.get_mut(index as usize) {
            target.checking = Some(Checking { generation });
            self.checks += 1;
            self.requests
                .push_back(Request::Probe(ProbeId { index, generation }));
            self.timers.set(index, Some(now + check.timeout));
        }
    }

    fn checked(&mut self, probe: ProbeId, check: &HealthCheck, verdict: Result<(), Ailment>, now: Instant) {
        let Some(target) = self.targets.get_mut(probe.index as usize) else {
            return;
        };
        if target.checking.take().is_some() {
            self.checks -= 1;
        }
        let service = target.service;
        let changed = target.health.record(check, verdict.is_ok());
        let backend: Box<str> = if changed {
            target.describe().into()
        } else {
            Box::default()
        };
        let tenth = check.interval / 10;
        let pause = self
            .rng
            .duration_between(check.interval - tenth, check.interval + tenth);
        self.timers.set(probe.index, Some(now + pause));
        if changed {
            let event = match verdict {
                Ok(()) => ServiceEvent::BackendUp { backend },
                Err(why) => ServiceEvent::BackendDown { backend, why },
            };
            self.tell(service, event);
            self.judge(service);
        }
    }

    /// A name has another answer, or its resolver another standing.
    fn renamed(&mut self, id: NameId, changed: Changed, now: Instant) {
        if !changed.addresses && !changed.standing {
            return;
        }
        let Some(name) = self.names.find(id) else { return };
        let (host, failing) = (name.host.clone(), name.failing);
        let concerned = |service: &Service| {
            let mut backends = service.listening.iter().flat_map(|listening| &listening.backends);
            backends.any(|(_, name)| *name == Some(id.index))
        };
        let services: Vec<ServiceIndex> = (0..)
            .zip(&self.services)
            .filter(|(_, service)| service.as_ref().is_some_and(concerned))
            .map(|(index, _)| ServiceIndex(index))
            .collect();
        for service in services {
            if changed.standing {
                let name = host.clone();
                let event = if failing {
                    ServiceEvent::NameUnknown { name }
                } else {
                    ServiceEvent::NameKnown { name }
                };
                self.tell(service, event);
            }
            if changed.addresses {
                self.fill(service, now);
                self.judge(service);
            }
        }
    }

    /// Publishes or withdraws a service, as its backends stand.
    fn judge(&mut self, service: ServiceIndex) {
        let Some(entry) = self.service(service) else {
            return;
        };
        let available = entry
            .listening
            .iter()
            .flat_map(|listening| &listening.members)
            .filter_map(|index| self.targets.get(*index as usize))
            .any(Target::is_up);
        let Some(Some(entry)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        if std::mem::replace(&mut entry.available, available) != available {
            self.tell(
                service,
                if available {
                    ServiceEvent::Available
                } else {
                    ServiceEvent::Withdrawn
                },
            );
        }
    }

    fn tell(&mut self, service: ServiceIndex, event: ServiceEvent) {
        if self.events.len() >= EVENT_QUEUE {
            self.events.pop_front();
            self.events_dropped += 1;
        }
        self.events.push_back((service, event));
    }
}
