//! `cargo xtask netlab nat`: the programs behind every pair of translators.
//!
//! A cell is a kind of translator before the agent and one before the connector. Which way packets took is seen by the time that
//! echoes take ([`crate::lab::neighbourhood`]) and compared with what the agent says and with what theory allows.

mod verdict;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::Options;
use crate::args::Args;
use crate::lab::behind::Stage;
use crate::lab::nat::{Nat, can_meet};
use crate::lab::programs::{Programs, Runtime};
use crate::lab::scratch::Scratch;
use crate::lab::{leftovers, obstacle};

use verdict::Findings;

/// A kind of translator before the agent, and one before the connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    a: Nat,
    b: Nat,
}

impl Cell {
    /// Whether theory allows a direct way.
    fn theory(self) -> bool {
        can_meet(self.a, self.b)
    }

    /// Whether there is no way at all: everything here travels in UDP.
    fn is_hopeless(self) -> bool {
        [self.a, self.b].contains(&Nat::UdpBlocked)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.a, self.b)
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (a, b) = text
            .split_once(['×', ':'])
            .with_context(|| format!("{text}: AGENT:CONNECTOR, as in linux:symmetric"))?;
        Ok(Self {
            a: a.trim().parse()?,
            b: b.trim().parse()?,
        })
    }
}

const fn cell(a: Nat, b: Nat) -> Cell {
    Cell { a, b }
}

/// A dozen that stand for all: every kind, each reason why two can meet or cannot, and both roles on the worse side.
const DOZEN: [Cell; 12] = [
    cell(Nat::Open, Nat::Open),
    cell(Nat::PortRestricted, Nat::Open),
    cell(Nat::Symmetric, Nat::FullCone),
    cell(Nat::FullCone, Nat::CarrierGradeSymmetric),
    cell(Nat::AddressRestricted, Nat::Symmetric),
    cell(Nat::AddressDependent, Nat::AddressRestricted),
    cell(Nat::PortRestricted, Nat::PortRestricted),
    cell(Nat::Linux, Nat::Linux),
    cell(Nat::CarrierGrade, Nat::LinuxGuarded),
    cell(Nat::ShortMappings, Nat::Linux),
    cell(Nat::Linux, Nat::Symmetric),
    cell(Nat::Sequential, Nat::PortRestricted),
];

/// `cargo xtask netlab nat …`.
pub(super) fn main(args: &mut Args) -> Result<ExitCode> {
    let mut cells = DOZEN.to_vec();
    if let Some(list) = args.value::<String>("--cells")? {
        cells = list.split(',').map(str::parse).collect::<Result<_>>()?;
    }
    if args.flag("--all") {
        let all = Nat::ALL.into_iter();
        cells = all
            .flat_map(|a| Nat::ALL.into_iter().map(move |b| cell(a, b)))
            .collect();
    }
    let runs = args.value("--runs")?.unwrap_or(20);
    let gaps = args.value("--gaps")?.unwrap_or(50);
    let as_json = args.flag("--json");
    let runtime = args.value("--runtime")?.unwrap_or(Runtime::Mio);
    let mut options = Options::all();
    options.keep = args.flag("--keep");
    options.verbose = args.flag("--debug");
    if let Some(folder) = args.value::<PathBuf>("--programs")? {
        options.programs = folder;
    } else {
        crate::suite::build_release()?;
    }
    args.finish()?;
    if let Some(why) = obstacle() {
        println!("SKIPPED: the network laboratory: {why}");
        return Ok(ExitCode::from(2));
    }
    leftovers::clean_when_interrupted()?;
    leftovers::clean();
    let ground = Cells::new(&options, runtime)?;
    if !as_json {
        println!("{}", Findings::head());
    }
    let mut all = Vec::new();
    for cell in cells {
        let findings = ground.findings(cell, runs, gaps);
        if !as_json {
            println!("{}", findings.line());
            if findings.standstills > 0 {
                println!(
                    "      {} cuts measured again: this machine stood still",
                    findings.standstills
                );
            }
            if let Some(last_words) = findings.last_words() {
                println!("{last_words}");
            }
        }
        all.push(findings);
    }
    if as_json {
        let all: Vec<_> = all.iter().map(Findings::json).collect();
        println!("{:#}", serde_json::Value::from(all));
    }
    let broken = all.iter().filter(|found| !found.wrong().is_empty()).count();
    if !as_json {
        println!("{} of {} cells hold", all.len() - broken, all.len());
    }
    Ok(ExitCode::from(u8::from(broken > 0)))
}

/// Where cells are built, one after the other.
#[derive(Debug)]
pub(super) struct Cells {
    programs: Programs,
    scratch: Scratch,
    keep: bool,
}

impl Cells {
    fn new(options: &Options, runtime: Runtime) -> Result<Self> {
        let scratch = Scratch::new("cells", options.keep)?;
        if options.keep {
            eprintln!("logs in {}", scratch.path().display());
        }
        let programs = Programs::new(&options.programs, runtime, options.verbose, &scratch)?;
        Self::with(programs, scratch, options.keep)
    }

    /// With these programs.
    pub(super) fn with(programs: Programs, scratch: Scratch, keep: bool) -> Result<Self> {
        programs.check()?;
        Ok(Self {
            programs,
            scratch,
            keep,
        })
    }

    /// Builds a cell and watches it; what went wrong is among the findings.
    fn findings(&self, cell: Cell, runs: u32, gaps: u32) -> Findings {
        let mut findings = Findings::new(cell);
        if let Err(error) = self.watch(cell, runs, gaps, &mut findings) {
            findings.error = Some(format!("{error:#}"));
        }
        findings
    }

    fn watch(&self, cell: Cell, runs: u32, gaps: u32, findings: &mut Findings) -> Result<()> {
        let folder = self.scratch.path().file_name().unwrap_or_default();
        let name = format!("{}-{}-{}", folder.display(), cell.a, cell.b);
        let mut stage = Stage::new(cell.a, cell.b, &self.programs, Scratch::new(&name, self.keep)?)?;
        let outcome = (|| {
            for _ in 0..runs {
                findings.runs.push(stage.run()?);
            }
            if gaps > 0 && cell.theory() {
                findings.standstills = stage.gaps(gaps, |gap| findings.gaps.push(gap))?;
            }
            Ok(())
        })();
        outcome.map_err(|error: anyhow::Error| anyhow::anyhow!("{error:#}{}", stage.last_words()))
    }
}
