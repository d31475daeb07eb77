//! `cargo xtask demo`: the product at work, live and readable, in about a minute after the build.
//!
//! With root it shows everything, in namespaces; without, it says so and shows what loopback can.

mod direct;
mod loopback;
mod rootless;
mod stage;
mod steps;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::lab::programs::{Programs, Runtime};
use crate::lab::scratch::Scratch;
use crate::lab::world::World;
use crate::lab::{leftovers, obstacle};
use crate::prerequisites::{self, Purpose};

use stage::Show;

/// `cargo xtask demo`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    let runtime = args.value("--runtime")?.unwrap_or(Runtime::Mio);
    args.finish()?;
    let lacking = prerequisites::ensure(Purpose::Build)?;
    if !lacking.is_empty() {
        println!("This workspace cannot be built here. Install what is missing with:");
        println!("  {}", prerequisites::advice(&lacking));
        return Ok(ExitCode::from(2));
    }
    println!("Building the programs as they are shipped …");
    crate::suite::build_release()?;
    leftovers::clean_when_interrupted()?;
    let folder = crate::command::target().join("release");
    let mut show = Show::begin();
    if let Some(why) = obstacle() {
        println!("\nNot everything can be shown here: {why}.");
        println!(
            "What follows runs on loopback: registration, health, services without root, and healing after a crash.\n"
        );
        let scratch = Scratch::new("demo", false)?;
        let programs = Programs::new(&folder, runtime, false, &scratch)?;
        loopback::play(&mut show, &programs, &scratch);
        drop(scratch);
        return Ok(show.end());
    }
    leftovers::clean();
    {
        let scratch = Scratch::new("demo", false)?;
        let programs = Programs::new(&folder, runtime, false, &scratch)?;
        programs.check()?;
        let for_two = programs.clone();
        let world = show.step(
            "three namespaces: device, public network, private network",
            |_| World::bare(programs, 2, scratch),
        );
        if let Some(mut world) = world {
            steps::play(&mut show, &mut world);
            // Here, because the instruments are in the files of this world.
            direct::play(&mut show, &for_two);
        }
    }
    show.check(
        "nothing is left behind: no namespace, no process, no file",
        leftovers::nothing_of_ours,
    );
    Ok(show.end())
}
