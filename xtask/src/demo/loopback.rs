//! What can be shown without root: the intermediate and the connector on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::rootless;
use super::stage::Show;
use crate::lab::process::Process;
use crate::lab::programs::{self, ECHO, PUBLISHED, Programs, Service, WEB};
use crate::lab::scratch::Scratch;
use crate::lab::wait_until;
use crate::lab::world::{PATIENCE, claims};

/// The two programs and their ports.
struct Stand<'a> {
    programs: &'a Programs,
    scratch: &'a Scratch,
    port: u16,
    health: [u16; 2],
}

/// Plays it.
pub(super) fn play(show: &mut Show, programs: &Programs, scratch: &Scratch) {
    let Some(stand) = show.step(
        "a development authority, and a certificate for each program",
        |_| {
            programs.check()?;
            let stand = Stand {
                programs,
                scratch,
                port: free_udp_port()?,
                health: [free_tcp_port()?, free_tcp_port()?],
            };
            let pki = stand.pki();
            programs.make_authority(&pki)?;
            let server = ["--server", "127.0.0.1"].map(str::to_owned);
            programs.issue(&pki, "intermediate", &server)?;
            programs.issue(&pki, "connector", &claims("--connector", &PUBLISHED))?;
            programs.issue(&pki, "device", &claims("--agent", &PUBLISHED))?;
            Ok(stand)
        },
    ) else {
        return;
    };
    let Some(mut intermediate) = show.step("the intermediate listens", |_| stand.start_intermediate()) else {
        return;
    };
    let Some((_web, services)) = show.step("a web server, as private as loopback can be", |_| {
        stand.start_web()
    }) else {
        return;
    };
    let connector = show.step("the connector registers its services", |_| {
        let mut config = programs::connector_config(&stand.pki(), &services);
        set(
            &mut config,
            "intermediate_server",
            json!({ "host": "127.0.0.1", "port": stand.port }),
        );
        set(&mut config, "metrics_port", json!(stand.health[1]));
        let config = scratch.write("connector.json", &format!("{config:#}"))?;
        let mut process = start("connector", scratch, &programs.connector(&config))?;
        process.wait_for("registered 2 of 2 services", PATIENCE)?;
        wait_health(stand.health[1])?;
        Ok(process)
    });
    let Some(mut connector) = connector else {
        return;
    };
    without_root(show, &stand, &services);
    let again = show.step(
        "the intermediate is killed and started again; the connector comes back by itself",
        |show| {
            intermediate.signal(Signal::KILL)?;
            intermediate.wait(PATIENCE)?;
            let process = stand.start_intermediate()?;
            let took = wait_for_page(stand.health[0], "/metrics", "\nztna_connectors 1\n")?;
            wait_health(stand.health[1])?;
            show.say(format!(
                "registered with the new one after {:.1} s",
                took.as_secs_f32()
            ));
            Ok(process)
        },
    );
    let Some(mut intermediate) = again else {
        return;
    };
    show.step("both leave politely", |_| {
        for process in [&mut connector, &mut intermediate] {
            process.signal(Signal::TERM)?;
            let status = process.wait(PATIENCE)?;
            ensure!(
                status.code() == Some(0),
                "ended with {status}{}",
                process.last_words()
            );
        }
        Ok(())
    });
}

fn without_root(show: &mut Show, stand: &Stand<'_>, services: &[Service; 2]) {
    if Command::new("curl").arg("--version").output().is_err() {
        show.headline("curl is not installed: services without root are not shown");
        return;
    }
    let mut config = programs::agent_config(&stand.pki(), "device", services);
    let server = json!({ "host": "127.0.0.1", "port": stand.port });
    set(&mut config, "intermediate_server", server);
    let config = show.step("a configuration for an agent", |_| {
        stand.scratch.write("device.json", &format!("{config:#}"))
    });
    if let Some(config) = config {
        let ground = rootless::Ground {
            programs: stand.programs,
            config: &config,
            port: services[1].port,
            start: &|name, words| start(name, stand.scratch, words),
        };
        rootless::play(show, &ground);
    }
}

impl Stand<'_> {
    /// A web server; also gives the services with what is behind each here.
    fn start_web(&self) -> Result<(Process, [Service; 2])> {
        let here = |service| Service {
            backend: Ipv4Addr::LOCALHOST,
            ..service
        };
        let web = Service {
            port: free_tcp_port()?,
            ..here(WEB)
        };
        let bind = format!("{}:{}", web.backend, web.port);
        let mut command = Command::new(self.programs.instruments());
        command.args(["tool", "http", "--bind", &bind, "--name", "web"]);
        let mut process = Process::start("web", self.scratch.path(), &mut command)?;
        process.wait_for("ready on", PATIENCE)?;
        Ok((process, [here(ECHO), web]))
    }

    fn pki(&self) -> PathBuf {
        self.scratch.path().join("pki")
    }

    fn start_intermediate(&self) -> Result<Process> {
        let mut config = programs::intermediate_config(&self.pki());
        set(&mut config, "bind_addr", json!("127.0.0.1"));
        set(&mut config, "port", json!(self.port));
        set(&mut config, "metrics_port", json!(self.health[0]));
        let config = self.scratch.write("intermediate.json", &format!("{config:#}"))?;
        let mut process = start("intermediate", self.scratch, &self.programs.intermediate(&config))?;
        process.wait_for("ztna-intermediate ready", PATIENCE)?;
        wait_health(self.health[0])?;
        Ok(process)
    }
}

fn start(name: &str, scratch: &Scratch, words: &[String]) -> Result<Process> {
    let (program, arguments) = words.split_first().context("nothing to start")?;
    Process::start(name, scratch.path(), Command::new(program).args(arguments))
}

fn set(config: &mut Value, key: &str, value: Value) {
    if let Some(members) = config.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

fn wait_health(port: u16) -> Result<Duration> {
    wait_for_page(port, "/healthz", " 200 OK\r\n")
}

/// Asks for the page itself: curl may be what this machine lacks.
fn wait_for_page(port: u16, path: &str, needle: &str) -> Result<Duration> {
    let what = format!("{path} on port {port} to say {:?}", needle.trim());
    let found = wait_until(&what, PATIENCE, || {
        let page = page(port, path).unwrap_or_default();
        Ok(page.contains(needle).then_some(()))
    });
    found.map(|((), took)| took)
}

fn page(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// A port that was free a moment ago.
fn free_udp_port() -> Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
