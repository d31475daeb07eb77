//! A machine at work: its shell on the chosen runtime, and beside it the thread that answers probes and scrapers.
//!
//! A scrape costs the packet loop one copy of counters; texts are written on the thread that asked.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto_core::machine::Machine;
use runtime_io::{
    CommandSender, Context, Handler, Notice, Outcome, RunConfig, ShellStats, Side, command_channel,
};

use crate::args::{Common, Runtime};
use crate::exit::Failure;
use crate::http::{self, Pages};
use crate::metrics::Exposition;

/// Commands that may wait for the shell.
const COMMANDS: usize = 64;

/// How long a probe waits for the shell.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a machine looks like at one moment, to health checks and metrics.
pub trait Snapshot: Send + 'static {
    /// The machine.
    type Machine: Machine + 'static;

    /// The role's name in metrics.
    const ROLE: &'static str;

    /// Whether the program reads its settings again; its handler is told of SIGHUP in any case.
    const RELOADS: bool = false;

    /// Copies what is needed; runs in the packet loop.
    fn take(machine: &Self::Machine, stats: &ShellStats) -> Self;

    /// As [`Pages::health`]: whether the program and its connections are well.
    ///
    /// # Errors
    /// What is missing, short.
    fn health(&self) -> Result<String, String>;

    /// As [`Pages::ready`]: whether there is anything that it can do now.
    ///
    /// # Errors
    /// What is missing, short.
    fn ready(&self) -> Result<String, String>;

    /// Writes the role's families.
    fn write(&self, uptime: Duration, text: &mut Exposition);
}

/// What a machine does next to its packets.
pub struct Station<S: Snapshot> {
    commands: CommandSender<S::Machine>,
    started: Instant,
    runtime: Runtime,
    ending: Arc<AtomicBool>,
}

impl<S: Snapshot> std::fmt::Debug for Station<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

impl<S: Snapshot> Station<S> {
    fn snapshot(&self) -> Result<S, String> {
        if self.ending.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        self.commands
            .ask(PATIENCE, |context| S::take(context.machine, context.stats))
            .map_err(|error| error.to_string())
    }
}

impl<S: Snapshot> Pages for Station<S> {
    fn health(&self) -> Result<String, String> {
        self.snapshot()?.health()
    }

    fn ready(&self) -> Result<String, String> {
        self.snapshot()?.ready()
    }

    fn metrics(&self) -> Option<String> {
        let snapshot = self.snapshot().ok()?;
        let mut text = Exposition::default();
        text.build_info(S::ROLE, self.runtime.name());
        snapshot.write(self.started.elapsed(), &mut text);
        Some(text.finish())
    }
}

/// Binds the port of `/healthz` and `/metrics`, if one is wanted; before anything else is started.
///
/// # Errors
/// If it cannot be had.
pub fn listen(common: &Common) -> Result<Option<TcpListener>, Failure> {
    Ok(common.metrics.map(http::listen).transpose()?)
}

/// Runs a machine to its end; its ear and its commands are set here.
///
/// `attend` makes the ear of the program, with a way to send commands; `ready` runs as soon as the shell turns, with
/// signals handled from then on.
///
/// # Errors
/// If the shell cannot go on, or was told twice to end.
pub fn run<S, D>(
    common: &Common,
    mut config: RunConfig<S::Machine, D>,
    listener: Option<TcpListener>,
    attend: impl FnOnce(&CommandSender<S::Machine>) -> Handler<S::Machine>,
    ready: impl FnOnce(Context<'_, S::Machine>) + Send + 'static,
) -> Result<(), Failure>
where
    S: Snapshot,
    D: Side<S::Machine>,
{
    let failed = |what: &str, error: std::io::Error| Failure::Run(format!("cannot {what}: {error}"));
    let (commands, receiver) = command_channel(COMMANDS).map_err(|error| failed("make a channel", error))?;
    let ending = Arc::new(AtomicBool::new(false));
    let mut handler = attend(&commands);
    // The first command there is, so the first that runs.
    commands
        .send(ready)
        .map_err(|error| Failure::Run(error.to_string()))?;
    if let Some(listener) = listener {
        if let Ok(address) = listener.local_addr() {
            log::debug!("/healthz and /metrics on http://{address}");
        }
        let station = Station::<S> {
            commands,
            started: Instant::now(),
            runtime: common.runtime,
            ending: Arc::clone(&ending),
        };
        http::serve(listener, station).map_err(|error| failed("serve metrics", error))?;
    }
    config.commands = Some(receiver);
    config.handler = Box::new(move |notice, context| {
        match &notice {
            Notice::Ending => {
                ending.store(true, Ordering::Relaxed);
                log::info!("shutting down");
            }
            Notice::Reload if S::RELOADS => {}
            Notice::Reload => log::info!("SIGHUP: settings are read at start only; restart to apply changes"),
            Notice::Event(_) => {}
        }
        handler(notice, context);
    });
    let report = match common.runtime {
        Runtime::Mio => runtime_mio::run(config)?,
        Runtime::Tokio => runtime_tokio::run(config)?,
    };
    match report.outcome {
        Outcome::Drained => Ok(()),
        Outcome::GraceExpired => {
            log::warn!("some peers could not be told in time");
            Ok(())
        }
        Outcome::Forced => Err(Failure::Run(
            "a second signal did not wait for the orderly end".to_owned(),
        )),
    }
}
