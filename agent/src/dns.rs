//! Names: `<service>.ztna` and the way back from virtual addresses, answered on this host.
//!
//! * [`zone`]: what is ours and what the answer is; bytes in, decision out.
//! * [`forward`]: how a question that is not ours goes on to a server of this host's, and which replies are believed.
//! * [`server`]: the sockets, on a thread of their own beside the packet loop.
//!
//! A name below `.ztna` is never sent on, whatever is known about it: private names stay on this host.

pub(crate) mod forward;
pub(crate) mod server;
pub(crate) mod zone;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use zone::Zone;

/// What the answering thread and the rest of the program share.
#[derive(Debug)]
pub(crate) struct Shared {
    zone: RwLock<Arc<Zone>>,
    upstreams: RwLock<Arc<Vec<SocketAddr>>>,
    /// Whether other questions are sent on, or refused.
    forwarding: std::sync::atomic::AtomicBool,
    counters: [AtomicU64; Outcome::ALL.len()],
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Ours, and answered.
    Answered,
    /// Sent on, and the reply passed back.
    Forwarded,
    /// Neither ours nor to be sent on.
    Refused,
    /// Sent on without a reply.
    Failed,
    /// Not a question, or one too many.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Answered,
        Self::Forwarded,
        Self::Refused,
        Self::Failed,
        Self::Dropped,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Forwarded => "forwarded",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Shared {
    /// With names, and without servers to send other questions to.
    pub(crate) fn new(zone: Zone) -> Self {
        Self {
            zone: RwLock::new(Arc::new(zone)),
            upstreams: RwLock::default(),
            forwarding: false.into(),
            counters: Default::default(),
        }
    }

    pub(crate) fn zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the names, from the next question on.
    pub(crate) fn set_zone(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    pub(crate) fn upstreams(&self) -> Arc<Vec<SocketAddr>> {
        Arc::clone(&self.upstreams.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends other questions on from now on, to these servers.
    pub(crate) fn forward_to(&self, upstreams: Vec<SocketAddr>) {
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(upstreams);
        self.forwarding.store(true, Ordering::Release);
    }

    fn is_forwarding(&self) -> bool {
        self.forwarding.load(Ordering::Acquire)
    }

    fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.counters.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of questions so far, without what never happened.
    pub(crate) fn questions(&self) -> BTreeMap<String, u64> {
        Outcome::ALL
            .into_iter()
            .zip(&self.counters)
            .map(|(outcome, counter)| (outcome.label().to_owned(), counter.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
