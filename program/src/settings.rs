//! Where a program's settings come from: flags over environment over file over default, refused as soon as one is wrong.
//!
//! A setting has one key, such as `p2p.port`; its flag is `--p2p-port`, its variable `ZTNA_P2P_PORT`, and in the file it
//! is the member `port` of the object `p2p`. This module finds values and says where they stand; what they mean is
//! decided by each program. Keys of the file that no program knows are an error, except those that start with
//! `_comment`.

mod error;
mod input;
mod schema;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::SettingsError;
pub use input::Input;
pub use schema::Schema;

use input::Raw;

/// A JSON file larger than this is not a configuration.
const MAX_FILE: u64 = 1 << 20;

/// What all variables of the environment begin with.
const PREFIX: &str = "ZTNA_";

/// Variables beginning with `ZTNA_`, taken once at start.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Empty variables count as unset.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    fn value(&self, key: &str) -> Option<(String, &str)> {
        let name = variable(key);
        let value = self.0.get(&name)?;
        Some((name, value))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(
            variables
                .into_iter()
                .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
                .collect(),
        )
    }
}

/// The flag of a key: `p2p.port` is `--p2p-port`.
pub fn flag(key: &str) -> String {
    format!("--{}", key.replace(['_', '.'], "-"))
}

/// The variable of a key: `p2p.port` is `ZTNA_P2P_PORT`.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Settings given on the command line, as text.
#[derive(Clone, Debug, Default)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Adds a value that may have been given.
    pub fn set(&mut self, key: &'static str, value: Option<&String>) {
        if let Some(value) = value {
            self.0.insert(key, value.clone());
        }
    }

    /// Adds a switch that may have been given.
    pub fn switch(&mut self, key: &'static str, on: bool) {
        if on {
            self.0.insert(key, "true".to_owned());
        }
    }
}

/// All layers of a program's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    flags: Flags,
    environment: Environment,
    /// The file as it is shown, and what is in it.
    file: Option<(String, Value)>,
    default_path: &'static str,
}

impl Settings {
    /// Collects the layers. The file is `--config`, else `ZTNA_CONFIG`, else the default if there is one.
    ///
    /// # Errors
    /// If a file that was asked for cannot be read, is not JSON, or has a key that `schema` does not know.
    pub fn load(
        schema: &Schema,
        default_path: &'static str,
        flags: Flags,
        environment: Environment,
    ) -> Result<Self, SettingsError> {
        let explicit = match flags.0.get("config") {
            Some(path) => Some(("--config".to_owned(), PathBuf::from(path))),
            None => environment
                .value("config")
                .map(|(name, path)| (name, PathBuf::from(path))),
        };
        let file = match explicit {
            Some((place, path)) => Some(read(&path, &place)?),
            None if exists(Path::new(default_path)) => {
                Some(read(Path::new(default_path), "the default configuration")?)
            }
            None => None,
        };
        if let Some((name, value)) = &file {
            schema
                .check(name, value)
                .map_err(|error| error.naming_service(value))?;
        }
        Ok(Self {
            flags,
            environment,
            file,
            default_path,
        })
    }

    /// The value of `key` from the highest layer that has one.
    pub fn input(&self, key: &str) -> Option<Input<'_>> {
        if let Some(text) = self.flags.0.get(key) {
            return Some(Input::new(flag(key), Raw::Text(text)));
        }
        if let Some((name, text)) = self.environment.value(key) {
            return Some(Input::new(name, Raw::Text(text)));
        }
        self.from_file(key)
    }

    /// The value of `key` in the file, whatever the other layers say.
    pub fn from_file(&self, key: &str) -> Option<Input<'_>> {
        let (name, root) = self.file.as_ref()?;
        let mut value = root;
        for part in key.split('.') {
            value = value.get(part)?;
        }
        Some(Input::new(format!("{name}: {key}"), Raw::Json(value)))
    }

    /// The value of `key` converted, or `default` if no layer has one.
    ///
    /// # Errors
    /// If the conversion refuses the value.
    pub fn or<'a, T>(
        &'a self,
        key: &str,
        default: T,
        convert: impl FnOnce(&Input<'a>) -> Result<T, SettingsError>,
    ) -> Result<T, SettingsError> {
        self.input(key).map_or(Ok(default), |input| convert(&input))
    }

    /// The value of `key` converted, if any layer has one.
    ///
    /// # Errors
    /// If the conversion refuses the value.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        convert: impl FnOnce(&Input<'a>) -> Result<T, SettingsError>,
    ) -> Result<Option<T>, SettingsError> {
        self.input(key).map(|input| convert(&input)).transpose()
    }

    /// The error for a key that no layer has; `what` says what is to be given.
    pub fn missing(&self, key: &str, what: &str) -> SettingsError {
        let place = match &self.file {
            Some((name, _)) => format!("{name}: {key}"),
            None => key.to_owned(),
        };
        let fix = format!(
            "give {what} with {} or {}, or in the file",
            flag(key),
            variable(key)
        );
        match self.file {
            Some(_) => SettingsError::new(place, "missing", fix),
            None => SettingsError::new(place, "missing", format!("{fix} {}", self.default_path)),
        }
    }

    /// An error with the name of the service in it, if it is about one of the file.
    pub fn name_service(&self, error: SettingsError) -> SettingsError {
        match &self.file {
            Some((_, root)) => error.naming_service(root),
            None => error,
        }
    }

    /// The file in use, as it is shown.
    pub fn file_name(&self) -> Option<&str> {
        self.file.as_ref().map(|(name, _)| name.as_str())
    }

    /// Variables that look like ours and that none of the schemas knows, for a warning.
    pub fn strange_variables(&self, schemas: &[&Schema]) -> Vec<String> {
        let known = |name: &&String| {
            schemas
                .iter()
                .any(|schema| schema.keys().any(|key| variable(key) == **name))
        };
        let names = self.environment.0.keys().filter(|name| !known(name));
        names.cloned().collect()
    }
}

fn exists(path: &Path) -> bool {
    // Everything but "not there" is worth an error that says what is wrong.
    !matches!(std::fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}

fn read(path: &Path, place: &str) -> Result<(String, Value), SettingsError> {
    let name = path.display().to_string();
    let unreadable = |problem: String, fix: &str| SettingsError::new(format!("{place} {name}"), problem, fix);
    let metadata = std::fs::metadata(path).map_err(|error| {
        let fix = if error.kind() == ErrorKind::NotFound {
            "create it or name another file"
        } else {
            "make it readable for this user"
        };
        unreadable(format!("cannot read: {}", describe(&error)), fix)
    })?;
    if !metadata.is_file() {
        return Err(unreadable("not a file".to_owned(), "name a JSON file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(unreadable("larger than 1 MiB".to_owned(), "name a JSON file"));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        let problem = format!("cannot read: {}", describe(&error));
        unreadable(problem, "make it readable for this user")
    })?;
    parse(&name, &bytes).map(|value| (name, value))
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value, SettingsError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let problem = text
            .strip_suffix(&format!(" at line {line} column {column}"))
            .unwrap_or(&text);
        let place = format!("{name}:{line}:{column}");
        SettingsError::new(
            place,
            format!("not valid JSON: {problem}"),
            "correct the file there",
        )
    })
}

/// The text of an operating system's error without its number.
pub fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
