//! Where TCP is compared: a device, a relay and a private host, with the product, and beside it what it is compared with.
//!
//! ```text
//!  client ═══ cable or wire ═══ relay (198.51.100.1) ─── private 10.20.0.2 (connector, backends)
//!    └─────────────── past: 192.0.2.1 ── 192.0.2.2 ────────┘           (boringtun 10.97.0.1 ── 10.97.0.2)
//! ```
//! Over the wire, plain TCP takes the same interfaces and the same dice as the tunnel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bench::account::cpu;
use crate::command::output;
use crate::lab::namespace::Namespace;
use crate::lab::process::Process;
use crate::lab::programs::{self, Programs, Service};
use crate::lab::scratch::Scratch;
use crate::lab::site::{CABLE, INTERMEDIATE, PRIVATE};
use crate::lab::wire::Wire;
use crate::lab::world::PATIENCE;
use crate::tool::wire::Conditions;

/// What transfers go to through the tunnel.
pub(super) const BULK: Service = Service {
    protocol: "both",
    ..tcp_service("bulk", 11, PRIVATE, 5_201)
};
/// A backend that answers at once.
pub(super) const FAST: Service = tcp_service("fast", 12, PRIVATE, 7_100);
/// A backend that never answers: nobody has this address.
pub(super) const HOLE: Service = tcp_service("hole", 13, std::net::Ipv4Addr::new(10, 20, 0, 66), 7_101);

/// A backend that greets and then says nothing.
pub(super) const IDLE: Service = tcp_service("idle", 14, PRIVATE, 7_102);

/// The same server, for those who come without the tunnel.
const PLAIN_PORT: u16 = 5_202;

const fn tcp_service(id: &'static str, last: u8, backend: std::net::Ipv4Addr, port: u16) -> Service {
    Service {
        id,
        address: std::net::Ipv4Addr::new(10, 99, 0, last),
        backend,
        port,
        protocol: "tcp",
    }
}

/// How the client reaches the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// As fast as the kernel can.
    Cable,
    /// With delay and loss.
    Wire,
}

/// Over what a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Agent, relay and connector.
    Tunnel,
    /// The network alone.
    Plain,
    /// `boringtun-cli` from the client to the private host.
    Boringtun,
}

/// Which way the bytes flow, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heading {
    /// To the private host.
    Up,
    /// From it.
    Down,
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Megabits per second that arrived.
    pub(super) goodput: f64,
    /// CPU of all tunnel processes per 1,300 bytes that arrived, in microseconds.
    pub(super) micros: f64,
}

/// Everything, running. Dropped in this order: processes, namespaces, files.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) agent: Process,
    pub(super) connector: Process,
    pub(super) intermediate: Process,
    wire: Option<Wire>,
    boringtun: Vec<Process>,
    _servers: Vec<Process>,
    pub(super) client: Namespace,
    _relay: Namespace,
    _private: Namespace,
    /// The congestion control of the hosts' own TCP.
    congestion: String,
    programs: Programs,
    scratch: Scratch,
}

impl Stage {
    /// Builds all of it; with `boringtun` also that.
    pub(super) fn new(
        programs: &Programs,
        link: Link,
        boringtun: Option<&Path>,
        congestion: &str,
        scratch: Scratch,
    ) -> Result<Self> {
        let client = Namespace::new("client")?;
        let relay = Namespace::new("relay")?;
        let private = Namespace::new("private")?;
        let hands = Hands {
            programs,
            scratch: &scratch,
        };
        relay.ip(&format!("address add {INTERMEDIATE}/32 dev lo"))?;
        relay.sysctl("net.ipv4.ip_forward", "1")?;
        lay(&private, &relay, "private", 20)?;
        let wire = match link {
            Link::Cable => {
                lay(&client, &relay, "client", 21)?;
                None
            }
            Link::Wire => {
                let wire = Wire::lay(programs, scratch.path(), &client, &relay, "10.22.0")?;
                client.ip("route add default via 10.22.0.1")?;
                Some(wire)
            }
        };
        client.cable("past", &private, "past")?;
        client.ip("address add 192.0.2.1/24 dev past")?;
        private.ip(&format!("address add {CABLE}/24 dev past"))?;
        // Somebody's hardware address, so that packets leave instead of failing.
        private.ip(&format!(
            "neigh add {} lladdr 02:00:00:00:00:66 dev eth0",
            HOLE.backend
        ))?;
        let servers = vec![
            hands.iperf_server(&private, BULK.port)?,
            hands.iperf_server(&private, PLAIN_PORT)?,
            hands.tool(
                &private,
                &["tcp-server", "--bind", &format!("{PRIVATE}:{}", FAST.port)],
            )?,
            hands.tool(
                &private,
                &[
                    "tcp-server",
                    "--hold",
                    "--bind",
                    &format!("{PRIVATE}:{}", IDLE.port),
                ],
            )?,
        ];
        let [intermediate, connector, agent] = hands.product(&client, &relay, &private)?;
        let boringtun = match boringtun {
            Some(program) => hands.boringtun(program, &client, &private)?,
            None => Vec::new(),
        };
        Ok(Self {
            agent,
            connector,
            intermediate,
            wire,
            boringtun,
            _servers: servers,
            client,
            _relay: relay,
            _private: private,
            congestion: congestion.to_owned(),
            programs: programs.clone(),
            scratch,
        })
    }

    /// Gives the wire a character.
    pub(super) fn set(&mut self, conditions: &Conditions) -> Result<()> {
        self.wire.as_mut().context("there is no wire")?.set(conditions)
    }

    /// Starts an instrument on the client.
    pub(super) fn tool(&self, arguments: &[&str]) -> Result<Process> {
        let hands = Hands {
            programs: &self.programs,
            scratch: &self.scratch,
        };
        hands.start_tool(&self.client, arguments)
    }

    /// Waits until so many sockets of the client have asked for a session and have no answer.
    pub(super) fn wait_for_callers(&self, count: usize) -> Result<()> {
        let look = || {
            let said = output(self.client.command("ss").args(["-Htn", "state", "syn-sent"]))?;
            Ok((said.lines().count() >= count).then_some(()))
        };
        crate::lab::wait_until("callers without an answer", PATIENCE, look).map(drop)
    }

    /// One TCP stream for some seconds.
    pub(super) fn transfer(&self, way: Way, heading: Heading, seconds: u32) -> Result<Transfer> {
        self.run(way, heading, seconds, &["--congestion", &self.congestion])
    }

    /// Datagrams of 1,200 bytes at `rate` Mbit/s for some seconds: what the tunnel carries if nobody above it slows down.
    pub(super) fn datagrams(&self, way: Way, heading: Heading, seconds: u32, rate: u32) -> Result<Transfer> {
        let rate = format!("{rate}M");
        self.run(
            way,
            heading,
            seconds,
            &["--udp", "--length", "1200", "--bitrate", &rate],
        )
    }

    /// Round trips in milliseconds, sorted, while one TCP stream takes what it can get.
    pub(super) fn pings_beside_a_transfer(
        &self,
        way: Way,
        heading: Heading,
        seconds: u32,
    ) -> Result<Vec<f64>> {
        let to = match way {
            Way::Tunnel => BULK.address.to_string(),
            Way::Plain => PRIVATE.to_string(),
            Way::Boringtun => "10.97.0.2".to_owned(),
        };
        let count = (seconds * 10).to_string();
        std::thread::scope(|scope| {
            let pings = scope.spawn(|| {
                let mut command = self.client.command("ping");
                output(command.args(["-n", "-i", "0.1", "-c", &count, "-W", "2", &to]))
            });
            self.transfer(way, heading, seconds)?;
            let said = pings.join().map_err(|_| anyhow::anyhow!("ping panicked"))??;
            let time = |line: &str| {
                line.split_once("time=")?
                    .1
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            };
            let mut times: Vec<f64> = said.lines().filter_map(time).collect();
            times.sort_by(f64::total_cmp);
            Ok(times)
        })
    }

    /// `iperf3` for some seconds.
    fn run(&self, way: Way, heading: Heading, seconds: u32, more: &[&str]) -> Result<Transfer> {
        let (to, port) = match way {
            Way::Tunnel => (BULK.address.to_string(), BULK.port),
            Way::Plain => (PRIVATE.to_string(), PLAIN_PORT),
            Way::Boringtun => ("10.97.0.2".to_owned(), PLAIN_PORT),
        };
        let pids: Vec<u32> = match way {
            Way::Tunnel => vec![self.agent.id(), self.intermediate.id(), self.connector.id()],
            Way::Plain => Vec::new(),
            Way::Boringtun => self.boringtun.iter().map(Process::id).collect(),
        };
        let port = port.to_string();
        let time = seconds.to_string();
        let mut words = vec!["--json", "--client", &to, "--port", &port, "--time", &time];
        words.extend(more);
        if heading == Heading::Down {
            words.push("--reverse");
        }
        let (report, spent) = self
            .iperf(&words, seconds, &pids)
            .with_context(|| format!("{way:?} {heading:?}"))?;
        let bytes = received(&report, "bytes")?;
        Ok(Transfer {
            goodput: received(&report, "bits_per_second")? / 1e6,
            micros: spent.as_secs_f64() * 1e6 / (bytes / 1_300.0),
        })
    }

    /// The client's report and the CPU that the processes took meanwhile.
    fn iperf(&self, words: &[&str], seconds: u32, pids: &[u32]) -> Result<(Value, Duration)> {
        let patience = (seconds + 30).to_string();
        for _ in 0..ATTEMPTS {
            let before = total(pids)?;
            let mut command = self.client.command("timeout");
            let text = output(command.args([&patience, "iperf3"]).args(words))?;
            let spent = total(pids)?.saturating_sub(before);
            let report: Value = serde_json::from_str(&text)?;
            // Over a bad link the server learns late that the last test has ended, and the one datagram that begins a test
            // with datagrams may be the one that is lost.
            if report.get("error").is_none() {
                return Ok((report, spent));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        anyhow::bail!("iperf3 failed {ATTEMPTS} times")
    }
}

/// How often a test is tried.
const ATTEMPTS: u32 = 15;

fn received(report: &Value, what: &str) -> Result<f64> {
    report
        .pointer(&format!("/end/sum_received/{what}"))
        .and_then(Value::as_f64)
        .with_context(|| format!("iperf3 said nothing about {what}: {report}"))
}

fn total(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// A cable from a host to the relay, as its default route.
fn lay(host: &Namespace, relay: &Namespace, port: &str, net: u8) -> Result<()> {
    host.cable("eth0", relay, port)?;
    relay.ip(&format!("address add 10.{net}.0.1/24 dev {port}"))?;
    host.ip(&format!("address add 10.{net}.0.2/24 dev eth0"))?;
    host.ip(&format!("route add default via 10.{net}.0.1")).map(drop)
}

/// Starts everything.
struct Hands<'a> {
    programs: &'a Programs,
    scratch: &'a Scratch,
}

impl Hands<'_> {
    fn start(&self, name: &str, host: &Namespace, words: &[String]) -> Result<Process> {
        let (program, arguments) = words.split_first().context("nothing to start")?;
        Process::start(name, self.scratch.path(), host.command(program).args(arguments))
    }

    fn start_tool(&self, host: &Namespace, arguments: &[&str]) -> Result<Process> {
        let name = arguments.first().copied().unwrap_or_default();
        let mut command = host.command(self.programs.instruments());
        Process::start(name, self.scratch.path(), command.arg("tool").args(arguments))
    }

    fn tool(&self, host: &Namespace, arguments: &[&str]) -> Result<Process> {
        let mut tool = self.start_tool(host, arguments)?;
        tool.wait_for("ready", PATIENCE)?;
        Ok(tool)
    }

    fn iperf_server(&self, host: &Namespace, port: u16) -> Result<Process> {
        let words = ["iperf3", "--server", "--forceflush", "--port", &port.to_string()].map(str::to_owned);
        let mut server = self.start("iperf3", host, &words)?;
        server.wait_for("listening", PATIENCE)?;
        Ok(server)
    }

    /// Intermediate, connector and agent.
    fn product(&self, client: &Namespace, relay: &Namespace, private: &Namespace) -> Result<[Process; 3]> {
        let services = [BULK, FAST, HOLE, IDLE];
        let claims = |flag: &str| crate::lab::world::claims(flag, &services);
        let pki = self.scratch.path().join("pki");
        self.programs.make_authority(&pki)?;
        let server = ["--server".to_owned(), INTERMEDIATE.to_string()];
        self.programs.issue(&pki, "intermediate", &server)?;
        self.programs.issue(&pki, "agent", &claims("--agent"))?;
        self.programs.issue(&pki, "connector", &claims("--connector"))?;
        let config = self.config("intermediate", &programs::intermediate_config(&pki))?;
        let mut intermediate = self.start("intermediate", relay, &self.programs.intermediate(&config))?;
        intermediate.wait_for("ztna-intermediate ready", PATIENCE)?;
        let config = self.config("connector", &programs::connector_config(&pki, &services))?;
        let mut connector = self.start("connector", private, &self.programs.connector(&config))?;
        connector.wait_for("registered 4 of 4 services", PATIENCE)?;
        let config = self.config("agent", &programs::agent_config(&pki, "agent", &services))?;
        let mut agent = self.start("agent", client, &self.programs.agent(&config))?;
        agent.wait_for("registered 4 of 4 services", PATIENCE)?;
        Ok([intermediate, connector, agent])
    }

    fn config(&self, name: &str, config: &Value) -> Result<PathBuf> {
        self.scratch
            .write(&format!("{name}.json"), &format!("{config:#}"))
    }

    /// `WireGuard` from the client to the private host, past the relay.
    fn boringtun(&self, program: &Path, client: &Namespace, private: &Namespace) -> Result<Vec<Process>> {
        let mut keys = Vec::new();
        for name in ["wg-client", "wg-private"] {
            let key = output(Command::new("wg").arg("genkey"))?;
            let path = self.scratch.write(name, &key)?;
            let script = format!("wg pubkey < {}", path.display());
            let public = output(Command::new("sh").args(["-c", &script]))?;
            keys.push((path, public.trim().to_owned()));
        }
        let ends = [
            (client, "192.0.2.1", "10.97.0.1"),
            (private, "192.0.2.2", "10.97.0.2"),
        ];
        let mut processes = Vec::new();
        for (own, (host, _, inner)) in ends.iter().enumerate() {
            let (_, other, other_inner) = ends[1 - own];
            // The control socket's name is that of the interface, for the whole machine.
            let name = format!("zt{}{own}", std::process::id() % 1_000_000);
            let mut command = host.command(program);
            command.args(["--foreground", "--disable-drop-privileges", &name]);
            let process = Process::start("boringtun", self.scratch.path(), &mut command)?;
            let socket = format!("/var/run/wireguard/{name}.sock");
            crate::lab::wait_until("boringtun", PATIENCE, || {
                Ok(Path::new(&socket).exists().then_some(()))
            })?;
            let key = keys[own].0.display().to_string();
            let (peer, endpoint) = (&keys[1 - own].1, format!("{other}:51820"));
            let allowed = format!("{other_inner}/32");
            output(host.command("wg").args([
                "set",
                &name,
                "listen-port",
                "51820",
                "private-key",
                &key,
                "peer",
                peer,
                "endpoint",
                &endpoint,
                "allowed-ips",
                &allowed,
            ]))?;
            host.ip(&format!("address add {inner}/24 dev {name}"))?;
            // wg-quick's choice over links of 1,500.
            host.ip(&format!("link set {name} mtu 1420 up"))?;
            processes.push(process);
        }
        Ok(processes)
    }
}
