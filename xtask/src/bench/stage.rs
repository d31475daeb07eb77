//! Where measurements play: a device, a relay and a private host, and the processes on them.
//!
//! ```text
//!  client 10.21.0.2 ── 10.21.0.1 relay (198.51.100.1) 10.20.0.1 ── 10.20.0.2 private
//!         192.0.2.1 ────────────────────────────────────────────── 192.0.2.2
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::talk::Talk;
use crate::lab::namespace::Namespace;
use crate::lab::process::Process;
use crate::lab::programs::{self, ECHO, PORT, Programs};
use crate::lab::scratch::Scratch;
use crate::lab::site::{CABLE, INTERMEDIATE, PRIVATE};
use crate::lab::world::PATIENCE;

/// The service whose packets are only counted.
const SINK: &str = "sink";
/// The service that `ztna-load` itself sends back.
const MIRROR: &str = "mirror";
/// The service whose packets travel in relay channels.
const CHANNEL: &str = "channel";
/// The port of the relay that idle clients burden.
const BURDENED_PORT: u16 = PORT + 10;
/// The port of the relay that idle clients of v2 burden.
const HELD_PORT: u16 = PORT + 20;
/// A plain receiver that counts.
const COUNTING: u16 = 6_000;
/// A plain receiver that sends back, on every address of the private host.
const RETURNING: u16 = 6_001;
/// How many agents send.
const AGENTS: &str = "4";

/// A relay and one-way load on it.
#[derive(Debug)]
pub(super) struct Relayed {
    /// The intermediate.
    pub(super) relay: Process,
    /// Agents whose packets are only counted.
    pub(super) agents: Talk,
    /// The connector that counts them.
    pub(super) sink: Talk,
}

/// Frames in relay channels.
#[derive(Debug)]
pub(super) struct Channels {
    /// Agents that send frames.
    pub(super) agents: Talk,
    /// The connector that counts them.
    pub(super) sink: Talk,
}

/// A relay for clients of v2 that only stay.
#[derive(Debug)]
pub(super) struct Held {
    /// The intermediate.
    pub(super) relay: Process,
    /// A few clients with channels.
    pub(super) channels: Channels,
    /// Many without.
    pub(super) idle: Talk,
}

/// A plain forwarder and load on it.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The forwarder.
    pub(super) forwarder: Talk,
    /// Who sends through it.
    pub(super) sender: Talk,
}

/// Everything, running. Dropped in this order: processes, namespaces, files.
#[derive(Debug)]
pub(super) struct Stage {
    /// The relay, without idle clients.
    pub(super) relayed: Relayed,
    /// The same, for idle clients to burden.
    pub(super) burdened: Relayed,
    /// Agents of v2 and their connector, with channels through the first relay.
    pub(super) channels: Channels,
    /// The same with a relay of its own, for idle clients of v2.
    pub(super) held: Held,
    /// Agents whose packets `ztna-load` sends back, through the first relay.
    pub(super) mirrored: Talk,
    /// Agents whose packets go through the real connector to a backend and back.
    pub(super) whole: Talk,
    /// The real connector.
    pub(super) connector: Process,
    /// The real agent.
    pub(super) agent: Process,
    /// A program of a host behind the real agent.
    pub(super) tunnelled: Talk,
    /// By batches, one way.
    pub(super) batches: Forwarded,
    /// By single datagrams, one way.
    pub(super) singles: Forwarded,
    /// By batches, and back.
    pub(super) returned: Forwarded,
    /// What one-way packets of the forwarders reach.
    pub(super) counting: Talk,
    /// Past everything.
    pub(super) direct: Talk,
    /// The relay in memory.
    pub(super) memory: Talk,
    _others: Vec<Talk>,
    _namespaces: [Namespace; 3],
    _scratch: Scratch,
}

impl Stage {
    /// Builds all of it.
    pub(super) fn new(programs: &Programs, load: &Path, scratch: Scratch) -> Result<Self> {
        let namespaces = namespaces()?;
        let hands = Hands {
            programs,
            load,
            scratch: &scratch,
            namespaces: &namespaces,
        };
        hands.make_keys()?;
        let relayed = hands.relayed("relay", PORT)?;
        let burdened = hands.relayed("relay-burdened", BURDENED_PORT)?;
        let channels = hands.channels(PORT)?;
        let held = hands.held("relay-held", HELD_PORT)?;
        let backend = format!("{PRIVATE}:{}", ECHO.port);
        let returning = format!("0.0.0.0:{RETURNING}");
        let others = vec![
            hands.connector(MIRROR, PORT, &["--echo"])?,
            hands.load(PRIVATE_HOST, &["receiver", "--echo", "--listen", &backend])?,
            hands.load(PRIVATE_HOST, &["receiver", "--echo", "--listen", &returning])?,
        ];
        let target = format!("{}:{}", ECHO.address, ECHO.port);
        let counting = format!("{PRIVATE}:{COUNTING}");
        let stage = Self {
            mirrored: hands.agents(MIRROR, PORT, &[])?,
            connector: hands.real_connector()?,
            whole: hands.agents(ECHO.id, PORT, &["--target", &target])?,
            agent: hands.real_agent()?,
            tunnelled: hands.udp(&target, "0.0.0.0", "segments")?,
            counting: hands.load(PRIVATE_HOST, &["receiver", "--listen", &counting])?,
            batches: hands.forwarded(5_000, COUNTING, "segments")?,
            singles: hands.forwarded(5_001, COUNTING, "none")?,
            returned: hands.forwarded(5_002, RETURNING, "segments")?,
            direct: hands.udp(&format!("{CABLE}:{RETURNING}"), "192.0.2.1", "segments")?,
            memory: hands.load(RELAY, &["memory"])?,
            relayed,
            burdened,
            channels,
            held,
            _others: others,
            _namespaces: namespaces,
            _scratch: scratch,
        };
        Ok(stage)
    }

    /// The processes that stand for a relay or forwarder, which measurements at saturation give a processor of their own.
    pub(super) fn middles(&self) -> Vec<u32> {
        vec![
            self.relayed.relay.id(),
            self.burdened.relay.id(),
            self.batches.forwarder.id(),
            self.singles.forwarder.id(),
            self.returned.forwarder.id(),
            self.memory.id(),
        ]
    }

    /// The processes at the ends of what is measured at saturation.
    pub(super) fn ends(&self) -> Vec<u32> {
        vec![
            self.relayed.agents.id(),
            self.relayed.sink.id(),
            self.burdened.agents.id(),
            self.burdened.sink.id(),
            self.batches.sender.id(),
            self.singles.sender.id(),
            self.counting.id(),
            self.channels.agents.id(),
            self.channels.sink.id(),
        ]
    }
}

/// Places in the array of namespaces.
const CLIENT: usize = 0;
const RELAY: usize = 1;
const PRIVATE_HOST: usize = 2;

fn namespaces() -> Result<[Namespace; 3]> {
    let (client, relay, private) = (
        Namespace::new("client")?,
        Namespace::new("relay")?,
        Namespace::new("private")?,
    );
    relay.ip(&format!("address add {INTERMEDIATE}/32 dev lo"))?;
    for (host, port, net) in [(&client, "client", 21), (&private, "private", 20)] {
        host.cable("eth0", &relay, port)?;
        relay.ip(&format!("address add 10.{net}.0.1/24 dev {port}"))?;
        host.ip(&format!("address add 10.{net}.0.2/24 dev eth0"))?;
        host.ip(&format!("route add default via 10.{net}.0.1"))?;
    }
    client.cable("past", &private, "past")?;
    client.ip("address add 192.0.2.1/24 dev past")?;
    private.ip(&format!("address add {CABLE}/24 dev past"))?;
    Ok([client, relay, private])
}

/// Starts everything.
struct Hands<'a> {
    programs: &'a Programs,
    load: &'a Path,
    scratch: &'a Scratch,
    namespaces: &'a [Namespace; 3],
}

impl Hands<'_> {
    fn pki(&self) -> PathBuf {
        self.scratch.path().join("pki")
    }

    fn make_keys(&self) -> Result<()> {
        let claims = |flag: &str| -> Vec<String> {
            let services = [SINK, MIRROR, CHANNEL, ECHO.id];
            services
                .iter()
                .flat_map(|service| [flag.to_owned(), (*service).to_owned()])
                .collect()
        };
        let pki = self.pki();
        self.programs.make_authority(&pki)?;
        let server = ["--server".to_owned(), INTERMEDIATE.to_string()];
        self.programs.issue(&pki, "intermediate", &server)?;
        self.programs.issue(&pki, "agent", &claims("--agent"))?;
        self.programs.issue(&pki, "connector", &claims("--connector"))
    }

    /// One of the product's programs.
    fn program(&self, name: &str, host: usize, words: &[String]) -> Result<Process> {
        let (program, arguments) = words.split_first().context("nothing to start")?;
        let mut command = self.namespaces[host].command(program);
        Process::start(name, self.scratch.path(), command.args(arguments))
    }

    fn config(&self, name: &str, config: &Value) -> Result<PathBuf> {
        self.scratch
            .write(&format!("{name}.json"), &format!("{config:#}"))
    }

    fn relay(&self, name: &str, port: u16) -> Result<Process> {
        let mut config = programs::intermediate_config(&self.pki());
        config["port"] = json!(port);
        config["metrics_port"] = json!(port + 5_000);
        let config = self.config(name, &config)?;
        let mut relay = self.program(name, RELAY, &self.programs.intermediate(&config))?;
        relay.wait_for("ztna-intermediate ready", PATIENCE)?;
        Ok(relay)
    }

    fn relayed(&self, name: &str, port: u16) -> Result<Relayed> {
        Ok(Relayed {
            relay: self.relay(name, port)?,
            sink: self.connector(SINK, port, &[])?,
            agents: self.agents(SINK, port, &[])?,
        })
    }

    fn channels(&self, port: u16) -> Result<Channels> {
        Ok(Channels {
            sink: self.connector(CHANNEL, port, &["--v2"])?,
            agents: self.client("channels", CHANNEL, port, &["--agents", AGENTS])?,
        })
    }

    fn held(&self, name: &str, port: u16) -> Result<Held> {
        Ok(Held {
            relay: self.relay(name, port)?,
            channels: self.channels(port)?,
            idle: self.client("agents", CHANNEL, port, &["--agents", "1", "--v2"])?,
        })
    }

    fn real_connector(&self) -> Result<Process> {
        let config = self.config("connector", &programs::connector_config(&self.pki(), &[ECHO]))?;
        let mut connector = self.program("connector", PRIVATE_HOST, &self.programs.connector(&config))?;
        connector.wait_for("registered 1 of 1 services", PATIENCE)?;
        Ok(connector)
    }

    fn real_agent(&self) -> Result<Process> {
        let config = self.config("agent", &programs::agent_config(&self.pki(), "agent", &[ECHO]))?;
        let mut agent = self.program("agent", CLIENT, &self.programs.agent(&config))?;
        agent.wait_for("ztna registered", PATIENCE)?;
        Ok(agent)
    }

    /// An instrument.
    fn load(&self, host: usize, words: &[&str]) -> Result<Talk> {
        let name = words.join(" ");
        Talk::start(&name, self.namespaces[host].command(self.load).args(words))
    }

    /// A client of a relay.
    fn client(&self, kind: &str, service: &str, port: u16, more: &[&str]) -> Result<Talk> {
        let (host, bind) = if matches!(kind, "agents" | "channels") {
            (CLIENT, "10.21.0.2")
        } else {
            (PRIVATE_HOST, "10.20.0.2")
        };
        let (relay, pki) = (format!("{INTERMEDIATE}:{port}"), self.pki().display().to_string());
        let words = [
            kind,
            "--relay",
            &relay,
            "--bind",
            bind,
            "--pki",
            &pki,
            "--service",
            service,
        ];
        self.load(host, &[&words, more].concat())
    }

    fn connector(&self, service: &str, port: u16, more: &[&str]) -> Result<Talk> {
        self.client("connector", service, port, more)
    }

    fn agents(&self, service: &str, port: u16, more: &[&str]) -> Result<Talk> {
        self.client("agents", service, port, &[&["--agents", AGENTS], more].concat())
    }

    fn udp(&self, to: &str, bind: &str, offload: &str) -> Result<Talk> {
        let words = [
            "udp",
            "--to",
            to,
            "--bind",
            bind,
            "--offload",
            offload,
            "--senders",
            AGENTS,
        ];
        self.load(CLIENT, &words)
    }

    fn forwarded(&self, port: u16, to: u16, offload: &str) -> Result<Forwarded> {
        let (listen, to) = (format!("0.0.0.0:{port}"), format!("{PRIVATE}:{to}"));
        let words = ["forward", "--listen", &listen, "--to", &to, "--offload", offload];
        Ok(Forwarded {
            forwarder: self.load(RELAY, &words)?,
            // A forwarder of single datagrams under super-packets would do nothing but drop what the kernel splits.
            sender: self.udp(&format!("{INTERMEDIATE}:{port}"), "10.21.0.2", offload)?,
        })
    }
}
