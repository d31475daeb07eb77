//! Host names of backends: looked up on threads of their own, so that neither packets nor other names wait for a slow one.
//!
//! When a name is looked up, and what follows from an answer, is decided by the machine. What a name means here is the
//! system's to say (hosts file, DNS, whatever `nsswitch.conf` names), but its resolver does not tell for how long. So DNS is
//! asked as well, and where it says the same, its TTL counts; what comes from elsewhere is asked for again soon.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use proto_core::backend::{Answer, Found, FromBackend, NameId};
use proto_core::machine::Backends;
use runtime_io::{AskError, CommandSender, Resolve};

/// How long an answer holds that does not come from DNS.
const WITHOUT_TTL: Duration = Duration::from_secs(30);

/// How long one name server is waited for when it is asked for the TTL.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names looked up at a time.
const THREADS: usize = 4;

/// Names that may wait for a thread; the machine asks again for one that had no place.
const WAITING: usize = 1024;

/// Pause while a shell has too many commands waiting.
const PAUSE: Duration = Duration::from_millis(100);

/// The way of questions to the threads that answer them.
#[derive(Debug)]
pub struct Lookups {
    questions: Receiver<(NameId, String)>,
}

impl Lookups {
    /// What a shell hands names to, and where they come out.
    pub fn new() -> (Resolve, Self) {
        let (sender, questions): (SyncSender<(NameId, String)>, _) = mpsc::sync_channel(WAITING);
        let resolve = move |name: NameId, host: &str| {
            let _ = sender.try_send((name, host.to_owned()));
        };
        (Box::new(resolve), Self { questions })
    }

    /// Starts the threads; answers go to the machine by commands.
    pub fn serve<M: Backends + 'static>(self, commands: &CommandSender<M>) {
        let questions = Arc::new(Mutex::new(self.questions));
        for _ in 0..THREADS {
            let (questions, commands) = (Arc::clone(&questions), commands.clone());
            let spawned = std::thread::Builder::new()
                .name("lookup".to_owned())
                .spawn(move || {
                    loop {
                        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((name, host)) = next else { return };
                        let addresses = look_up(&host);
                        let ttl = time_to_live(&host, &addresses);
                        if !deliver(&commands, name, addresses, ttl) {
                            return;
                        }
                    }
                });
            if let Err(error) = spawned {
                log::error!("cannot start a thread that looks names up: {error}");
            }
        }
    }
}

fn look_up(host: &str) -> Vec<IpAddr> {
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            log::debug!("cannot resolve {host}: {error}");
            Vec::new()
        }
    }
}

/// How long these addresses hold: what DNS says, if it says the same.
fn time_to_live(host: &str, addresses: &[IpAddr]) -> Duration {
    if addresses.is_empty() {
        return WITHOUT_TTL;
    }
    // The name servers of this moment: they may have changed since the last time.
    let asked = TokioResolver::builder_tokio()
        .map_err(Into::into)
        .and_then(|resolver| ask_dns(resolver, host));
    match asked {
        Ok((known, ttl)) if same(addresses, &known) => ttl,
        Ok(_) => WITHOUT_TTL,
        Err(error) => {
            log::debug!("cannot ask DNS for {host}: {error}");
            WITHOUT_TTL
        }
    }
}

/// Whether both name the same addresses, in whatever order and however often.
fn same(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.iter().all(|address| other.contains(address)) && other.iter().all(|address| one.contains(address))
}

/// Asks DNS, and nothing else, what a name is and for how long.
fn ask_dns(
    mut resolver: ResolverBuilder<TokioRuntimeProvider>,
    host: &str,
) -> Result<(Vec<IpAddr>, Duration), Box<dyn std::error::Error>> {
    let options = resolver.options_mut();
    options.cache_size = 0;
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async { resolver.build()?.lookup_ip(host).await })?;
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    Ok((found.iter().collect(), ttl))
}

/// Whether anybody still listens.
fn deliver<M: Backends + 'static>(
    commands: &CommandSender<M>,
    name: NameId,
    addresses: Vec<IpAddr>,
    ttl: Duration,
) -> bool {
    loop {
        let addresses = addresses.clone();
        let sent = commands.send(move |context| {
            let found = (!addresses.is_empty()).then_some(Found {
                addresses: &addresses,
                ttl,
            });
            let answer = FromBackend::Answer(Answer::Resolved { name, found });
            context.machine.handle_backend(answer, context.now);
        });
        match sent {
            Ok(()) => return true,
            Err(AskError::Full | AskError::TimedOut) => std::thread::sleep(PAUSE),
            Err(AskError::Closed) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
