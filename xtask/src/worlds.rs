//! The long run of generated encounters: the same test as in CI, with more of them.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::args::Args;
use crate::command::cargo;

/// How many without `--count`.
const COUNT: u64 = 1_000_000;

/// Runs encounters by their numbers. One that ends badly is named, and told again with every packet when its number is in
/// `SIM_SEED`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    let count = args.value::<u64>("--count")?.unwrap_or(COUNT);
    let first = args.value::<u64>("--first")?.unwrap_or(0);
    args.finish()?;
    println!("encounters {first} to {}", first.saturating_add(count));
    let mut command = cargo(&["test", "--locked", "-p", "proto-core", "--test", "encounters"]);
    command.args(["thousands", "--", "--nocapture"]);
    command.env("SIM_WORLDS", count.to_string());
    command.env("SIM_FIRST", first.to_string());
    let status = command.status().context("cannot run cargo test")?;
    Ok(ExitCode::from(u8::from(!status.success())))
}
