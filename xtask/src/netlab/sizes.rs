//! Paths that carry less than 1,500 bytes: known to the host's own interface, to nobody, or from one moment to the next.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Test;
use super::traffic::mtu;
use crate::lab::programs::ALL;
use crate::lab::site::device_address;
use crate::lab::wait_until;
use crate::lab::world::World;

pub(super) const TESTS: &[Test] = &[
    ("an_interface_of_its_own_size", |world| {
        for size in [1_400, 1_300] {
            let set = |world: &World, size: usize| world.device(1)?.ip(&format!("link set eth0 mtu {size}"));
            set(world, size)?;
            restart_agent(world, RELAY)?;
            follows(world, size)?;
            transfer(world)?;
            set(world, ORDINARY)?;
        }
        Ok(())
    }),
    ("a_path_that_swallows_long_packets", |world| {
        for size in [1_400, 1_300] {
            swallow(world, size)?;
            restart_agent(world, RELAY)?;
            follows(world, size)?;
            transfer(world)?;
            mend(world)?;
        }
        Ok(())
    }),
    ("a_path_that_begins_to_swallow_long_packets", |world| {
        restart_agent(world, WRAPPED)?;
        follows(world, ORDINARY)?;
        transfer(world)?;
        swallow(world, 1_360)?;
        transfer(world)?;
        follows(world, 1_360)?;
        mend(world)?;
        // What has become larger is found with the next connection.
        restart_agent(world, WRAPPED)?;
        follows(world, ORDINARY)
    }),
];

pub(super) const DEVICES: u8 = 1;

const ORDINARY: usize = 1_500;

const FILE: u64 = 5_000_000;

/// Outside: IPv4, UDP, the prefix of a channel, and QUIC around a DATAGRAM. Inside: room for the number of a packet that travels twice.
const AROUND: usize = 28 + 5 + 32 + 5;

/// The same where packets go wrapped; then comes the service's id.
const AROUND_WRAPPED: usize = 28 + 32 + 2;

/// The largest UDP payload that is tried, and its headers.
const MOST: usize = 1_452 + 28;

/// How packets travel. The small path is the one to the intermediate: nothing may go around it.
const RELAY: &str = "relay";
const WRAPPED: &str = "insecure-wrapped";

fn restart_agent(world: &mut World, paths: &'static str) -> Result<()> {
    // The other has to be gone before the interface can be made again.
    drop(world.agents.remove(&1));
    world.paths = Some(paths);
    world.start_agent(1).map(drop)
}

/// Waits until the tunnel's interface has what fits into packets of `size`.
fn follows(world: &mut World, size: usize) -> Result<()> {
    let longest = ALL.iter().map(|service| service.id.len()).max();
    let around = match world.paths {
        Some(WRAPPED) => AROUND_WRAPPED + longest.context("no service")?,
        Some(_) | None => AROUND,
    };
    let expected = size.min(MOST) - around;
    let what = format!("an interface of {expected} bytes on a path of {size}");
    wait_until(&what, Duration::from_secs(10), || {
        Ok((mtu(world)? == expected).then_some(()))
    })?;
    world.note(format!("path {size}, interface {expected}"));
    Ok(())
}

/// Some megabytes each way, whole.
fn transfer(world: &mut World) -> Result<()> {
    let [down, up] = world.both_ways(1, FILE)?;
    world.note(format!(
        "{} MB down in {:.1} s, up in {:.1} s",
        FILE / 1_000_000,
        down.took.as_secs_f64(),
        up.took.as_secs_f64()
    ));
    Ok(())
}

/// Drops what is longer than `size` between device 1 and the intermediate, both ways, and says nothing.
fn swallow(world: &World, size: usize) -> Result<()> {
    // Packets are looked at one by one: a batch has no length of its own on a cable that segments nothing.
    let device = world.device(1)?;
    device.ip("link set eth0 gso_max_segs 1")?;
    world.site.public.ip("link set device1 gso_max_segs 1")?;
    let hole = |what: &str| {
        format!(
            "table ip hole {{
               chain input {{
                 type filter hook input priority filter; policy accept;
                 {what} ip length > {size} drop
               }}
             }}
             "
        )
    };
    device.nft(&hole("udp sport 4433"))?;
    let from = device_address(1);
    world
        .site
        .public
        .nft(&hole(&format!("ip saddr {from} udp dport 4433")))
}

fn mend(world: &World) -> Result<()> {
    world.device(1)?.nft("delete table ip hole")?;
    world.site.public.nft("delete table ip hole")
}
