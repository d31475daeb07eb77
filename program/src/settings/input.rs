//! One value of one layer, with the place where it stands; converted by asking for a type.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::SettingsError;

/// Longest part of a wrong value that an error repeats, in characters.
const SHOWN: usize = 60;

#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// From a flag or a variable.
    Text(&'a str),
    /// From the file.
    Json(&'a Value),
}

/// A value as it was given.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    place: String,
    raw: Raw<'a>,
}

impl<'a> Input<'a> {
    pub(super) fn new(place: String, raw: Raw<'a>) -> Self {
        Self { place, raw }
    }

    /// Where it stands: a flag, a variable, or a file with the path of the key.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// An error at this place.
    pub fn error(&self, problem: impl Into<String>, fix: impl Into<String>) -> SettingsError {
        SettingsError::new(self.place.clone(), problem, fix)
    }

    /// The value as an error shows it.
    pub fn shown(&self) -> String {
        let text = match self.raw {
            Raw::Text(text) => format!("{text:?}"),
            Raw::Json(Value::String(text)) => format!("{text:?}"),
            Raw::Json(Value::Object(_)) => "an object".to_owned(),
            Raw::Json(Value::Array(_)) => "a list".to_owned(),
            Raw::Json(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value.to_string(),
        };
        if text.chars().count() <= SHOWN {
            return text;
        }
        let cut: String = text.chars().take(SHOWN).collect();
        format!("{cut}…")
    }

    fn wrong(&self, expected: &str, example: &str) -> SettingsError {
        self.error(
            format!("{} is not {expected}", self.shown()),
            format!("write for example {example}"),
        )
    }

    /// A text that is not empty.
    ///
    /// # Errors
    /// If it is another type, or empty.
    pub fn text(&self, example: &str) -> Result<&'a str, SettingsError> {
        let text = match self.raw {
            Raw::Text(text) => text,
            Raw::Json(Value::String(text)) => text,
            Raw::Json(_) => return Err(self.wrong("a text", &format!("{example:?}"))),
        };
        if text.trim().is_empty() {
            return Err(self.error(
                "empty",
                format!("write for example {example:?}, or remove the key"),
            ));
        }
        Ok(text)
    }

    /// The path of a file or directory.
    ///
    /// # Errors
    /// If it is not a text.
    pub fn path(&self) -> Result<PathBuf, SettingsError> {
        self.text("/etc/ztna/cert.pem").map(PathBuf::from)
    }

    /// An IPv4 or IPv6 address.
    ///
    /// # Errors
    /// If it is not one; host names are not.
    pub fn ip(&self, example: &str) -> Result<IpAddr, SettingsError> {
        let text = self.text(example)?;
        text.trim()
            .parse()
            .map_err(|_| self.wrong("an IP address", &format!("{example:?}")))
    }

    /// A whole number between two bounds, both included.
    ///
    /// # Errors
    /// If it is not.
    pub fn number(&self, low: u64, high: u64) -> Result<u64, SettingsError> {
        let number = match self.raw {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Json(value) => value.as_u64(),
        };
        if let Some(number) = number.filter(|number| (low..=high).contains(number)) {
            return Ok(number);
        }
        let mut fix = format!("give a whole number from {low} to {high}");
        if let Raw::Json(Value::String(text)) = self.raw
            && text.trim().parse::<u64>().is_ok()
        {
            fix.push_str(", without quotes");
        }
        Err(self.error(
            format!("{} is not a number from {low} to {high}", self.shown()),
            fix,
        ))
    }

    /// A length of time between two bounds, both included: "500ms", "5s", "2m", "1h", or a number of seconds.
    ///
    /// # Errors
    /// If it is not.
    pub fn duration(&self, low: Duration, high: Duration) -> Result<Duration, SettingsError> {
        let seconds = self.number(0, u64::from(u32::MAX)).ok().map(Duration::from_secs);
        let text = match self.raw {
            Raw::Text(text) => Some(text),
            Raw::Json(value) => value.as_str(),
        };
        let length = seconds.or_else(|| parse_duration(text?.trim()));
        length
            .filter(|length| (low..=high).contains(length))
            .ok_or_else(|| {
                self.error(
                    format!("{} is not a time from {low:?} to {high:?}", self.shown()),
                    "write for example \"5s\" or \"500ms\"",
                )
            })
    }

    /// A UDP or TCP port; 0 lets the system choose, or switches off, as the key says.
    ///
    /// # Errors
    /// If it is not one.
    pub fn port(&self) -> Result<u16, SettingsError> {
        Ok(u16::try_from(self.number(0, u64::from(u16::MAX))?).unwrap_or(u16::MAX))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// If it is neither.
    pub fn switch(&self) -> Result<bool, SettingsError> {
        match self.raw {
            Raw::Json(Value::Bool(on)) => Ok(*on),
            Raw::Text("true" | "1" | "yes" | "on") => Ok(true),
            Raw::Text("false" | "0" | "no" | "off") => Ok(false),
            Raw::Text(_) | Raw::Json(_) => {
                let problem = format!("{} is neither true nor false", self.shown());
                let fix = match self.raw {
                    Raw::Json(_) => "write true or false, without quotes",
                    Raw::Text(_) => "give true or false",
                };
                Err(self.error(problem, fix))
            }
        }
    }

    /// One of several words, compared without regard to case.
    ///
    /// # Errors
    /// If it is none of them; the nearest is suggested.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, SettingsError> {
        let example = choices.first().map_or("", |(word, _)| word);
        let text = self.text(example)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            return Ok(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let fix = match super::schema::nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("give one of {}", words.join(", ")),
        };
        Err(self.error(format!("{} is not known here", self.shown()), fix))
    }

    /// Whether it is an object of the file.
    pub fn is_object(&self) -> bool {
        matches!(self.raw, Raw::Json(Value::Object(_)))
    }

    /// A member of an object; `None` if this is no object or has no such member.
    pub fn get(&self, key: &str) -> Option<Self> {
        let Raw::Json(value) = self.raw else {
            return None;
        };
        let value = value.get(key)?;
        Some(Self::new(format!("{}.{key}", self.place), Raw::Json(value)))
    }

    /// A member of an object that must be there.
    ///
    /// # Errors
    /// If it is not; `what` says what is to be given.
    pub fn member(&self, key: &str, what: &str) -> Result<Self, SettingsError> {
        if !self.is_object() {
            return Err(self.error(
                format!("{} is not an object", self.shown()),
                format!("write {{\"{key}\": …}}"),
            ));
        }
        self.get(key).ok_or_else(|| {
            SettingsError::new(
                format!("{}.{key}", self.place),
                "missing",
                format!("add {key:?}: {what}"),
            )
        })
    }

    /// The elements of a list of the file.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn list(&self) -> Result<Vec<Self>, SettingsError> {
        let Raw::Json(Value::Array(values)) = self.raw else {
            return Err(self.error(
                format!("{} is not a list", self.shown()),
                "put it into square brackets",
            ));
        };
        Ok(values
            .iter()
            .enumerate()
            .map(|(index, value)| Self::new(format!("{}[{index}]", self.place), Raw::Json(value)))
            .collect())
    }

    /// The elements of a list, or the value itself as the only one. From a flag or variable: separated by commas.
    pub fn one_or_many(&self) -> Vec<Self> {
        match self.raw {
            Raw::Json(Value::Array(_)) => self.list().unwrap_or_default(),
            Raw::Json(_) => vec![self.clone()],
            Raw::Text(text) => text
                .split(',')
                .map(|part| Self::new(self.place.clone(), Raw::Text(part.trim())))
                .collect(),
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    let unit = match unit.trim() {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number)
}
