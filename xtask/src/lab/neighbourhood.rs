//! Two hosts behind translators of any two kinds, and a relay that both can reach.
//!
//! ```text
//!  host a ── router a ── 5 ms ──┐                               ┌── 5 ms ── router b ── host b
//!  10.10.0.2  (carrier a)       │   internet, 198.51.100.0/24   │        (carrier b)    10.20.0.2
//!                               └──────────────┬────────────────┘
//!                                            5 ms
//!                                            relay (.1 and .2)
//! ```
//!
//! Round trips: host to relay a = b = 20 ms, host to host d = 20 ms, through the relay 40 ms. So the time an echo takes tells
//! which way it went, whatever the programs say. The delay is in the lines to the world and not inside the homes, as it is
//! outside: a packet that opens a hole has a head start of 10 ms over the one from the other side that wants to come in.
//! `internet` routes and is a hop of its own between two translators; what is cut there is the path between two hosts and
//! not their ways to the relay.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::namespace::Namespace;
use super::nat::Nat;
use super::programs::Programs;
use super::site::INTERMEDIATE;
use super::wire::Wire;

/// The delay of each of the three lines, in milliseconds and one way: every round trip between two of the three is 20 ms.
const DELAY: u8 = 5;

/// The relay's second address.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The address of the internet's own router.
const CORE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
/// A carrier's side of its cable to a home.
const CARRIER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// What a home has from its carrier.
const HOME: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The device's.
    A,
    /// The private network's.
    B,
}

impl Which {
    fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

/// A host with what is between it and the world.
#[derive(Debug)]
pub(crate) struct Side {
    /// The line to the world.
    wire: Wire,
    /// The host.
    pub(crate) host: Namespace,
    /// Its router.
    router: Namespace,
    /// Its carrier's router, if there is one.
    carrier: Option<Namespace>,
    /// What it is behind.
    pub(crate) nat: Nat,
    /// What others see.
    pub(crate) outer: Ipv4Addr,
}

impl Side {
    fn new(which: Which, nat: Nat, internet: &Namespace, programs: &Programs, folder: &Path) -> Result<Self> {
        let (letter, number) = (which.letter(), which.number());
        let host = Namespace::new(&format!("host-{letter}"))?;
        let router = Namespace::new(&format!("router-{letter}"))?;
        host.cable("eth0", &router, "lan")?;
        let translated = Ipv4Addr::new(198, 51, 100, 10 + number);
        let (inner, outer) = if nat == Nat::Open {
            let public = Ipv4Addr::new(198, 51, 100, 20 + number);
            (public, public)
        } else {
            (Ipv4Addr::new(10, 10 * number, 0, 2), translated)
        };
        let gateway = Ipv4Addr::new(10, 10 * number, 0, 1);
        point_to_point((&host, "eth0", inner), (&router, "lan", gateway))?;
        host.ip(&format!("route add default via {gateway}"))?;
        routes(&router)?;

        let carrier = if nat.is_double() {
            let carrier = Namespace::new(&format!("carrier-{letter}"))?;
            routes(&carrier)?;
            router.cable("wan", &carrier, "lan")?;
            point_to_point((&router, "wan", HOME), (&carrier, "lan", CARRIER))?;
            router.ip(&format!("route add default via {CARRIER}"))?;
            Nat::PortRestricted.apply(&router, HOME)?;
            Some(carrier)
        } else {
            None
        };
        let edge = carrier.as_ref().unwrap_or(&router);
        // Not the letter alone, which `ip link` takes for a word of its own.
        let port = format!("side-{letter}");
        let wire = Wire::join(programs, folder, (edge, "wan"), (internet, &port))?;
        point_to_point((edge, "wan", translated), (internet, &port, CORE))?;
        edge.ip(&format!("route add default via {CORE}"))?;
        if outer != translated {
            internet.ip(&format!("route add {outer}/32 via {translated}"))?;
        }
        nat.apply(edge, outer)?;
        Ok(Self {
            wire,
            host,
            router,
            carrier,
            nat,
            outer,
        })
    }

    /// Forgets every mapping, as a router does that starts again: what is sent next gets a new one.
    pub(crate) fn rebind(&self, programs: &Programs) -> Result<()> {
        for router in [Some(&self.router), self.carrier.as_ref()].into_iter().flatten() {
            let mut command = router.command(programs.instruments());
            crate::command::output(command.args(["tool", "forget-connections"]))?;
        }
        Ok(())
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    /// The device's side.
    pub(crate) a: Side,
    /// The private network's side.
    pub(crate) b: Side,
    /// The relay's line.
    wire: Wire,
    /// Where the intermediate stands.
    pub(crate) relay: Namespace,
    internet: Namespace,
}

impl Neighbourhood {
    /// Builds it, without delay.
    pub(crate) fn new(a: Nat, b: Nat, programs: &Programs, folder: &Path) -> Result<Self> {
        let internet = Namespace::new("internet")?;
        routes(&internet)?;
        internet.ip(&format!("address add {CORE}/32 dev lo"))?;
        let relay = Namespace::new("relay")?;
        let wire = Wire::join(programs, folder, (&relay, "eth0"), (&internet, "relay"))?;
        point_to_point((&relay, "eth0", INTERMEDIATE), (&internet, "relay", CORE))?;
        relay.ip(&format!("address add {SECOND}/32 dev eth0"))?;
        internet.ip(&format!("route add {SECOND}/32 dev relay"))?;
        relay.ip("route add default dev eth0")?;
        let a = Side::new(Which::A, a, &internet, programs, folder)?;
        let b = Side::new(Which::B, b, &internet, programs, folder)?;
        let watch = watch(a.outer, b.outer);
        internet.nft(&watch)?;
        Ok(Self {
            a,
            b,
            wire,
            relay,
            internet,
        })
    }

    /// Gives each of the three lines [`DELAY`], and whatever else a wire can do to packets (`crate::tool::wire`).
    pub(crate) fn lengthen(&mut self, more: &str) -> Result<()> {
        let conditions = format!("delay={DELAY} {more}").parse()?;
        for wire in [&mut self.wire, &mut self.a.wire, &mut self.b.wire] {
            wire.set(&conditions)?;
        }
        Ok(())
    }

    /// One of its sides.
    pub(crate) fn side(&self, which: Which) -> &Side {
        match which {
            Which::A => &self.a,
            Which::B => &self.b,
        }
    }

    /// Drops what `from` sends to the other side without the relay; the ways to the relay stay.
    pub(crate) fn cut(&self, from: Which) -> Result<()> {
        let (from, to) = match from {
            Which::A => (self.a.outer, self.b.outer),
            Which::B => (self.b.outer, self.a.outer),
        };
        self.internet.nft(&format!(
            "add rule ip watch cuts ip saddr {from} ip daddr {to} drop\n"
        ))
    }

    /// Undoes every cut.
    pub(crate) fn heal(&self) -> Result<()> {
        self.internet.nft("flush chain ip watch cuts\n")
    }

    /// Packets that went between the two sides without the relay, in each direction, dropped ones included.
    pub(crate) fn direct_packets(&self) -> Result<[u64; 2]> {
        Ok([
            self.internet.counter("watch", "a_to_b")?,
            self.internet.counter("watch", "b_to_a")?,
        ])
    }
}

/// Two addresses at the ends of one line, each routed to the other. Addresses of one prefix are on several lines, so none
/// of them may bring a route of its prefix along.
fn point_to_point(
    (left, here, near): (&Namespace, &str, Ipv4Addr),
    (right, there, far): (&Namespace, &str, Ipv4Addr),
) -> Result<()> {
    for (namespace, port, own, other) in [(left, here, near, far), (right, there, far, near)] {
        if own != CORE {
            namespace.ip(&format!("address add {own}/32 dev {port}"))?;
        }
        namespace.ip(&format!("route add {other}/32 dev {port}"))?;
    }
    Ok(())
}

/// Forwards between interfaces, and sends nobody elsewhere.
fn routes(router: &Namespace) -> Result<()> {
    router.sysctl("net.ipv4.ip_forward", "1")?;
    router.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
    router.sysctl("net.ipv4.conf.default.send_redirects", "0")
}

/// Counts what goes between the two without the relay, and has a place for cuts.
fn watch(a: Ipv4Addr, b: Ipv4Addr) -> String {
    let mut rules = "table ip watch {\n".to_owned();
    for name in ["a_to_b", "b_to_a"] {
        // Writing to a string cannot fail.
        let _ = writeln!(rules, "  counter {name} {{\n  }}");
    }
    let _ = write!(
        rules,
        "  chain cuts {{
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ip saddr {a} ip daddr {b} counter name a_to_b
    ip saddr {b} ip daddr {a} counter name b_to_a
    jump cuts
  }}
}}
"
    );
    rules
}
