//! Which service a name or address means, and from which address it is spoken to.
//!
//! A service is known by its id and by its id with `.ztna`, whatever the case, and by its virtual addresses. Nothing else
//! is looked up anywhere. A service without a virtual address has an internal one, which never leaves the tunnel.

use std::net::{IpAddr, Ipv4Addr};

use super::Host;
use crate::config::AgentService;
use crate::id::ServiceIndex;
use crate::rng::{Rng, SeededMap};
use crate::routing::table::RouteTable;

/// The zone of services' names.
const ZONE: &str = ".ztna";

/// Where internal addresses are taken from: the end of the shared address space (RFC 6598), which no public host has.
pub const INTERNAL: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 127, 0, 0), 16);

/// The internal address of the service at some position, for services without a virtual one. A connector accepts these
/// for every service: which one is meant is said beside the packet.
pub fn internal_address(position: u16) -> IpAddr {
    let [high, low] = position.wrapping_add(1).to_be_bytes();
    Ipv4Addr::new(100, 127, high, low).into()
}

/// Whether an address is one that [`internal_address`] gives.
pub fn is_internal(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[..2] == INTERNAL.0.octets()[..2])
}

/// The configured services, by everything they are called.
#[derive(Debug)]
pub(super) struct Directory {
    names: SeededMap<Box<str>, ServiceIndex>,
    routes: RouteTable,
    /// The addresses of each service.
    services: Vec<Vec<IpAddr>>,
    /// Ours.
    local: Vec<IpAddr>,
}

impl Directory {
    pub(super) fn new(services: &[AgentService], local: &[IpAddr], rng: &mut Rng) -> Self {
        let indexed = || (0_u16..).map(ServiceIndex).zip(services);
        let mut names: SeededMap<Box<str>, ServiceIndex> = rng.map();
        for (index, service) in indexed() {
            names.insert(service.id.as_str().to_lowercase().into(), index);
        }
        let routes = indexed().flat_map(|(index, service)| {
            let addresses = service.virtual_addresses.iter();
            addresses.map(move |address| (*address, index))
        });
        Self {
            names,
            routes: RouteTable::new(routes, rng),
            services: services.iter().map(|s| s.virtual_addresses.clone()).collect(),
            local: local.to_vec(),
        }
    }

    /// How many services there are.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// The service that is called so, and the address to speak to.
    pub(super) fn find(&self, host: &Host) -> Option<(ServiceIndex, IpAddr)> {
        match host {
            Host::Address(address) => Some((self.routes.service(*address)?, *address)),
            Host::Name(name) => {
                let name = name.to_lowercase();
                let name = name.strip_suffix('.').unwrap_or(&name);
                // An id may itself end like the zone.
                let bare = name.strip_suffix(ZONE).unwrap_or(name);
                let service = self.names.get(name).or_else(|| self.names.get(bare))?;
                Some((*service, self.address(*service)?))
            }
        }
    }

    /// The address of a service to speak to: its first one of a family that we have too.
    pub(super) fn address(&self, service: ServiceIndex) -> Option<IpAddr> {
        let addresses = self.services.get(usize::from(service.0))?;
        addresses
            .iter()
            .copied()
            .find(|address| self.local(*address).is_some())
    }

    /// Our address towards another.
    pub(super) fn local(&self, remote: IpAddr) -> Option<IpAddr> {
        let same = |local: &&IpAddr| local.is_ipv4() == remote.is_ipv4();
        self.local.iter().find(same).copied()
    }
}

#[cfg(test)]
mod tests;
