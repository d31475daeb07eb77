//! Host names in the background: a thread that resolves when asked, and again with growing pauses until it succeeds.
//!
//! A laptop starts without a network, so a name that does not resolve is a warning and not an end. The packet thread
//! never waits for a resolver; it is handed addresses when there are some.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::endpoint::Endpoint;

/// The pauses after a failure: the first, doubled up to the last.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// How long a start waits for the first answer, so that a resolver that works is not outrun by the first attempt to
/// connect.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks a host up, all addresses, in the order the system prefers (RFC 6724).
///
/// # Errors
/// If the resolver says so, or knows no address.
pub fn look_up(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = (endpoint.host.as_str(), endpoint.port)
        .to_socket_addrs()?
        .collect();
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(addresses)
}

/// What looks names up: [`look_up`], or something else in a test.
type LookUp = Box<dyn FnMut(&Endpoint) -> io::Result<Vec<SocketAddr>> + Send>;

/// Asks the resolver thread to look again; cheap, never blocks.
#[derive(Clone, Debug)]
pub struct Refresh(Option<SyncSender<()>>);

impl Refresh {
    /// The addresses did not answer: they may have changed.
    pub fn wanted(&self) {
        if let Some(sender) = &self.0 {
            // A full channel has a request already.
            let _ = sender.try_send(());
        }
    }
}

/// A host whose resolution is under way.
#[derive(Debug)]
pub struct Resolving {
    /// What is known at start; empty if nothing yet.
    pub addresses: Vec<SocketAddr>,
    later: Receiver<Vec<SocketAddr>>,
    refresh: Refresh,
}

impl Resolving {
    /// Starts the thread if the host is a name, and gives it a moment. A host that is an address needs no thread.
    pub fn start(endpoint: &Endpoint) -> Self {
        Self::start_with(endpoint, Box::new(look_up), PAUSE_FIRST)
    }

    fn start_with(endpoint: &Endpoint, look_up: LookUp, pause: Duration) -> Self {
        let (answers, later) = mpsc::channel();
        if let Some(ip) = endpoint.ip() {
            return Self {
                addresses: vec![SocketAddr::new(ip, endpoint.port)],
                later,
                refresh: Refresh(None),
            };
        }
        let (refresh, wanted) = mpsc::sync_channel(1);
        let thread = Thread {
            endpoint: endpoint.clone(),
            look_up,
            wanted,
            answers,
            pause,
        };
        let refresh = match std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || thread.run())
        {
            Ok(_) => Some(refresh),
            Err(error) => {
                log::error!("cannot start the resolver: {error}");
                None
            }
        };
        Self {
            addresses: later.recv_timeout(PATIENCE).unwrap_or_default(),
            later,
            refresh: Refresh(refresh),
        }
    }

    /// Hands every later answer to `deliver`, on a thread of its own, until that returns `false`.
    pub fn deliver(self, mut deliver: impl FnMut(Vec<SocketAddr>) -> bool + Send + 'static) -> Refresh {
        if self.refresh.0.is_some() {
            let later = self.later;
            let spawned = std::thread::Builder::new()
                .name("resolved".to_owned())
                .spawn(move || while later.recv().is_ok_and(&mut deliver) {});
            if let Err(error) = spawned {
                log::error!("cannot start the resolver: {error}");
            }
        }
        self.refresh
    }
}

struct Thread {
    endpoint: Endpoint,
    look_up: LookUp,
    wanted: Receiver<()>,
    answers: mpsc::Sender<Vec<SocketAddr>>,
    pause: Duration,
}

impl Thread {
    fn run(mut self) {
        let mut known = Vec::new();
        let mut pause = self.pause;
        let mut warned = false;
        loop {
            match (self.look_up)(&self.endpoint) {
                Ok(addresses) => {
                    if warned {
                        log::info!("{} resolves again", self.endpoint.host);
                    }
                    (pause, warned) = (self.pause, false);
                    if addresses != known {
                        log::debug!("{} is {addresses:?}", self.endpoint.host);
                        known.clone_from(&addresses);
                        if self.answers.send(addresses).is_err() {
                            return;
                        }
                    }
                    if self.wanted.recv().is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !warned {
                        log::warn!("cannot resolve {}: {error}; trying on", self.endpoint.host);
                        warned = true;
                    }
                    // A request changes nothing: this one is still being answered.
                    while self.wanted.try_recv().is_ok() {}
                    if self.wait(pause) {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_LAST);
                }
            }
        }
    }

    /// Whether nobody wants an answer any more.
    fn wait(&self, pause: Duration) -> bool {
        matches!(
            self.wanted.recv_timeout(pause),
            Err(RecvTimeoutError::Disconnected)
        )
    }
}

#[cfg(test)]
mod tests;
