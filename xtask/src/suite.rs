//! `cargo xtask test`: every check and every test tier, in one run with one count at its end.
//!
//! A stage that fails does not stop the others: whoever reads the report wants all of it. What cannot be done on this
//! machine is skipped loudly and counted.

mod stages;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::lab::leftovers;
use crate::prerequisites::{self, Purpose};
use crate::tally::Tally;

pub(crate) use stages::build_release;

/// A stage: what it is called, what it does, and whether a quick run leaves it out.
struct Stage {
    name: &'static str,
    run: fn() -> Result<Tally>,
    slow: bool,
}

const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        run: stages::fmt,
        slow: false,
    },
    Stage {
        name: "clippy",
        run: stages::clippy,
        slow: false,
    },
    Stage {
        name: "doc",
        run: stages::doc,
        slow: false,
    },
    Stage {
        name: "deny",
        run: stages::deny,
        slow: false,
    },
    Stage {
        name: "tests",
        run: stages::tests,
        slow: false,
    },
    Stage {
        name: "release",
        run: stages::release,
        slow: true,
    },
    Stage {
        name: "lab",
        run: stages::lab,
        slow: true,
    },
];

struct Row {
    name: &'static str,
    tally: Tally,
    took: Duration,
}

/// `cargo xtask test`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    let quick = args.flag("--quick");
    let only: Option<String> = args.value("--only")?;
    args.finish()?;
    if let Some(only) = &only
        && !STAGES.iter().any(|stage| stage.name == only)
    {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("no stage {only}; there are {}", names.join(" "));
    }
    let lacking = prerequisites::ensure(Purpose::Build)?;
    if !lacking.is_empty() {
        println!("This workspace cannot be built here. Install what is missing with:");
        println!("  {}", prerequisites::advice(&lacking));
        return Ok(ExitCode::from(2));
    }
    leftovers::clean_when_interrupted()?;
    let mut rows = Vec::new();
    for stage in STAGES {
        let wanted = only
            .as_ref()
            .map_or(!(quick && stage.slow), |only| only == stage.name);
        if wanted {
            rows.push(run(stage));
        }
    }
    Ok(conclude(&rows))
}

fn run(stage: &Stage) -> Row {
    println!("\n=== {}", stage.name);
    let started = Instant::now();
    let tally = (stage.run)().unwrap_or_else(|error| {
        println!("{}: {error:#}", stage.name);
        Tally::one(false)
    });
    Row {
        name: stage.name,
        tally,
        took: started.elapsed(),
    }
}

fn conclude(rows: &[Row]) -> ExitCode {
    println!("\nstage       passed  failed skipped    time");
    let mut total = Tally::default();
    for Row { name, tally, took } in rows {
        let Tally {
            passed,
            failed,
            skipped,
        } = tally;
        println!(
            "{name:<10} {passed:>7} {failed:>7} {skipped:>7} {:>5} s",
            took.as_secs()
        );
        total += *tally;
    }
    println!("\n{total}");
    ExitCode::from(u8::from(total.failed > 0))
}
