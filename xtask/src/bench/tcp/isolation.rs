//! No session waits on another's backend: short sessions with a backend that answers, alone, and beside callers of one
//! that never does.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::stage::{FAST, HOLE, Stage};
use crate::bench::figures::Figures;
use crate::lab::process::Process;

/// Callers of the backend that does not answer.
const STUCK: usize = 32;
const SESSIONS: &str = "300";
const PATIENCE: Duration = Duration::from_secs(60);

/// One comparison.
pub(super) fn round(stage: &Stage, figures: &mut Figures) -> Result<()> {
    let alone = latency(stage)?;
    let hole = format!("{}:{}", HOLE.address, HOLE.port);
    let stuck = stage.tool(&["tcp-sessions", "--to", &hole, "--count", &STUCK.to_string()])?;
    stage.wait_for_callers(STUCK)?;
    let beside = latency(stage);
    drop(stuck);
    let beside = beside?;
    figures.add("fast_alone_p50", alone.0);
    figures.add("fast_alone_p99", alone.1);
    figures.add("fast_beside_p50", beside.0);
    figures.add("fast_beside_p99", beside.1);
    figures.add("fast_ratio", beside.0 / alone.0);
    Ok(())
}

/// Median and 99th percentile of short sessions, in microseconds.
fn latency(stage: &Stage) -> Result<(f64, f64)> {
    let to = format!("{}:{}", FAST.address, FAST.port);
    let mut tool: Process = stage.tool(&["tcp-latency", "--to", &to, "--count", SESSIONS])?;
    let (line, _) = tool.wait_for("p50 ", PATIENCE)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| -> Result<f64> {
        let word = words.get(at).context("no figure")?;
        word.parse().with_context(|| line.clone())
    };
    Ok((number(1)?, number(4)?))
}
