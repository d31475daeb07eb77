//! `ztna status` and `ztna down`: what a person asks of a `ztna up` that runs.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use program::args;
use program::exit::{self, Failure};
use program::settings::{Environment, Flags, Settings};

use crate::NAME;
use crate::config::{self, DEFAULT_PATH, SCHEMA};
use crate::control::{self, Command};
use crate::place::{Lock, LockError, Place};
use crate::system;

/// How long an end may take: the goodbye of the tunnel has 3 seconds, the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a guard at work is waited for.
const GUARD_PATIENCE: Duration = Duration::from_secs(5);

/// Which `ztna up` is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoteArgs {
    /// The configuration file of that `ztna up`, for its tun_name and control [env: ZTNA_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// Name of its interface [default: ztna0] [env: ZTNA_TUN_NAME]
    #[arg(long, value_name = "NAME")]
    pub tun_name: Option<String>,

    /// Its control socket [default: /run/ztna/INTERFACE.sock] [env: ZTNA_CONTROL]
    #[arg(long, value_name = "PATH")]
    pub control: Option<String>,
}

/// Flags of `ztna status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub which: RemoteArgs,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// An interface, and where its `ztna up` would be found.
struct Target {
    interface: String,
    control: Option<PathBuf>,
    place: Place,
}

impl RemoteArgs {
    fn target(&self) -> Result<Target, Failure> {
        let mut flags = Flags::default();
        flags.set("config", self.config.as_ref());
        flags.set("tun_name", self.tun_name.as_ref());
        flags.set("control", self.control.as_ref());
        let settings = match args::load(&SCHEMA, DEFAULT_PATH, flags.clone()) {
            Ok(settings) => settings,
            Err(error) if self.config.is_some() => return Err(error.into()),
            // The usual file may be for root's eyes only, or in the middle of being edited: neither should keep anybody
            // from ending what runs.
            Err(_) => {
                let variables = std::env::vars().filter(|(name, _)| name != "ZTNA_CONFIG");
                let environment: Environment = variables.collect();
                Settings::load(&SCHEMA, "/nonexistent/agent.json", flags, environment)?
            }
        };
        let interface = config::tun_name(&settings)?;
        let control = config::control(&settings)?;
        let place = Place::find(&interface, control.as_deref());
        Ok(Target {
            interface,
            control,
            place,
        })
    }
}

impl Target {
    fn nothing_runs(&self) -> Failure {
        let place = match &self.control {
            Some(path) => format!(" at {}", path.display()),
            None => String::new(),
        };
        Failure::Absent(format!(
            "no `ztna up` runs for interface {}{place}",
            self.interface
        ))
    }
}

pub(crate) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let target = args.which.target()?;
    let Some((answer, ..)) = control::ask(&target.place.control, Command::Status)? else {
        return Err(target.nothing_runs());
    };
    let report = answer
        .status
        .ok_or_else(|| Failure::Run("the answer has no status in it".to_owned()))?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Failure::Run(error.to_string()))?;
        exit::say(&json);
    } else {
        exit::say(report.table().trim_end());
    }
    Ok(())
}

pub(crate) fn down(args: &RemoteArgs) -> Result<(), Failure> {
    let target = args.target()?;
    let found = control::ask(&target.place.control, Command::Down)?;
    let Some((_, stream, pid)) = found else {
        return clean(&target);
    };
    // Nothing is said any more; the connection closes when the process is gone.
    let timed_out = |error: io::Error| {
        Failure::Run(format!(
            "process {pid} has not ended ({error}); `kill {pid}` ends it the hard way"
        ))
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(timed_out)?;
    loop {
        match (&stream).read(&mut [0; 64]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(timed_out(error)),
        }
    }
    if target.place.journal.exists() {
        log::warn!("the process ended without putting everything back");
        clean(&target)?;
    }
    exit::say(&format!("{NAME}: {} is down", target.interface));
    Ok(())
}

/// Puts back what a `ztna up` that was killed has left, if there is anything.
fn clean(target: &Target) -> Result<(), Failure> {
    if !target.place.journal.exists() {
        // A socket that nobody answers at is of no use to anybody.
        let _ = std::fs::remove_file(&target.place.control);
        return Err(target.nothing_runs());
    }
    // Its guard may be at work just now, and is then waited for.
    let lock = Lock::within(&target.place.lock, GUARD_PATIENCE);
    let _lock = lock.map_err(|error| {
        let fix = match error {
            LockError::Held(_) => "; it runs with another control socket: name it with --control",
            LockError::File(_) => "",
        };
        Failure::Start(format!(
            "cannot clean up after {}: {error}{fix}",
            target.interface
        ))
    })?;
    let restored = system::restore(&target.place)?;
    let _ = std::fs::remove_file(&target.place.control);
    let what = if restored.is_empty() {
        "everything was put back already".to_owned()
    } else {
        format!("put back: {}", restored.join(", "))
    };
    exit::say(&format!(
        "{NAME}: the process of {} was gone; {what}",
        target.interface
    ));
    Ok(())
}
