//! What an intermediate knows of one client: who it is, and of a client of v2 how far its control stream has come.

use std::time::Instant;

use crate::id::{ConnId, ServiceId};
use crate::messages::MessageStream;
use crate::quic::identity::Identity;
use crate::wire::datagram::Role;

/// The stream that carries control messages: the client's first (RFC 9000 §2.1).
const CONTROL_STREAM: u64 = 0;

/// Messages that a client needs at once, for each of its services: register, open a channel, and both again after a loss.
const MESSAGES_PER_SERVICE: u32 = 4;

/// Messages that it may send besides.
const MESSAGES_BESIDES: u32 = 256;

/// Its allowance is full again after so many seconds of silence.
const REFILL_SECONDS: u32 = 16;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ConnId,
    pub(super) identity: Option<Identity>,
    /// What stands before a packet that opens a flow of this agent, made when it is first needed.
    pub(super) introduction: Option<Box<[u8]>>,
    /// Whether this connector asks who opens a flow.
    pub(super) asks_who: bool,
    /// What only clients of v2 have.
    pub(super) control: Option<Box<Control>>,
}

/// The control stream of one client.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) stream: MessageStream,
    /// As what the client came; nothing is granted before it has said so.
    pub(super) role: Option<Role>,
    /// Whether it takes part in channels.
    pub(super) takes_channels: bool,
    pub(super) allowance: Bucket,
    /// It let too much wait unread, and its connection is being closed.
    pub(super) deaf: bool,
    /// What it holds and until when, by name; as many as its registrations at most.
    leases: Vec<(ServiceId, Instant)>,
}

impl Control {
    pub(super) fn new(allowance: Bucket) -> Self {
        Self {
            stream: MessageStream::new(CONTROL_STREAM),
            role: None,
            takes_channels: false,
            allowance,
            deaf: false,
            leases: Vec::new(),
        }
    }

    /// Begins a lease, or renews it.
    pub(super) fn lease(&mut self, service: &ServiceId, until: Instant) {
        match self.find(service) {
            Ok(at) => {
                if let Some((_, known)) = self.leases.get_mut(at) {
                    *known = until;
                }
            }
            Err(at) => self.leases.insert(at, (service.clone(), until)),
        }
    }

    /// Ends a lease; whether there was one.
    pub(super) fn end_lease(&mut self, service: &ServiceId) -> bool {
        let found = self.find(service);
        if let Ok(at) = found {
            self.leases.remove(at);
        }
        found.is_ok()
    }

    /// The services whose leases have run out; they stay until they are ended.
    pub(super) fn expired(&self, now: Instant) -> Vec<ServiceId> {
        let over = self.leases.iter().filter(|(_, until)| *until <= now);
        over.map(|(service, _)| service.clone()).collect()
    }

    /// When the first lease runs out.
    pub(super) fn first_expiry(&self) -> Option<Instant> {
        self.leases.iter().map(|(_, until)| *until).min()
    }

    fn find(&self, service: &ServiceId) -> Result<usize, usize> {
        self.leases.binary_search_by(|(known, _)| known.cmp(service))
    }
}

/// How many messages a client may send: far more than it needs, and far fewer than would keep others waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    burst: u32,
}

impl Allowance {
    pub(super) fn for_services(services: usize) -> Self {
        let services = u32::try_from(services).unwrap_or(u32::MAX);
        Self {
            burst: services
                .saturating_mul(MESSAGES_PER_SERVICE)
                .saturating_add(MESSAGES_BESIDES),
        }
    }

    pub(super) fn of_a_new_client(self, now: Instant) -> Bucket {
        Bucket {
            tokens: self.burst,
            filled: now,
        }
    }

    /// Takes one message out of a client's bucket, if there is one.
    pub(super) fn take(self, bucket: &mut Bucket, now: Instant) -> bool {
        let rate = u128::from(self.burst.div_ceil(REFILL_SECONDS));
        let elapsed = now.saturating_duration_since(bucket.filled).as_micros();
        let earned = u32::try_from(elapsed * rate / 1_000_000).unwrap_or(u32::MAX);
        if earned > 0 {
            bucket.tokens = bucket.tokens.saturating_add(earned).min(self.burst);
            bucket.filled = now;
        }
        match bucket.tokens.checked_sub(1) {
            Some(left) => {
                bucket.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// What one client may still send now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    filled: Instant,
}

#[cfg(test)]
mod tests;
