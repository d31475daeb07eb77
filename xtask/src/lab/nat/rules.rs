//! The rules, for `nft` 1.0.6 and later: a closing brace stands on a line of its own.
//!
//! `wan` is the interface towards the world and `lan` the other one. A chain of type `nat` sees the first packet of a
//! connection only, so what a packet shall keep alive is kept alive in chains of type `filter`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::Nat;
use crate::lab::namespace::Namespace;

use anyhow::Result;

/// A filter before the router's own ports: without it a stranger's packet becomes a connection of the router itself.
const GUARD: &str = "
table ip guard {
  chain input {
    type filter hook input priority filter; policy accept;
    iifname \"wan\" meta l4proto udp ct state new drop
  }
}
";

/// Only what answers may come in.
const ANSWERS_ONLY: &str = "
table ip answers {
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname \"wan\" drop
  }
}
";

/// No UDP, in either direction; web pages only.
const BLOCKED: &str = "
table ip blocked {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname \"lan\" tcp dport { 80, 443 } accept
  }
}
";

/// Outer ports of the sequential kind.
const SEQUENCE: u16 = 512;

impl Nat {
    /// Makes `router` behave so, with the outer address `wan`. Of two routers in a row this is the one nearer to the world.
    pub(crate) fn apply(self, router: &Namespace, wan: Ipv4Addr) -> Result<()> {
        router.nft(&self.rules(wan))?;
        if self == Self::ShortMappings {
            // Known only once the rules have made the kernel track connections here.
            router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "3")?;
            router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "5")?;
        }
        Ok(())
    }

    fn rules(self, wan: Ipv4Addr) -> String {
        match self {
            Self::Open => String::new(),
            Self::FullCone => cone(wan, "") + GUARD,
            Self::AddressRestricted => cone(wan, "udp dport . ip saddr @holes") + GUARD,
            Self::PortRestricted | Self::ShortMappings | Self::CarrierGrade => {
                cone(wan, "") + GUARD + ANSWERS_ONLY
            }
            Self::Linux => source("masquerade"),
            Self::LinuxGuarded => source("masquerade") + GUARD,
            Self::AddressDependent => source(&format!(
                "snat to {wan} : jhash ip saddr . udp sport . ip daddr mod 20000 seed 0xdead offset 20000"
            )),
            Self::Symmetric | Self::CarrierGradeSymmetric => source("masquerade fully-random"),
            Self::Sequential => source(&format!(
                "snat to {wan} : numgen inc mod {SEQUENCE} map {{ {} }}",
                sequence()
            )),
            Self::UdpBlocked => source("masquerade") + BLOCKED,
        }
    }
}

/// One outer port for each inner one. A packet from outside goes to the inner host if `filter` matches, one from inside does
/// without; `holes` has whom each port has sent to.
fn cone(wan: Ipv4Addr, filter: &str) -> String {
    format!(
        "
table ip nat {{
  map ports {{ type inet_service : ipv4_addr . inet_service
    flags dynamic,timeout
    timeout 120s
    size 65536
  }}
  set holes {{ type inet_service . ipv4_addr
    flags dynamic,timeout
    timeout 120s
    size 65536
  }}
  chain refresh {{
    type filter hook postrouting priority mangle; policy accept;
    oifname \"wan\" meta l4proto udp update @ports {{ udp sport : ip saddr . udp sport }}
    oifname \"wan\" meta l4proto udp update @holes {{ udp sport . ip daddr }}
  }}
  chain post {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat iifname \"lan\" oifname \"lan\" snat to {wan}
    oifname \"wan\" snat to {wan}
  }}
  chain pre {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"lan\" ip daddr {wan} meta l4proto udp dnat to udp dport map @ports
    iifname \"wan\" ip daddr {wan} meta l4proto udp {filter} dnat to udp dport map @ports
  }}
}}
"
    )
}

/// Translation of the source of UDP by one statement, and of everything else in the ordinary way.
fn source(statement: &str) -> String {
    format!(
        "
table ip nat {{
  chain post {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"wan\" meta l4proto udp {statement}
    oifname \"wan\" masquerade
  }}
}}
"
    )
}

fn sequence() -> String {
    let mut text = String::new();
    for step in 0..SEQUENCE {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{}{step} : {}",
            if step > 0 { ", " } else { "" },
            40_000 + step
        );
    }
    text
}
