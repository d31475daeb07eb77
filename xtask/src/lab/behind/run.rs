//! One run of a cell: an agent starts, packets flow, and the way they take is watched; then the direct way is cut and healed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::Stage;
use crate::lab::neighbourhood::Which;
use crate::lab::process::Process;
use crate::lab::world::PATIENCE;
use crate::tool::pace::Account;

/// Packets per second while gaps are measured, and otherwise.
const FULL_PACE: u32 = 1_000;
const SLOW_PACE: u32 = 200;

/// How long the direct way may take where theory has one; the promise is far less, and judged by its figures.
const DIRECT: Duration = Duration::from_secs(5);

/// How long is watched for a direct way where theory has none.
const WATCH: Duration = Duration::from_millis(1_500);

/// How long the first reply may take: the agent is registered already.
const FIRST: Duration = Duration::from_secs(10);

/// How long nothing can come that needs UDP where there is none.
const HOPELESS: Duration = Duration::from_secs(2);

/// How long a cut lasts at least, and what is between a healing and the next.
const CUT: Duration = Duration::from_millis(1_500);
const HEALTHY: Duration = Duration::from_millis(700);

/// A gap is measured again if this program was itself this late: then the machine stood still.
const STANDSTILL_US: u64 = 20_000;

/// Which way echoes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Directly, in both directions.
    Direct,
    /// Through the relay.
    Relayed,
    /// None came.
    Neither,
}

/// What one run showed. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// Found by the time that echoes took.
    pub(crate) way: Way,
    /// What the agent says.
    pub(crate) said: Option<String>,
    /// From the first packet to its (or any) reply.
    pub(crate) first_reply: Option<f64>,
    /// From the first packet to the first echo that was direct in both directions.
    pub(crate) first_direct: Option<f64>,
    /// From the first packet to the first direct connection, as the agent says.
    pub(crate) time_to_direct: Option<f64>,
    /// From the word that set the beginning of the search to the direct connection, as the agent says.
    pub(crate) search: Option<f64>,
}

/// What a cut was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both directions.
    Both,
    /// What the agent sends.
    FromAgent,
    /// What the connector sends.
    FromConnector,
}

impl Cut {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 3] = [Self::Both, Self::FromAgent, Self::FromConnector];

    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::FromAgent => "from agent",
            Self::FromConnector => "from connector",
        }
    }

    fn sides(self) -> &'static [Which] {
        match self {
            Self::Both => &[Which::A, Which::B],
            Self::FromAgent => &[Which::A],
            Self::FromConnector => &[Which::B],
        }
    }
}

/// What one cut did. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gap {
    /// Of what.
    pub(crate) cut: Cut,
    /// The longest time without an echo.
    pub(crate) gap: f64,
    /// From the healing to the first echo that was direct in both directions.
    pub(crate) back: Option<f64>,
    /// Echoes that came through the relay meanwhile, at least in one direction.
    pub(crate) relayed: u64,
}

impl Stage {
    /// An agent starts and is watched until its way is clear.
    pub(crate) fn run(&mut self) -> Result<Run> {
        self.start_agent()?;
        let mut pace = self.start_pace(SLOW_PACE)?;
        let run = self.watch(&mut pace);
        drop(pace);
        self.stop_agent()?;
        run
    }

    fn watch(&self, pace: &mut Process) -> Result<Run> {
        let patience = if self.is_hopeless() { HOPELESS } else { FIRST };
        let first_reply = said_within(pace, "first reply after ", patience)?;
        let patience = match (first_reply, self.can_meet()) {
            (None, _) => Duration::ZERO,
            (Some(_), true) => DIRECT,
            (Some(_), false) => WATCH,
        };
        let first_direct = said_within(pace, "start quick after ", patience)?;
        // What counts is where it settles.
        pace.say("mark settled")?;
        sleep(Duration::from_millis(300));
        let account = tell(pace, "settled")?;
        let way = match account {
            Account { quick: 1.., .. } => Way::Direct,
            Account { received: 1.., .. } => Way::Relayed,
            Account { .. } => Way::Neither,
        };
        ensure!(account.wrong == 0, "replies that nobody sent: {account:?}");
        let report = self.report()?;
        Ok(Run {
            way,
            said: report.path,
            first_reply,
            first_direct,
            time_to_direct: report.time_to_direct.map(|time| time.as_secs_f64() * 1e3),
            search: report.search.map(|time| time.as_secs_f64() * 1e3),
        })
    }

    /// Cuts and heals the direct way this often; each result is handed to `found`. Returns how often a result was thrown away
    /// because this machine itself stood still.
    pub(crate) fn gaps(&mut self, count: u32, mut found: impl FnMut(Gap)) -> Result<u32> {
        self.start_agent()?;
        let mut pace = self.start_pace(FULL_PACE)?;
        said_within(&mut pace, "start quick after ", FIRST)?.context("the way never became direct")?;
        let mut left = count;
        let mut standstills = 0;
        for (number, cut) in (0..).zip(Cut::ALL.iter().cycle()) {
            if left == 0 {
                break;
            }
            sleep(HEALTHY);
            let (gap, account) = self.gap(&mut pace, number, *cut)?;
            if account.late_us > STANDSTILL_US && standstills < count {
                standstills += 1;
                continue;
            }
            left -= 1;
            found(gap);
        }
        drop(pace);
        self.stop_agent()?;
        Ok(standstills)
    }

    /// Each side's router in turn forgets its mappings while packets flow; how long nothing came, in milliseconds.
    pub(crate) fn rebindings(&mut self) -> Result<[f64; 2]> {
        self.start_agent()?;
        let mut pace = self.start_pace(FULL_PACE)?;
        said_within(&mut pace, "first reply after ", FIRST)?.context("nothing came back")?;
        if self.can_meet() {
            said_within(&mut pace, "start quick after ", FIRST)?.context("the way never became direct")?;
        }
        let mut gaps = [0.0; 2];
        for (which, gap) in [Which::A, Which::B].into_iter().zip(&mut gaps) {
            sleep(HEALTHY);
            let name = format!("rebinding{which:?}");
            pace.say(&format!("mark {name}"))?;
            self.neighbourhood.side(which).rebind(&self.programs)?;
            let account = Self::until_echoes_come(&mut pace, &name)?;
            *gap = millis(account.gap_us);
            if self.can_meet() {
                let name = format!("direct{which:?}");
                pace.say(&format!("mark {name}"))?;
                let direct = said_within(&mut pace, &format!("{name} quick after "), PATIENCE)?;
                ensure!(
                    direct.is_some(),
                    "the way never became direct again after {which:?}"
                );
            }
        }
        drop(pace);
        self.stop_agent()?;
        Ok(gaps)
    }

    fn gap(&self, pace: &mut Process, number: u32, cut: Cut) -> Result<(Gap, Account)> {
        let name = format!("cut{number}");
        pace.say(&format!("mark {name}"))?;
        for side in cut.sides() {
            self.neighbourhood.cut(*side)?;
        }
        let account =
            Self::until_echoes_come(pace, &name).with_context(|| format!("after a cut ({})", cut.name()))?;
        let name = format!("healed{number}");
        pace.say(&format!("mark {name}"))?;
        self.neighbourhood.heal()?;
        let back = said_within(pace, &format!("{name} quick after "), PATIENCE)?;
        Ok((
            Gap {
                cut,
                gap: millis(account.gap_us),
                back,
                relayed: account.slow,
            },
            account,
        ))
    }
}

impl Stage {
    /// The account, once some time has passed and echoes come (again); however long that takes: the figure is judged, not this.
    fn until_echoes_come(pace: &mut Process, name: &str) -> Result<Account> {
        let started = Instant::now();
        loop {
            sleep(CUT);
            let account = tell(pace, name)?;
            let silent = Duration::from_micros(account.gap_us);
            if silent < CUT / 2 || silent + CUT / 2 < started.elapsed() {
                return Ok(account);
            }
            if started.elapsed() > PATIENCE {
                bail!("nothing comes any more: {account:?}");
            }
        }
    }
}

/// The number in the line that begins so, in milliseconds; `None` if it is not said in time.
fn said_within(pace: &mut Process, begin: &str, patience: Duration) -> Result<Option<f64>> {
    let end = Instant::now() + patience;
    loop {
        let log = pace.log();
        if let Some(line) = log.lines().find_map(|line| line.strip_prefix(begin)) {
            let number = line.split(' ').next().unwrap_or_default();
            return Ok(Some(millis(number.parse().context("not a number")?)));
        }
        ensure!(pace.is_alive()?, "the pace ended{}", pace.last_words());
        if Instant::now() > end {
            return Ok(None);
        }
        sleep(Duration::from_millis(10));
    }
}

fn tell(pace: &mut Process, name: &str) -> Result<Account> {
    let answer = format!("{name} account ");
    let told = |log: &str| log.lines().filter(|line| line.starts_with(&answer)).count();
    let before = told(&pace.log());
    pace.say(&format!("tell {name}"))?;
    crate::lab::wait_until("the account", PATIENCE, || {
        let log = pace.log();
        if told(&log) == before {
            return Ok(None);
        }
        log.lines()
            .rfind(|line| line.starts_with(&answer))
            .map(str::parse)
            .transpose()
    })
    .map(|(account, _)| account)
}

#[expect(clippy::cast_precision_loss, reason = "52 bits of microseconds are 142 years")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}
