//! Figures by name, one per round; medians of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What was measured, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(BTreeMap<&'static str, Vec<f64>>);

impl Figures {
    /// Adds a round's figure.
    pub(super) fn add(&mut self, name: &'static str, figure: f64) {
        self.0.entry(name).or_default().push(figure);
    }

    /// The median over the rounds; `NaN`, which no condition accepts, if there is none.
    pub(super) fn median(&self, name: &str) -> f64 {
        self.sorted(name).map_or(f64::NAN, |sorted| {
            let middle = sorted.len() / 2;
            if sorted.len() % 2 == 1 {
                sorted[middle]
            } else {
                f64::midpoint(sorted[middle - 1], sorted[middle])
            }
        })
    }

    /// The sum over the rounds.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.0.get(name).map_or(f64::NAN, |figures| figures.iter().sum())
    }

    /// The least and the greatest.
    pub(super) fn range(&self, name: &str) -> (f64, f64) {
        self.sorted(name).map_or((f64::NAN, f64::NAN), |sorted| {
            (sorted[0], sorted[sorted.len() - 1])
        })
    }

    fn sorted(&self, name: &str) -> Option<Vec<f64>> {
        let mut figures = self.0.get(name)?.clone();
        figures.sort_by(f64::total_cmp);
        (!figures.is_empty()).then_some(figures)
    }

    /// All of it: median, range and rounds.
    pub(super) fn to_json(&self) -> Value {
        let figures = self.0.iter().map(|(name, rounds)| {
            let (least, greatest) = self.range(name);
            let value =
                json!({ "median": self.median(name), "min": least, "max": greatest, "rounds": rounds });
            ((*name).to_owned(), value)
        });
        Value::Object(figures.collect())
    }
}

/// A number of an answer, by its path; `NaN` if it is not there.
pub(super) fn number(answer: &Value, path: &str) -> f64 {
    answer.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
}
