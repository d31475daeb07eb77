//! The product in its place: an authority, an intermediate, a connector with its backends, and devices with agents.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::namespace::Namespace;
use super::process::Process;
use super::programs::{self, ALL, ECHO, OTHER, PUBLISHED, Programs, Service, WEB};
use super::scratch::Scratch;
use super::site::{INTERMEDIATE, Site};
use crate::tool::flow::Account;

/// How long a program may take to be ready, or to be back. Reconnection is capped at 8 s with jitter; a busy machine
/// adds its share.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// Everything, running. Dropped in this order: processes, namespaces, files.
#[derive(Debug)]
pub(crate) struct World {
    /// The intermediate, while it runs.
    pub(crate) intermediate: Option<Process>,
    /// The connector, while it runs.
    pub(crate) connector: Option<Process>,
    /// The agents that run, by device.
    pub(crate) agents: BTreeMap<u8, Process>,
    backends: Vec<Process>,
    /// What the connector publishes.
    published: Vec<Service>,
    /// What an ordinary device asks for.
    asked: Vec<Service>,
    /// Whether services have IPv6 addresses too.
    six: bool,
    /// How agents are told that packets may travel, if they are told.
    pub(crate) paths: Option<&'static str>,
    /// The network.
    pub(crate) site: Site,
    /// The executables.
    pub(crate) programs: Programs,
    scratch: Scratch,
    notes: Vec<String>,
}

impl World {
    /// Namespaces and backends, without the product.
    pub(crate) fn bare(programs: Programs, devices: u8, scratch: Scratch) -> Result<Self> {
        let mut world = Self {
            intermediate: None,
            connector: None,
            agents: BTreeMap::new(),
            backends: Vec::new(),
            published: PUBLISHED.to_vec(),
            asked: ALL.to_vec(),
            six: false,
            paths: None,
            site: Site::new(devices)?,
            programs,
            scratch,
            notes: Vec::new(),
        };
        world.start_backends()?;
        Ok(world)
    }

    /// Everything, with an agent on device 1.
    pub(crate) fn new(programs: Programs, devices: u8, scratch: Scratch) -> Result<Self> {
        Self::serving(programs, devices, scratch, &[])
    }

    /// The same with more services, whose backends are the caller's to start. If there are any, all have IPv6 addresses too.
    pub(crate) fn serving(
        programs: Programs,
        devices: u8,
        scratch: Scratch,
        more: &[Service],
    ) -> Result<Self> {
        let mut world = Self::bare(programs, devices, scratch)?;
        world.published.extend_from_slice(more);
        world.asked.extend_from_slice(more);
        world.six = !more.is_empty();
        world.make_keys(devices)?;
        world.start_intermediate()?;
        world.start_connector()?;
        world.start_agent(1)?;
        Ok(world)
    }

    fn start_backends(&mut self) -> Result<()> {
        for (service, tool) in [(ECHO, "udp-echo"), (OTHER, "udp-echo"), (WEB, "http")] {
            let bind = format!("0.0.0.0:{}", service.port);
            // One address each where the address is the point, all addresses where the comparison cable ends.
            let bind = if service == OTHER {
                format!("{}:{}", service.backend, service.port)
            } else {
                bind
            };
            let words = ["tool", tool, "--bind", &bind, "--name", service.id];
            let mut command = self.site.private.command(self.programs.instruments());
            let name = format!("backend-{}", service.id);
            let mut backend = Process::start(&name, self.scratch.path(), command.args(words))?;
            backend.wait_for("ready on", PATIENCE)?;
            self.backends.push(backend);
        }
        Ok(())
    }

    /// Makes an authority and a certificate for every program.
    pub(crate) fn make_keys(&self, devices: u8) -> Result<()> {
        let pki = self.pki();
        self.programs.make_authority(&pki)?;
        self.programs.issue(
            &pki,
            "intermediate",
            &words(&["--server", &INTERMEDIATE.to_string()]),
        )?;
        self.programs
            .issue(&pki, "connector", &claims("--connector", &self.published))?;
        for device in 1..=devices {
            self.programs
                .issue(&pki, &format!("device{device}"), &claims("--agent", &self.asked))?;
        }
        Ok(())
    }

    /// The folder of this world.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Where the certificates are.
    pub(crate) fn pki(&self) -> PathBuf {
        self.scratch.path().join("pki")
    }

    /// Writes a configuration file.
    pub(crate) fn write_config(&self, name: &str, config: &Value) -> Result<PathBuf> {
        self.scratch
            .write(&format!("{name}.json"), &format!("{config:#}"))
    }

    /// Writes any other file.
    pub(crate) fn write_text(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.scratch.write(name, text)
    }

    /// Starts the intermediate and waits until it listens.
    pub(crate) fn start_intermediate(&mut self) -> Result<Duration> {
        let config = self.write_config("intermediate", &programs::intermediate_config(&self.pki()))?;
        let words = self.programs.intermediate(&config);
        let mut process = self.start("intermediate", &self.site.public, &words)?;
        let (_, took) = process.wait_for("ztna-intermediate ready", PATIENCE)?;
        self.intermediate = Some(process);
        Ok(took)
    }

    /// Starts the connector and waits until all its services are registered.
    pub(crate) fn start_connector(&mut self) -> Result<Duration> {
        let config = programs::connector_config(&self.pki(), &self.published);
        let config = self.write_config("connector", &self.with_six(config))?;
        let words = self.programs.connector(&config);
        let mut process = self.start("connector", &self.site.private, &words)?;
        let all = self.published.len();
        let (_, took) = process.wait_for(&format!("registered {all} of {all} services"), PATIENCE)?;
        self.connector = Some(process);
        Ok(took)
    }

    /// Starts the agent of a device and waits until it is registered.
    pub(crate) fn start_agent(&mut self, device: u8) -> Result<Duration> {
        let mut process = self.start_agent_with(device, &format!("device{device}"), &self.asked)?;
        let all = self.asked.len();
        let (_, took) = process.wait_for(&format!("registered {all} of {all} services"), PATIENCE)?;
        self.agents.insert(device, process);
        Ok(took)
    }

    /// Starts an agent with the certificate `identity` for `services`, and does not wait for anything.
    pub(crate) fn start_agent_with(
        &self,
        device: u8,
        identity: &str,
        services: &[Service],
    ) -> Result<Process> {
        let name = format!("agent{device}");
        let mut config = programs::agent_config(&self.pki(), identity, services);
        if let (Some(paths), Some(members)) = (self.paths, config.as_object_mut()) {
            members.insert("paths".to_owned(), paths.into());
        }
        let config = self.write_config(&name, &self.with_six(config))?;
        let words = self.programs.agent(&config);
        self.start(&name, self.device(device)?, &words)
    }

    /// Every service of a configuration with its IPv6 address beside the other.
    fn with_six(&self, mut config: Value) -> Value {
        let services = config.get_mut("services").and_then(Value::as_array_mut);
        for service in services.into_iter().flatten().filter(|_| self.six) {
            let address = service.get("virtualIp").cloned().unwrap_or_default();
            let six = address
                .as_str()
                .and_then(|text| text.parse().ok())
                .map(programs::six);
            if let Some(member) = service.get_mut("virtualIp") {
                *member = serde_json::json!([address, six]);
            }
        }
        config
    }

    /// The namespace of a device.
    pub(crate) fn device(&self, device: u8) -> Result<&Namespace> {
        self.site
            .devices
            .get(usize::from(device) - 1)
            .with_context(|| format!("there is no device {device}"))
    }

    /// Starts `words` in a namespace.
    pub(crate) fn start(&self, name: &str, namespace: &Namespace, words: &[String]) -> Result<Process> {
        let Some((program, arguments)) = words.split_first() else {
            bail!("nothing to start");
        };
        Process::start(
            name,
            self.scratch.path(),
            namespace.command(program).args(arguments),
        )
    }

    /// Starts an instrument on a device.
    pub(crate) fn start_tool(&self, device: u8, arguments: &[&str]) -> Result<Process> {
        let mut command = self.device(device)?.command(self.programs.instruments());
        let name = format!("{}-{device}", arguments.first().unwrap_or(&"tool"));
        Process::start(&name, self.scratch.path(), command.arg("tool").args(arguments))
    }

    /// Runs an instrument on a device to its end; the text is what it printed, the flag whether it was content.
    pub(crate) fn run_tool(
        &self,
        device: u8,
        arguments: &[&str],
        patience: Duration,
    ) -> Result<(bool, String)> {
        let mut process = self.start_tool(device, arguments)?;
        let status = process.wait(patience)?;
        Ok((status.success(), process.log()))
    }

    /// Runs any program on a device to its end.
    pub(crate) fn run(&self, device: u8, words: &str, patience: Duration) -> Result<(bool, String)> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let name = format!("{}-{device}", words.first().map_or("", String::as_str));
        let mut process = self.start(&name, self.device(device)?, &words)?;
        let status = process.wait(patience)?;
        Ok((status.success(), process.log()))
    }

    /// Starts a flow of echoes from a device and waits for the first reply.
    pub(crate) fn start_flow(&self, device: u8, to: SocketAddr, rate: u32) -> Result<Process> {
        let (to, rate, id) = (to.to_string(), rate.to_string(), device.to_string());
        let mut flow = self.start_tool(device, &["udp-flow", "--to", &to, "--rate", &rate, "--id", &id])?;
        flow.wait_for("first reply", PATIENCE)?;
        Ok(flow)
    }

    /// The ends of the logs of everything that runs, for whoever has to explain a failure.
    pub(crate) fn last_words(&self) -> String {
        let programs = self
            .intermediate
            .iter()
            .chain(self.connector.iter())
            .chain(self.agents.get(&1));
        programs.map(Process::last_words).collect()
    }

    /// Something to print beside a test's result.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What was noted since this was last asked.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

/// Ends a flow and reads its account.
pub(crate) fn finish_flow(mut flow: Process) -> Result<Account> {
    flow.hang_up(PATIENCE)?;
    let log = flow.log();
    log.lines()
        .find(|line| line.starts_with("flow "))
        .context("the flow gave no account")?
        .parse()
}

/// The claims of a certificate for `services`.
pub(crate) fn claims(flag: &str, services: &[Service]) -> Vec<String> {
    services
        .iter()
        .flat_map(|service| [flag.to_owned(), service.id.to_owned()])
        .collect()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
