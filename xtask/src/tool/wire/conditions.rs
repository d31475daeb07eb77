//! What a wire does to packets, in words: `delay=10 jitter=2 reorder=1 loss=1 burst=4 rate=100 queue=50 seed=7`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The character of a wire; the same in both directions, each with its own dice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conditions {
    /// How long every packet takes.
    pub(crate) delay: Duration,
    /// How much longer it may take; packets stay in order.
    pub(crate) jitter: Duration,
    /// The share, in percent, that takes `lag` longer and is overtaken.
    pub(crate) reorder: f64,
    /// How late an overtaken packet is.
    pub(crate) lag: Duration,
    /// The share that is lost, in percent.
    pub(crate) loss: f64,
    /// How many are lost in a row, on average; 1 means that each loss is for itself.
    pub(crate) burst: f64,
    /// Megabits per second of IP packets; 0 means no limit.
    pub(crate) rate: f64,
    /// How long a packet may wait at the bottleneck; what would wait longer is lost.
    pub(crate) queue: Duration,
    /// Where the dice start.
    pub(crate) seed: u64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            lag: Duration::from_millis(3),
            loss: 0.0,
            burst: 1.0,
            rate: 0.0,
            queue: Duration::from_millis(50),
            seed: 1,
        }
    }
}

impl FromStr for Conditions {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut conditions = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word
                .split_once('=')
                .with_context(|| format!("{word}: key=value"))?;
            let number: f64 = value.parse().with_context(|| word.to_owned())?;
            if !(0.0..1e9).contains(&number) {
                bail!("{word}: not a sensible number");
            }
            let millis = || Duration::from_secs_f64(number / 1e3);
            match key {
                "delay" => conditions.delay = millis(),
                "jitter" => conditions.jitter = millis(),
                "reorder" => conditions.reorder = number,
                "lag" => conditions.lag = millis(),
                "loss" => conditions.loss = number,
                "burst" => conditions.burst = number,
                "rate" => conditions.rate = number,
                "queue" => conditions.queue = millis(),
                "seed" => conditions.seed = value.parse()?,
                _ => bail!("a wire has no {key}"),
            }
        }
        Ok(conditions)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "delay={} jitter={} reorder={} lag={} loss={} burst={} rate={} queue={} seed={}",
            millis(self.delay),
            millis(self.jitter),
            self.reorder,
            millis(self.lag),
            self.loss,
            self.burst,
            self.rate,
            millis(self.queue),
            self.seed
        )
    }
}
