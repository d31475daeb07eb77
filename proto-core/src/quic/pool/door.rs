//! What a pool does with packets that belong to no connection, and the stateless answers it writes.
//!
//! The answers wait in a ring that is allocated once: a stranger's packet allocates nothing.

use std::time::Instant;

use super::{Header, LongKind, Pool};
use crate::id::ConnId;
use crate::machine::FourTuple;
use crate::quic::accept::MAX_TOKEN_LEN;
use crate::quic::header::MIN_INITIAL_LEN;
use crate::quic::{Accept, Cid, Connection, Provider, RetryIds, WriteRetry};

/// Stateless answers that may wait at one time; further ones are dropped and counted.
pub const STATELESS_SLOTS: usize = 64;

/// The longest of them: a Retry with its token.
const STATELESS_LEN: usize = 256;

/// The length of a stateless reset, at most. It is always shorter than the packet it answers, so that two lost peers never
/// reset each other for ever (RFC 9000 §10.3.3).
const RESET_LEN: usize = 42;

/// What a receiver accepts as a stateless reset at least (RFC 9000 §10.3). Even a lone PING is longer, so an idle client
/// that only shows signs of life learns of a restart, too.
const MIN_RESET_LEN: usize = 21;

#[derive(Debug)]
struct Answer {
    path: Option<FourTuple>,
    len: usize,
    bytes: [u8; STATELESS_LEN],
}

/// A ring of stateless answers.
#[derive(Debug)]
pub(super) struct Stateless {
    ring: Vec<Answer>,
    first: usize,
    len: usize,
}

impl Stateless {
    pub(super) fn new(enabled: bool) -> Self {
        let slots = if enabled { STATELESS_SLOTS } else { 0 };
        let ring = (0..slots)
            .map(|_| Answer {
                path: None,
                len: 0,
                bytes: [0; STATELESS_LEN],
            })
            .collect();
        Self {
            ring,
            first: 0,
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `write` fill the next free place; `false` if there is none or nothing was written.
    fn push(
        &mut self,
        path: FourTuple,
        write: impl FnOnce(&mut [u8; STATELESS_LEN]) -> Option<usize>,
    ) -> bool {
        let capacity = self.ring.len();
        if self.len == capacity {
            return false;
        }
        let Some(answer) = self.ring.get_mut((self.first + self.len) % capacity) else {
            return false;
        };
        let Some(len) = write(&mut answer.bytes) else {
            return false;
        };
        answer.path = Some(path);
        answer.len = len.min(STATELESS_LEN);
        self.len += 1;
        true
    }

    /// Copies the oldest answer into `out`.
    pub(super) fn pop(&mut self, out: &mut [u8]) -> Option<(usize, FourTuple)> {
        if self.len == 0 {
            return None;
        }
        let answer = self.ring.get(self.first)?;
        self.first = (self.first + 1) % self.ring.len();
        self.len -= 1;
        let path = answer.path?;
        out.get_mut(..answer.len)?
            .copy_from_slice(&answer.bytes[..answer.len]);
        Some((answer.len, path))
    }
}

impl<Q: Provider> Pool<Q> {
    /// A packet for no connection that we know: perhaps the first of a new one.
    pub(super) fn stranger(
        &mut self,
        header: &Header,
        packet: &[u8],
        path: FourTuple,
        now: Instant,
    ) -> Option<ConnId> {
        if let Some(id) = self.reset_by_peer(header, packet, path) {
            return Some(id);
        }
        // An answer cannot be sent to port 0; sending there is an error, not a datagram.
        if !self.config.accept || path.remote.port() == 0 {
            self.stats.unknown_connection += 1;
            return None;
        }
        let (kind, version, dcid, scid, token) = match header {
            Header::Short { .. } => {
                self.stats.unknown_connection += 1;
                self.answer_with_reset(header, packet.len(), path);
                return None;
            }
            Header::Long {
                kind,
                version,
                dcid,
                scid,
                token,
            } => (*kind, *version, *dcid, *scid, token.clone()),
        };
        if packet.len() < MIN_INITIAL_LEN {
            self.stats.short_initial += 1;
            return None;
        }
        match kind {
            LongKind::OtherVersion => {
                if version != 0 && !self.provider.is_supported(version) {
                    let provider = &self.provider;
                    let sent = self
                        .stateless
                        .push(path, |out| provider.write_version_negotiation(&scid, &dcid, out));
                    self.count_answer(sent, |stats| &mut stats.versions_negotiated);
                }
                None
            }
            LongKind::Initial => self.initial(dcid, scid, packet.get(token)?, version, path, now),
            LongKind::ZeroRtt | LongKind::Handshake | LongKind::Retry => {
                self.stats.unknown_connection += 1;
                None
            }
        }
    }

    /// The connection of ours that this packet resets. Only packets from the address of its peer are compared.
    fn reset_by_peer(&self, header: &Header, packet: &[u8], path: FourTuple) -> Option<ConnId> {
        let Header::Short { .. } = header else { return None };
        self.clients.iter().copied().find(|id| {
            self.slot(*id).is_some_and(|slot| {
                slot.peer == Some(path.remote) && slot.connection.is_stateless_reset(packet)
            })
        })
    }

    fn initial(
        &mut self,
        dcid: Cid,
        scid: Cid,
        token: &[u8],
        version: u32,
        path: FourTuple,
        now: Instant,
    ) -> Option<ConnId> {
        // RFC 9000 §7.2: a client's first destination id has at least 8 bytes; shorter ones are cheap to collide.
        if dcid.as_bytes().len() < 8 {
            self.stats.not_quic += 1;
            return None;
        }
        let retry = if token.is_empty() {
            if self.config.retry {
                self.answer_with_retry(dcid, scid, version, path, now);
                return None;
            }
            None
        } else {
            let Some(ids) = self.door.open(token, path.remote, &dcid, now) else {
                self.stats.tokens_invalid += 1;
                if self.config.retry {
                    self.answer_with_retry(dcid, scid, version, path, now);
                }
                return None;
            };
            self.stats.tokens_valid += 1;
            Some(ids)
        };
        self.accept(dcid, retry, path, now)
    }

    fn accept(
        &mut self,
        dcid: Cid,
        retry: Option<RetryIds>,
        path: FourTuple,
        now: Instant,
    ) -> Option<ConnId> {
        if self.slots.len() >= self.config.max_connections || self.handshakes >= self.config.max_handshakes {
            self.stats.refused_full += 1;
            return None;
        }
        let scid = self.fresh_cid();
        let reset_token = self.door.reset_token(&scid);
        let connection = self
            .provider
            .accept(
                Accept {
                    scid,
                    retry,
                    reset_token,
                    path,
                },
                now,
            )
            .ok()?;
        let id = self.insert(connection, path, None);
        self.stats.accepted += 1;
        self.own_cid(id, scid);
        // The client goes on using the id it knows until it hears ours, and a retransmitted or second Initial uses it
        // again: for the life of the connection it leads here and never to a second connection.
        self.own_cid(id, dcid);
        Some(id)
    }

    fn answer_with_retry(&mut self, dcid: Cid, scid: Cid, version: u32, path: FourTuple, now: Instant) {
        let retry_scid = self.fresh_cid();
        let mut token = [0; MAX_TOKEN_LEN];
        let ids = RetryIds {
            original: dcid,
            retry: retry_scid,
        };
        let len = self.door.seal(ids, path.remote, &mut token, now);
        let provider = &self.provider;
        let retry = WriteRetry {
            client_scid: scid,
            original_dcid: dcid,
            retry_scid,
            token: &token[..len],
            version,
        };
        let sent = self.stateless.push(path, |out| provider.write_retry(retry, out));
        self.count_answer(sent, |stats| &mut stats.retries_sent);
    }

    fn answer_with_reset(&mut self, header: &Header, trigger: usize, path: FourTuple) {
        let Header::Short { dcid } = header else { return };
        if trigger <= MIN_RESET_LEN {
            return;
        }
        let len = RESET_LEN.min(trigger - 1);
        let token = self.door.reset_token(dcid);
        let rng = &mut self.rng;
        let sent = self.stateless.push(path, |out| {
            let (random, end) = out.get_mut(..len)?.split_at_mut(len - token.len());
            rng.fill(random);
            random[0] = (random[0] & 0x3f) | 0x40;
            end.copy_from_slice(&token);
            Some(len)
        });
        self.count_answer(sent, |stats| &mut stats.resets_sent);
    }

    fn count_answer(&mut self, sent: bool, counter: impl FnOnce(&mut super::PoolStats) -> &mut u64) {
        if sent {
            *counter(&mut self.stats) += 1;
        } else {
            self.stats.stateless_dropped += 1;
        }
    }
}
