//! How the demo speaks: one line per step, a mark, and the time it took.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};

/// The running account of a demo.
#[derive(Debug)]
pub(super) struct Show {
    started: Instant,
    held: u32,
    broken: u32,
    said: Vec<String>,
}

impl Show {
    /// The curtain rises.
    pub(super) fn begin() -> Self {
        Self {
            started: Instant::now(),
            held: 0,
            broken: 0,
            said: Vec::new(),
        }
    }

    /// A headline.
    pub(super) fn headline(&self, text: &str) {
        println!("\n{text}");
    }

    /// A line under the step that is being played.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.said.push(text.into());
    }

    /// Plays one step and shows how it went; `None` if it did not hold.
    pub(super) fn step<T>(&mut self, what: &str, play: impl FnOnce(&mut Self) -> Result<T>) -> Option<T> {
        let started = Instant::now();
        let outcome = play(self);
        let took = started.elapsed();
        let time = if took.as_millis() < 1000 {
            format!("{} ms", took.as_millis())
        } else {
            format!("{:.1} s", took.as_secs_f32())
        };
        let mark = if outcome.is_ok() { '✓' } else { '✗' };
        println!("  {mark} {what}  [{time}]");
        for line in self.said.drain(..) {
            println!("      {line}");
        }
        match outcome {
            Ok(value) => {
                self.held += 1;
                Some(value)
            }
            Err(error) => {
                println!("      {error:#}");
                self.broken += 1;
                None
            }
        }
    }

    /// A step that must be true.
    pub(super) fn check(&mut self, what: &str, is_true: impl FnOnce() -> bool) {
        self.step(what, |_| {
            ensure!(is_true(), "it is not so");
            Ok(())
        });
    }

    /// The curtain falls; success only if every step held.
    pub(super) fn end(self) -> ExitCode {
        let Self {
            started,
            held,
            broken,
            ..
        } = self;
        println!(
            "\n{held} of {} steps held, in {:.0} s",
            held + broken,
            started.elapsed().as_secs_f32()
        );
        ExitCode::from(u8::from(broken > 0))
    }
}
