//! The steps of the full demo.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::rootless;
use super::stage::Show;
use crate::lab::programs::{self, ALL, CONNECTOR_HEALTH, ECHO, INNER, INTERMEDIATE_HEALTH, WEB};
use crate::lab::site::{CABLE, WALL};
use crate::lab::world::{PATIENCE, World, finish_flow};
use crate::tool::content;

const FILE: u64 = 100_000_000;

/// Plays all of it. A step that builds on a broken one is not played.
pub(super) fn play(show: &mut Show, world: &mut World) {
    if start(show, world).is_none() {
        return;
    }
    reach(show, world);
    without_root(show, world);
    share(show, world);
    heal(show, world);
    compare(show, world);
}

fn start(show: &mut Show, world: &mut World) -> Option<()> {
    show.headline("Starting");
    show.step(
        "a development authority, and a certificate for each program",
        |_| world.make_keys(2),
    )?;
    show.step("the intermediate, in the public network", |_| {
        world.start_intermediate()?;
        World::wait_health(&world.site.public, INTERMEDIATE_HEALTH, 200)
    })?;
    show.step(
        "the connector, in the private network behind a firewall",
        |show| {
            world.start_connector()?;
            World::wait_health(&world.site.private, CONNECTOR_HEALTH, 200)?;
            show.say("publishes an echo server and a web server; nothing can be opened from outside");
            Ok(())
        },
    )?;
    show.step("the agent, on the device", |show| {
        world.start_agent(1)?;
        show.say(format!(
            "echo is {}:{}, web is {}:{}",
            ECHO.address, ECHO.port, WEB.address, WEB.port
        ));
        Ok(())
    })
    .map(drop)
}

fn reach(show: &mut Show, world: &World) {
    show.headline("From the device into the private network");
    show.step("ping", |show| {
        let (good, said) = world.run(1, &format!("ping -n -c 5 -i 0.2 -W 3 {}", ECHO.address), PATIENCE)?;
        ensure!(good && said.contains(" 0% packet loss"), "{said}");
        said.lines()
            .filter(|line| line.starts_with("64 bytes") || line.starts_with("rtt"))
            .for_each(|l| show.say(l));
        Ok(())
    });
    show.step("UDP echo, 1000 datagrams", |show| {
        let to = SocketAddr::from((ECHO.address, ECHO.port)).to_string();
        let words = [
            "udp-flow", "--to", &to, "--rate", "500", "--count", "1000", "--id", "1", "--size", "1000",
        ];
        let mut flow = world.start_tool(1, &words)?;
        flow.wait_for("flow ", PATIENCE)?;
        let account = finish_flow(flow)?;
        ensure!(
            account.received == account.sent,
            "{} of {} came back",
            account.received,
            account.sent
        );
        show.say(format!(
            "{} of {} came back unharmed",
            account.received, account.sent
        ));
        Ok(())
    });
    show.step("HTTP download of 100 MB with curl", |show| {
        let expected = content::digest(FILE);
        let down = world.download(1, &format!("http://{}:{}/bytes/{FILE}", WEB.address, WEB.port))?;
        ensure!(
            down.digest == expected,
            "sha-256 {} instead of {expected}",
            down.digest
        );
        show.say(format!("{} bytes, {:.0} Mbit/s", down.bytes, down.rate()));
        show.say(format!("sha-256 {}", down.digest));
        show.say(format!("   same as {expected}"));
        Ok(())
    });
    show.step("no door is open: UDP and TCP knocks from outside", |show| {
        let before = world.site.refused()?;
        let ports = format!("22,80,443,4433,4434,9091,{},{}", ECHO.port, WEB.port);
        for target in [WALL, ECHO.backend] {
            let words = ["knock", "--to", &target.to_string(), "--ports", &ports];
            let (_, said) = world.run_tool(1, &words, PATIENCE)?;
            ensure!(said.contains("knocked 16 doors, 0 open"), "{said}");
        }
        show.say(format!(
            "32 tried, 0 open; the firewall counted {} refusals",
            world.site.refused()? - before
        ));
        Ok(())
    });
}

/// On the second device, whose own agent has not started yet: nothing is there but an address.
fn without_root(show: &mut Show, world: &World) {
    let play = |show: &mut Show| -> Result<()> {
        let config = programs::agent_config(&world.pki(), "device2", &ALL);
        let config = world.write_config("rootless", &config)?;
        let device = world.device(2)?;
        rootless::play(
            show,
            &rootless::Ground {
                programs: &world.programs,
                config: &config,
                port: WEB.port,
                start: &|name, words| world.start(name, device, words),
            },
        );
        Ok(())
    };
    if let Err(error) = play(show) {
        show.step("a configuration for the second device", |_| Err::<(), _>(error));
    }
}

fn share(show: &mut Show, world: &mut World) {
    show.headline("Two devices with the same inner address");
    show.step("a second agent", |show| {
        show.say(format!("both call themselves {INNER} and send from port 40000"));
        world.start_agent(2)
    });
    show.step("both talk to the same server at once", |show| {
        let (to, bind) = (
            format!("{}:{}", ECHO.address, ECHO.port),
            format!("{INNER}:40000"),
        );
        let mut flows = Vec::new();
        for device in [1, 2] {
            let id = device.to_string();
            let words = [
                "udp-flow", "--to", &to, "--bind", &bind, "--id", &id, "--rate", "200", "--count", "600",
            ];
            flows.push(world.start_tool(device, &words)?);
        }
        for (device, mut flow) in (1..).zip(flows) {
            flow.wait_for("flow ", PATIENCE)?;
            let account = finish_flow(flow)?;
            let own = account.received;
            show.say(format!(
                "device {device}: {own} of {} own replies, {} foreign",
                account.sent, account.foreign
            ));
            ensure!(
                account.foreign == 0 && own == account.sent,
                "device {device}: {account:?}"
            );
        }
        Ok(())
    });
}

fn heal(show: &mut Show, world: &mut World) {
    show.headline("The intermediate crashes");
    show.step(
        "killed and started again during traffic; everything heals by itself",
        |show| {
            let mut flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
            let mut victim = world.intermediate.take().context("it is not running")?;
            victim.signal(Signal::KILL)?;
            victim.wait(PATIENCE)?;
            let back = world.start_intermediate()?;
            flow.say("mark 1")?;
            flow.wait_for("answered mark 1", PATIENCE)?;
            let account = finish_flow(flow)?;
            show.say(format!("the new process listened after {} ms", back.as_millis()));
            show.say(format!(
                "gap in the traffic {} ms, {} echoes lost",
                account.silence_ms,
                account.lost()
            ));
            World::wait_health(&world.site.private, CONNECTOR_HEALTH, 200)
        },
    );
}

fn compare(show: &mut Show, world: &World) {
    show.headline("What the tunnel costs, against a cable past everything");
    let cable = show.step(
        "a cable from the device to the private network, for comparison only",
        |_| world.site.lay_comparison_cable(),
    );
    if cable.is_none() {
        return;
    }
    show.step("latency, 200 bytes there and back", |show| {
        let tunnel = latency(world, ECHO.address)?;
        let cable = latency(world, CABLE)?;
        show.say(format!("tunnel {tunnel}"));
        show.say(format!("cable  {cable}"));
        Ok(())
    });
    show.step("throughput, the same 100 MB", |show| {
        let expected = content::digest(FILE);
        let mut rates = Vec::new();
        for (name, address) in [("tunnel", WEB.address), ("cable ", CABLE)] {
            let down = world.download(1, &format!("http://{address}:{}/bytes/{FILE}", WEB.port))?;
            ensure!(down.digest == expected, "{name}: other bytes came");
            show.say(format!("{name} {:>6.0} Mbit/s", down.rate()));
            rates.push(down.rate());
        }
        if let [tunnel, cable] = *rates {
            show.say(format!("that is {:.1} % of the cable", tunnel / cable * 100.0));
        }
        Ok(())
    });
}

fn latency(world: &World, address: Ipv4Addr) -> Result<String> {
    let to = format!("{address}:{}", ECHO.port);
    let (good, said) = world.run_tool(
        1,
        &["udp-latency", "--to", &to, "--count", "2000"],
        Duration::from_secs(30),
    )?;
    ensure!(good, "{said}");
    said.lines()
        .find(|line| line.starts_with("p50"))
        .map(str::to_owned)
        .context("no figures")
}
