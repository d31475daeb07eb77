//! The product between two translators: an agent on host a, a connector and an echo server on host b, an intermediate.
//!
//! Which way packets took is seen by the time that echoes take ([`super::neighbourhood`]), and not by what the programs say.

pub(crate) mod run;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::namespace::Namespace;
use super::nat::{Nat, can_meet};
use super::neighbourhood::Neighbourhood;
use super::process::Process;
use super::programs::{self, ECHO, Programs, Service};
use super::scratch::Scratch;
use super::site::INTERMEDIATE;
use super::world::{PATIENCE, claims};

/// The limit below which an echo was direct in both directions: 20 ms there and back, and 30 if one of them used the relay.
const QUICK: &str = "30";

/// Where the agent tells its figures.
const AGENT_HEALTH: u16 = 9092;

/// The echo server, on the connector's host itself.
const SERVICE: Service = Service {
    backend: Ipv4Addr::LOCALHOST,
    ..ECHO
};

/// Everything, running. Dropped in this order: processes, namespaces, files.
#[derive(Debug)]
pub(crate) struct Stage {
    agent: Option<Process>,
    connector: Process,
    intermediate: Process,
    _backend: Process,
    neighbourhood: Neighbourhood,
    programs: Programs,
    scratch: Scratch,
}

impl Stage {
    /// Builds it with these kinds of translators and starts all but the agent; `more` says what the lines do beside taking
    /// their time (`crate::tool::wire`).
    pub(crate) fn new(a: Nat, b: Nat, more: &str, programs: &Programs, scratch: Scratch) -> Result<Self> {
        let folder = scratch.path();
        let mut neighbourhood = Neighbourhood::new(a, b, programs, folder)?;
        neighbourhood.lengthen(more)?;
        let pki = folder.join("pki");
        programs.make_authority(&pki)?;
        let server = ["--server".to_owned(), INTERMEDIATE.to_string()];
        programs.issue(&pki, "intermediate", &server)?;
        programs.issue(&pki, "connector", &claims("--connector", &[SERVICE]))?;
        programs.issue(&pki, "device", &claims("--agent", &[SERVICE]))?;
        let config = |name: &str, config: &serde_json::Value| {
            scratch.write(&format!("{name}.json"), &format!("{config:#}"))
        };

        let (relay, host) = (&neighbourhood.relay, &neighbourhood.b.host);
        let words = programs.intermediate(&config("intermediate", &programs::intermediate_config(&pki))?);
        let mut intermediate = start("intermediate", folder, relay, &words)?;
        intermediate.wait_for("ztna-intermediate ready", PATIENCE)?;

        let bind = format!("{}:{}", SERVICE.backend, SERVICE.port);
        let words = ["tool", "udp-echo", "--bind", &bind].map(str::to_owned);
        let words = [vec![programs.instruments().display().to_string()], words.to_vec()].concat();
        let mut backend = start("backend", folder, host, &words)?;
        backend.wait_for("ready on", PATIENCE)?;

        let words = programs.connector(&config(
            "connector",
            &programs::connector_config(&pki, &[SERVICE]),
        )?);
        let mut connector = start("connector", folder, host, &words)?;
        if b != Nat::UdpBlocked {
            connector.wait_for("registered 1 of 1 services", PATIENCE)?;
        }

        let mut agent = programs::agent_config(&pki, "device", &[SERVICE]);
        if let Some(members) = agent.as_object_mut() {
            members.insert("metrics_port".to_owned(), json!(AGENT_HEALTH));
        }
        config("agent", &agent)?;
        Ok(Self {
            agent: None,
            connector,
            intermediate,
            _backend: backend,
            neighbourhood,
            programs: programs.clone(),
            scratch,
        })
    }

    /// Starts an agent, with a socket that no translator has seen, and waits until it is registered.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        let folder = self.scratch.path();
        let words = self.programs.agent(&folder.join("agent.json"));
        let mut agent = start("agent", folder, &self.neighbourhood.a.host, &words)?;
        if self.neighbourhood.a.nat == Nat::UdpBlocked {
            agent.wait_for("ztna0", PATIENCE)?;
        } else {
            agent.wait_for("registered 1 of 1 services", PATIENCE)?;
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Ends the agent in order.
    pub(crate) fn stop_agent(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        agent.signal(Signal::TERM)?;
        let status = agent.wait(PATIENCE)?;
        if status.code() != Some(0) {
            bail!("the agent ended with {status}{}", agent.last_words());
        }
        Ok(())
    }

    /// Starts a steady pace of echoes to the service.
    pub(crate) fn start_pace(&self, rate: u32) -> Result<Process> {
        let (to, rate) = (format!("{}:{}", SERVICE.address, SERVICE.port), rate.to_string());
        let words = [
            "tool",
            "udp-pace",
            "--to",
            &to,
            "--rate",
            &rate,
            "--quick-below",
            QUICK,
        ];
        let mut command = self.neighbourhood.a.host.command(self.programs.instruments());
        Process::start("pace", self.scratch.path(), command.args(words))
    }

    /// What the agent says of its path.
    pub(crate) fn report(&self) -> Result<Report> {
        let url = format!("http://127.0.0.1:{AGENT_HEALTH}/metrics");
        let mut curl = self.neighbourhood.a.host.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "3", &url]);
        Ok(Report::read(&crate::command::output(&mut curl)?))
    }

    /// Whether theory allows a direct way.
    fn can_meet(&self) -> bool {
        can_meet(self.neighbourhood.a.nat, self.neighbourhood.b.nat)
    }

    /// Whether there is no way at all: everything here travels in UDP.
    fn is_hopeless(&self) -> bool {
        let Neighbourhood { a, b, .. } = &self.neighbourhood;
        [a.nat, b.nat].contains(&Nat::UdpBlocked)
    }

    /// The ends of all logs.
    pub(crate) fn last_words(&self) -> String {
        let all = [&self.intermediate, &self.connector];
        all.into_iter()
            .chain(&self.agent)
            .map(Process::last_words)
            .collect()
    }
}

fn start(name: &str, folder: &Path, namespace: &Namespace, words: &[String]) -> Result<Process> {
    let (program, arguments) = words.split_first().context("nothing to start")?;
    Process::start(name, folder, namespace.command(program).args(arguments))
}

/// What an agent says of its way to the service. The one place that knows the names of its metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// `direct`, `relayed`, `wrapped` or `none`.
    pub(crate) path: Option<String>,
    /// From the first packet to the first direct connection, of the latest session.
    pub(crate) time_to_direct: Option<Duration>,
    /// The same from the word that set the beginning of the search, of the latest search.
    pub(crate) search: Option<Duration>,
}

impl Report {
    /// From the text of `/metrics`.
    pub(crate) fn read(text: &str) -> Self {
        let path = text.lines().find_map(|line| {
            let (labels, value) = line.strip_prefix("ztna_agent_service_path{")?.split_once("} ")?;
            let path = labels.split("path=\"").nth(1)?.split('"').next()?;
            (value.trim() == "1").then(|| path.to_owned())
        });
        let time = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| {
                let seconds: f64 = line.strip_prefix(name)?.trim().parse().ok()?;
                // Zero stands for a session that has not been direct.
                (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok())?
            })
        };
        Self {
            path,
            time_to_direct: time("ztna_agent_time_to_direct_seconds "),
            search: time("ztna_agent_search_seconds "),
        }
    }
}
