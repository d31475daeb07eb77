//! Many sessions at once, and sessions that misbehave beside sessions that do not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{LAZY, SESSIONS, instrument};
use crate::bench::account::{cpu, most_resident, resident};
use crate::lab::process::Process;
use crate::lab::programs::{Service, WEB, agent_config};
use crate::lab::world::{PATIENCE, World};
use crate::netlab::Test;
use crate::tool::content;

pub(super) const TESTS: &[Test] = &[
    ("a_thousand_sessions_at_once", thousand),
    ("a_thousand_sessions_without_an_interface", rootless),
    ("slow_backends_and_clients_delay_nobody", slow),
    ("a_backend_restarts", restart),
];

/// Where the agent without an interface listens.
const FORWARD: &str = "127.0.0.1:7100";
const SOCKS: &str = "127.0.0.1:1080";

const MANY: &str = "1000";
/// Bytes of each of them.
const EACH: &str = "60000";
/// How many misbehave, of each kind.
const STUCK: &str = "20";
/// What others fetch meanwhile.
const FILE: u64 = 5_000_000;

fn server(world: &World, service: Service, more: &[&str]) -> Result<Process> {
    let bind = format!("{}:{}", service.backend, service.port);
    instrument(world, &[&["tcp-server", "--bind", &bind], more].concat())
}

fn to(service: Service) -> String {
    format!("{}:{}", service.address, service.port)
}

/// Runs sessions to their end and returns what was said of them.
fn sessions(world: &World, service: Service, count: &str, bytes: &str) -> Result<(bool, String)> {
    let words = [
        "tcp-sessions",
        "--to",
        &to(service),
        "--count",
        count,
        "--bytes",
        bytes,
    ];
    let (good, said) = world.run_tool(1, &words, Duration::from_secs(90))?;
    Ok((good, said.trim().to_owned()))
}

fn thousand(world: &mut World) -> Result<()> {
    let _server = server(world, SESSIONS, &[])?;
    let (good, said) = sessions(world, SESSIONS, MANY, EACH)?;
    ensure!(good, "{said}");
    world.note(said);
    Ok(())
}

/// The same through `ztna forward` and `ztna socks`, and what that costs.
fn rootless(world: &mut World) -> Result<()> {
    let _server = server(world, SESSIONS, &[])?;
    let config = agent_config(&world.pki(), "device1", &[SESSIONS]);
    let config = world.write_config("rootless", &config)?;
    let leads = format!("{FORWARD}={}:{}", SESSIONS.id, SESSIONS.port);
    let (forward, socks) = (["forward", "--forward", &leads], ["socks", "--listen", SOCKS]);
    let service = to(SESSIONS);
    let direct = ["--to", FORWARD];
    let by_proxy = ["--to", &service, "--socks", SOCKS];
    for (way, aim) in [(forward, &direct[..]), (socks, &by_proxy)] {
        let words = world.programs.ztna(&way, &config);
        let mut agent = world.start(way[0], world.device(1)?, &words)?;
        agent.wait_for("registered 1 of 1 services", PATIENCE)?;
        let empty = resident(agent.id())?;
        let sessions = ["tcp-sessions", "--count", MANY, "--bytes", EACH];
        let (good, said) = world.run_tool(1, &[&sessions, aim].concat(), Duration::from_secs(90))?;
        ensure!(good, "{}: {said}", way[0]);
        let (time, most) = (cpu(agent.id())?, most_resident(agent.id())?);
        world.note(format!(
            "{}: {}; {:.0} us of CPU and {} KiB for each",
            way[0],
            said.trim(),
            time.as_secs_f64() * 1e6 / 1000.0,
            most.saturating_sub(empty) / 1000 / 1024
        ));
        agent.signal(Signal::TERM)?;
        ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    }
    Ok(())
}

/// Backends that accept and never read, clients that ask for much and never read, clients that never finish asking.
fn slow(world: &mut World) -> Result<()> {
    let _server = server(world, SESSIONS, &[])?;
    let _lazy = server(world, LAZY, &["--hold"])?;
    let mut stuck = Vec::new();
    for (kind, service) in [("talking", LAZY), ("deaf", WEB), ("slow", WEB)] {
        let words = [
            "tcp-loris",
            "--to",
            &to(service),
            "--count",
            STUCK,
            "--kind",
            kind,
        ];
        let mut loris = world.start_tool(1, &words)?;
        loris.wait_for("stuck", PATIENCE).context(kind)?;
        stuck.push(loris);
    }
    // The others: many short ones, one long one.
    let (good, said) = sessions(world, SESSIONS, "50", "50000")?;
    ensure!(good, "beside them: {said}");
    let down = world.download(1, &format!("http://{}/bytes/{FILE}", to(WEB)))?;
    ensure!(down.digest == content::digest(FILE), "beside them: {down:?}");
    for mut loris in stuck {
        ensure!(loris.is_alive()?, "the stuck were thrown out: {}", loris.log());
        loris.hang_up(PATIENCE)?;
    }
    let (good, said) = sessions(world, SESSIONS, "50", "50000")?;
    ensure!(good, "after them: {said}");
    Ok(())
}

/// Its sessions end at once, new ones are refused while it is away, and served when it is back.
fn restart(world: &mut World) -> Result<()> {
    let mut first = server(world, SESSIONS, &[])?;
    let words = [
        "tcp-sessions",
        "--to",
        &to(SESSIONS),
        "--count",
        "20",
        "--bytes",
        "500000000",
    ];
    let mut cut = world.start_tool(1, &words)?;
    // Seen from the backend's side: they are in the middle of it.
    let busy = || {
        let sockets = world.site.private.command("ss");
        let mut sockets = sockets;
        let filter = format!("sport = :{}", SESSIONS.port);
        let said = crate::command::output(sockets.args(["-Htn", "state", "established", &filter]))?;
        Ok((said.lines().count() >= 20).then_some(()))
    };
    crate::lab::wait_until("sessions", PATIENCE, busy)?;
    first.signal(Signal::KILL)?;
    first.wait(PATIENCE)?;
    let status = cut.wait(PATIENCE).context("sessions outlive their backend")?;
    ensure!(
        !status.success() && cut.log().contains("failed 20"),
        "{}",
        cut.log()
    );
    let (good, said) = sessions(world, SESSIONS, "3", "100")?;
    ensure!(!good && said.contains("refused"), "while it is away: {said}");
    let _second = server(world, SESSIONS, &[])?;
    let (good, said) = sessions(world, SESSIONS, "50", "50000")?;
    ensure!(good, "when it is back: {said}");
    Ok(())
}
