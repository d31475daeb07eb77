//! The cables and addresses: devices and an intermediate on a public network, a private network behind a firewall.
//!
//! ```text
//!  device 1 ─┐                    public 198.51.100.0/24
//!  device 2 ─┼── bridge in `public` (intermediate, .1) ──── wall (.2 │ 10.20.0.1) ──── private (10.20.0.2, .3)
//!  …         ┘                                              drops and counts every         connector and backends
//!                                                           connection from outside
//! ```

use std::net::Ipv4Addr;

use anyhow::Result;

use super::namespace::Namespace;

/// The intermediate.
pub(crate) const INTERMEDIATE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The public side of the firewall.
pub(crate) const WALL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The host of the connector and the backends.
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
/// A second backend address of the same host.
pub(crate) const PRIVATE_TOO: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 3);
/// The private end of the cable that comparisons are made over.
pub(crate) const CABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The firewall: everything may leave, answers may come back, and nothing else may come in. The counters are the proof.
const RULES: &str = "
table ip wall {
  counter refused {
  }
  counter outbound {
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname \"lan\" ct state new counter name outbound accept
    counter name refused drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname \"lan\" accept
    iifname \"lo\" accept
    counter name refused drop
  }
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"wan\" masquerade
  }
}
";

/// The namespaces of one laboratory.
#[derive(Debug)]
pub(crate) struct Site {
    /// Where the intermediate stands.
    pub(crate) public: Namespace,
    /// The firewall.
    pub(crate) wall: Namespace,
    /// Where the connector and the backends are.
    pub(crate) private: Namespace,
    /// Where the agents are; device 1 is the first.
    pub(crate) devices: Vec<Namespace>,
}

impl Site {
    /// Builds all of it.
    pub(crate) fn new(devices: u8) -> Result<Self> {
        let public = Namespace::new("public")?;
        // No spanning tree delay: the bridge forwards from its first packet on.
        public.ip("link add bridge type bridge forward_delay 0 stp_state 0")?;
        public.ip("link set bridge up")?;
        public.ip(&format!("address add {INTERMEDIATE}/24 dev bridge"))?;

        let wall = Namespace::new("wall")?;
        wall.cable("wan", &public, "wall")?;
        public.ip("link set wall master bridge")?;
        wall.ip(&format!("address add {WALL}/24 dev wan"))?;
        wall.sysctl("net.ipv4.ip_forward", "1")?;

        let private = Namespace::new("private")?;
        private.cable("eth0", &wall, "lan")?;
        wall.ip("address add 10.20.0.1/24 dev lan")?;
        private.ip(&format!("address add {PRIVATE}/24 dev eth0"))?;
        private.ip(&format!("address add {PRIVATE_TOO}/24 dev eth0"))?;
        private.ip("route add default via 10.20.0.1")?;
        wall.nft(RULES)?;

        let mut site = Self {
            public,
            wall,
            private,
            devices: Vec::new(),
        };
        for number in 1..=devices {
            site.add_device(number)?;
        }
        Ok(site)
    }

    fn add_device(&mut self, number: u8) -> Result<()> {
        let device = Namespace::new(&format!("device{number}"))?;
        let port = format!("device{number}");
        device.cable("eth0", &self.public, &port)?;
        self.public.ip(&format!("link set {port} master bridge"))?;
        device.ip(&format!("address add {}/24 dev eth0", device_address(number)))?;
        // The way an attacker would try: straight at the private network through its firewall.
        device.ip(&format!("route add 10.20.0.0/24 via {WALL}"))?;
        self.devices.push(device);
        Ok(())
    }

    /// Lays a cable from device 1 past everything to the private host: what transfers are compared with.
    pub(crate) fn lay_comparison_cable(&self) -> Result<()> {
        let Some(device) = self.devices.first() else {
            anyhow::bail!("no device to lay a cable from");
        };
        device.cable("past", &self.private, "past")?;
        device.ip("address add 192.0.2.1/24 dev past")?;
        self.private
            .ip(&format!("address add {CABLE}/24 dev past"))
            .map(drop)
    }

    /// Takes it away again.
    pub(crate) fn cut_comparison_cable(&self) -> Result<()> {
        self.private.ip("link delete past").map(drop)
    }

    /// Connections from outside that the firewall refused.
    pub(crate) fn refused(&self) -> Result<u64> {
        self.wall.counter("wall", "refused")
    }

    /// Connections that the private network opened to the outside.
    pub(crate) fn outbound(&self) -> Result<u64> {
        self.wall.counter("wall", "outbound")
    }
}

/// The public address of a device.
pub(crate) fn device_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 100 + number)
}
