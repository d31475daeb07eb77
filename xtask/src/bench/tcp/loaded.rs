//! How long others wait while one stream takes all it can get: round trips beside a transfer over a wire with a bottleneck,
//! through the product and without it. A queue of ours that fills where the link's own would drop shows here.

use anyhow::{Context as _, Result};

use super::Extent;
use super::stage::{Heading, Stage, Way};
use crate::bench::figures::Figures;
use crate::tool::wire::Conditions;

/// 20 ms there and back, and at most 50 ms of queue.
const WIRE: &str = "delay=10 rate=20 queue=50";

/// Both directions, both ways.
pub(super) fn round(stage: &mut Stage, extent: Extent, figures: &mut Figures) -> Result<()> {
    let conditions: Conditions = WIRE.parse()?;
    let cases = [
        (Way::Tunnel, Heading::Up, ["loaded_up_p50", "loaded_up_p99"]),
        (
            Way::Plain,
            Heading::Up,
            ["plain_loaded_up_p50", "plain_loaded_up_p99"],
        ),
        (Way::Tunnel, Heading::Down, ["loaded_down_p50", "loaded_down_p99"]),
        (
            Way::Plain,
            Heading::Down,
            ["plain_loaded_down_p50", "plain_loaded_down_p99"],
        ),
    ];
    for (way, heading, names) in cases {
        stage.set(&conditions)?;
        let times = stage.pings_beside_a_transfer(way, heading, extent.lossy_seconds)?;
        for (name, share) in names.into_iter().zip([50, 99]) {
            let place = (times.len() * share / 100).min(times.len().saturating_sub(1));
            figures.add(name, *times.get(place).context("no ping was answered")? * 1e3);
        }
    }
    Ok(())
}
