//! What must hold of a cell, and the figures it is judged by.

use serde_json::{Value, json};

use super::Cell;
use crate::lab::behind::run::{Cut, Gap, Run, Way};

/// Milliseconds: (a + b)/2 + 1.5 d + 25 ms at round trips of 20 ms.
const TYPICAL: f64 = 20.0 + 30.0 + 25.0;
/// Milliseconds: what the slowest of a hundred may take.
const SLOWEST: f64 = 250.0;
/// Milliseconds: three round trips are less than the floor of the promise.
const GAP: f64 = 100.0;
/// Milliseconds: until the way is direct again after healing.
const RETURN: f64 = 1_000.0;
/// The share of runs that must be direct where theory has a way, in percent.
const SHARE: usize = 99;

/// Everything that was seen of a cell.
#[derive(Debug)]
pub(super) struct Findings {
    /// Which.
    pub(super) cell: Cell,
    /// The runs.
    pub(super) runs: Vec<Run>,
    /// The cuts.
    pub(super) gaps: Vec<Gap>,
    /// Cuts that were measured again because this machine stood still.
    pub(super) standstills: u32,
    /// Why it could not be finished.
    pub(super) error: Option<String>,
}

impl Findings {
    /// Nothing yet.
    pub(super) fn new(cell: Cell) -> Self {
        Self {
            cell,
            runs: Vec::new(),
            gaps: Vec::new(),
            standstills: 0,
            error: None,
        }
    }

    fn count(&self, way: Way) -> usize {
        self.runs.iter().filter(|run| run.way == way).count()
    }

    fn times(&self, of: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        sorted(self.runs.iter().filter_map(of))
    }

    /// The longest silence after each cut.
    fn silences(&self) -> Vec<f64> {
        sorted(self.gaps.iter().map(|gap| gap.gap))
    }

    /// The times of return; one that never came is not among them.
    fn returns(&self) -> Vec<f64> {
        sorted(self.gaps.iter().filter_map(|gap| gap.back))
    }

    /// What is wrong with the ways alone; holds on any machine, however slow.
    pub(super) fn wrong_ways(&self) -> Vec<String> {
        let first = self.error.as_ref().and_then(|error| error.lines().next());
        let mut wrong: Vec<String> = first.map(str::to_owned).into_iter().collect();
        let all = self.runs.len();
        let (direct, none) = (self.count(Way::Direct), self.count(Way::Neither));
        if self.cell.is_hopeless() {
            if none < all {
                wrong.push(format!("{} of {all} runs had a way without UDP", all - none));
            }
            return wrong;
        }
        if none > 0 {
            wrong.push(format!("{none} of {all} runs had neither way"));
        }
        if self.cell.theory() && direct * 100 < all * SHARE {
            wrong.push(format!("only {direct} of {all} runs were direct"));
        }
        for run in &self.runs {
            let expected = match run.way {
                Way::Direct => "direct",
                Way::Relayed => "relayed",
                Way::Neither => continue,
            };
            // A relay that reads along is a relay.
            let said = run.said.as_deref().unwrap_or("nothing");
            if said != expected && (expected, said) != ("relayed", "wrapped") {
                wrong.push(format!("an agent said {said} while echoes were {expected}"));
            }
        }
        let lost = self.gaps.iter().filter(|gap| gap.back.is_none()).count();
        if lost > 0 {
            wrong.push(format!(
                "after {lost} of {} cuts it never returned",
                self.gaps.len()
            ));
        }
        wrong
    }

    /// Everything that is wrong, figures included.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.wrong_ways();
        let untold = |run: &&Run| run.way == Way::Direct && run.time_to_direct.is_none();
        if self.runs.iter().any(|run| untold(&run)) {
            wrong.push("an agent did not say how long it took".to_owned());
        }
        let limits = [
            ("search p50", self.times(|run| run.search), 50, TYPICAL),
            (
                "time to direct p99",
                self.times(|run| run.time_to_direct),
                99,
                SLOWEST,
            ),
            ("gap", self.silences(), 100, GAP),
            ("return", self.returns(), 100, RETURN),
        ];
        for (what, times, percent, limit) in limits {
            if let Some(time) = percentile(&times, percent)
                && time > limit
            {
                wrong.push(format!("{what} {time:.0} ms > {limit:.0} ms"));
            }
        }
        wrong
    }

    /// What the programs said last, if it could not be finished.
    pub(super) fn last_words(&self) -> Option<&str> {
        self.error.as_ref()?.split_once('\n').map(|(_, rest)| rest)
    }

    /// Its line of the table.
    pub(super) fn line(&self) -> String {
        let pair = |times: &[f64], high| match (percentile(times, 50), percentile(times, high)) {
            (Some(middle), Some(high)) => format!("{middle:.0}/{high:.0}"),
            _ => "-".to_owned(),
        };
        let wrong = self.wrong();
        format!(
            "{:<38} {:>5} {:>6} {:>7} {:>5} {:>9} {:>9} {:>11} {:>5} {:>9} {:>9}  {}",
            self.cell.to_string(),
            if self.cell.theory() { "yes" } else { "no" },
            self.count(Way::Direct),
            self.count(Way::Relayed),
            self.count(Way::Neither),
            pair(&self.times(|run| run.search), 99),
            pair(&self.times(|run| run.time_to_direct), 99),
            pair(&self.times(|run| run.first_direct), 99),
            self.gaps.len(),
            pair(&self.silences(), 100),
            pair(&self.returns(), 100),
            if wrong.is_empty() {
                "holds".to_owned()
            } else {
                wrong.join("; ")
            }
        )
    }

    /// The head of the table.
    pub(super) fn head() -> String {
        format!(
            "{:<38} {:>5} {:>6} {:>7} {:>5} {:>9} {:>9} {:>11} {:>5} {:>9} {:>9}  times in ms: p50/p99, of cuts p50/max",
            "agent × connector",
            "meet?",
            "direct",
            "relayed",
            "none",
            "search",
            "to direct",
            "direct echo",
            "cuts",
            "gap",
            "return"
        )
    }

    /// All of it, for programs.
    pub(super) fn json(&self) -> Value {
        let of = |times: Vec<f64>| {
            json!({
                "p50": percentile(&times, 50),
                "p99": percentile(&times, 99),
                "max": times.last(),
                "samples": times,
            })
        };
        let of_cut = |cut: Cut| {
            of(sorted(
                self.gaps.iter().filter(|gap| gap.cut == cut).map(|gap| gap.gap),
            ))
        };
        json!({
            "agent": self.cell.a.name(),
            "connector": self.cell.b.name(),
            "theory": self.cell.theory(),
            "runs": self.runs.len(),
            "direct": self.count(Way::Direct),
            "relayed": self.count(Way::Relayed),
            "neither": self.count(Way::Neither),
            "search_ms": of(self.times(|run| run.search)),
            "time_to_direct_ms": of(self.times(|run| run.time_to_direct)),
            "first_reply_ms": of(self.times(|run| run.first_reply)),
            "first_direct_echo_ms": of(self.times(|run| run.first_direct)),
            "gap_ms": Cut::ALL.map(|cut| json!({ "cut": cut.name(), "gap": of_cut(cut) })),
            "return_ms": of(self.returns()),
            "measured_again": self.standstills,
            "wrong": self.wrong(),
        })
    }
}

fn sorted(times: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The value that this many percent do not exceed (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests;
