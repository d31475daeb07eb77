//! Transfers over a bad wire: whatever it does, the bytes that went in come out.
//!
//! The short selection runs with every test; `cargo xtask netlab matrix` runs all combinations and prints goodput.

use anyhow::{Context as _, Result};

use super::Test;
use crate::lab::site::INTERMEDIATE;
use crate::lab::transfer::Transfer;
use crate::lab::wire::Wire;
use crate::lab::world::World;
use crate::tally::Tally;
use crate::tool::wire::Conditions;

pub(super) const TESTS: &[Test] = &[
    ("a_wire_without_faults", |world| {
        transfers(world, "delay=0", 5_000_000)
    }),
    ("a_wire_of_50_ms_rtt", |world| {
        transfers(world, "delay=25 jitter=2", 2_000_000)
    }),
    ("a_wire_that_loses_1_percent", |world| {
        transfers(world, "delay=5 loss=1 seed=11", 1_000_000)
    }),
    ("a_wire_that_loses_3_percent_in_bursts", |world| {
        transfers(world, "delay=5 loss=3 burst=3 seed=12", 500_000)
    }),
    ("a_wire_that_loses_10_percent", |world| {
        transfers(world, "delay=2 loss=10 seed=13", 200_000)
    }),
    ("a_wire_that_reorders", |world| {
        transfers(world, "delay=5 reorder=5 lag=4 seed=14", 1_000_000)
    }),
    ("a_wire_with_a_bottleneck", |world| {
        transfers(world, "delay=10 rate=10 queue=40 seed=15", 1_000_000)
    }),
];

/// The matrix: delays, losses and other faults in words, each with each.
const DELAYS: [&str; 3] = ["delay=0", "delay=10", "delay=25 jitter=3"];
const LOSSES: [&str; 6] = [
    "",
    "loss=1",
    "loss=3",
    "loss=10",
    "loss=3 burst=4",
    "loss=1 reorder=3",
];
const RATES: [&str; 2] = ["", "rate=20"];
const MATRIX_FILE: u64 = 2_000_000;

/// Devices of this world; the second is behind the wire.
pub(super) const DEVICES: u8 = 2;
const WIRED: u8 = 2;

/// Lays a wire between the second device and the intermediate, and starts its agent.
fn lay(world: &mut World) -> Result<Wire> {
    let (device, public) = (world.device(WIRED)?, &world.site.public);
    let wire = Wire::lay(&world.programs, world.folder(), device, public, "203.0.113")?;
    device.ip(&format!(
        "route add {INTERMEDIATE}/32 via 203.0.113.1 src 203.0.113.2"
    ))?;
    world.start_agent(WIRED)?;
    Ok(wire)
}

/// Down and up over a wire of this character.
fn transfers(world: &mut World, character: &str, length: u64) -> Result<()> {
    let mut wire = lay(world)?;
    let both = both_ways(world, &mut wire, &character.parse()?, length);
    world.agents.remove(&WIRED);
    drop(wire);
    // The interfaces go with the process; the route with them.
    let [down, up] = both?;
    world.note(format!(
        "down {:.1} Mbit/s, up {:.1} Mbit/s",
        down.rate(),
        up.rate()
    ));
    Ok(())
}

fn both_ways(world: &World, wire: &mut Wire, conditions: &Conditions, length: u64) -> Result<[Transfer; 2]> {
    wire.set(conditions)?;
    world
        .both_ways(WIRED, length)
        .with_context(|| conditions.to_string())
}

/// Every combination; a line each.
pub(super) fn matrix(world: &mut World) -> Result<Tally> {
    let mut wire = lay(world)?;
    let mut tally = Tally::default();
    for delay in DELAYS {
        for loss in LOSSES {
            for rate in RATES {
                let character = format!("{delay} {loss} {rate} seed=21");
                let both = both_ways(world, &mut wire, &character.parse()?, MATRIX_FILE);
                tally += Tally::one(both.is_ok());
                match both {
                    Ok([down, up]) => {
                        println!(
                            "{character:<50} down {:>7.1} up {:>7.1} Mbit/s",
                            down.rate(),
                            up.rate()
                        );
                    }
                    Err(error) => println!("{character:<50} FAILED {error:#}"),
                }
            }
        }
    }
    Ok(tally)
}
