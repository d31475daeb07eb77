//! Other services for a `ztna up` that runs: their routes, what the machine knows, their names.
//!
//! New routes come first, because only they can be refused: then everything stays as it was. With the first IPv6 service
//! comes this host's IPv6 address; like the routes it goes with the interface, so no journal need know of it. Routes of
//! services that are gone go last, when nothing is sent there any more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use program::args;
use program::reload::Attempt;
use program::settings::SettingsError;
use proto_core::config::AgentService;
use runtime_io::{AskError, CommandSender, Routes};

use super::desk::Current;
use super::names::{self, Names};
use super::{Machine, host};
use crate::config::{Config, DEFAULT_PATH, SCHEMA, UpArgs, least_mtu};

/// Pause while the shell has too many commands waiting.
const PAUSE: Duration = Duration::from_millis(50);

/// What runs, and where the next comes from.
pub(super) struct Reloading {
    pub(super) args: UpArgs,
    pub(super) config: Config,
    pub(super) local: SocketAddr,
    pub(super) routes: Routes,
    pub(super) names: Names,
    pub(super) current: Arc<Mutex<Current>>,
}

impl Reloading {
    /// Reads, compares and hands on, whenever called.
    pub(super) fn attempts(mut self, commands: CommandSender<Machine>) -> Attempt {
        Box::new(move || self.attempt(&commands))
    }

    fn attempt(&mut self, commands: &CommandSender<Machine>) -> Result<String, SettingsError> {
        let settings = args::load(&SCHEMA, DEFAULT_PATH, self.args.flags())?;
        let config = Config::read(&settings)?;
        let (old, new) = (addresses(&self.config.services), addresses(&config.services));
        let added = self.add_addresses(&config)?;
        if let Err(error) = self.add_routes(&old, &new) {
            for address in &added {
                let _ = self.routes.remove_address(host(*address));
            }
            return Err(error);
        }
        let changes = changes(&self.config.services, &config.services);
        for key in needing_restart(&self.config, &config) {
            log::warn!("{key} has changed in the configuration: restart to apply that");
        }
        let machine = config.machine(Vec::new(), self.local);
        loop {
            let machine = machine.clone();
            match commands.send(move |context| context.machine.reconfigure(&machine, context.now)) {
                Ok(()) | Err(AskError::Closed) => break,
                Err(AskError::Full | AskError::TimedOut) => std::thread::sleep(PAUSE),
            }
        }
        self.names.shared.set_zone(names::zone(&config));
        for address in old.keys().filter(|address| !new.contains_key(address)) {
            if let Err(error) = self.routes.remove(host(*address)) {
                log::warn!("{error}");
            }
        }
        // What needs a restart is compared with what runs, and goes on being said.
        self.config.services = config.services;
        self.config.tunnel_addresses.extend(added);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Current::of(&self.config);
        Ok(changes)
    }

    /// Gives this host the address of a family that it had none of; which that was.
    fn add_addresses(&mut self, config: &Config) -> Result<Vec<IpAddr>, SettingsError> {
        let new = new_families(&self.config.tunnel_addresses, &config.tunnel_addresses);
        for address in &new {
            let least = least_mtu(address.is_ipv6());
            if self.config.mtu < least {
                return Err(SettingsError::new(
                    "mtu",
                    format!("{} is too small for IPv6, which needs {least}", self.config.mtu),
                    "restart with a larger one, or remove the services' IPv6 addresses",
                ));
            }
            self.routes.add_address(host(*address)).map_err(|error| {
                let fix = "restart, or choose another tunnel_address";
                SettingsError::new("tunnel_address", error.to_string(), fix)
            })?;
            log::info!("this host is {address} in the tunnel as well");
        }
        Ok(new)
    }

    /// All new ones or none.
    fn add_routes(
        &mut self,
        old: &BTreeMap<IpAddr, String>,
        new: &BTreeMap<IpAddr, String>,
    ) -> Result<(), SettingsError> {
        let mut added = Vec::new();
        for (address, service) in new.iter().filter(|(address, _)| !old.contains_key(address)) {
            let Err(error) = self.routes.add(host(*address)) else {
                added.push(*address);
                continue;
            };
            for address in added {
                let _ = self.routes.remove(host(address));
            }
            return Err(SettingsError::new(
                format!("service {service}"),
                error.to_string(),
                "choose another virtual address",
            ));
        }
        Ok(())
    }
}

/// All virtual addresses, and whose they are.
fn addresses(services: &[AgentService]) -> BTreeMap<IpAddr, String> {
    let each = services.iter().flat_map(|service| {
        let own = service.virtual_addresses.iter();
        own.map(|address| (*address, service.id.as_str().to_owned()))
    });
    each.collect()
}

/// The addresses of families that `old` has none of.
fn new_families(old: &[IpAddr], new: &[IpAddr]) -> Vec<IpAddr> {
    let is_new = |address: &&IpAddr| old.iter().all(|other| other.is_ipv4() != address.is_ipv4());
    new.iter().filter(is_new).copied().collect()
}

/// Whether a family has another address than before; one that is not needed any more does no harm.
fn has_moved(old: &[IpAddr], new: &[IpAddr]) -> bool {
    let same_family = |address: &IpAddr| old.iter().find(|other| other.is_ipv4() == address.is_ipv4());
    new.iter()
        .any(|address| same_family(address).is_some_and(|other| other != address))
}

/// In a few words, for the log.
fn changes(old: &[AgentService], new: &[AgentService]) -> String {
    let (mut added, mut changed) = (0, 0);
    for service in new {
        match old.iter().find(|before| before.id == service.id) {
            None => added += 1,
            Some(before) => changed += usize::from(before != service),
        }
    }
    let is_gone = |before: &&AgentService| new.iter().all(|service| service.id != before.id);
    let removed = old.iter().filter(is_gone).count();
    format!(
        "{} services, {added} new, {changed} changed, {removed} removed",
        new.len()
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
        ("tun_name", old.tun_name != new.tun_name),
        (
            "tunnel_address",
            has_moved(&old.tunnel_addresses, &new.tunnel_addresses),
        ),
        ("mtu", old.mtu != new.mtu),
        ("dns.mode or dns.listen", old.dns != new.dns),
        ("control", old.control != new.control),
    ];
    let changed = all.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests;
