//! Addresses worth telling, and worth trying: priorities (RFC 8445 §5.1.2) and what is left out.

use std::net::{IpAddr, SocketAddr};

use crate::machine::canonical;
use crate::wire::control::{Candidate, CandidateKind};

/// Host addresses told to a peer, at most. Three uplinks of two families are already more than hosts have.
const HOST_CANDIDATES: usize = 8;

/// Of these, addresses of interfaces that exist only inside the host (bridges of containers and virtual machines), at most:
/// they may be the way between two containers, but must not crowd out the others.
const INTERNAL_CANDIDATES: usize = 2;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An address of an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What the system calls the interface.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// The priority of a candidate (RFC 8445 §5.1.2.1). `rank` counts the addresses of this kind down from the best; IPv6 goes
/// first among equals (RFC 8421 §4), because it has no NAT to keep open.
pub fn candidate_priority(kind: CandidateKind, family: Family, rank: u16) -> u32 {
    let kind = match kind {
        CandidateKind::Host => 126,
        CandidateKind::PeerReflexive => 110,
        CandidateKind::ServerReflexive => 100,
        CandidateKind::Relay => 0,
    };
    let family = match family {
        Family::V4 => 0x7FFF_u16,
        Family::V6 => 0xFFFF_u16,
    };
    let local = u32::from(family.saturating_sub(rank));
    (kind << 24) | (local << 8) | 255
}

/// What a check says about its sender's address (RFC 8445 §7.1.1).
pub fn peer_reflexive_priority(family: Family) -> u32 {
    candidate_priority(CandidateKind::PeerReflexive, family, 0)
}

/// Whether packets may be sent there on a peer's word: one other host, on a port, reachable without a scope.
pub fn is_usable(address: SocketAddr) -> bool {
    let usable = match canonical(address).ip() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.octets()[0] >= 240)
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local())
        }
    };
    usable && address.port() != 0
}

/// Whether an interface exists only inside the host, by the names that such interfaces are given.
fn is_internal(name: &str) -> bool {
    const PREFIXES: [&str; 12] = [
        "docker", "br-", "veth", "virbr", "vnet", "cni", "flannel", "cali", "podman", "lxc", "lxd", "kube",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The host candidates of these interfaces, best first: what a peer could reach, real interfaces before internal ones.
/// `skip` says which addresses are no way to this host (those of the tunnel itself).
pub fn host_candidates(interfaces: &[Interface], port: u16, skip: impl Fn(IpAddr) -> bool) -> Vec<Candidate> {
    let mut chosen: Vec<SocketAddr> = Vec::new();
    let mut internal = 0;
    for wanted_internal in [false, true] {
        for Interface { name, address } in interfaces {
            let address = canonical(SocketAddr::new(*address, port));
            let full =
                chosen.len() >= HOST_CANDIDATES || (wanted_internal && internal >= INTERNAL_CANDIDATES);
            let fits = is_internal(name) == wanted_internal && is_usable(address) && !skip(address.ip());
            if full || !fits || chosen.contains(&address) {
                continue;
            }
            internal += usize::from(wanted_internal);
            chosen.push(address);
        }
    }
    let candidates = chosen.into_iter().zip(0..).map(|(address, rank)| Candidate {
        kind: CandidateKind::Host,
        address,
        priority: candidate_priority(CandidateKind::Host, Family::of(address), rank),
        foundation: format!("host_{}", address.ip()),
        related: None,
    });
    candidates.collect()
}
