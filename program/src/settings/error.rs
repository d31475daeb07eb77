//! What is said to the person whose setting is wrong: one line with the place, the problem and the fix.

use std::fmt;

use serde_json::Value;

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

impl SettingsError {
    /// If the place is inside `services[]`, names the service there as well: a number is no name.
    #[must_use]
    pub(super) fn naming_service(mut self, root: &Value) -> Self {
        let id = self.place.split_once("services[").and_then(|(_, rest)| {
            let (number, rest) = rest.split_once(']')?;
            // At the id itself, it is shown anyway.
            let service = root.get("services")?.get(number.parse::<usize>().ok()?)?;
            service.get("id")?.as_str().filter(|_| rest != ".id")
        });
        if let Some(id) = id {
            let shown: String = id.chars().take(60).collect();
            self.place = format!("{} (service {shown:?})", self.place);
        }
        self
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
