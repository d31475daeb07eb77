//! Many devices with one inner address: nobody hands addresses out, so every device may have the same.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use crate::lab::programs::{ECHO, INNER, WEB};
use crate::lab::world::{PATIENCE, World, finish_flow};
use crate::tool::content;

pub(super) const TESTS: &[Test] = &[("thirty_two_agents_with_one_address", agents)];

/// Devices of this world.
pub(super) const DEVICES: u8 = 32;

/// What each fetches and sends by TCP, from one port.
const FILE: u64 = 200_000;

fn agents(world: &mut World) -> Result<()> {
    for device in 2..=DEVICES {
        world.start_agent(device)?;
    }
    // The same inner address and port on all of them, by UDP and by TCP.
    let (to, bind) = (
        format!("{}:{}", ECHO.address, ECHO.port),
        format!("{INNER}:40000"),
    );
    let mut flows = Vec::new();
    for device in 1..=DEVICES {
        let id = device.to_string();
        let arguments = [
            "udp-flow", "--to", &to, "--bind", &bind, "--id", &id, "--rate", "40", "--count", "80",
        ];
        flows.push(world.start_tool(device, &arguments)?);
    }
    let (url, digest) = (
        format!("http://{}:{}/bytes/{FILE}", WEB.address, WEB.port),
        content::digest(FILE),
    );
    let mut transfers = Vec::new();
    for device in 1..=DEVICES {
        let script = format!("curl --silent --max-time 60 --local-port 41000 {url} | sha256sum");
        let words = ["sh".to_owned(), "-c".to_owned(), script];
        transfers.push(world.start(&format!("curl-{device}"), world.device(device)?, &words)?);
    }
    for (device, mut transfer) in (1..).zip(transfers) {
        transfer.wait(Duration::from_secs(70))?;
        let said = transfer.log();
        ensure!(said.starts_with(&digest), "device {device}: {said}");
    }
    for (device, mut flow) in (1..).zip(flows) {
        flow.wait_for("flow ", PATIENCE)?;
        let account = finish_flow(flow)?;
        ensure!(
            account.foreign == 0,
            "device {device} got {} replies of others",
            account.foreign
        );
        // Each has a connection of its own, and thirty-two transfers that begin at once overrun the queues of the cables: a
        // few packets are theirs to lose. Whose the others are is not theirs.
        ensure!(account.received >= 72, "device {device}: {account:?}");
    }
    world.agents.retain(|device, _| *device == 1);
    Ok(())
}
