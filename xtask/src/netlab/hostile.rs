//! What must not end a process or harm its users: datagrams of every wrong kind, and a network that takes nothing more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Test;
use crate::lab::programs::{CONNECTOR_HEALTH, ECHO, INTERMEDIATE_HEALTH, PORT};
use crate::lab::site::INTERMEDIATE;
use crate::lab::world::{PATIENCE, World, finish_flow};

pub(super) const TESTS: &[Test] = &[
    ("malformed_datagrams_of_every_kind", cannon),
    ("a_full_network_ends_nobody", congestion),
    ("a_kernel_that_refuses_to_send_ends_nobody", refusal),
];

/// Times a socket had no room.
const BLOCKED: &str = "ztna_udp_send_blocked_total";

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

/// A narrow pipe with a deep queue on every leg. What stands in it is bounded by congestion control, so a socket rarely fills
/// up here; the shells' own tests make one say EAGAIN.
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
    let took = open_again(world)?;
    let blocked = World::metric(&world.site.public, INTERMEDIATE_HEALTH, BLOCKED)?
        + World::metric(&world.site.private, CONNECTOR_HEALTH, BLOCKED)?;
    world.note(format!(
        "{} of {} came through the narrow pipe; sockets were full {blocked} times; open again after {took} ms",
        account.received, account.sent
    ));
    Ok(())
}

/// A local filter makes every send fail with EPERM for a while, at each of the three in turn.
fn refusal(world: &mut World) -> Result<()> {
    // Nothing may go around the doors that are shut.
    drop(world.agents.remove(&1));
    world.paths = Some("relay");
    world.start_agent(1)?;
    let to = format!("{}:{}", ECHO.address, ECHO.port);
    let hosts = [
        (world.device(1)?, "dport"),
        (&world.site.private, "dport"),
        (&world.site.public, "sport"),
    ];
    let mut came = 0;
    for (host, direction) in hosts {
        host.nft(&format!(
            "table ip shut {{
               chain out {{
                 type filter hook output priority filter; policy accept;
                 udp {direction} {PORT} drop
               }}
             }}
"
        ))?;
        let flow = [
            "udp-flow", "--to", &to, "--rate", "100", "--count", "60", "--id", "1",
        ];
        let mut flow = world.start_tool(1, &flow)?;
        flow.wait_for("flow ", PATIENCE)?;
        came += finish_flow(flow)?.received;
        host.nft("delete table ip shut\n")?;
        open_again(world)?;
    }
    ensure!(came == 0, "{came} echoes came through a shut door");
    everybody_lives(world)?;
    drop(world.agents.remove(&1));
    world.paths = None;
    world.start_agent(1).map(drop)
}

/// Milliseconds until echoes come back.
fn open_again(world: &World) -> Result<u128> {
    let started = Instant::now();
    let flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let took = started.elapsed().as_millis();
    finish_flow(flow)?;
    Ok(took)
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
