//! A network address translator for UDP, in the terms of RFC 4787.
//!
//! A [`Nat`] decides about single datagrams: what leaves gets an outer address and makes holes, what arrives is let in or
//! not. Time and delivery are the world's business. All traffic, in either direction, refreshes a mapping (RFC 4787 REQ-6 asks
//! it of outbound traffic and allows it of inbound).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// What a mapping or a filter depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependence {
    /// On nothing outside: "endpoint-independent".
    Endpoint,
    /// On the address of the other host.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// How outer ports are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// The inner port, if it is free; else a random one.
    Preserved,
    /// At random.
    Random,
    /// One after the other.
    Sequential,
}

/// The behaviour of a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatConfig {
    /// When two destinations are told apart in mapping.
    pub mapping: Dependence,
    /// From whom packets are let in.
    pub filtering: Dependence,
    /// How outer ports are chosen.
    pub ports: Ports,
    /// How long a mapping lives without traffic.
    pub lifetime: Duration,
    /// Whether hosts inside reach each other by outer addresses.
    pub hairpin: bool,
    /// Whether a packet that is not let in takes its port, as connection tracking without a guard does: a host inside that
    /// later sends to its sender gets another outer port.
    pub poisoned: bool,
}

impl NatConfig {
    const fn new(mapping: Dependence, filtering: Dependence, ports: Ports) -> Self {
        Self {
            mapping,
            filtering,
            ports,
            lifetime: Duration::from_secs(30),
            hairpin: false,
            poisoned: false,
        }
    }

    /// Anybody may answer.
    pub const FULL_CONE: Self = Self::new(Dependence::Endpoint, Dependence::Endpoint, Ports::Preserved);
    /// Whoever was sent something may answer, from any port.
    pub const ADDRESS_RESTRICTED: Self =
        Self::new(Dependence::Endpoint, Dependence::Address, Ports::Preserved);
    /// Whoever was sent something may answer, from the port that it was sent to.
    pub const PORT_RESTRICTED: Self =
        Self::new(Dependence::Endpoint, Dependence::AddressAndPort, Ports::Preserved);
    /// A Linux router with `masquerade`: as the last, but strangers' packets take ports.
    pub const LINUX: Self = Self {
        poisoned: true,
        ..Self::PORT_RESTRICTED
    };
    /// Another outer port for each host.
    pub const ADDRESS_DEPENDENT: Self =
        Self::new(Dependence::Address, Dependence::AddressAndPort, Ports::Random);
    /// Another outer port for each host and port, at random.
    pub const SYMMETRIC: Self = Self::new(
        Dependence::AddressAndPort,
        Dependence::AddressAndPort,
        Ports::Random,
    );
    /// The same, but predictable.
    pub const SEQUENTIAL: Self = Self::new(
        Dependence::AddressAndPort,
        Dependence::AddressAndPort,
        Ports::Sequential,
    );

    /// All of them, with names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("full cone", Self::FULL_CONE),
        ("address-restricted", Self::ADDRESS_RESTRICTED),
        ("port-restricted", Self::PORT_RESTRICTED),
        ("linux", Self::LINUX),
        ("address-dependent", Self::ADDRESS_DEPENDENT),
        ("symmetric", Self::SYMMETRIC),
        ("sequential", Self::SEQUENTIAL),
    ];

    /// With mappings of another lifetime.
    #[must_use]
    pub const fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// With hairpinning.
    #[must_use]
    pub const fn with_hairpin(mut self) -> Self {
        self.hairpin = true;
        self
    }
}

/// Whether two hosts behind such translators find each other by simultaneous sending to the addresses that an observer told
/// them, where each learns from what arrives. The theory that the search for direct paths is judged by.
pub fn can_meet(a: Option<&NatConfig>, b: Option<&NatConfig>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        // One side without a translator is reached at its address, and answers where the packet came from.
        return true;
    };
    let strict = |nat: &NatConfig| nat.filtering == Dependence::AddressAndPort;
    let open = |nat: &NatConfig| nat.filtering == Dependence::Endpoint;
    match (a.mapping, b.mapping) {
        (Dependence::Endpoint, Dependence::Endpoint) => true,
        // The one whose address depends on the destination comes from an address that nobody was told. The other learns it from
        // the packet itself, if its filter does not ask for the port.
        (Dependence::Endpoint, _) => !strict(a),
        (_, Dependence::Endpoint) => !strict(b),
        // Each answer comes from another address than was asked, without end.
        (Dependence::AddressAndPort, Dependence::AddressAndPort) => false,
        // Nobody's observed address is where it comes from; it is still open to anyone where the filter is, and what arrives there
        // teaches the address to answer to.
        _ => (open(a) && !strict(b)) || (open(b) && !strict(a)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inner: SocketAddr,
    host: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
struct Mapping {
    outer: u16,
    inner: SocketAddr,
    used: Instant,
    /// To whom something was sent through it, and when last.
    holes: BTreeMap<SocketAddr, Instant>,
}

/// A translator with one outer address.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    outer: IpAddr,
    rng: Rng,
    next_port: u16,
    mappings: BTreeMap<Key, Mapping>,
    /// Ports that packets of strangers have taken, with the stranger.
    taken: BTreeMap<(u16, SocketAddr), Instant>,
}

/// The first outer port that is handed out where ports are not preserved.
const FIRST_PORT: u16 = 40_000;

impl Nat {
    /// A translator without mappings.
    pub fn new(config: NatConfig, outer: IpAddr, rng: Rng) -> Self {
        Self {
            config,
            outer,
            rng,
            next_port: FIRST_PORT,
            mappings: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// Its outer address.
    pub fn outer(&self) -> IpAddr {
        self.outer
    }

    /// Its behaviour.
    pub fn config(&self) -> NatConfig {
        self.config
    }

    /// Mappings that live.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there is no mapping.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Forgets everything, as after a restart or a rebinding.
    pub fn flush(&mut self) {
        self.mappings.clear();
        self.taken.clear();
    }

    /// A datagram leaves: the source that the world sees.
    pub fn outbound(&mut self, source: SocketAddr, destination: SocketAddr, now: Instant) -> SocketAddr {
        self.expire(now);
        let key = self.key(source, destination);
        if !self.mappings.contains_key(&key) {
            let outer = self.choose_port(source.port(), destination);
            self.mappings.insert(
                key,
                Mapping {
                    outer,
                    inner: source,
                    used: now,
                    holes: BTreeMap::new(),
                },
            );
        }
        let port = self.mappings.get_mut(&key).map_or(0, |mapping| {
            mapping.used = now;
            mapping.holes.insert(destination, now);
            mapping.outer
        });
        SocketAddr::new(self.outer, port)
    }

    /// A datagram arrives at an outer port: the host inside that gets it, or nobody.
    pub fn inbound(&mut self, source: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.config.filtering;
        let lets_in = |mapping: &Mapping| match filtering {
            Dependence::Endpoint => true,
            Dependence::Address => mapping.holes.keys().any(|to| to.ip() == source.ip()),
            Dependence::AddressAndPort => mapping.holes.contains_key(&source),
        };
        let mut at_port = self.mappings.values_mut().filter(|mapping| mapping.outer == port);
        if let Some(mapping) = at_port.find(|mapping| lets_in(mapping)) {
            mapping.used = now;
            return Some(mapping.inner);
        }
        if self.config.poisoned {
            self.taken.insert((port, source), now);
        }
        None
    }

    fn key(&self, inner: SocketAddr, destination: SocketAddr) -> Key {
        let (host, port) = match self.config.mapping {
            Dependence::Endpoint => (None, None),
            Dependence::Address => (Some(destination.ip()), None),
            Dependence::AddressAndPort => (Some(destination.ip()), Some(destination.port())),
        };
        // What a stranger took is not given to the one who wants to talk to that stranger.
        let poisoned = self.taken.contains_key(&(inner.port(), destination));
        let (host, port) = if poisoned && self.config.poisoned {
            (Some(destination.ip()), Some(destination.port()))
        } else {
            (host, port)
        };
        Key { inner, host, port }
    }

    fn choose_port(&mut self, wanted: u16, destination: SocketAddr) -> u16 {
        let used: Vec<u16> = self.mappings.values().map(|mapping| mapping.outer).collect();
        let free = |port: u16| !used.contains(&port) && !self.taken.contains_key(&(port, destination));
        if self.config.ports == Ports::Preserved && free(wanted) {
            return wanted;
        }
        loop {
            let port = match self.config.ports {
                Ports::Sequential => {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                    self.next_port
                }
                Ports::Preserved | Ports::Random => 1024 + self.rng.below(64_000) as u16,
            };
            if !used.contains(&port) && !self.taken.contains_key(&(port, destination)) {
                return port;
            }
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let lifetime = self.config.lifetime;
        let lives = |at: &Instant| now.saturating_duration_since(*at) < lifetime;
        self.mappings.retain(|_, mapping| {
            mapping.holes.retain(|_, at| lives(at));
            lives(&mapping.used)
        });
        self.taken.retain(|_, at| lives(at));
    }
}
