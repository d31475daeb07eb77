//! What a pool does with packets that belong to no connection, and the stateless answers it writes.
//!
//! The answers wait in a ring that is allocated once: a stranger's packet allocates nothing.

use std::time::Instant;

use super::{Admission, Header, LongKind, Pool};
use crate::id::ConnId;
use crate::machine::FourTuple;
use crate::quic::accept::MAX_TOKEN_LEN;
use crate::quic::header::MIN_INITIAL_LEN;
use crate::quic::{Accept, Cid, Connection, Provider, Purpose, RetryIds, WriteRetry};
use crate::wire::v1;

/// The length of a stateless reset, at most. It is always shorter than the packet it answers, so that two lost peers never
/// reset each other for ever (RFC 9000 §10.3.3).
const RESET_LEN: usize = 42;

/// What a receiver accepts as a stateless reset at least (RFC 9000 §10.3). Even a lone PING is longer, so an idle client
/// that only shows signs of life learns of a restart, too.
const MIN_RESET_LEN: usize = 21;

/// RFC 9000 §7.2: a client's first destination id has at least 8 bytes; shorter ones are cheap to collide.
const MIN_FIRST_DCID: usize = 8;

/// What the first packet of a client says.
struct Client {
    dcid: Cid,
    scid: Cid,
    version: u32,
    path: FourTuple,
}

impl<Q: Provider> Pool<Q> {
    /// A packet for no connection that we know: perhaps the first of a new one.
    pub(super) fn stranger(
        &mut self,
        header: &Header,
        packet: &[u8],
        path: FourTuple,
        carrier: Option<u32>,
        now: Instant,
    ) -> Option<ConnId> {
        if let Some(id) = self.reset_by_peer(header, packet, path) {
            return Some(id);
        }
        if carrier.is_none() && self.config.raw && packet.first() == Some(&v1::MAGIC) {
            self.keep_raw(packet, path);
            return None;
        }
        // An answer cannot be sent to port 0; sending there is an error, not a datagram.
        if self.config.admission == Admission::Nobody || path.remote.port() == 0 {
            self.stats.unknown_connection += 1;
            return None;
        }
        let (kind, version, dcid, scid, token) = match header {
            Header::Short { .. } => {
                self.stats.unknown_connection += 1;
                if let Admission::Anybody { .. } = self.config.admission {
                    self.answer_with_reset(header, packet.len(), path);
                }
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
        let retry = match self.config.admission {
            Admission::Anybody { retry } => retry,
            Admission::Nobody | Admission::Invited => {
                return self.guest(kind, dcid, version, path, carrier, now);
            }
        };
        match kind {
            LongKind::OtherVersion => {
                if version != 0 && !self.provider.is_supported(version) {
                    let provider = &self.provider;
                    let sent = self
                        .beside
                        .push(path, |out| provider.write_version_negotiation(&scid, &dcid, out));
                    self.count_answer(sent, |stats| &mut stats.versions_negotiated);
                }
                None
            }
            LongKind::Initial => {
                let client = Client {
                    dcid,
                    scid,
                    version,
                    path,
                };
                self.initial(client, packet.get(token)?, retry, now)
            }
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

    /// The first packet of a connection, where only guests are let in. A guest has shown its address: through the channel that
    /// it came by, or by an authentic check from there. So there is no Retry.
    fn guest(
        &mut self,
        kind: LongKind,
        dcid: Cid,
        version: u32,
        path: FourTuple,
        carrier: Option<u32>,
        now: Instant,
    ) -> Option<ConnId> {
        let is_first = kind == LongKind::Initial && self.provider.is_supported(version);
        if !is_first || dcid.as_bytes().len() < MIN_FIRST_DCID {
            self.stats.unknown_connection += 1;
            return None;
        }
        let invitation = self.invitation(path.remote);
        if carrier.is_none() && invitation.is_none() {
            self.stats.uninvited += 1;
            return None;
        }
        let purpose = if carrier.is_some() {
            Purpose::Carried
        } else {
            Purpose::Session
        };
        let id = self.accept(dcid, None, purpose, path, now)?;
        if let Some(slot) = self.slot_mut(id) {
            slot.carrier = carrier;
            slot.invitation = invitation.filter(|_| carrier.is_none());
        }
        Some(id)
    }

    fn initial(&mut self, client: Client, token: &[u8], must_prove: bool, now: Instant) -> Option<ConnId> {
        if client.dcid.as_bytes().len() < MIN_FIRST_DCID {
            self.stats.not_quic += 1;
            return None;
        }
        let retry = if token.is_empty() {
            if must_prove {
                self.answer_with_retry(&client, now);
                return None;
            }
            None
        } else {
            let Some(ids) = self.door.open(token, client.path.remote, &client.dcid, now) else {
                self.stats.tokens_invalid += 1;
                if must_prove {
                    self.answer_with_retry(&client, now);
                }
                return None;
            };
            self.stats.tokens_valid += 1;
            Some(ids)
        };
        self.accept(client.dcid, retry, Purpose::Control, client.path, now)
    }

    fn accept(
        &mut self,
        dcid: Cid,
        retry: Option<RetryIds>,
        purpose: Purpose,
        path: FourTuple,
        now: Instant,
    ) -> Option<ConnId> {
        if self.slots.len() >= self.config.max_connections || self.handshakes >= self.config.max_handshakes {
            self.stats.refused_full += 1;
            return None;
        }
        let scid = self.fresh_cid();
        let reset_token = self.door.reset_token(&scid);
        let accept = Accept {
            scid,
            retry,
            reset_token,
            path,
            purpose,
        };
        let connection = self.provider.accept(accept, now).ok()?;
        let id = self.insert(connection, path, None);
        self.stats.accepted += 1;
        self.own_cid(id, scid);
        // The client goes on using the id it knows until it hears ours, and a retransmitted or second Initial uses it
        // again: for the life of the connection it leads here and never to a second connection.
        self.own_cid(id, dcid);
        Some(id)
    }

    fn answer_with_retry(&mut self, client: &Client, now: Instant) {
        let Client {
            dcid,
            scid,
            version,
            path,
        } = *client;
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
        let sent = self.beside.push(path, |out| provider.write_retry(retry, out));
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
        let sent = self.beside.push(path, |out| {
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
