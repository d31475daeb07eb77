//! A command line in the order people type it: flags are taken out by name, what is left is an error.
//!
//! Small on purpose: this program is built on every machine before anything else, so it has no argument parser to compile.

use std::collections::VecDeque;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};

/// The arguments not yet understood.
#[derive(Debug)]
pub(crate) struct Args {
    left: VecDeque<String>,
}

impl Args {
    /// Everything after the program's own name.
    pub(crate) fn from_env() -> Self {
        Self {
            left: std::env::args().skip(1).collect(),
        }
    }

    /// The arguments given, for tests.
    #[cfg(test)]
    pub(crate) fn of(words: &[&str]) -> Self {
        Self {
            left: words.iter().map(ToString::to_string).collect(),
        }
    }

    /// The next word, if it is not a flag.
    pub(crate) fn word(&mut self) -> Option<String> {
        if self.left.front()?.starts_with("--") {
            return None;
        }
        self.left.pop_front()
    }

    /// Whether `--name` was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let Some(at) = self.left.iter().position(|word| word == name) else {
            return false;
        };
        self.left.remove(at);
        true
    }

    /// The value after `--name`, if it was given.
    pub(crate) fn value<T>(&mut self, name: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let Some(at) = self.left.iter().position(|word| word == name) else {
            return Ok(None);
        };
        self.left.remove(at);
        let text = self
            .left
            .remove(at)
            .with_context(|| format!("{name} needs a value"))?;
        let value = text.parse().map_err(|error| anyhow!("{name} {text}: {error}"))?;
        Ok(Some(value))
    }

    /// The value after `--name`, which must be given.
    pub(crate) fn required<T>(&mut self, name: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.value(name)?.with_context(|| format!("{name} is missing"))
    }

    /// Refuses whatever nobody asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.left.front() {
            Some(word) => bail!("unknown argument {word}; see cargo xtask help"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
