//! What must not end a process or harm its users: datagrams of every wrong kind, and a network that takes nothing more.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Test;
use crate::lab::programs::{ECHO, PORT};
use crate::lab::site::INTERMEDIATE;
use crate::lab::world::{PATIENCE, World, finish_flow};

pub(super) const TESTS: &[Test] = &[
    ("malformed_datagrams_of_every_kind", cannon),
    ("a_full_network_ends_nobody", congestion),
];

fn cannon(world: &mut World) -> Result<()> {
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 200)?;
    let to = format!("{INTERMEDIATE}:{PORT}");
    let (good, said) = world.run_tool(
        2,
        &["cannon", "--to", &to, "--count", "150"],
        Duration::from_secs(60),
    )?;
    ensure!(good, "{said}");
    let account = finish_flow(flow)?;
    ensure!(account.lost() == 0, "the traffic was harmed: {account:?}");
    everybody_lives(world)?;
    if let Some(line) = said.lines().last() {
        world.note(format!("{line}; {} echoes meanwhile, none lost", account.sent));
    }
    Ok(())
}

/// A narrow pipe with a deep queue on every leg: sockets fill up and say EAGAIN, which is an event and not an end.
fn congestion(world: &mut World) -> Result<()> {
    const NARROW: &str = "root tbf rate 20mbit burst 20kb limit 100mb";
    let site = &world.site;
    let legs = [
        (world.device(1)?, "eth0"),
        (&site.private, "eth0"),
        (&site.public, "device1"),
        (&site.public, "wall"),
    ];
    for (namespace, interface) in legs {
        namespace.tc(&format!("qdisc add dev {interface} {NARROW}"))?;
    }
    let to = format!("{}:{}", ECHO.address, ECHO.port);
    let flood = [
        "udp-flow", "--to", &to, "--rate", "6000", "--count", "18000", "--id", "1", "--size", "1100",
    ];
    let mut flood = world.start_tool(1, &flood)?;
    flood.wait_for("flow ", PATIENCE)?;
    let account = finish_flow(flood)?;
    for (namespace, interface) in legs {
        namespace.tc(&format!("qdisc delete dev {interface} root"))?;
    }
    ensure!(
        account.received > 0 && account.foreign + account.corrupt == 0,
        "{account:?}"
    );
    everybody_lives(world)?;
    let mut flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    flow.say("mark 1")?;
    let (_, took) = flow.wait_for("answered mark 1", PATIENCE)?;
    finish_flow(flow)?;
    world.note(format!(
        "{} of {} came through the narrow pipe; open again after {} ms",
        account.received,
        account.sent,
        took.as_millis()
    ));
    Ok(())
}

/// Nobody ended, not even to be started again by somebody.
fn everybody_lives(world: &mut World) -> Result<()> {
    let World {
        intermediate,
        connector,
        agents,
        ..
    } = world;
    let everybody = intermediate
        .iter_mut()
        .chain(connector.iter_mut())
        .chain(agents.values_mut());
    let mut count = 0;
    for process in everybody {
        ensure!(process.is_alive()?, "a process ended:{}", process.last_words());
        count += 1;
    }
    (count >= 3).then_some(()).context("not everybody was running")
}
