//! Two homes behind routers of their own: relayed, direct, cut, relayed again and direct again, with the figures.

use anyhow::{Context as _, Result, ensure};

use super::stage::Show;
use crate::lab::behind::Stage;
use crate::lab::behind::run::{Gap, Way};
use crate::lab::nat::Nat;
use crate::lab::programs::Programs;
use crate::lab::scratch::Scratch;

/// What both are behind: what most homes have.
const HOME: Nat = Nat::PortRestricted;

/// One cut of each kind.
const CUTS: u32 = 3;

/// Plays it, in a world of its own.
pub(super) fn play(show: &mut Show, programs: &Programs) {
    show.headline("End to end, and direct: device and private network behind a NAT each, 20 ms apart");
    let stage = show.step(
        "two routers, and lines of 5 ms to the world and to the relay",
        |show| {
            let stage = Stage::new(HOME, HOME, "", programs, Scratch::new("demo-direct", false)?)?;
            show.say("both routers translate addresses and let only answers in (port-restricted)");
            show.say("an echo takes 40 ms through the relay and 20 ms without it");
            Ok(stage)
        },
    );
    let Some(mut stage) = stage else {
        return;
    };
    let direct = show.step("relayed, then direct by itself", |show| begin(show, &mut stage));
    if direct.is_none() {
        return;
    }
    show.step(
        "cut and healed, at 1,000 packets a second: relayed, and direct again",
        |show| {
            let mut gaps = Vec::new();
            stage.gaps(CUTS, |gap| gaps.push(gap))?;
            gaps.iter().try_for_each(|gap| tell(show, gap))
        },
    );
}

fn begin(show: &mut Show, stage: &mut Stage) -> Result<()> {
    let run = stage.run()?;
    let first = run.first_reply.context("nothing came back")?;
    ensure!(run.way == Way::Direct, "it stayed {:?}", run.way);
    let direct = run.first_direct.context("no echo was direct")?;
    show.say(format!(
        "first echo, through the relay      {first:>6.0} ms after the first packet"
    ));
    show.say(format!(
        "first echo without the relay       {direct:>6.0} ms after the first packet"
    ));
    if let Some(time) = run.time_to_direct {
        show.say(format!(
            "the direct connection stood        {time:>6.0} ms after the first packet"
        ));
    }
    Ok(())
}

fn tell(show: &mut Show, gap: &Gap) -> Result<()> {
    let back = gap.back.context("it never became direct again")?;
    show.say(format!(
        "direct path cut ({}): longest gap {:.0} ms; {} echoes through the relay; direct {:.0} ms after healing",
        gap.cut.name(),
        gap.gap,
        gap.relayed,
        back
    ));
    Ok(())
}
