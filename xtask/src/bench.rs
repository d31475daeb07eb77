//! `cargo xtask bench`: the real programs under load in namespaces, beside a plain forwarder and the relay in memory, in
//! one run.
//!
//! The figures are medians of short rounds. It ends with what must hold, and fails if something does not.

pub(crate) mod account;
mod figures;
mod report;
mod rounds;
mod stage;
mod talk;
mod tcp;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::args::Args;
use crate::command::{cargo, target};
use crate::lab::programs::{Programs, Runtime};
use crate::lab::scratch::Scratch;
use crate::lab::{leftovers, obstacle};
use rounds::{Extent, Rounds};
use stage::Stage;

const QUICK: Extent = Extent {
    rounds: 3,
    seconds: 0.5,
    memory: 60,
    pings: 200,
    pairs: 8,
};

const FULL: Extent = Extent {
    rounds: 7,
    seconds: 1.0,
    memory: 100,
    pings: 500,
    pairs: 4,
};

/// `cargo xtask bench …`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    if args.word().as_deref() == Some("tcp") {
        return tcp::main(args);
    }
    let extent = if args.flag("--quick") { QUICK } else { FULL };
    let runtime = args.value("--runtime")?.unwrap_or(Runtime::Mio);
    args.finish()?;
    if let Some(why) = obstacle() {
        println!("SKIPPED: the benchmark: {why}");
        return Ok(ExitCode::from(2));
    }
    build()?;
    leftovers::clean_when_interrupted()?;
    leftovers::clean();
    let folder = target().join("release");
    let scratch = Scratch::new("bench", false)?;
    let programs = Programs::new(&folder, runtime, false, &scratch)?;
    programs.check()?;
    let mut stage = Stage::new(&programs, &folder.join("ztna-load"), scratch)?;
    let mut rounds = Rounds::new(&mut stage, extent);
    rounds.run(|progress| eprintln!("{progress}"))?;
    let figures = rounds.figures;
    println!("{}, runtime {runtime}, {} rounds", machine(), extent.rounds);
    print!("{}", report::table(report::ROWS, &figures));
    println!();
    let conditions = report::conditions(&figures);
    let held = judge(&conditions);
    let latest = json!({
        "machine": machine(),
        "runtime": runtime.to_string(),
        "rounds": extent.rounds,
        "figures": figures.to_json(),
        "held": held,
    });
    keep("latest.json", &latest)?;
    Ok(ExitCode::from(u8::from(!held)))
}

fn build() -> Result<()> {
    crate::suite::build_release()?;
    let status = cargo(&["build", "--release", "--quiet", "--package", "benches"]).status()?;
    if !status.success() {
        bail!("the load generator does not build");
    }
    Ok(())
}

/// Prints what must hold; whether it does.
fn judge(conditions: &[(&str, bool, String)]) -> bool {
    for (what, holds, figure) in conditions {
        let verdict = if *holds { "ok" } else { "FAILED" };
        println!("MUST HOLD {what}: {verdict} ({figure})");
    }
    conditions.iter().all(|(_, holds, _)| *holds)
}

/// Keeps the figures of a run in `target/bench`.
fn keep(name: &str, content: &serde_json::Value) -> Result<()> {
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    std::fs::write(&path, format!("{content:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Which processor, and how many.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} × {name}")
}
