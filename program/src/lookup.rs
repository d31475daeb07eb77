//! Host names of backends: looked up on threads of their own, so that neither packets nor other names wait for a slow one.
//!
//! When a name is looked up, and what follows from an answer, is decided by the machine. The system's resolver is asked
//! (hosts file, DNS, whatever `nsswitch.conf` says); it does not tell how long an answer holds, so that is a constant.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto_core::backend::{Answer, Found, FromBackend, NameId};
use proto_core::machine::Backends;
use runtime_io::{AskError, CommandSender, Resolve};

/// How long an answer of the system's resolver holds.
const TTL: Duration = Duration::from_secs(30);

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
                        if !deliver(&commands, name, look_up(&host)) {
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

/// Whether anybody still listens.
fn deliver<M: Backends + 'static>(commands: &CommandSender<M>, name: NameId, addresses: Vec<IpAddr>) -> bool {
    loop {
        let addresses = addresses.clone();
        let sent = commands.send(move |context| {
            let found = (!addresses.is_empty()).then_some(Found {
                addresses: &addresses,
                ttl: TTL,
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
