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

use anyhow::{Context as _, Result, ensure};

use super::{Ground, Options, Test};
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
    let lines: Option<String> = args.value("--wire")?;
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
    let mut ground = Cells::new(&options, runtime)?;
    ground.lines = lines.unwrap_or_default();
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
    /// What the lines do beside taking their time.
    lines: String,
    notes: Vec<String>,
}

impl Ground for Cells {
    fn last_words(&self) -> String {
        String::new()
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
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
            lines: String::new(),
            notes: Vec::new(),
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

    fn stage(&self, cell: Cell) -> Result<Stage> {
        let folder = self.scratch.path().file_name().unwrap_or_default();
        let name = format!("{}-{}-{}", folder.display(), cell.a, cell.b);
        let scratch = Scratch::new(&name, self.keep)?;
        Stage::new(cell.a, cell.b, &self.lines, &self.programs, scratch)
    }

    fn watch(&self, cell: Cell, runs: u32, gaps: u32, findings: &mut Findings) -> Result<()> {
        let mut stage = self.stage(cell)?;
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

/// The dozen with few runs, as tests: ways must be right, times are printed.
pub(super) const TESTS: &[Test<Cells>] = &[
    ("open_and_open", |cells| hold(cells, 0)),
    ("port_restricted_and_open", |cells| hold(cells, 1)),
    ("symmetric_and_full_cone", |cells| hold(cells, 2)),
    ("full_cone_and_cgnat_symmetric", |cells| hold(cells, 3)),
    ("address_restricted_and_symmetric", |cells| hold(cells, 4)),
    ("address_dependent_and_address_restricted", |cells| hold(cells, 5)),
    ("port_restricted_and_port_restricted", |cells| hold(cells, 6)),
    ("linux_and_linux", |cells| hold(cells, 7)),
    ("cgnat_and_linux_guarded", |cells| hold(cells, 8)),
    ("short_mappings_and_linux", |cells| hold(cells, 9)),
    ("linux_and_symmetric", |cells| hold(cells, 10)),
    ("sequential_and_port_restricted", |cells| hold(cells, 11)),
    ("lines_that_lose_5_percent", losses),
    ("a_home_router_starts_again", |cells| {
        restart(cells, Nat::PortRestricted, Nat::PortRestricted)
    }),
    ("a_home_router_starts_again_and_has_other_ports", |cells| {
        restart(cells, Nat::Symmetric, Nat::Symmetric)
    }),
];

/// How often in a test.
const FEW_RUNS: u32 = 2;
const FEW_GAPS: u32 = 1;

fn hold(cells: &mut Cells, which: usize) -> Result<()> {
    let cell = DOZEN.get(which).copied().context("there is no such cell")?;
    let findings = cells.findings(cell, FEW_RUNS, FEW_GAPS);
    cells.notes.push(Findings::head());
    cells.notes.push(findings.line());
    let wrong = findings.wrong_ways();
    let last_words = findings.last_words().unwrap_or_default();
    ensure!(wrong.is_empty(), "{}\n{last_words}", wrong.join("; "));
    Ok(())
}

/// What is lost is sent again, in the search for a way too.
fn losses(cells: &mut Cells) -> Result<()> {
    cells.lines = "loss=5 seed=31".to_owned();
    let held = hold(cells, 6);
    cells.lines.clear();
    held
}

/// Either side's router forgets every mapping while packets flow, and they flow again.
fn restart(cells: &mut Cells, a: Nat, b: Nat) -> Result<()> {
    let mut stage = cells.stage(cell(a, b))?;
    let outcome = stage.rebindings();
    let gaps = outcome.map_err(|error| anyhow::anyhow!("{error:#}{}", stage.last_words()))?;
    for (side, gap) in ["agent", "connector"].iter().zip(gaps) {
        cells
            .notes
            .push(format!("the {side}'s router: nothing for {gap:.0} ms"));
    }
    Ok(())
}
