//! Which service a destination address stands for: an agent's routes.
//!
//! Exact addresses only; what is not in the table is not tunnelled (split tunnel).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::ServiceIndex;
use crate::rng::{Rng, SeededMap};

/// Virtual addresses and their services.
#[derive(Debug)]
pub struct RouteTable {
    routes: SeededMap<IpAddr, ServiceIndex>,
}

impl RouteTable {
    /// Fills the table. If two services claim an address the first has it; configurations refuse that earlier.
    pub fn new(routes: impl IntoIterator<Item = (IpAddr, ServiceIndex)>, rng: &mut Rng) -> Self {
        let mut table = rng.map();
        for (address, service) in routes {
            table.entry(address).or_insert(service);
        }
        Self { routes: table }
    }

    /// The service behind an address.
    pub fn service(&self, address: IpAddr) -> Option<ServiceIndex> {
        self.routes.get(&address).copied()
    }

    /// The number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// Source and destination of the outermost IP header; `None` if the packet is too short for one.
///
/// Cheaper than a full parse, and all that a tunnel end needs to choose a path.
pub fn endpoints(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into()))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into()))
        }
        _ => None,
    }
}
