//! The kinds of translators that hosts sit behind, in the terms of RFC 4787, and what theory says of two of them.
//!
//! A kind is a name, the nftables rules that make a router behave so ([`rules`]), and the behaviour that these rules are
//! meant to give. The laboratory proves the last from outside, with packets, before it believes any result.

mod rules;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};

/// What a mapping or a filter depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependence {
    /// On nothing outside.
    Endpoint,
    /// On the address of the other host.
    Address,
    /// On its address and port.
    AddressAndPort,
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint => "endpoint",
            Self::Address => "address",
            Self::AddressAndPort => "address-and-port",
        })
    }
}

/// How outer ports are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The inner port.
    Preserved,
    /// One after the other.
    Sequential,
    /// As it comes.
    Random,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preserved => "preserved",
            Self::Sequential => "sequential",
            Self::Random => "random",
        })
    }
}

/// What can be seen of a translator from both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// When two destinations are told apart in mapping.
    pub(crate) mapping: Dependence,
    /// From whom packets are let in.
    pub(crate) filtering: Dependence,
    /// How outer ports are chosen.
    pub(crate) ports: Ports,
    /// Whether a host inside is reached from inside by its outer address.
    pub(crate) hairpin: bool,
    /// Whether a stranger's packet takes the port it was sent to, so that the host gets another one towards that stranger.
    pub(crate) poisoned: bool,
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mapping,
            filtering,
            ports,
            hairpin,
            poisoned,
        } = self;
        write!(
            f,
            "mapping={mapping} filtering={filtering} ports={ports} hairpin={hairpin} poisoned={poisoned}"
        )
    }
}

/// A kind of translator, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nat {
    /// A public address and a router that only routes.
    Open,
    /// Anybody may answer.
    FullCone,
    /// Whoever was sent something may answer, from any port.
    AddressRestricted,
    /// Whoever was sent something may answer, from the port that it was sent to.
    PortRestricted,
    /// A Linux router with `masquerade` and nothing else: packets of strangers take ports.
    Linux,
    /// The same with a filter before its own ports, as a careful one has.
    LinuxGuarded,
    /// Another outer port for each host outside.
    AddressDependent,
    /// Another outer port for each host and port outside, at random.
    Symmetric,
    /// The same, but one after the other.
    Sequential,
    /// Two translators, a home router behind a carrier's, each port-restricted.
    CarrierGrade,
    /// The same, but the carrier's is symmetric.
    CarrierGradeSymmetric,
    /// Port-restricted, and mappings are forgotten after seconds.
    ShortMappings,
    /// No UDP at all.
    UdpBlocked,
}

impl Nat {
    /// All of them, the friendliest first.
    pub(crate) const ALL: [Self; 13] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Linux,
        Self::LinuxGuarded,
        Self::AddressDependent,
        Self::Symmetric,
        Self::Sequential,
        Self::CarrierGrade,
        Self::CarrierGradeSymmetric,
        Self::ShortMappings,
        Self::UdpBlocked,
    ];

    /// What the table and the command line call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Linux => "linux",
            Self::LinuxGuarded => "linux-guarded",
            Self::AddressDependent => "address-dependent",
            Self::Symmetric => "symmetric",
            Self::Sequential => "sequential",
            Self::CarrierGrade => "cgnat",
            Self::CarrierGradeSymmetric => "cgnat-symmetric",
            Self::ShortMappings => "short-mappings",
            Self::UdpBlocked => "udp-blocked",
        }
    }

    /// What its rules are meant to do to UDP; `None` if they let none pass.
    pub(crate) fn behaviour(self) -> Option<Behaviour> {
        use Dependence::{Address, AddressAndPort, Endpoint};
        let cone = |filtering| Behaviour {
            mapping: Endpoint,
            filtering,
            ports: Ports::Preserved,
            hairpin: true,
            poisoned: false,
        };
        let masquerading = |mapping, ports| Behaviour {
            mapping,
            filtering: AddressAndPort,
            ports,
            hairpin: false,
            poisoned: false,
        };
        Some(match self {
            Self::Open | Self::FullCone => cone(Endpoint),
            Self::AddressRestricted => cone(Address),
            Self::PortRestricted | Self::ShortMappings => cone(AddressAndPort),
            // A carrier sends a hairpin back, but the home router takes it for a stranger's.
            Self::LinuxGuarded | Self::CarrierGrade => masquerading(Endpoint, Ports::Preserved),
            Self::Linux => Behaviour {
                poisoned: true,
                ..masquerading(Endpoint, Ports::Preserved)
            },
            Self::AddressDependent => masquerading(Address, Ports::Random),
            Self::Symmetric | Self::CarrierGradeSymmetric => masquerading(AddressAndPort, Ports::Random),
            Self::Sequential => masquerading(AddressAndPort, Ports::Sequential),
            Self::UdpBlocked => return None,
        })
    }

    /// Whether there is a carrier's translator between the home router and the world.
    pub(crate) fn is_double(self) -> bool {
        matches!(self, Self::CarrierGrade | Self::CarrierGradeSymmetric)
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`: tables align it.
        f.pad(self.name())
    }
}

impl FromStr for Nat {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(" ");
        Self::ALL
            .into_iter()
            .find(|nat| nat.name() == text)
            .with_context(|| format!("no such kind of NAT; there are {}", names()))
    }
}

/// Whether two hosts find each other by sending at the same time to the addresses that an observer told them, if each also
/// answers whatever arrives. The theory that results are judged by.
pub(crate) fn can_meet(a: Nat, b: Nat) -> bool {
    let (Some(one), Some(other)) = (a.behaviour(), b.behaviour()) else {
        return false;
    };
    // One who sends towards the observed address of the other is heard if that is the address the other uses towards
    // everybody, and if the filter there cares at most for the host: the sender's port may be another than was observed.
    let is_heard = |from: &Behaviour, to: &Behaviour| {
        to.mapping == Dependence::Endpoint
            && (from.mapping == Dependence::Endpoint || to.filtering != Dependence::AddressAndPort)
    };
    is_heard(&one, &other) || is_heard(&other, &one)
}
