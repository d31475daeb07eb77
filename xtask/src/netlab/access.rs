//! Who may reach what: services that nobody publishes, certificates for something else, doors that must stay shut.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use crate::lab::process::Process;
use crate::lab::programs::{ECHO, GHOST, WEB};
use crate::lab::site::WALL;
use crate::lab::world::{PATIENCE, World, claims, finish_flow};

pub(super) const TESTS: &[Test] = &[
    ("no_inbound_port", no_inbound_port),
    ("service_without_connector_is_unreachable_at_once", ghost),
    ("unknown_address_is_unreachable_at_once", unknown),
    ("certificate_for_another_service_is_denied", denied),
    ("bad_configuration_is_refused", bad_configuration),
];

fn no_inbound_port(world: &mut World) -> Result<()> {
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let before = world.site.refused()?;
    for target in [WALL, ECHO.backend] {
        let target = target.to_string();
        let ports = format!("22,53,80,443,4433,4434,9090,9091,{},{}", ECHO.port, WEB.port);
        let (_, said) = world.run_tool(
            2,
            &["knock", "--to", &target, "--ports", &ports],
            Duration::from_secs(20),
        )?;
        ensure!(said.contains("knocked 20 doors, 0 open"), "{said}");
    }
    let account = finish_flow(flow)?;
    ensure!(account.lost() == 0, "knocking disturbed the traffic: {account:?}");
    let (refused, outbound) = (world.site.refused()? - before, world.site.outbound()?);
    ensure!(refused >= 40, "only {refused} refusals were counted");
    ensure!(outbound > 0, "nobody called out, and still there was traffic");
    world.note(format!(
        "the firewall refused {refused} of 40 attempts and saw {outbound} connections leave"
    ));
    Ok(())
}

fn ghost(world: &mut World) -> Result<()> {
    // UDP sockets are told of an unreachable host only if they ask for it, so ping and TCP are the ones to listen to.
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let (good, said) = world.run(1, &format!("ping -n -c 1 -W 5 {}", GHOST.address), PATIENCE)?;
    ensure!(
        !good && said.contains("Unreachable"),
        "nobody told ping that there is no way: {said}"
    );
    let url = format!("http://{}:{}/", GHOST.address, GHOST.port);
    let words = format!("curl --silent --output /dev/null --max-time 10 --write-out %{{exitcode}} {url}");
    let (_, said) = world.run(1, &words, PATIENCE)?;
    ensure!(
        said == "7",
        "curl should fail to connect (7), not time out (28): {said}"
    );
    let account = finish_flow(flow)?;
    ensure!(account.lost() == 0, "others were harmed: {account:?}");
    Ok(())
}

fn unknown(world: &mut World) -> Result<()> {
    let unknown = [
        "udp-sizes",
        "--to",
        "10.99.0.77:7007",
        "--sizes",
        "100",
        "--patience-ms",
        "3000",
    ];
    let (good, said) = world.run_tool(1, &unknown, PATIENCE)?;
    ensure!(
        !good && !said.contains("no reply"),
        "the device did not say that there is no way: {said}"
    );
    Ok(())
}

fn denied(world: &mut World) -> Result<()> {
    world
        .programs
        .issue(&world.pki(), "stranger", &claims("--agent", &[WEB]))?;
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let mut stranger = world.start_agent_with(3, "stranger", &[ECHO, WEB])?;
    // What it may use works, so what follows is not for want of a tunnel.
    let url = format!("http://{}:{}/who", WEB.address, WEB.port);
    let words = format!(
        "curl --silent --retry 20 --retry-delay 1 --retry-connrefused --retry-all-errors --max-time 20 {url}"
    );
    let (good, said) = world.run(3, &words, PATIENCE)?;
    ensure!(
        good && said == WEB.id,
        "the service it may use: {said}{}",
        stranger.last_words()
    );
    let to = format!("{}:{}", ECHO.address, ECHO.port);
    let attempt = [
        "udp-sizes",
        "--to",
        &to,
        "--sizes",
        "100",
        "--patience-ms",
        "1500",
    ];
    let (good, said) = world.run_tool(3, &attempt, PATIENCE)?;
    ensure!(!good, "a stranger reached the service: {said}");
    ensure!(
        stranger.is_alive()?,
        "the refused agent ended{}",
        stranger.last_words()
    );
    let account = finish_flow(flow)?;
    ensure!(
        account.lost() == 0 && account.foreign == 0,
        "others were harmed: {account:?}"
    );
    Ok(())
}

fn bad_configuration(world: &mut World) -> Result<()> {
    let bad = world.write_config("bad", &serde_json::json!({ "porrt": 4433 }))?;
    let starts = [
        world.programs.intermediate(&bad),
        world.programs.connector(&bad),
        world.programs.agent(&bad),
    ];
    for words in starts {
        let mut process: Process = world.start("bad", world.device(4)?, &words)?;
        let status = process.wait(PATIENCE)?;
        ensure!(
            status.code() == Some(2),
            "{words:?} ended with {status}{}",
            process.last_words()
        );
        ensure!(
            process.log().contains("porrt"),
            "it does not say which key{}",
            process.last_words()
        );
    }
    Ok(())
}
