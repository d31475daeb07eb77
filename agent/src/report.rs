//! What `ztna status` shows, as data and as a table. The fields are documented in docs/operations.md, and are an
//! interface: they are added to, not changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where a running `ztna up` stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of the program.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Seconds since its start.
    pub(crate) uptime_seconds: u64,
    /// The relay.
    pub(crate) intermediate: Intermediate,
    /// The tunnel.
    pub(crate) interface: Interface,
    /// Names.
    pub(crate) dns: Dns,
    /// The services, in the order of the configuration.
    pub(crate) services: Vec<Service>,
    /// What went through.
    pub(crate) traffic: Traffic,
    /// What was dropped, by reason, as in `/metrics`; only what is not zero.
    pub(crate) dropped: BTreeMap<String, u64>,
}

/// The connection to the intermediate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intermediate {
    /// As configured.
    pub(crate) name: String,
    /// Whether it is connected.
    pub(crate) connected: bool,
    /// The address under which it sees this host.
    pub(crate) observed: Option<String>,
    /// Connections after the first.
    pub(crate) reconnections: u64,
}

/// The tunnel interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Largest packet now.
    pub(crate) mtu: u64,
    /// Largest packet that the path carries now.
    pub(crate) path_mtu: Option<usize>,
    /// This host's addresses on it.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the kernel hands over and takes TCP super-packets.
    pub(crate) tcp_offload: bool,
    /// The same for UDP.
    pub(crate) udp_offload: bool,
}

/// Names below `.ztna`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dns {
    /// `resolved`, `resolvconf` or `off`.
    pub(crate) mode: String,
    /// Where questions are answered.
    pub(crate) listen: Option<String>,
    /// Where other questions are sent on to.
    pub(crate) upstreams: Vec<String>,
    /// What became of questions: `answered`, `forwarded`, `refused`, `failed`, `dropped`.
    pub(crate) questions: BTreeMap<String, u64>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its id.
    pub(crate) id: String,
    /// Its name in DNS; `None` if the id cannot be one, or there is no DNS.
    pub(crate) name: Option<String>,
    /// Its virtual addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the intermediate has registered us for it.
    pub(crate) registered: bool,
    /// How packets reach it: `direct`, `relayed`, `wrapped`, `opening` or `none`.
    #[serde(default)]
    pub(crate) path: String,
    /// The connector's address, while they go straight there.
    #[serde(default)]
    pub(crate) peer: Option<String>,
    /// The round trip on that way.
    #[serde(default)]
    pub(crate) rtt_ms: Option<f64>,
    /// From the first packet to the first direct connection.
    #[serde(default)]
    pub(crate) time_to_direct_ms: Option<f64>,
    /// From the word that set the beginning of the search to the direct connection.
    #[serde(default)]
    pub(crate) search_ms: Option<f64>,
}

/// Packets that went through the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// To services.
    pub(crate) sent_packets: u64,
    /// Their bytes.
    pub(crate) sent_bytes: u64,
    /// From services.
    pub(crate) received_packets: u64,
    /// Their bytes.
    pub(crate) received_bytes: u64,
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |key: &str, value: &str| {
            // Writing into a text does not fail.
            let _ = writeln!(text, "{key:<14}{value}");
        };
        let up = duration(self.uptime_seconds);
        row(
            "ztna",
            &format!("{}, process {}, up {up}", self.version, self.pid),
        );
        row("intermediate", &self.connection());
        row("interface", &self.tunnel());
        row("names", &self.names());
        let Traffic {
            sent_packets,
            sent_bytes,
            received_packets,
            received_bytes,
        } = self.traffic;
        let (sent, received) = (bytes(sent_bytes), bytes(received_bytes));
        row(
            "traffic",
            &format!("sent {sent_packets} packets, {sent}; received {received_packets} packets, {received}"),
        );
        let dropped = pairs(&self.dropped);
        row("dropped", if dropped.is_empty() { "nothing" } else { &dropped });
        text.push('\n');
        text.push_str(&self.services());
        text
    }

    fn connection(&self) -> String {
        let Intermediate {
            name,
            connected,
            observed,
            reconnections,
        } = &self.intermediate;
        let state = if *connected { "connected" } else { "NOT CONNECTED" };
        let mut text = format!("{name}, {state}");
        if let Some(observed) = observed {
            let _ = write!(text, ", sees this host as {observed}");
        }
        if *reconnections > 0 {
            let _ = write!(text, ", {reconnections} reconnections");
        }
        text
    }

    fn tunnel(&self) -> String {
        let Interface {
            name,
            mtu,
            addresses,
            tcp_offload,
            udp_offload,
            ..
        } = &self.interface;
        let offload = match (tcp_offload, udp_offload) {
            (true, true) => "TCP and UDP offload",
            (true, false) => "TCP offload",
            (false, true) => "UDP offload",
            (false, false) => "no offload",
        };
        format!("{name}, {}, MTU {mtu}, {offload}", list(addresses))
    }

    fn names(&self) -> String {
        let Dns {
            mode,
            listen,
            upstreams,
            questions,
        } = &self.dns;
        let Some(listen) = listen else {
            return mode.clone();
        };
        let mut text = format!("{mode}, answered at {listen}");
        if !upstreams.is_empty() {
            let _ = write!(text, ", others sent on to {}", upstreams.join(" "));
        }
        let questions = pairs(questions);
        if !questions.is_empty() {
            let _ = write!(text, " ({questions})");
        }
        text
    }

    fn services(&self) -> String {
        let name = |service: &Service| service.name.clone().unwrap_or_else(|| "-".to_owned());
        let rows = self.services.iter().map(|service| {
            let state = if service.registered {
                "registered"
            } else {
                "NOT REGISTERED"
            };
            [
                service.id.clone(),
                name(service),
                list(&service.addresses),
                state.to_owned(),
                way(service),
            ]
        });
        let head = ["SERVICE", "NAME", "ADDRESS", "STATE", "PATH"].map(str::to_owned);
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let (a, b, c, d) = (width(0), width(1), width(2), width(3));
        let mut text = String::new();
        for [id, name, addresses, state, way] in &rows {
            let _ = writeln!(text, "{id:<a$}  {name:<b$}  {addresses:<c$}  {state:<d$}  {way}");
        }
        text
    }
}

/// How packets reach a service, and how long they take there and back.
fn way(service: &Service) -> String {
    let mut text = service.path.clone();
    if let Some(peer) = &service.peer {
        let _ = write!(text, " to {peer}");
    }
    if let Some(rtt) = service.rtt_ms {
        let _ = write!(text, ", {rtt:.1} ms");
    }
    text
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

fn pairs(numbers: &BTreeMap<String, u64>) -> String {
    let texts: Vec<String> = numbers
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    texts.join(", ")
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1_000 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1e3;
    let mut unit = UNITS[0];
    for next in UNITS.into_iter().skip(1) {
        if value < 1e3 {
            break;
        }
        value /= 1e3;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests;
