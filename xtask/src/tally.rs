//! Counting what passed, failed and was skipped.

use std::fmt;
use std::ops::AddAssign;

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Held.
    pub(crate) passed: u64,
    /// Did not hold.
    pub(crate) failed: u64,
    /// Were not tried, and said why.
    pub(crate) skipped: u64,
}

impl Tally {
    /// One that held, or not.
    pub(crate) fn one(held: bool) -> Self {
        Self {
            passed: u64::from(held),
            failed: u64::from(!held),
            skipped: 0,
        }
    }

    /// One that was not tried.
    pub(crate) fn skip() -> Self {
        Self {
            skipped: 1,
            ..Self::default()
        }
    }
}

/// Reads the output of a `cargo test` run that shows what its tests print.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    counted: Tally,
    /// Tests that said they found nothing to do; the harness counts them as passed.
    stood_aside: u64,
}

impl Reader {
    /// Takes in one line.
    pub(crate) fn line(&mut self, line: &str) {
        if line.trim_start().starts_with("SKIPPED:") {
            self.stood_aside += 1;
        }
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.counted.passed += number,
                "failed" => self.counted.failed += number,
                "ignored" => self.counted.skipped += number,
                _ => {}
            }
        }
    }

    /// What all the lines came to.
    pub(crate) fn finish(self) -> Tally {
        let Self { counted, stood_aside } = self;
        Tally {
            passed: counted.passed.saturating_sub(stood_aside),
            failed: counted.failed,
            skipped: counted.skipped + stood_aside,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests;
