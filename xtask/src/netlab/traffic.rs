//! What a device does all day: ping, UDP, TCP, several services, several devices.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::{DEVICES, Test};
use crate::lab::programs::{ECHO, INNER, OTHER, WEB};
use crate::lab::world::{PATIENCE, World, finish_flow};
use crate::tool::content;

pub(super) const TESTS: &[Test] = &[
    ("health_tells_the_truth", health),
    ("ping_v4", ping),
    ("udp_echo_of_every_size", sizes),
    ("too_large_is_said_at_once", too_large),
    ("udp_loses_nothing", flow),
    ("tcp_20_mb_down_and_up", tcp),
    ("several_services_one_connector", services),
    ("eight_agents_with_one_address", eight_agents),
];

const FILE: u64 = 20_000_000;

fn health(world: &mut World) -> Result<()> {
    use crate::lab::programs::{CONNECTOR_HEALTH, INTERMEDIATE_HEALTH};
    World::wait_health(&world.site.public, INTERMEDIATE_HEALTH, 200)?;
    World::wait_health(&world.site.private, CONNECTOR_HEALTH, 200)?;
    Ok(())
}

fn ping(world: &mut World) -> Result<()> {
    for service in [ECHO, WEB, OTHER] {
        let (good, said) = world.run(
            1,
            &format!("ping -n -c 5 -i 0.05 -W 3 {}", service.address),
            PATIENCE,
        )?;
        ensure!(good && said.contains(" 0% packet loss"), "{}: {said}", service.id);
        if let Some(line) = said.lines().find(|line| line.starts_with("rtt")) {
            world.note(format!("{}: {line}", service.id));
        }
    }
    Ok(())
}

/// The MTU of the tunnel interface of device 1.
pub(super) fn mtu(world: &World) -> Result<usize> {
    let link = world.device(1)?.ip("link show dev ztna0")?;
    let mut words = link.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words
        .next()
        .and_then(|mtu| mtu.parse().ok())
        .context("the tunnel has no MTU")
}

fn sizes(world: &mut World) -> Result<()> {
    let largest = mtu(world)? - 28;
    let mut sizes: Vec<String> = [
        0, 1, 2, 7, 8, 11, 12, 13, 63, 64, 100, 255, 256, 500, 512, 999, 1000, 1024, 1100,
    ]
    .into_iter()
    .chain(largest - 60..=largest)
    .filter(|size| *size <= largest)
    .map(|size| size.to_string())
    .collect();
    sizes.dedup();
    let to = format!("{}:{}", ECHO.address, ECHO.port);
    let (good, said) = world.run_tool(
        1,
        &["udp-sizes", "--to", &to, "--sizes", &sizes.join(",")],
        PATIENCE,
    )?;
    ensure!(
        good,
        "{}",
        said.lines()
            .filter(|line| !line.contains(" ok "))
            .collect::<Vec<_>>()
            .join("\n      ")
    );
    world.note(format!("{} sizes, 0 to {largest} bytes", sizes.len()));
    Ok(())
}

fn too_large(world: &mut World) -> Result<()> {
    let fits = mtu(world)? - 28;
    let address = ECHO.address;
    let (good, said) = world.run(
        1,
        &format!("ping -n -M do -c 2 -i 0.1 -W 3 -s {fits} {address}"),
        PATIENCE,
    )?;
    ensure!(good, "{fits} bytes fit, but: {said}");
    let (good, said) = world.run(
        1,
        &format!("ping -n -M do -c 1 -W 3 -s {} {address}", fits + 1),
        PATIENCE,
    )?;
    ensure!(
        !good && (said.contains("too long") || said.contains("needed")),
        "one byte more: {said}"
    );

    // Without "don't fragment" the kernel cuts it in two, the connector puts it together, and cuts the answer.
    let to = format!("{address}:{}", ECHO.port);
    let sizes = format!("{},4000,60000", fits + 1);
    let cut = ["udp-sizes", "--to", &to, "--sizes", &sizes];
    let (good, said) = world.run_tool(1, &cut, PATIENCE)?;
    ensure!(good, "in fragments: {said}");
    let (good, said) = world.run(
        1,
        &format!("ping -n -M dont -c 2 -i 0.2 -W 3 -s 5000 {address}"),
        PATIENCE,
    )?;
    ensure!(good, "a ping in fragments: {said}");
    let (good, said) = world.run_tool(1, &["udp-sizes", "--to", &to, "--sizes", "100"], PATIENCE)?;
    ensure!(good, "after the fragments: {said}");
    Ok(())
}

fn flow(world: &mut World) -> Result<()> {
    let to = SocketAddr::from((ECHO.address, ECHO.port)).to_string();
    let arguments = [
        "udp-flow", "--to", &to, "--rate", "2000", "--count", "6000", "--id", "1", "--size", "1000",
    ];
    let mut flow = world.start_tool(1, &arguments)?;
    flow.wait_for("flow ", PATIENCE)?;
    let account = finish_flow(flow)?;
    ensure!(account.received == 6000, "{account:?}");
    ensure!(
        account.foreign + account.corrupt + account.duplicate == 0,
        "{account:?}"
    );
    Ok(())
}

fn tcp(world: &mut World) -> Result<()> {
    let [down, up] = world.both_ways(1, FILE)?;
    world.note(format!(
        "down {:.0} Mbit/s, up {:.0} Mbit/s",
        down.rate(),
        up.rate()
    ));
    // Small and empty bodies end as they should, too.
    let (address, port) = (WEB.address, WEB.port);
    for length in [0, 1, 1460] {
        let down = world.download(1, &format!("http://{address}:{port}/bytes/{length}"))?;
        ensure!(
            down.bytes == length && down.digest == content::digest(length),
            "{length} bytes: {down:?}"
        );
    }
    Ok(())
}

fn services(world: &mut World) -> Result<()> {
    for service in [ECHO, OTHER] {
        let to = format!("{}:{}", service.address, service.port);
        let (good, said) =
            world.run_tool(1, &["udp-sizes", "--to", &to, "--ask", "who are you?"], PATIENCE)?;
        ensure!(
            good && said.contains(&format!("answer {}", service.id)),
            "{}: {said}",
            service.id
        );
    }
    let (good, said) = world.run(
        1,
        &format!(
            "curl --silent --max-time 10 http://{}:{}/who",
            WEB.address, WEB.port
        ),
        PATIENCE,
    )?;
    ensure!(good && said == WEB.id, "{said}");
    Ok(())
}

fn eight_agents(world: &mut World) -> Result<()> {
    for device in 1..=DEVICES {
        if !world.agents.contains_key(&device) {
            world.start_agent(device)?;
        }
    }
    // The same inner address and port on all eight: only the relay's flow table can tell whose reply it is.
    let (to, bind) = (
        format!("{}:{}", ECHO.address, ECHO.port),
        format!("{INNER}:40000"),
    );
    let mut flows = Vec::new();
    for device in 1..=DEVICES {
        let id = device.to_string();
        let arguments = [
            "udp-flow", "--to", &to, "--bind", &bind, "--id", &id, "--rate", "100", "--count", "300",
        ];
        flows.push(world.start_tool(device, &arguments)?);
    }
    for (device, mut flow) in (1..).zip(flows) {
        flow.wait_for("flow ", PATIENCE)?;
        let account = finish_flow(flow)?;
        ensure!(
            account.foreign == 0,
            "device {device} got {} replies of others",
            account.foreign
        );
        ensure!(account.received == 300, "device {device}: {account:?}");
    }
    let processes = std::mem::take(&mut world.agents);
    world.agents = processes.into_iter().filter(|(device, _)| *device == 1).collect();
    world.note(format!(
        "{} replies, each to its sender",
        300 * u32::from(DEVICES)
    ));
    Ok(())
}
