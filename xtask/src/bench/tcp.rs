//! `cargo xtask bench tcp`: TCP through the product beside TCP without it, in one run.
//!
//! What is compared takes turns, round by round, so that a slow phase of the machine meets all of it. Over the wire each
//! round has its own dice, the same for both.

mod boringtun;
mod isolation;
mod loaded;
mod report;
mod stage;

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::json;

use super::account::resident;
use super::figures::Figures;
use crate::args::Args;
use crate::bench::{build, judge, keep, machine};
use crate::command::target;
use crate::lab::programs::{Programs, Runtime};
use crate::lab::scratch::Scratch;
use crate::lab::{leftovers, obstacle};
use crate::tool::wire::Conditions;
use stage::{Heading, IDLE, Link, Stage, Way};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Rounds without loss.
    rounds: u32,
    /// Seconds of one of their transfers.
    seconds: u32,
    /// Rounds with loss, each with its own dice.
    seeds: u32,
    /// Seconds of one of their transfers.
    lossy_seconds: u32,
    /// Idle sessions.
    idle: u32,
}

const QUICK: Extent = Extent {
    rounds: 2,
    seconds: 3,
    seeds: 2,
    lossy_seconds: 8,
    idle: 10_000,
};

const FULL: Extent = Extent {
    rounds: 5,
    seconds: 4,
    seeds: 8,
    lossy_seconds: 10,
    idle: 10_000,
};

/// Datagrams over the wire, in Mbit/s.
const RATE: u32 = 60;

/// Most CPU of all our processes per 1,300 bytes, in microseconds.
const MOST_CPU: f64 = 12.0;
/// The least share of plain TCP's goodput under loss.
const LEAST_LOSSY: f64 = 0.9;
/// The most memory of a connector with 10,000 idle sessions.
const MOST_IDLE: f64 = 400e6;
/// How much longer a short session may take beside callers of a backend that does not answer.
const MOST_BESIDE: f64 = 1.5;

/// The parts, for `--only`.
const PARTS: [&str; 6] = ["goodput", "loss", "datagrams", "loaded", "idle", "isolation"];

/// `cargo xtask bench tcp …`.
pub(super) fn main(args: &mut Args) -> Result<ExitCode> {
    let extent = if args.flag("--quick") { QUICK } else { FULL };
    let runtime = args.value("--runtime")?.unwrap_or(Runtime::Mio);
    let only: Option<String> = args.value("--only")?;
    let programs: Option<std::path::PathBuf> = args.value("--programs")?;
    let character: Option<String> = args.value("--wire")?;
    let congestion: Option<String> = args.value("--congestion")?;
    args.finish()?;
    if let Some(only) = &only
        && !PARTS.contains(&only.as_str())
    {
        bail!("no part {only}; there are {}", PARTS.join(" "));
    }
    if let Some(why) = obstacle() {
        println!("SKIPPED: the benchmark of TCP: {why}");
        return Ok(ExitCode::from(2));
    }
    if programs.is_none() {
        build()?;
    }
    leftovers::clean_when_interrupted()?;
    leftovers::clean();
    let folder = programs.unwrap_or_else(|| target().join("release"));
    let mut bench = Bench {
        folder,
        runtime,
        extent,
        character: character
            .unwrap_or_else(|| "delay=10 loss=1".to_owned())
            .parse()?,
        // RFC 9438, and what most systems have; some machines are set to something else.
        congestion: congestion.unwrap_or_else(|| "cubic".to_owned()),
        figures: Figures::default(),
    };
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    if wanted("goodput") || wanted("isolation") || wanted("idle") {
        bench.over_a_cable(&wanted)?;
    }
    if wanted("loss") || wanted("datagrams") || wanted("loaded") {
        bench.over_a_wire(&wanted)?;
    }
    Ok(bench.conclude())
}

struct Bench {
    folder: std::path::PathBuf,
    runtime: Runtime,
    extent: Extent,
    character: Conditions,
    /// The congestion control of the hosts' own TCP.
    congestion: String,
    figures: Figures,
}

impl Bench {
    fn stage(&self, link: Link, boringtun: Option<&std::path::Path>) -> Result<Stage> {
        let scratch = Scratch::new("bench-tcp", false)?;
        let programs = Programs::new(&self.folder, self.runtime, false, &scratch)?;
        programs.check()?;
        Stage::new(&programs, link, boringtun, &self.congestion, scratch)
    }

    fn over_a_cable(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        let boringtun = if wanted("goodput") {
            boringtun::find()?
        } else {
            None
        };
        let stage = self.stage(Link::Cable, boringtun.as_deref())?;
        if wanted("goodput") {
            for round in 1..=self.extent.rounds {
                eprintln!("goodput, round {round} of {}", self.extent.rounds);
                self.goodput(&stage, boringtun.is_some())?;
            }
        }
        if wanted("isolation") {
            for round in 1..=self.extent.rounds {
                eprintln!("isolation, round {round} of {}", self.extent.rounds);
                isolation::round(&stage, &mut self.figures)?;
            }
        }
        if wanted("idle") {
            eprintln!("{} idle sessions", self.extent.idle);
            self.idle(&stage)?;
        }
        Ok(())
    }

    fn goodput(&mut self, stage: &Stage, boringtun: bool) -> Result<()> {
        let names = [
            (Heading::Up, ["up", "up_us", "wg_up", "wg_up_us", "up_ratio"]),
            (
                Heading::Down,
                ["down", "down_us", "wg_down", "wg_down_us", "down_ratio"],
            ),
        ];
        for (heading, [rate, micros, wg_rate, wg_micros, ratio]) in names {
            let ours = stage.transfer(Way::Tunnel, heading, self.extent.seconds)?;
            self.figures.add(rate, ours.goodput);
            self.figures.add(micros, ours.micros);
            if boringtun {
                let theirs = stage.transfer(Way::Boringtun, heading, self.extent.seconds)?;
                self.figures.add(wg_rate, theirs.goodput);
                self.figures.add(wg_micros, theirs.micros);
                self.figures.add(ratio, ours.goodput / theirs.goodput);
            }
        }
        Ok(())
    }

    fn over_a_wire(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        let mut stage = self.stage(Link::Wire, None)?;
        if wanted("loaded") {
            for round in 1..=2 {
                eprintln!("round trips beside a transfer, round {round} of 2");
                loaded::round(&mut stage, self.extent, &mut self.figures)?;
            }
        }
        if !wanted("loss") && !wanted("datagrams") {
            return Ok(());
        }
        for seed in 1..=u64::from(self.extent.seeds) {
            let conditions = Conditions {
                seed,
                ..self.character
            };
            eprintln!("{conditions}");
            if wanted("datagrams") {
                self.datagrams(&mut stage, &conditions)?;
            }
            if wanted("loss") {
                self.beside_plain(&mut stage, &conditions)?;
            }
        }
        Ok(())
    }

    fn datagrams(&mut self, stage: &mut Stage, conditions: &Conditions) -> Result<()> {
        for (heading, name) in [(Heading::Up, "udp_up"), (Heading::Down, "udp_down")] {
            stage.set(conditions)?;
            let transfer = stage.datagrams(Way::Tunnel, heading, self.extent.lossy_seconds, RATE)?;
            self.figures.add(name, transfer.goodput);
        }
        Ok(())
    }

    fn beside_plain(&mut self, stage: &mut Stage, conditions: &Conditions) -> Result<()> {
        let names = [
            (Heading::Up, ["lossy_up", "plain_up"]),
            (Heading::Down, ["lossy_down", "plain_down"]),
        ];
        for (heading, names) in names {
            for (way, name) in [Way::Tunnel, Way::Plain].into_iter().zip(names) {
                stage.set(conditions)?;
                let transfer = stage.transfer(way, heading, self.extent.lossy_seconds)?;
                eprintln!("  {name} {:.1} Mbit/s", transfer.goodput);
                self.figures.add(name, transfer.goodput);
            }
        }
        Ok(())
    }

    /// Memory of a connector with many sessions on which nothing happens.
    fn idle(&mut self, stage: &Stage) -> Result<()> {
        let connector = stage.connector.id();
        let before = resident(connector)?;
        let to = format!("{}:{}", IDLE.address, IDLE.port);
        let count = self.extent.idle.to_string();
        let mut sessions = stage.tool(&["tcp-idle", "--to", &to, "--count", &count])?;
        let patience = std::time::Duration::from_secs(120);
        let held = sessions.wait_for("holding ", patience).and_then(|_| {
            let after = resident(connector)?;
            sessions.hang_up(patience)?;
            let said = sessions.log();
            anyhow::ensure!(said.contains(" gone 0"), "{said}");
            Ok(after)
        });
        match held {
            Ok(after) => {
                let added = after.saturating_sub(before);
                #[expect(clippy::cast_precision_loss, reason = "for people")]
                let (after, added) = (after as f64, added as f64);
                self.figures.add("idle_resident", after);
                self.figures.add("idle_each", added / f64::from(self.extent.idle));
            }
            Err(error) => {
                println!("idle sessions: {error:#}");
                self.figures.add("idle_resident", f64::INFINITY);
            }
        }
        Ok(())
    }

    fn conclude(&self) -> ExitCode {
        println!("{}, runtime {}", machine(), self.runtime);
        print!("{}", super::report::table(report::ROWS, &self.figures));
        println!();
        let held = judge(&report::conditions(&self.figures));
        let latest = json!({
            "machine": machine(),
            "runtime": self.runtime.to_string(),
            "wire": self.character.to_string(),
            "figures": self.figures.to_json(),
            "held": held,
        });
        if let Err(error) = keep("tcp.json", &latest) {
            eprintln!("{error:#}");
        }
        ExitCode::from(u8::from(!held))
    }
}
