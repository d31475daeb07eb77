//! What is said to the person whose setting is wrong: one line with the place, the problem and the fix.

use std::fmt;

/// A setting that cannot be used. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    place: String,
    problem: String,
    fix: String,
}

impl SettingsError {
    /// `place` is a flag, a variable, or a file with the key's path in it.
    pub fn new(place: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{}: {}; {}", self.place, self.problem, self.fix);
        // Whatever the file contains, the error stays one line.
        line.chars().try_for_each(|c| {
            if c.is_control() {
                write!(f, "{}", c.escape_default())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

impl std::error::Error for SettingsError {}
