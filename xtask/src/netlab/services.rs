//! Services with several backends, health checks, lists and the PROXY header, changed while everything runs.
//!
//! Each test gives the connector the configuration it is about by changing its file, as an operator would.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Test;
use crate::lab::process::Process;
use crate::lab::programs::{self, CONNECTOR_HEALTH, ECHO, OTHER, WEB};
use crate::lab::wait_until;
use crate::lab::world::{PATIENCE, World, finish_flow};
use crate::tool::content;

/// Devices in the world of these tests.
pub(super) const DEVICES: u8 = 2;

/// A second backend of the web service.
const SECOND: u16 = 8081;

/// The bytes of a transfer during which something happens.
const FILE: u64 = 40_000_000;

pub(super) const TESTS: &[Test] = &[
    ("backend_killed_under_load", backend_killed),
    ("unhealthy_is_withdrawn_and_comes_back", withdrawn),
    ("proxy_header_names_the_agent", proxy_header),
    ("allow_list_lets_in_one_and_keeps_out_the_other", allow_list),
    ("reload_during_a_transfer", reload_during_transfer),
    ("bad_reload_keeps_running", bad_reload),
];

/// The web service with other words than the usual.
fn web(more: &Value) -> Value {
    let mut service = json!({ "id": WEB.id, "virtualIp": WEB.address });
    if let (Some(service), Some(more)) = (service.as_object_mut(), more.as_object()) {
        service.extend(more.clone());
    }
    service
}

fn backend(port: u16) -> String {
    format!("{}:{port}", WEB.backend)
}

/// The connector's file with this web service.
fn config(world: &World, web: &Value) -> Value {
    let mut config = programs::connector_config(&world.pki(), &[ECHO, WEB, OTHER]);
    let services = config.get_mut("services").and_then(Value::as_array_mut);
    for service in services.into_iter().flatten() {
        if service.get("id") == web.get("id") {
            service.clone_from(web);
        }
    }
    config
}

fn connector(world: &mut World) -> Result<&mut Process> {
    world.connector.as_mut().context("the connector is not running")
}

fn count(world: &mut World, needle: &str) -> Result<usize> {
    let log = connector(world)?.log();
    Ok(log.lines().filter(|line| line.contains(needle)).count())
}

/// Replaces the connector's file, and waits until it says so.
fn reload(world: &mut World, config: &Value, expected: &str) -> Result<()> {
    let before = count(world, expected)?;
    put(world, &format!("{config:#}"))?;
    wait_until(&format!("the connector to say {expected:?}"), PATIENCE, || {
        Ok((count(world, expected)? > before).then_some(()))
    })?;
    Ok(())
}

fn put(world: &World, text: &str) -> Result<PathBuf> {
    let next = world.write_text("connector.next", text)?;
    let file = world.folder().join("connector.json");
    std::fs::rename(&next, &file)?;
    Ok(file)
}

const RELOADED: &str = "configuration reloaded";

/// What the web service says to a device; empty if it does not answer.
fn ask(world: &World, device: u8) -> Result<String> {
    let url = format!("http://{}:{}/who", WEB.address, WEB.port);
    let (_, said) = world.run(device, &format!("curl --silent --max-time 10 {url}"), PATIENCE)?;
    Ok(said)
}

fn wait_answer(world: &World, device: u8, expected: &str) -> Result<()> {
    let what = format!("device {device} to hear {expected:?}");
    wait_until(&what, PATIENCE, || {
        Ok((ask(world, device)? == expected).then_some(()))
    })
    .map(drop)
}

fn start_second(world: &World) -> Result<Process> {
    let words: Vec<String> = [
        "tool",
        "http",
        "--bind",
        &format!("0.0.0.0:{SECOND}"),
        "--name",
        "second",
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    start_backend(world, "second", &words)
}

fn start_backend(world: &World, name: &str, words: &[String]) -> Result<Process> {
    let mut command = world.site.private.command(world.programs.instruments());
    let mut process = Process::start(name, world.folder(), command.args(words))?;
    process.wait_for("ready on", PATIENCE)?;
    Ok(process)
}

/// A slow download on device 1, begun.
fn start_download(world: &World, name: &str, length: u64) -> Result<(Process, PathBuf)> {
    let file = world.folder().join(name);
    let url = format!("http://{}:{}/bytes/{length}", WEB.address, WEB.port);
    let words = format!(
        "curl --silent --show-error --fail --max-time 60 --limit-rate 8M --output {} {url}",
        file.display()
    );
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let process = world.start(name, world.device(1)?, &words)?;
    wait_until("the download to begin", PATIENCE, || {
        Ok(std::fs::metadata(&file)
            .is_ok_and(|file| file.len() > 0)
            .then_some(()))
    })?;
    Ok((process, file))
}

fn finish_download((mut process, file): (Process, PathBuf)) -> Result<()> {
    let status = process.wait(PATIENCE)?;
    ensure!(
        status.success(),
        "the transfer broke: {status}{}",
        process.last_words()
    );
    let mut hash = content::Hash::default();
    std::io::copy(&mut std::fs::File::open(&file)?, &mut hash)?;
    ensure!(hash.finish() == content::digest(FILE), "other bytes arrived");
    std::fs::remove_file(&file)?;
    Ok(())
}

fn two_backends() -> Value {
    web(&json!({ "protocol": "tcp", "backends": [backend(WEB.port), backend(SECOND)] }))
}

fn backend_killed(world: &mut World) -> Result<()> {
    let mut second = start_second(world)?;
    reload(world, &config(world, &two_backends()), RELOADED)?;
    let mut heard: Vec<String> = (0..8).map(|_| ask(world, 1)).collect::<Result<_>>()?;
    heard.sort_unstable();
    heard.dedup();
    ensure!(heard == ["second", "web"], "both should be asked: {heard:?}");
    // Two downloads at once: one each, as the one has fewer sessions than the other.
    let downloads = [
        start_download(world, "one", FILE)?,
        start_download(world, "two", FILE)?,
    ];
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    second.signal(Signal::KILL)?;
    second.wait(PATIENCE)?;
    for turn in 0..12 {
        let said = ask(world, 1)?;
        ensure!(said == "web", "new session {turn} after the loss: {said:?}");
    }
    let mut whole = 0;
    for (mut process, file) in downloads {
        if process.wait(PATIENCE)?.success() {
            finish_download((process, file))?;
            whole += 1;
        }
    }
    ensure!(
        whole == 1,
        "{whole} of 2 transfers went on; the one on the other backend should"
    );
    let account = finish_flow(flow)?;
    // A busy machine may drop a few; what must not be is silence.
    ensure!(
        account.lost() * 10 <= account.sent,
        "another service was harmed: {account:?}"
    );
    let retried = World::metric(
        &world.site.private,
        CONNECTOR_HEALTH,
        "ztna_connector_backend_retries_total",
    )?;
    ensure!(retried > 0, "nothing was tried over");
    world.note(format!("{retried} sessions were tried over"));
    Ok(())
}

fn withdrawn(world: &mut World) -> Result<()> {
    let checked = web(&json!({
        "protocol": "tcp", "backends": [backend(SECOND)],
        "health": { "check": "http", "path": "/who", "expect_status": 200, "interval": "1s", "unhealthy": 2, "healthy": 1 },
    }));
    // It is down at the start: one warning that names the service, and no end.
    reload(
        world,
        &config(world, &checked),
        "service web: backend 10.20.0.2:8081 is down: connection refused",
    )?;
    let mut second = start_second(world)?;
    wait_answer(world, 1, "second")?;
    second.signal(Signal::KILL)?;
    second.wait(PATIENCE)?;
    wait_until("the service to be withdrawn", PATIENCE, || {
        Ok((count(world, "service web is withdrawn")? > 0).then_some(()))
    })?;
    let url = format!("http://{}:{}/who", WEB.address, WEB.port);
    let words = format!("curl --silent --output /dev/null --max-time 10 --write-out %{{exitcode}} {url}");
    let (_, said) = world.run(1, &words, PATIENCE)?;
    ensure!(
        said == "7",
        "curl should be told at once (7), not time out (28): {said}"
    );
    let _second = start_second(world)?;
    wait_answer(world, 1, "second")?;
    reload(
        world,
        &config(
            world,
            &web(&json!({ "backend": backend(WEB.port), "protocol": "tcp" })),
        ),
        RELOADED,
    )?;
    wait_answer(world, 1, WEB.id)
}

fn proxy_header(world: &mut World) -> Result<()> {
    let words: Vec<String> = ["tool", "proxied", "--bind", "0.0.0.0:8082"]
        .iter()
        .map(ToString::to_string)
        .collect();
    let proxied = start_backend(world, "proxied", &words)?;
    let service = web(&json!({
        "protocol": "tcp", "backend": backend(8082), "proxy_protocol": "v2",
        "health": { "check": "http", "interval": "1s" },
    }));
    reload(world, &config(world, &service), RELOADED)?;
    let expected = format!(
        "agent device1 from {} to {}:{}",
        programs::INNER,
        WEB.address,
        WEB.port
    );
    wait_answer(world, 1, &expected)?;
    let log = proxied.log();
    ensure!(
        log.lines().any(|line| line == "local"),
        "the check brought no LOCAL header{}",
        proxied.last_words()
    );
    ensure!(
        !log.contains("refused"),
        "a connection without a good header{}",
        proxied.last_words()
    );
    reload(
        world,
        &config(
            world,
            &web(&json!({ "backend": backend(WEB.port), "protocol": "tcp" })),
        ),
        RELOADED,
    )?;
    wait_answer(world, 1, WEB.id)
}

fn allow_list(world: &mut World) -> Result<()> {
    if !world.agents.contains_key(&2) {
        world.start_agent(2)?;
    }
    wait_answer(world, 2, WEB.id)?;
    let listed =
        |names: &[&str]| web(&json!({ "backend": backend(WEB.port), "protocol": "tcp", "allow": names }));
    reload(world, &config(world, &listed(&["device1"])), RELOADED)?;
    wait_answer(world, 1, WEB.id)?;
    let url = format!("http://{}:{}/who", WEB.address, WEB.port);
    let words = format!("curl --silent --output /dev/null --max-time 10 --write-out %{{exitcode}} {url}");
    let (_, said) = world.run(2, &words, PATIENCE)?;
    ensure!(
        said == "7",
        "device 2 is not on the list and should be refused (7): {said}"
    );
    // A name that leaves the list loses what it has, too.
    let download = start_download(world, "banned", 10 * FILE)?;
    reload(world, &config(world, &listed(&["device2"])), RELOADED)?;
    let (mut process, file) = download;
    let status = process.wait(PATIENCE)?;
    // curl's word for a connection that was reset; by itself it would have gone on for most of a minute.
    ensure!(
        status.code() == Some(56),
        "the session of an agent that was taken from the list ended with {status}{}",
        process.last_words()
    );
    std::fs::remove_file(file)?;
    wait_answer(world, 2, WEB.id)?;
    reload(
        world,
        &config(
            world,
            &web(&json!({ "backend": backend(WEB.port), "protocol": "tcp" })),
        ),
        RELOADED,
    )?;
    wait_answer(world, 1, WEB.id)
}

fn reload_during_transfer(world: &mut World) -> Result<()> {
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 200)?;
    let download = start_download(world, "reloaded", FILE)?;
    // By its content: the service that is being used gets another backend, another one leaves.
    let _second = start_second(world)?;
    let mut changed = config(world, &two_backends());
    if let Some(services) = changed.get_mut("services").and_then(Value::as_array_mut) {
        services.retain(|service| service.get("id") != Some(&json!(OTHER.id)));
    }
    reload(
        world,
        &changed,
        "configuration reloaded: 2 services, 0 new, 1 changed, 1 removed",
    )?;
    // By SIGHUP, with nothing new.
    let before = count(world, RELOADED)?;
    connector(world)?.signal(Signal::HUP)?;
    wait_until("a reload by SIGHUP", PATIENCE, || {
        Ok((count(world, RELOADED)? > before).then_some(()))
    })?;
    let usual = config(
        world,
        &web(&json!({ "backend": backend(WEB.port), "protocol": "tcp" })),
    );
    reload(world, &usual, "1 new, 1 changed, 0 removed")?;
    finish_download(download)?;
    let account = finish_flow(flow)?;
    // Beside a download a full queue may cost a datagram; a connection made anew would cost many.
    ensure!(
        account.lost() * 100 <= account.sent,
        "a reload cost packets: {account:?}"
    );
    wait_until("the service that came back", PATIENCE, || {
        let to = format!("{}:{}", OTHER.address, OTHER.port);
        let words = [
            "udp-sizes",
            "--to",
            &to,
            "--sizes",
            "100",
            "--patience-ms",
            "1000",
        ];
        Ok(world.run_tool(1, &words, PATIENCE)?.0.then_some(()))
    })?;
    Ok(())
}

fn bad_reload(world: &mut World) -> Result<()> {
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let bad = config(world, &web(&json!({ "backends": [] })));
    let expected = "(service \"web\"): empty; list at least one backend";
    reload(world, &bad, expected)?;
    ensure!(count(world, "configuration not reloaded, the one before keeps running")? > 0);
    wait_answer(world, 1, WEB.id)?;
    let failures = "ztna_config_reload_total{result=\"failure\"}";
    ensure!(World::metric(&world.site.private, CONNECTOR_HEALTH, failures)? == 1);
    put(world, "{ half a file")?;
    wait_until("the complaint about the other bad file", PATIENCE, || {
        Ok((count(world, "not valid JSON")? > 0).then_some(()))
    })?;
    let usual = config(
        world,
        &web(&json!({ "backend": backend(WEB.port), "protocol": "tcp" })),
    );
    reload(world, &usual, RELOADED)?;
    let account = finish_flow(flow)?;
    ensure!(account.lost() == 0, "a bad file cost packets: {account:?}");
    Ok(())
}
