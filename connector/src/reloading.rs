//! Another configuration for a connector that runs.

use std::net::SocketAddr;
use std::time::Duration;

use program::args;
use program::reload::Attempt;
use program::settings::SettingsError;
use runtime_io::{AskError, CommandSender};

use crate::config::{Args, Config, SCHEMA};
use crate::{DEFAULT_PATH, Machine};

/// Pause while the shell has too many commands waiting.
const PAUSE: Duration = Duration::from_millis(50);

/// What runs, and where the next comes from.
pub(crate) struct Reloading {
    pub(crate) args: Args,
    pub(crate) config: Config,
    pub(crate) local: SocketAddr,
}

impl Reloading {
    /// Reads, compares and hands on, whenever called.
    pub(crate) fn attempts(mut self, commands: CommandSender<Machine>) -> Attempt {
        Box::new(move || self.attempt(&commands))
    }

    fn attempt(&mut self, commands: &CommandSender<Machine>) -> Result<String, SettingsError> {
        let settings = args::load(&SCHEMA, DEFAULT_PATH, self.args.flags())?;
        let config = Config::read(&settings)?;
        let changes = changes(&self.config, &config);
        for key in needing_restart(&self.config, &config) {
            log::warn!("{key} has changed in the configuration: restart to apply that");
        }
        let machine = config.machine(Vec::new(), self.local);
        // What needs a restart is compared with what runs, and goes on being said.
        self.config.services = config.services;
        loop {
            let machine = machine.clone();
            let sent = commands.send(move |context| context.machine.reconfigure(machine, context.now));
            match sent {
                Ok(()) | Err(AskError::Closed) => return Ok(changes),
                Err(AskError::Full | AskError::TimedOut) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// In a few words, for the log.
fn changes(old: &Config, new: &Config) -> String {
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for service in &new.services {
        match old.services.iter().find(|before| before.id == service.id) {
            None => added += 1,
            Some(before) => changed += usize::from(before != service),
        }
    }
    for before in &old.services {
        removed += usize::from(new.services.iter().all(|service| service.id != before.id));
    }
    format!(
        "{} services, {added} new, {changed} changed, {removed} removed",
        new.services.len()
    )
}

/// The keys that have other values and hold only at a start.
fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (a, b) = (&old.common, &new.common);
    let all = [
        ("bind_addr", a.bind != b.bind),
        ("log_level", a.log_level != b.log_level),
        ("metrics_addr or metrics_port", a.metrics != b.metrics),
        ("runtime", a.runtime != b.runtime),
        ("intermediate_server", old.server != new.server),
        ("p2p.port", old.port != new.port),
        ("congestion_control", old.congestion != new.congestion),
    ];
    let changed = all.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
}
