//! Which keys a program knows, and what was probably meant by one that it does not.

use serde_json::Value;

use super::{SettingsError, flag, variable};

/// The keys of a program: `port`, `p2p.port`, `services[].id`.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    keys: &'static [&'static [&'static str]],
    outside: &'static [&'static str],
}

impl Schema {
    /// A program with these groups of keys; those `outside` are flags and variables only, never in a file.
    pub const fn new(keys: &'static [&'static [&'static str]], outside: &'static [&'static str]) -> Self {
        Self { keys, outside }
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.of_files().chain(self.outside.iter().copied())
    }

    fn of_files(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().copied().flatten().copied()
    }

    pub(super) fn check(&self, file: &str, root: &Value) -> Result<(), SettingsError> {
        if !root.is_object() {
            return Err(SettingsError::new(
                file,
                "not a JSON object",
                "write the settings between { and }",
            ));
        }
        self.check_below(file, root, "", "")
    }

    /// `pattern` is the path of `value` in the schema, `path` the one in the file.
    fn check_below(&self, file: &str, value: &Value, pattern: &str, path: &str) -> Result<(), SettingsError> {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    if key.starts_with("_comment") {
                        continue;
                    }
                    let path = join(path, key);
                    let below = join(pattern, key);
                    if !self.members(pattern).any(|known| known == key) {
                        return Err(self.unknown(file, key, pattern, &path));
                    }
                    self.check_below(file, member, &below, &path)?;
                }
                Ok(())
            }
            Value::Array(values) => {
                let below = format!("{pattern}[]");
                values.iter().enumerate().try_for_each(|(index, value)| {
                    self.check_below(file, value, &below, &format!("{path}[{index}]"))
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    /// The names of the members that an object at `pattern` may have, some of them several times.
    fn members(&self, pattern: &str) -> impl Iterator<Item = &'static str> {
        let prefix = if pattern.is_empty() {
            String::new()
        } else {
            format!("{pattern}.")
        };
        self.of_files()
            .filter_map(move |key| key.strip_prefix(prefix.as_str())?.split(['.', '[']).next())
    }

    fn unknown(&self, file: &str, key: &str, pattern: &str, path: &str) -> SettingsError {
        let place = format!("{file}: {path}");
        if pattern.is_empty() && self.outside.contains(&key) {
            let fix = format!("remove it, and use {} or {}", flag(key), variable(key));
            return SettingsError::new(place, "cannot be set in a file", fix);
        }
        let mut known: Vec<&str> = self.members(pattern).collect();
        known.sort_unstable();
        known.dedup();
        let fix = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => "give a plain value instead of an object".to_owned(),
            None => format!("known keys here: {}", known.join(", ")),
        };
        SettingsError::new(place, "unknown key", fix)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The candidate that a slip of the keys, another case or other separators would turn into `word`.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    candidates
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .take(64)
        .collect()
}

/// Levenshtein's distance, with the swap of two neighbours as one step.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}
