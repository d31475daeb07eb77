//! The connections to the intermediate: one for all services, or one for each.
//!
//! In `ztna-v2` a packet says for which service it is, so one connection registers all services that are offered, and one
//! that is withdrawn is unregistered while the others do not notice. In `ztna-v1` the intermediate strips the service before
//! it forwards a packet, and a connection is one service's. Which of the two an intermediate speaks is known when a
//! connection to it stands. So there are two modes:
//!
//! - *Shared*: one link, which offers both protocols. If v1 is what the intermediate takes, that connection is closed
//!   before anything is registered on it, and the mode is the other.
//! - *Single*: a link per service, which offer both protocols as well. If v2 is what the intermediate takes, it was
//!   replaced by a newer one, and the mode is the first again: after a pause if it was changed before not long ago, so that
//!   two intermediates of different age behind one address are not called in turn without end. Until then each link speaks v2
//!   for its one service.

use std::time::{Duration, Instant};

use super::guests::single_link;
use super::{Connector, ConnectorNews, tell};
use crate::id::{ConnId, ServiceId, ServiceIndex};
use crate::link::{Link, LinkEvent, LinkNews};
use crate::quic::{ALPN_V2, Pool, Provider};

/// Every link of a single service registers it alone.
const ONLY: ServiceIndex = ServiceIndex(0);

/// Timers: of the shared link, of the mode, and of each service from here on.
const SHARED_TIMER: u32 = 0;
const MODE_TIMER: u32 = 1;
const SERVICE_TIMERS: u32 = 2;

/// A mode that did not last so long was a mistake: the pause before the next change doubles, from the first to the longest.
const SHORT_LIVED: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Of all services.
    Shared,
    /// Of one.
    Service(ServiceIndex),
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Shared,
    /// One for each service, at least until then.
    Single {
        until: Instant,
    },
}

/// The shared link, and which of the modes is in force.
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) link: Link,
    mode: Mode,
    /// The services that the shared link registers, by their index there.
    offered: Vec<ServiceIndex>,
    /// When the last change to the shared link was, and the pause before the next.
    shared_since: Option<Instant>,
    pause: Duration,
}

impl Uplink {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            mode: Mode::Shared,
            offered: Vec::new(),
            shared_since: None,
            pause: Duration::ZERO,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.mode == Mode::Shared
    }

    /// The service that the shared link knows by this index.
    pub(super) fn service(&self, index: ServiceIndex) -> Option<ServiceIndex> {
        self.offered.get(usize::from(index.0)).copied()
    }

    /// Until when there is a link for each service, now that it is known that they are needed.
    fn single_until(&mut self, now: Instant) -> Instant {
        let lasted = self
            .shared_since
            .map(|since| now.saturating_duration_since(since));
        self.pause = match lasted {
            Some(lasted) if lasted < SHORT_LIVED => (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
            Some(_) | None => Duration::ZERO,
        };
        now + self.pause
    }
}

impl<Q: Provider> Connector<Q> {
    pub(super) fn on_established(&mut self, id: ConnId, now: Instant) {
        let speaks_v2 = self.pool.alpn(id) == ALPN_V2;
        match (self.owner_of(id), self.uplink.mode) {
            (Some(Owner::Shared), Mode::Shared) if !speaks_v2 => return self.split(now),
            (Some(Owner::Service(_)), Mode::Single { until }) if speaks_v2 && until <= now => {
                return self.join(now);
            }
            (Some(_) | None, _) => {}
        }
        self.with_link(id, |link, pool| link.on_established(pool, now));
        match self.owner_of(id) {
            Some(Owner::Shared) => (0..self.services.len()).for_each(|index| self.adopt_mtu(index)),
            Some(Owner::Service(service)) => self.adopt_mtu(usize::from(service.0)),
            None => {}
        }
    }

    /// The intermediate speaks v1: every service needs a connection.
    fn split(&mut self, now: Instant) {
        let until = self.uplink.single_until(now);
        self.uplink.mode = Mode::Single { until };
        self.uplink.link.withdraw(&mut self.pool, b"ztna-v1", now);
        self.offer(now);
        self.settle_shared();
        self.timers.set(MODE_TIMER, (until > now).then_some(until));
        for index in 0..self.services.len() {
            self.set_single(ServiceIndex(index as u16), now);
        }
    }

    /// The intermediate speaks v2: one connection is enough.
    fn join(&mut self, now: Instant) {
        self.uplink.mode = Mode::Shared;
        self.uplink.shared_since = Some(now);
        self.timers.set(MODE_TIMER, None);
        for index in 0..self.services.len() {
            if let Some(Some(published)) = self.services.get_mut(index) {
                published.link.withdraw(&mut self.pool, b"ztna-v2", now);
            }
            self.settle(ServiceIndex(index as u16));
        }
        if !self.shut_down {
            self.uplink.link.publish(now);
        }
        self.offer(now);
    }

    /// Brings what is registered up to date with what is well.
    pub(super) fn offer(&mut self, now: Instant) {
        let mut names: Vec<ServiceId> = Vec::new();
        self.uplink.offered.clear();
        for (index, published) in (0..).map(ServiceIndex).zip(&mut self.services) {
            let Some(published) = published else { continue };
            // One that leaves stays for its last words.
            let leaves = published.is_leaving() && published.offered_as.is_some();
            published.offered_as = None;
            let is_wanted = leaves || self.netstack.services().is_available(index);
            if self.uplink.mode == Mode::Shared && is_wanted {
                published.offered_as = Some(ServiceIndex(names.len() as u16));
                names.push(published.id.clone());
                self.uplink.offered.push(index);
            }
        }
        self.uplink.link.set_services(&mut self.pool, names, now);
        for published in self.services.iter_mut().flatten() {
            published.told &= published.offered_as.is_some();
        }
        self.settle_shared();
    }

    /// The same for one service, where each has a connection.
    pub(super) fn set_single(&mut self, service: ServiceIndex, now: Instant) {
        let available = self.netstack.services().is_available(service) && !self.shut_down;
        if let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) {
            if available {
                published.link.publish(now);
            } else {
                // v1 has no message that takes a registration back.
                published
                    .link
                    .withdraw(&mut self.pool, b"no healthy backend", now);
            }
        }
        self.settle(service);
    }

    /// Whether the intermediate holds the registration of a service.
    pub(super) fn is_registered(&self, service: ServiceIndex) -> bool {
        let Some(Some(published)) = self.services.get(usize::from(service.0)) else {
            return false;
        };
        match self.uplink.mode {
            Mode::Shared => published
                .offered_as
                .is_some_and(|index| self.uplink.link.is_registered(index)),
            Mode::Single { .. } => published.link.is_registered(ONLY),
        }
    }

    /// The link that carries a service's packets.
    pub(super) fn link_of(&self, service: ServiceIndex) -> Option<&Link> {
        let published = self.services.get(usize::from(service.0))?.as_ref()?;
        Some(match self.uplink.mode {
            Mode::Shared => &self.uplink.link,
            Mode::Single { .. } => &published.link,
        })
    }

    pub(super) fn owner_of(&self, id: ConnId) -> Option<Owner> {
        let (owned, owner) = (*self.owners.get(id.index as usize)?)?;
        (owned == id).then_some(owner)
    }

    pub(super) fn with_link(&mut self, id: ConnId, act: impl FnOnce(&mut Link, &mut Pool<Q>)) {
        let owner = self.owner_of(id);
        let link = match owner {
            Some(Owner::Shared) => &mut self.uplink.link,
            Some(Owner::Service(service)) => match self.services.get_mut(usize::from(service.0)) {
                Some(Some(published)) => &mut published.link,
                Some(None) | None => return,
            },
            None => return,
        };
        if link.any_connection() == Some(id) {
            act(link, &mut self.pool);
        }
        match owner {
            Some(Owner::Service(service)) => self.settle(service),
            Some(Owner::Shared) | None => self.settle_shared(),
        }
    }

    /// After anything happened to the link of a service: its events, its connection and its timer are brought up to date.
    pub(super) fn settle(&mut self, service: ServiceIndex) {
        let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) else {
            return;
        };
        let mut lost = false;
        while let Some(event) = published.link.poll_event() {
            lost |= matches!(event, LinkEvent::Disconnected(_));
            let event = ConnectorNews::Link(event);
            tell(&mut self.events, &mut self.stats, Some(service), event);
        }
        // Channels need a connection for all services; v1 agents do not.
        let news: Vec<LinkNews> = std::iter::from_fn(|| published.link.poll_news()).collect();
        let connection = published.link.any_connection();
        let timer = SERVICE_TIMERS + u32::from(service.0);
        self.timers.set(timer, published.poll_timeout());
        self.own(connection, Owner::Service(service));
        let now = self.pool.now();
        if lost {
            self.doubt_others(service, now);
        }
        for news in news {
            self.on_signal(single_link(service), news, now);
        }
    }

    /// The same for the shared link. What it says of one service is told as that service's own link would tell it.
    pub(super) fn settle_shared(&mut self) {
        while let Some(event) = self.uplink.link.poll_event() {
            let (index, event) = match event {
                LinkEvent::Registered(index) => (Some(index), LinkEvent::Registered(ONLY)),
                LinkEvent::Denied(index, why) => (Some(index), LinkEvent::Denied(ONLY, why)),
                LinkEvent::Path(index, path) => (Some(index), LinkEvent::Path(ONLY, path)),
                LinkEvent::Connected { .. }
                | LinkEvent::Observed(_)
                | LinkEvent::Disconnected(_)
                | LinkEvent::Unreachable { .. } => (None, event),
            };
            let service = index.and_then(|index| self.uplink.service(index));
            // What stays registered when another service comes or goes is no news.
            let told = service.and_then(|service| self.services.get_mut(usize::from(service.0))?.as_mut());
            let is_registered = matches!(event, LinkEvent::Registered(_));
            let says_so = is_registered || matches!(event, LinkEvent::Denied(..));
            if let Some(published) = told.filter(|_| says_so)
                && std::mem::replace(&mut published.told, is_registered)
                && is_registered
            {
                continue;
            }
            if matches!(event, LinkEvent::Disconnected(_)) {
                let all = self.services.iter_mut().flatten();
                all.for_each(|published| published.told = false);
            }
            let event = ConnectorNews::Link(event);
            tell(&mut self.events, &mut self.stats, service, event);
        }
        self.take_link_news();
        let next = self.uplink.link.poll_timeout().map(|deadline| deadline.at);
        self.timers.set(SHARED_TIMER, next);
        self.own(self.uplink.link.any_connection(), Owner::Shared);
    }

    /// Something is due on a link.
    pub(super) fn on_link_timer(&mut self, timer: u32, now: Instant) {
        match timer {
            SHARED_TIMER => {
                self.uplink.link.handle_timeout(&mut self.pool, now);
                self.settle_shared();
            }
            MODE_TIMER => {
                let newer = self.services.iter().flatten().any(|service| service.link.is_v2());
                if newer && !self.uplink.is_shared() {
                    self.join(now);
                }
            }
            SERVICE_TIMERS.. => {
                let service = ServiceIndex((timer - SERVICE_TIMERS) as u16);
                if let Some(Some(published)) = self.services.get_mut(usize::from(service.0)) {
                    published.link.handle_timeout(&mut self.pool, now);
                }
                self.leave(service, now);
                self.settle(service);
            }
        }
    }

    /// Forgets the timer of a service that has left.
    pub(super) fn forget_timer(&mut self, service: ServiceIndex) {
        self.timers.set(SERVICE_TIMERS + u32::from(service.0), None);
    }

    fn own(&mut self, connection: Option<ConnId>, owner: Owner) {
        let Some(id) = connection else { return };
        let index = id.index as usize;
        if self.owners.len() <= index {
            self.owners.resize(index + 1, None);
        }
        if let Some(place) = self.owners.get_mut(index) {
            *place = Some((id, owner));
        }
    }

    /// One link has learnt that its connection is gone. All go to one intermediate, and the idle ones would not notice before
    /// their next keepalive: they ask at once.
    fn doubt_others(&mut self, lost: ServiceIndex, now: Instant) {
        for (index, published) in (0..).map(ServiceIndex).zip(&mut self.services) {
            if let Some(published) = published.as_mut().filter(|_| index != lost) {
                published.link.doubt(now);
                let timer = SERVICE_TIMERS + u32::from(index.0);
                self.timers.set(timer, published.poll_timeout());
            }
        }
    }
}
