//! Tier 4: the real programs in namespaces, once per runtime.
//!
//! Tests share one world per runtime, in the order of the list, because building a world costs more than most tests. A test
//! that fails takes its world with it, so that no failure explains another.

mod access;
mod clients;
mod crowd;
mod hostile;
mod instruments;
mod names;
mod nat;
mod nat_types;
mod restart;
mod services;
mod sizes;
mod traffic;
mod wired;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Error, Result, anyhow, bail};

use crate::args::Args;
use crate::lab::leftovers;
use crate::lab::obstacle;
use crate::lab::programs::{Programs, Runtime};
use crate::lab::scratch::Scratch;
use crate::lab::world::World;
use crate::tally::Tally;

/// A test: what it is called and what it does to a world.
type Test<W = World> = (&'static str, fn(&mut W) -> Result<()>);

/// What tests share.
trait Ground {
    /// The ends of the logs of everything that runs, for whoever has to explain a failure.
    fn last_words(&self) -> String;

    /// What was noted since this was last asked.
    fn take_notes(&mut self) -> Vec<String>;
}

impl Ground for World {
    fn last_words(&self) -> String {
        Self::last_words(self)
    }

    fn take_notes(&mut self) -> Vec<String> {
        Self::take_notes(self)
    }
}

/// Devices in a world.
const DEVICES: u8 = 8;

/// What of the laboratory is run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// On which shells.
    pub(crate) runtimes: Vec<Runtime>,
    /// Only tests whose name contains this.
    pub(crate) only: Option<String>,
    /// Leave logs and configurations for inspection.
    pub(crate) keep: bool,
    /// Let the programs log their decisions.
    pub(crate) verbose: bool,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
}

impl Options {
    /// All of it, with the release build.
    pub(crate) fn all() -> Self {
        let programs = crate::command::target().join("release");
        Self {
            runtimes: Runtime::ALL.to_vec(),
            only: None,
            keep: false,
            verbose: false,
            programs,
        }
    }
}

/// `cargo xtask netlab …`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    let mut matrix = false;
    match args.word().as_deref() {
        Some("test") => {}
        Some("matrix") => matrix = true,
        Some("nat") => return nat::main(args),
        Some("clean") => {
            args.finish()?;
            println!("{} leftovers removed", leftovers::clean());
            return Ok(ExitCode::SUCCESS);
        }
        _ => bail!("netlab test, netlab matrix, netlab nat or netlab clean?"),
    }
    let mut options = Options::all();
    if let Some(runtime) = args.value("--runtime")? {
        options.runtimes = vec![runtime];
    }
    options.only = args.value("--only")?;
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
        println!("{}", Tally::skip());
        return Ok(ExitCode::from(2));
    }
    leftovers::clean_when_interrupted()?;
    let tally = if matrix {
        run_matrix(&options)
    } else {
        run(&options)
    }?;
    println!("{tally}");
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

/// Runs the laboratory's tests and prints each result.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    leftovers::clean();
    let mut tally = Group::new("instruments", options, |programs, scratch| {
        World::bare(programs, 1, scratch)
    })
    .run(Runtime::Mio, instruments::TESTS);
    tally += Group::new("nat", options, |programs, scratch| {
        Ok(nat_types::Prober::new(programs, scratch))
    })
    .run(Runtime::Mio, nat_types::TESTS);
    for &runtime in &options.runtimes {
        let group = Group::new(&runtime.to_string(), options, |programs: Programs, scratch| {
            programs.check()?;
            World::new(programs, DEVICES, scratch)
        });
        let tests = [traffic::TESTS, access::TESTS, hostile::TESTS, restart::TESTS].concat();
        tally += group.run(runtime, &tests);
        let group = Group::new(
            &format!("clients-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::serving(programs, 1, scratch, &clients::SERVICES)
            },
        );
        tally += group.run(runtime, &clients::tests());
        let group = Group::new(
            &format!("cells-{runtime}"),
            options,
            |programs: Programs, scratch| nat::Cells::with(programs, scratch, options.keep),
        );
        tally += group.run(runtime, nat::TESTS);
        let group = Group::new(
            &format!("crowd-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::new(programs, crowd::DEVICES, scratch)
            },
        );
        tally += group.run(runtime, crowd::TESTS);
        let group = Group::new(
            &format!("names-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::new(programs, names::DEVICES, scratch)
            },
        );
        tally += group.run(runtime, names::TESTS);
        let group = Group::new(
            &format!("wired-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::new(programs, wired::DEVICES, scratch)
            },
        );
        tally += group.run(runtime, wired::TESTS);
        let group = Group::new(
            &format!("services-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::new(programs, services::DEVICES, scratch)
            },
        );
        tally += group.run(runtime, services::TESTS);
        let group = Group::new(
            &format!("sizes-{runtime}"),
            options,
            |programs: Programs, scratch| {
                programs.check()?;
                World::new(programs, sizes::DEVICES, scratch)
            },
        );
        tally += group.run(runtime, sizes::TESTS);
    }
    Ok(tally)
}

/// Runs the long matrix of bad wires.
fn run_matrix(options: &Options) -> Result<Tally> {
    leftovers::clean();
    let mut tally = Tally::default();
    for &runtime in &options.runtimes {
        println!("{runtime}");
        let scratch = Scratch::new(&format!("matrix-{runtime}"), options.keep)?;
        let programs = Programs::new(&options.programs, runtime, options.verbose, &scratch)?;
        programs.check()?;
        let mut world = World::new(programs, wired::DEVICES, scratch)?;
        tally += wired::matrix(&mut world)?;
    }
    Ok(tally)
}

/// Tests that share worlds of one kind.
struct Group<'a, F> {
    name: String,
    options: &'a Options,
    build: F,
}

impl<'a, W: Ground, F: Fn(Programs, Scratch) -> Result<W>> Group<'a, F> {
    fn new(name: &str, options: &'a Options, build: F) -> Self {
        Self {
            name: name.to_owned(),
            options,
            build,
        }
    }

    fn run(&self, runtime: Runtime, tests: &[Test<W>]) -> Tally {
        let mut tally = Tally::default();
        let mut world = None;
        let mut worlds = 0;
        for (name, test) in tests {
            let name = format!("netlab::{}::{name}", self.name);
            if self
                .options
                .only
                .as_ref()
                .is_some_and(|only| !name.contains(only.as_str()))
            {
                continue;
            }
            let started = Instant::now();
            let outcome = match world.take() {
                Some(world) => Ok(world),
                None => {
                    worlds += 1;
                    self.world(runtime, worlds)
                }
            };
            let outcome =
                outcome
                    .map_err(Failure::from)
                    .and_then(|mut world| match guarded(|| test(&mut world)) {
                        Ok(()) => Ok(world),
                        Err(error) => Err(Failure {
                            error,
                            last_words: world.last_words(),
                        }),
                    });
            tally += Tally::one(outcome.is_ok());
            world = report(&name, started, outcome);
        }
        tally
    }

    fn world(&self, runtime: Runtime, number: u32) -> Result<W> {
        let scratch = Scratch::new(&format!("{}-{number}", self.name), self.options.keep)?;
        if self.options.keep {
            println!("logs in {}", scratch.path().display());
        }
        let programs = Programs::new(
            Path::new(&self.options.programs),
            runtime,
            self.options.verbose,
            &scratch,
        )?;
        (self.build)(programs, scratch)
    }
}

/// Why a test failed, and what the programs said last.
struct Failure {
    error: Error,
    last_words: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            last_words: String::new(),
        }
    }
}

/// Prints the result in the form of the standard test harness.
fn report<W: Ground>(name: &str, started: Instant, outcome: Result<W, Failure>) -> Option<W> {
    let took = started.elapsed().as_secs_f32();
    match outcome {
        Ok(mut world) => {
            println!("test {name} ... ok ({took:.1} s)");
            for note in world.take_notes() {
                println!("      {note}");
            }
            Some(world)
        }
        Err(Failure { error, last_words }) => {
            println!("test {name} ... FAILED ({took:.1} s)");
            println!("      {error:#}{last_words}");
            None
        }
    }
}

/// A panic is a failure like any other, and must not keep the world from being removed.
fn guarded(test: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    })
}
