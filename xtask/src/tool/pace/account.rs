//! What happened since a mark.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};

/// In numbers; one line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Sent.
    pub(crate) sent: u64,
    /// Distinct replies that came, to whatever was sent before the mark too.
    pub(crate) received: u64,
    /// Replies to what was sent after the mark that were quicker than the way through the relay can be.
    pub(crate) quick: u64,
    /// The others.
    pub(crate) slow: u64,
    /// Replies that had come before.
    pub(crate) duplicates: u64,
    /// Replies that are not what was sent.
    pub(crate) wrong: u64,
    /// Times the network said at once that there is no way.
    pub(crate) unreachable: u64,
    /// The longest time without a reply.
    pub(crate) gap_us: u64,
    /// The most that this program itself was late with sending: what a gap owes to a busy machine.
    pub(crate) late_us: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            quick,
            slow,
            duplicates,
            wrong,
            unreachable,
            gap_us,
            late_us,
        } = self;
        write!(
            f,
            "account {sent} {received} {quick} {slow} {duplicates} {wrong} {unreachable} {gap_us} {late_us}"
        )
    }
}

impl FromStr for Account {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let (_, numbers) = line.split_once("account ").context("not an account")?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [
            sent,
            received,
            quick,
            slow,
            duplicates,
            wrong,
            unreachable,
            gap_us,
            late_us,
        ] = *numbers.as_slice()
        else {
            anyhow::bail!("not an account: {line}");
        };
        Ok(Self {
            sent,
            received,
            quick,
            slow,
            duplicates,
            wrong,
            unreachable,
            gap_us,
            late_us,
        })
    }
}

#[cfg(test)]
mod tests;
