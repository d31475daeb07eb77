//! Who may use and who may publish which service, and for how long.
//!
//! A client of v1 asks with a DATAGRAM and holds what it got until its connection ends. A client of v2 asks on its control stream
//! and holds a lease: the authority is asked again with each renewal, and what is not renewed, or not permitted any more, is
//! taken back, with the channels that were for it.

use std::time::Instant;

use super::{Intermediate, IntermediateEvent};
use crate::config::timing::{ASK_AGAIN, ASK_AGAIN_LATER, LEASE};
use crate::id::{ConnId, ServiceId};
use crate::quic::Provider;
use crate::quic::identity::Capacity;
use crate::registration::{Owner, Verdict};
use crate::wire::control::{ControlMessage, Refusal};
use crate::wire::datagram::{NackStatus, Role, write_refused, write_registered};

impl<Q: Provider> Intermediate<Q> {
    /// A connector of v1 that asks is told who opens a flow; whether it may publish anything is another question.
    pub(super) fn ask_who(&mut self, id: ConnId) {
        if let Some(session) = self.session_mut(id) {
            session.asks_who = true;
        }
    }

    /// A client of v1 asks for a service.
    pub(super) fn register(&mut self, id: ConnId, role: Role, service: &[u8]) {
        let answer = match self.decide(id, role, service) {
            Ok(()) => {
                self.tell_registered(id, role, service);
                write_registered(service)
            }
            Err(status) => write_refused(status, service),
        };
        // Lost with a full queue: the client asks again.
        let _ = self.pool.send_datagram(id, answer.into());
    }

    /// A client of v2 asks for a service, or renews its lease.
    pub(super) fn on_register(&mut self, id: ConnId, role: Role, service: String, now: Instant) {
        let known = self.registry.holds(id, service.as_bytes());
        let decided = self.decide(id, role, service.as_bytes());
        match (ServiceId::parse(service.as_bytes()), decided) {
            (Ok(name), Ok(())) => {
                if known {
                    self.stats.control.renewed += 1;
                } else {
                    self.tell_registered(id, role, service.as_bytes());
                }
                self.lease(id, &name, now);
                let lease_ms = u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX);
                self.say(id, &ControlMessage::Registered { service, lease_ms });
            }
            (Ok(name), Err(NackStatus::NotAuthorised)) if known => {
                self.stats.control.revoked += 1;
                self.take_back(id, &name, Refusal::NotAuthorised);
            }
            (_, Err(status)) => self.refuse(id, service, refusal(status)),
            // What has no name is never accepted.
            (Err(_), Ok(())) => self.refuse(id, service, Refusal::InvalidId),
        }
    }

    /// A client of v2 gives a service back.
    pub(super) fn on_unregister(&mut self, id: ConnId, role: Role, service: &str) {
        let Ok(name) = ServiceId::parse(service.as_bytes()) else {
            self.stats.control.unexpected += 1;
            return;
        };
        if self.withdraw(id, &name) {
            self.tell(IntermediateEvent::Withdrawn {
                client: id,
                role,
                service: service.to_owned(),
                reason: None,
            });
        }
    }

    /// Ends the leases that nobody renewed.
    pub(super) fn expire_leases(&mut self, now: Instant) {
        while let Some(index) = self.leases.pop_due(now) {
            let session = self.sessions.get(index as usize).and_then(Option::as_ref);
            let Some((id, control)) =
                session.and_then(|session| Some((session.id, session.control.as_ref()?)))
            else {
                continue;
            };
            for service in control.expired(now) {
                self.stats.control.expired += 1;
                self.take_back(id, &service, Refusal::Unknown);
            }
            let control = self.session(id).and_then(|session| session.control.as_ref());
            let next = control.and_then(|control| control.first_expiry());
            self.leases.set(index, next);
        }
    }

    /// Takes a service from a client of v2, and says so.
    pub(super) fn take_back(&mut self, id: ConnId, service: &ServiceId, reason: Refusal) {
        if !self.withdraw(id, service) {
            return;
        }
        let role = self
            .session(id)
            .and_then(|session| session.control.as_ref()?.role);
        if let Some(role) = role {
            self.tell(IntermediateEvent::Withdrawn {
                client: id,
                role,
                service: service.as_str().to_owned(),
                reason: Some(reason),
            });
        }
        self.refuse(id, service.as_str().to_owned(), reason);
    }

    /// Whether the authority permits a client to act for a service, now.
    pub(super) fn permits(&self, id: ConnId, capacity: Capacity, service: &ServiceId) -> bool {
        let identity = self.session(id).and_then(|session| session.identity.as_ref());
        self.authority.permits(identity, capacity, service)
    }

    /// Asks the authority and the registry, and tells a connector whose service was taken over.
    fn decide(&mut self, id: ConnId, role: Role, service: &[u8]) -> Result<(), NackStatus> {
        let capacity = match role {
            Role::Agent => Capacity::Agent,
            Role::Connector => Capacity::Connector,
        };
        let name = ServiceId::parse(service);
        let permitted = name.as_ref().is_ok_and(|name| self.permits(id, capacity, name));
        let identity = self.session(id).and_then(|session| session.identity.as_ref());
        let owner = identity.map(|identity| Owner(identity.fingerprint().0));
        match self.registry.register(id, owner, role, service, permitted) {
            Verdict::Accepted { replaced } => {
                self.stats.registrations += 1;
                if let (Some(old), Ok(name)) = (replaced, name) {
                    self.on_replaced(old, &name);
                }
                Ok(())
            }
            Verdict::Refused(status) => {
                self.stats.registrations_refused += 1;
                self.tell(IntermediateEvent::Refused {
                    client: id,
                    role,
                    service: String::from_utf8_lossy(service).into_owned(),
                    status,
                });
                Err(status)
            }
        }
    }

    /// A newer connection of the same connector has taken a service over.
    fn on_replaced(&mut self, old: ConnId, service: &ServiceId) {
        if !self.speaks_v2(old) {
            let message = write_refused(NackStatus::Taken, service.as_bytes());
            let _ = self.pool.send_datagram(old, message.into());
            return;
        }
        self.end_grant(old, service);
        self.refuse(old, service.as_str().to_owned(), Refusal::Taken);
    }

    /// Ends a registration of a client of v2; whether there was one.
    fn withdraw(&mut self, id: ConnId, service: &ServiceId) -> bool {
        let held = self.registry.unregister(id, service.as_bytes());
        self.end_grant(id, service);
        held
    }

    /// Ends what a registration had brought: the lease, and the channels that were for nothing else.
    fn end_grant(&mut self, id: ConnId, service: &ServiceId) {
        if let Some(control) = self.session_mut(id).and_then(|session| session.control.as_mut()) {
            control.end_lease(service);
        }
        let closed = self.channels.remove_service(id, service);
        self.tell_closed(closed);
    }

    /// Begins a lease, or renews it. The index is told of the first only: a renewal moves it when it is looked at next.
    fn lease(&mut self, id: ConnId, service: &ServiceId, now: Instant) {
        let until = now + LEASE;
        let control = self.session_mut(id).and_then(|session| session.control.as_mut());
        let Some(control) = control else { return };
        control.lease(service, until);
        if self.leases.of(id.index).is_none() {
            self.leases.set(id.index, Some(until));
        }
    }

    fn refuse(&mut self, id: ConnId, service: String, reason: Refusal) {
        self.say(
            id,
            &ControlMessage::Refused {
                service,
                reason,
                retry_ms: retry_ms(reason),
            },
        );
    }

    fn tell_registered(&mut self, id: ConnId, role: Role, service: &[u8]) {
        self.tell(IntermediateEvent::Registered {
            client: id,
            role,
            service: String::from_utf8_lossy(service).into_owned(),
        });
    }
}

/// When asking again makes sense, in milliseconds; 0 never on this connection.
pub(super) fn retry_ms(reason: Refusal) -> u32 {
    let wait = match reason {
        Refusal::InvalidId | Refusal::NotAuthorised => return 0,
        Refusal::Unknown | Refusal::NoConnector | Refusal::Taken => ASK_AGAIN,
        Refusal::AtCapacity | Refusal::PeerIsV1 | Refusal::Other(_) => ASK_AGAIN_LATER,
    };
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}

fn refusal(status: NackStatus) -> Refusal {
    match status {
        NackStatus::InvalidId => Refusal::InvalidId,
        NackStatus::NotAuthorised => Refusal::NotAuthorised,
        NackStatus::Taken => Refusal::Taken,
        NackStatus::AtCapacity => Refusal::AtCapacity,
        NackStatus::Other(code) => Refusal::Other(u32::from(code)),
    }
}
