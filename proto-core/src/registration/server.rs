//! The intermediate's registrations: who may reach what, and through which connection.
//!
//! It decides who holds a service and where a packet goes. Whether a certificate permits a registration is decided by
//! the caller, and so is what happens to a connector that was replaced.
//!
//! One connector holds a service at a time. Another connection takes it over only if it shows the same certificate (a
//! connector that was restarted, or whose address changed beyond QUIC's reach), or if neither shows one; the
//! fingerprints compared are public, so plain comparison leaks nothing. A connection is an agent or a connector, never
//! both: the meaning of its bare packets depends on it.
//!
//! Per packet: at most two hash look-ups, no allocation, no scan. Removing a connection costs its own registrations.

#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::sync::Arc;

use slab::Slab;

use crate::id::{ConnId, ServiceId};
use crate::rng::{Rng, SeededMap};
use crate::wire::datagram::{NackStatus, Role};

/// The SHA-256 fingerprint of a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub [u8; 32]);

/// How much a registry holds; beyond it, registrations are refused with [`NackStatus::AtCapacity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Services that one connection may register.
    pub services_per_connection: usize,
    /// Different services.
    pub services: usize,
    /// Registrations of all connections together.
    pub registrations: usize,
}

/// The answer to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, and held already if this is a repetition.
    Accepted {
        /// The connection that held the service for the same owner until now, and does no longer.
        replaced: Option<ConnId>,
    },
    /// Nothing has changed.
    Refused(NackStatus),
}

/// Why a packet has no way to a connector. It is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unroutable {
    /// The sender is not registered for it as an agent.
    NotRegistered,
    /// No connector holds the service at the moment.
    NoConnector,
    /// The packet names no service, and the agent is registered for several.
    Ambiguous,
}

/// The position of a service in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Slot(usize);

/// Where a packet went, for [`Registry::route_again`].
#[derive(Clone, Copy, Debug)]
pub struct Route {
    slot: Slot,
    connector: ConnId,
}

#[derive(Debug)]
struct Service {
    /// Shared with the map that finds it.
    name: Arc<[u8]>,
    connector: Option<ConnId>,
    agents: usize,
}

#[derive(Debug)]
struct Client {
    generation: u32,
    role: Role,
    owner: Option<Owner>,
    /// No more than the limit per connection, in no order.
    services: Vec<Slot>,
}

/// All registrations of an intermediate.
#[derive(Debug)]
pub struct Registry {
    limits: RegistryLimits,
    by_name: SeededMap<Arc<[u8]>, Slot>,
    services: Slab<Service>,
    /// By the index of the connection, which is dense.
    clients: Vec<Option<Client>>,
    /// Which agent uses which service; the only question asked of it is "does it?".
    uses: SeededMap<(ConnId, Slot), ()>,
    registrations: usize,
    agents: usize,
    connectors: usize,
}

impl Registry {
    /// An empty registry. `rng` seeds the hashers, so that no peer can aim at their buckets.
    pub fn new(limits: RegistryLimits, rng: &mut Rng) -> Self {
        Self {
            limits,
            by_name: rng.map(),
            services: Slab::new(),
            clients: Vec::new(),
            uses: rng.map(),
            registrations: 0,
            agents: 0,
            connectors: 0,
        }
    }

    /// Takes or refuses one registration of a live connection. A repetition gets the answer of the first.
    ///
    /// `owner` is the connection's certificate, `permitted` whether that certificate (or its absence) allows this
    /// service in this role.
    pub fn register(
        &mut self,
        conn: ConnId,
        owner: Option<Owner>,
        role: Role,
        service: &[u8],
        permitted: bool,
    ) -> Verdict {
        if ServiceId::parse(service).is_err() {
            return Verdict::Refused(NackStatus::InvalidId);
        }
        self.forget_predecessor(conn);
        let client = self.client(conn);
        if !permitted || client.is_some_and(|client| client.role != role) {
            return Verdict::Refused(NackStatus::NotAuthorised);
        }
        let slot = self.by_name.get(service).copied();
        let holder = slot.and_then(|slot| self.connector(slot));
        if slot.is_some_and(|slot| self.is_registered(conn, role, slot)) {
            return Verdict::Accepted { replaced: None };
        }
        let replaced = match role {
            Role::Agent => None,
            Role::Connector => holder,
        };
        if replaced.is_some_and(|holder| !self.may_replace(holder, conn, owner)) {
            return Verdict::Refused(NackStatus::Taken);
        }
        let own = client.map_or(0, |client| client.services.len());
        // A service that is taken over leaves the numbers as they are.
        let registrations = self.registrations - usize::from(replaced.is_some());
        if own >= self.limits.services_per_connection
            || registrations >= self.limits.registrations
            || (slot.is_none() && self.services.len() >= self.limits.services)
        {
            return Verdict::Refused(NackStatus::AtCapacity);
        }
        let slot = self.slot(service);
        if let Some(holder) = replaced {
            self.release(holder, slot);
        }
        self.enter(conn, owner, role, slot);
        Verdict::Accepted { replaced }
    }

    /// A connector that restarted comes back on a newer connection with the same certificate. The older of two living
    /// connectors that share one is refused, or they would take the service from each other for ever.
    fn may_replace(&self, holder: ConnId, conn: ConnId, owner: Option<Owner>) -> bool {
        let newer = conn.generation.wrapping_sub(holder.generation) <= u32::MAX / 2;
        newer && self.client(holder).is_none_or(|client| client.owner == owner)
    }

    /// Ends one registration of a connection; whether there was one.
    pub fn unregister(&mut self, conn: ConnId, service: &[u8]) -> bool {
        let Some(slot) = self.by_name.get(service).copied() else {
            return false;
        };
        let Some(client) = self.client_mut(conn) else {
            return false;
        };
        let Some(at) = client.services.iter().position(|held| *held == slot) else {
            return false;
        };
        client.services.swap_remove(at);
        let (role, last) = (client.role, client.services.is_empty());
        if last {
            self.take_client(conn);
        }
        self.leave(conn, role, slot);
        true
    }

    /// Forgets everything about a connection.
    pub fn remove(&mut self, conn: ConnId) {
        let Some(client) = self.take_client(conn) else {
            return;
        };
        for slot in client.services {
            self.leave(conn, client.role, slot);
        }
    }

    /// The connector to which a packet of `agent` for `service` goes.
    ///
    /// # Errors
    /// If the agent is not registered for the service, or no connector holds it.
    pub fn route(&self, agent: ConnId, service: &[u8]) -> Result<ConnId, Unroutable> {
        self.find(agent, service).map(|(_, connector)| connector)
    }

    fn find(&self, agent: ConnId, service: &[u8]) -> Result<(Slot, ConnId), Unroutable> {
        let slot = *self.by_name.get(service).ok_or(Unroutable::NotRegistered)?;
        if !self.uses.contains_key(&(agent, slot)) {
            return Err(Unroutable::NotRegistered);
        }
        let connector = self.connector(slot).ok_or(Unroutable::NoConnector)?;
        Ok((slot, connector))
    }

    /// [`Registry::route`], which need not look anything up if the packet goes where the one before went. `last` belongs to
    /// one agent, and to a time in which no registration changes.
    ///
    /// # Errors
    /// As there.
    pub fn route_again(
        &self,
        agent: ConnId,
        service: &[u8],
        last: &mut Option<Route>,
    ) -> Result<ConnId, Unroutable> {
        if let Some(Route { slot, connector }) = *last
            && self
                .services
                .get(slot.0)
                .is_some_and(|known| *known.name == *service)
        {
            return Ok(connector);
        }
        let (slot, connector) = self.find(agent, service)?;
        *last = Some(Route { slot, connector });
        Ok(connector)
    }

    /// Whether `connector` publishes a service, for its own packets: the way back, as [`Registry::route_again`] is the way there.
    pub fn publishes_again(&self, connector: ConnId, service: &[u8], last: &mut Option<Route>) -> bool {
        if last.is_some_and(
            |Route {
                 slot,
                 connector: known,
             }| {
                known == connector
                    && self
                        .services
                        .get(slot.0)
                        .is_some_and(|known| *known.name == *service)
            },
        ) {
            return true;
        }
        let slot = self.by_name.get(service).copied();
        *last = slot
            .filter(|slot| self.connector(*slot) == Some(connector))
            .map(|slot| Route { slot, connector });
        last.is_some()
    }

    /// Whether an agent uses the service of a route.
    pub fn is_used_by(&self, agent: ConnId, route: Route) -> bool {
        self.uses.contains_key(&(agent, route.slot))
    }

    /// The only service of an agent.
    pub fn only_service(&self, agent: ConnId) -> Option<&[u8]> {
        match self.client(agent)?.services.as_slice() {
            [slot] => Some(&self.services.get(slot.0)?.name),
            _ => None,
        }
    }

    /// The connector to which a bare packet of `agent` goes: that of its only service.
    ///
    /// # Errors
    /// If the agent is registered for no service or for several, or no connector holds the service.
    pub fn route_implicit(&self, agent: ConnId) -> Result<ConnId, Unroutable> {
        let client = self.client(agent).filter(|client| client.role == Role::Agent);
        match client.ok_or(Unroutable::NotRegistered)?.services.as_slice() {
            [] => Err(Unroutable::NotRegistered),
            [slot] => self.connector(*slot).ok_or(Unroutable::NoConnector),
            [_, _, ..] => Err(Unroutable::Ambiguous),
        }
    }

    /// Whether a connection is registered for a service.
    pub fn holds(&self, conn: ConnId, service: &[u8]) -> bool {
        let slot = self.by_name.get(service).copied();
        let role = self.role(conn);
        slot.zip(role)
            .is_some_and(|(slot, role)| self.is_registered(conn, role, slot))
    }

    /// As what a connection is registered; `None` if it holds no registration.
    pub fn role(&self, conn: ConnId) -> Option<Role> {
        self.client(conn).map(|client| client.role)
    }

    /// How many connections are registered as agents.
    pub fn agents(&self) -> usize {
        self.agents
    }

    /// How many connections are registered as connectors.
    pub fn connectors(&self) -> usize {
        self.connectors
    }

    /// How many different services are registered, by agents or connectors.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many registrations there are, of all connections together.
    pub fn registrations(&self) -> usize {
        self.registrations
    }

    /// A connection in the same place of the pool with another generation is gone, whether or not we were told.
    fn forget_predecessor(&mut self, conn: ConnId) {
        let Some(Some(client)) = self.clients.get(conn.index as usize) else {
            return;
        };
        if client.generation != conn.generation {
            self.remove(ConnId {
                index: conn.index,
                generation: client.generation,
            });
        }
    }

    fn client(&self, conn: ConnId) -> Option<&Client> {
        let client = self.clients.get(conn.index as usize)?.as_ref()?;
        (client.generation == conn.generation).then_some(client)
    }

    fn client_mut(&mut self, conn: ConnId) -> Option<&mut Client> {
        let client = self.clients.get_mut(conn.index as usize)?.as_mut()?;
        (client.generation == conn.generation).then_some(client)
    }

    fn connector(&self, slot: Slot) -> Option<ConnId> {
        self.services.get(slot.0)?.connector
    }

    fn is_registered(&self, conn: ConnId, role: Role, slot: Slot) -> bool {
        match role {
            Role::Agent => self.uses.contains_key(&(conn, slot)),
            Role::Connector => self.connector(slot) == Some(conn),
        }
    }

    /// The slot of a service, a new one if nobody has named it yet.
    fn slot(&mut self, name: &[u8]) -> Slot {
        let name: Arc<[u8]> = name.into();
        match self.by_name.entry(Arc::clone(&name)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => *free.insert(Slot(self.services.insert(Service {
                name,
                connector: None,
                agents: 0,
            }))),
        }
    }

    /// Notes a registration on both sides: at the service and at the connection.
    fn enter(&mut self, conn: ConnId, owner: Option<Owner>, role: Role, slot: Slot) {
        let Some(service) = self.services.get_mut(slot.0) else {
            return;
        };
        match role {
            Role::Agent => {
                service.agents += 1;
                self.uses.insert((conn, slot), ());
            }
            Role::Connector => service.connector = Some(conn),
        }
        self.registrations += 1;
        if let Some(client) = self.client_mut(conn) {
            client.services.push(slot);
            return;
        }
        let index = conn.index as usize;
        if index >= self.clients.len() {
            self.clients.resize_with(index + 1, || None);
        }
        *self.count(role) += 1;
        let client = Client {
            generation: conn.generation,
            role,
            owner,
            services: vec![slot],
        };
        if let Some(place) = self.clients.get_mut(index) {
            *place = Some(client);
        }
    }

    /// Takes one service from a connector that is replaced.
    fn release(&mut self, conn: ConnId, slot: Slot) {
        let Some(client) = self.client_mut(conn) else {
            return;
        };
        client.services.retain(|held| *held != slot);
        if client.services.is_empty() {
            self.take_client(conn);
        }
        if let Some(service) = self.services.get_mut(slot.0) {
            service.connector = None;
        }
        self.registrations -= 1;
    }

    fn take_client(&mut self, conn: ConnId) -> Option<Client> {
        self.client(conn)?;
        let client = self.clients.get_mut(conn.index as usize)?.take()?;
        *self.count(client.role) -= 1;
        Some(client)
    }

    fn count(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Agent => &mut self.agents,
            Role::Connector => &mut self.connectors,
        }
    }

    /// Ends one registration at the service, and the service itself if it was the last.
    fn leave(&mut self, conn: ConnId, role: Role, slot: Slot) {
        let Some(service) = self.services.get_mut(slot.0) else {
            return;
        };
        match role {
            Role::Agent => {
                service.agents -= 1;
                self.uses.remove(&(conn, slot));
            }
            Role::Connector => service.connector = None,
        }
        self.registrations -= 1;
        if service.connector.is_none() && service.agents == 0 {
            self.by_name.remove(&service.name);
            self.services.remove(slot.0);
        }
    }
}
