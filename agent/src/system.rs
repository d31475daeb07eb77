//! What `ztna up` changes on this host beside its interface, and how that is put back, whatever happens to the process.
//!
//! Every change stands in a journal before it is made (`journal`). The journal is worked off by whoever comes first:
//! the process itself at its end, its guard when it died ([`guard`]), or the next `ztna up` or `ztna down`. Working it
//! off twice does no harm: what is not ours any more is left alone.

pub mod guard;
pub(crate) mod journal;
pub(crate) mod resolv_conf;
pub(crate) mod resolved;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use program::exit::Failure;

use crate::config::DnsMode;
use crate::dns::Shared;
use crate::place::Place;
use guard::Guard;
use journal::{Journal, ResolvConf};
use resolv_conf::Original;

/// The file that the C library and most others ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often that file is looked at, and the longest pause when somebody keeps changing it back.
const GLANCE: Duration = Duration::from_secs(1);
const TRUCE: Duration = Duration::from_secs(60);

/// What was changed; it is put back when this goes.
#[derive(Debug)]
pub(crate) struct Changes {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    place: Place,
    journal: Journal,
    guard: Option<Guard>,
    /// Whether everything was put back, after which nothing is changed any more.
    over: bool,
}

impl Changes {
    /// Nothing was changed yet.
    pub(crate) fn new(place: Place, interface: &str) -> Self {
        let state = State {
            journal: Journal::new(interface),
            place,
            guard: None,
            over: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Has this host ask `listen` for names, as far as `mode` allows; returns the mode that it became.
    ///
    /// # Errors
    /// If a mode that was asked for cannot be had. With [`DnsMode::Auto`] that is a warning, and [`DnsMode::Off`].
    pub(crate) fn ask_us(
        &self,
        mode: DnsMode,
        listen: SocketAddr,
        shared: &Arc<Shared>,
    ) -> Result<DnsMode, Failure> {
        let path = Path::new(RESOLV_CONF);
        let through_file = listen.port() == 53;
        match mode {
            DnsMode::Off => Ok(DnsMode::Off),
            DnsMode::Resolved => self.through_resolved(listen).map_err(start),
            DnsMode::ResolvConf => self.through_file(path, listen, shared).map_err(start),
            DnsMode::Auto => {
                let tried = if resolved::is_in_charge(path) {
                    self.through_resolved(listen)
                } else if through_file {
                    self.through_file(path, listen, shared)
                } else {
                    Err("systemd-resolved is not in charge, and resolv.conf can name no port".to_owned())
                };
                Ok(tried.unwrap_or_else(|why| {
                    log::warn!("no names: {why} (dns.mode \"off\" is silent about it)");
                    DnsMode::Off
                }))
            }
        }
    }

    fn through_resolved(&self, listen: SocketAddr) -> Result<DnsMode, String> {
        let mut state = self.lock();
        state.journal.resolved = true;
        state.write()?;
        if let Err(why) = resolved::apply(&state.journal.interface, listen) {
            let interface = state.journal.interface.clone();
            // What was taken is given back; it is the first error that is told.
            let _ = resolved::revert(&interface);
            state.journal.resolved = false;
            state.write()?;
            return Err(why);
        }
        Ok(DnsMode::Resolved)
    }

    fn through_file(&self, path: &Path, listen: SocketAddr, shared: &Arc<Shared>) -> Result<DnsMode, String> {
        let target = Target {
            path: path.to_path_buf(),
            listen,
        };
        let seen = self.lock().take_over(&target, shared)?;
        let (state, shared) = (Arc::clone(&self.state), Arc::clone(shared));
        let watching = std::thread::Builder::new()
            .name("resolv.conf".to_owned())
            .spawn(move || watch(&state, &target, &shared, seen));
        watching.map_err(|error| format!("cannot watch {}: {error}", path.display()))?;
        Ok(DnsMode::ResolvConf)
    }

    /// Puts everything back; what fails is told, and stays in the journal.
    pub(crate) fn restore(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.over, true) {
            return;
        }
        if let Err(failure) = restore(&state.place) {
            log::warn!("{failure}");
        }
        // It finds no journal, and ends.
        state.guard = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.restore();
    }
}

/// A `resolv.conf`, and who shall stand in it.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    listen: SocketAddr,
}

impl State {
    /// Writes the journal, with a guard awake before the first change stands in it.
    fn write(&mut self) -> Result<(), String> {
        if self.guard.is_none() {
            self.guard = Some(Guard::start(&self.place).map_err(|error| format!("no guard: {error}"))?);
        }
        let path = &self.place.journal;
        self.journal
            .write(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Puts us into a `resolv.conf` that is not ours, and sends other questions to the servers that stood there.
    fn take_over(&mut self, target: &Target, shared: &Shared) -> Result<Seen, String> {
        let Target { path, listen } = target;
        let failed =
            |error: std::io::Error| format!("{}: {}", path.display(), program::settings::describe(&error));
        let (original, text) = Original::read(path).map_err(failed)?;
        if let Some(other) = resolv_conf::owner(&text).filter(|other| *other != self.journal.interface) {
            return Err(format!(
                "{}: a `ztna up` for interface {other} answers names already",
                path.display()
            ));
        }
        let servers: Vec<SocketAddr> = resolv_conf::servers(&text)
            .into_iter()
            .filter(|server| server != listen)
            .collect();
        self.journal.resolv_conf = Some(ResolvConf {
            path: path.clone(),
            original,
        });
        self.write()?;
        if servers.is_empty() && shared.upstreams().is_empty() {
            log::warn!(
                "{} names no other server: names outside .ztna fail",
                path.display()
            );
        }
        // Nobody stands there for a moment when a network changes; the last ones are better than none.
        let servers = if servers.is_empty() {
            shared.upstreams().to_vec()
        } else {
            servers
        };
        shared.forward_to(servers);
        let ours = resolv_conf::ours(&text, &self.journal.interface, listen.ip());
        resolv_conf::write(path, &ours, resolv_conf::MODE).map_err(failed)?;
        Ok(Seen::of(path))
    }
}

/// What tells one state of a file from the next.
type Seen = resolv_conf::Seen;

/// Puts us back into `resolv.conf` when somebody else has written it, a DHCP client for one, with the servers that stand
/// there then.
fn watch(state: &Mutex<State>, target: &Target, shared: &Shared, mut seen: Seen) {
    let mut pause = GLANCE;
    let mut last: Option<Instant> = None;
    loop {
        std::thread::sleep(pause);
        let now = Seen::of(&target.path);
        if now == seen {
            continue;
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return;
        }
        let (_, text) = Original::read(&target.path).unwrap_or_default();
        if resolv_conf::owner(&text) == Some(&state.journal.interface) {
            seen = now;
            continue;
        }
        // Two programs that keep undoing each other should at least do it slowly.
        let is_fight = last.is_some_and(|at| at.elapsed() < 2 * pause + GLANCE);
        pause = if is_fight { (2 * pause).min(TRUCE) } else { GLANCE };
        last = Some(Instant::now());
        let level = if is_fight {
            log::Level::Warn
        } else {
            log::Level::Info
        };
        match state.take_over(target, shared) {
            Ok(after) => {
                log::log!(
                    level,
                    "{} was rewritten by another program; names are back",
                    target.path.display()
                );
                seen = after;
            }
            Err(why) => {
                log::warn!("names are lost: {why}");
                seen = now;
            }
        }
    }
}

/// Works a journal off, if there is one, and says what was put back.
///
/// # Errors
/// If something could not be put back; the journal then stays.
pub(crate) fn restore(place: &Place) -> Result<Vec<String>, Failure> {
    let path = &place.journal;
    let shown = path.display();
    let journal = match Journal::read(path) {
        Ok(Some(journal)) => journal,
        Ok(None) => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::Start(format!(
                "{shown}: {error}; look whether {RESOLV_CONF} is as it should be, and remove the file"
            )));
        }
    };
    let mut done = Vec::new();
    if let Some(ResolvConf { path, original }) = &journal.resolv_conf {
        let put_back = resolv_conf::put_back(path, original, &journal.interface);
        match put_back {
            Ok(true) => done.push(path.display().to_string()),
            Ok(false) => {}
            Err(error) => {
                let why = program::settings::describe(&error);
                return Err(Failure::Start(format!(
                    "cannot put {} back: {why}",
                    path.display()
                )));
            }
        }
    }
    // An interface that is gone took its settings with it, and one that is not asked for them again is no harm.
    if journal.resolved && resolved::revert(&journal.interface).is_ok() {
        done.push("systemd-resolved".to_owned());
    }
    Journal::remove(path).map_err(|error| {
        Failure::Start(format!(
            "cannot remove {shown}: {}",
            program::settings::describe(&error)
        ))
    })?;
    Ok(done)
}

fn start(why: String) -> Failure {
    Failure::Start(format!("dns.mode: {why}; choose another mode, such as \"off\""))
}

#[cfg(test)]
mod tests;
