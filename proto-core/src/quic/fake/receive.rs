//! Received packets: authentication, frames, the steps of the handshake.

use super::codec::Reader;
use super::connection::{FakeConnection, RemoteId};
use super::frame::{self, Ack, Frame};
use super::handshake::{Alert, Message, Params, choose_alpn, judge};
use super::packet::{self, Packet, Protected, Space, VERSION};
use super::paths::validation_time;
use super::seal::TAG_LEN;
use super::space::Control;
use super::{Side, Trust};
use crate::machine::FourTuple;
use crate::quic::{Cid, CloseReason, Connection, Datagram, State};

/// Transport error codes (RFC 9000 §20.1).
const FLOW_CONTROL_ERROR: u64 = 0x03;
const FRAME_ENCODING_ERROR: u64 = 0x07;
const TRANSPORT_PARAMETER_ERROR: u64 = 0x08;
const PROTOCOL_VIOLATION: u64 = 0x0a;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0x0d;

/// Reason phrases are cut to this, fit for a log.
const REASON_LEN: usize = 128;

impl FakeConnection {
    /// Takes one datagram and destroys its content, as decryption in place does.
    pub(super) fn receive(&mut self, datagram: &mut [u8], path: FourTuple) {
        if self.is_open() && (self.side == Side::Server || path.remote == self.paths.active().remote) {
            self.paths.on_datagram(path, datagram.len());
            self.receive_coalesced(datagram, path);
        }
        datagram.fill(0xdd);
    }

    fn receive_coalesced(&mut self, datagram: &[u8], path: FourTuple) {
        let cid_len = self.local_ids.first().map_or(0, |id| id.cid.as_bytes().len());
        let (mut start, mut genuine) = (0, false);
        while start < datagram.len() && self.is_open() {
            let Some(packet) = packet::parse(datagram, start, cid_len) else {
                break;
            };
            start = match packet {
                Packet::Protected(head) => {
                    genuine |= self.on_protected(datagram, &head, path);
                    head.end
                }
                Packet::Retry {
                    dcid,
                    scid,
                    token,
                    end,
                } => {
                    self.on_retry(datagram, dcid, scid, &datagram[token]);
                    end
                }
                Packet::Negotiation { dcid, scid, versions } => {
                    self.on_negotiation(dcid, scid, &datagram[versions]);
                    return;
                }
            };
        }
        if !genuine && self.is_stateless_reset(datagram) {
            self.vanish(CloseReason::Reset);
        }
        // A server is made for its first packet; if that is junk, there is nobody to wait for.
        if !genuine && self.side == Side::Server && self.stats.received == 0 && self.is_open() {
            self.vanish(CloseReason::Reset);
        }
    }

    /// Opens a packet and acts on its frames; `false` if it is not from the peer.
    fn on_protected(&mut self, datagram: &[u8], head: &Protected, path: FourTuple) -> bool {
        if self.side == Side::Server && head.space == Space::Initial && self.first_dcid.is_none() {
            self.first_dcid = Some(head.dcid);
            self.install_initial_keys(head.dcid);
        }
        let mine = self.local_ids.iter().any(|id| id.cid == head.dcid);
        let first = self.side == Side::Server && Some(head.dcid) == self.first_dcid;
        let Some(keys) = self.spaces[head.space.index()].keys else {
            return false;
        };
        let sealed = &datagram[head.start..head.frames.end];
        let tag = datagram.get(head.frames.end..head.frames.end + TAG_LEN);
        let authentic = tag.is_some_and(|tag| tag == keys.open.tag(head.number, sealed));
        if !authentic || !(mine || first && head.space != Space::Application) {
            return false;
        }
        // The peer's Finished may still be missing: its data cannot be trusted yet (RFC 9001 §5.7).
        if head.space == Space::Application && self.state != State::Established {
            return true;
        }
        let space = &mut self.spaces[head.space.index()];
        let newest = space
            .received
            .largest()
            .is_none_or(|largest| head.number > largest);
        if !space.on_received(head.number) {
            return true;
        }
        self.on_authentic(head, datagram.len(), newest, path);
        self.on_frames(head.space, &datagram[head.frames.clone()]);
        true
    }

    fn on_authentic(&mut self, head: &Protected, bytes: usize, newest: bool, path: FourTuple) {
        self.stats.received += 1;
        self.active_at = self.now;
        self.spoke_since_heard = false;
        match (self.side, head.space) {
            (Side::Client, Space::Initial) if self.peer_random == [0; 32] => self.remote_id.cid = head.scid,
            (Side::Server, Space::Initial) if self.stats.received == 1 => self.remote_id.cid = head.scid,
            (Side::Server, Space::Handshake) => {
                self.paths.on_address_proven();
                self.discard(Space::Initial);
            }
            (Side::Server, Space::Application) if newest && path != self.paths.active() => {
                self.on_new_path(bytes, path);
            }
            (Side::Client | Side::Server, Space::Initial | Space::Handshake | Space::Application) => {}
        }
    }

    fn on_new_path(&mut self, bytes: usize, path: FourTuple) {
        let mut data = [0; 8];
        self.rng.fill(&mut data);
        let until = self.now + validation_time(self.recovery.pto());
        if !self.paths.on_newest_packet(path, bytes, data, until) {
            return;
        }
        let controls = &mut self.spaces[Space::Application.index()].controls;
        // Nobody waits for answers to older ones.
        controls.retain(|control| !matches!(control, Control::PathChallenge(_)));
        controls.push_front(Control::PathChallenge(data));
        // A fresh id keeps observers from linking the two addresses (RFC 9000 §9.5).
        if let Some(fresh) = self.spare_ids.pop_front() {
            controls.push_back(Control::RetireCid {
                sequence: self.remote_id.sequence,
            });
            self.remote_id = fresh;
        }
    }

    fn on_frames(&mut self, space: Space, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let mut eliciting = false;
        while !reader.is_empty() && self.is_open() {
            let Some(frame) = frame::read(&mut reader) else {
                return self.fail(FRAME_ENCODING_ERROR);
            };
            eliciting |= frame.is_eliciting();
            self.on_frame(space, frame);
        }
        if eliciting && self.is_open() {
            let delayed = space == Space::Application;
            let now = self.now;
            let space = &mut self.spaces[space.index()];
            if !space.discarded {
                space.plan_ack(delayed, now);
            }
        }
    }

    fn on_frame(&mut self, space: Space, frame: Frame<'_>) {
        match frame {
            Frame::Padding | Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(space, &ack),
            Frame::Crypto { offset, data } => {
                if !self.spaces[space.index()].crypto.receive(offset, data) {
                    return self.fail(CRYPTO_BUFFER_EXCEEDED);
                }
                while self.is_open()
                    && let Some(message) = self.spaces[space.index()].crypto.next_message()
                {
                    self.on_message(space, &message);
                }
            }
            Frame::Stream { .. } | Frame::MaxStreamData { .. } if space != Space::Application => {
                self.fail(PROTOCOL_VIOLATION);
            }
            Frame::Stream { stream, offset, data } => {
                let streams = &mut self.spaces[space.index()].streams;
                if streams.receive(stream, offset, data).is_err() {
                    self.fail(FLOW_CONTROL_ERROR);
                }
            }
            Frame::MaxStreamData { stream, limit } => {
                self.spaces[space.index()].streams.on_max_data(stream, limit);
            }
            Frame::NewCid { sequence, cid, token } => self.on_new_cid(sequence, cid, token),
            Frame::RetireCid { sequence } => {
                let retired = self.local_ids.iter().position(|id| id.sequence == sequence);
                if let Some(index) = retired.filter(|_| self.local_ids.len() > 1) {
                    self.retired.push_back(self.local_ids.remove(index).cid);
                }
            }
            Frame::PathChallenge(data) => {
                let controls = &mut self.spaces[Space::Application.index()].controls;
                if controls.len() < 8 {
                    controls.push_back(Control::PathResponse(data));
                }
            }
            Frame::PathResponse(data) => {
                self.paths.on_response(data);
            }
            Frame::Close {
                application,
                code,
                reason,
            } => {
                let reason = &reason[..reason.len().min(REASON_LEN)];
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.end(CloseReason::Peer {
                    application,
                    code,
                    reason,
                });
            }
            Frame::HandshakeDone if self.side == Side::Client => {
                self.peer_unblocked = true;
                self.discard(Space::Handshake);
            }
            Frame::HandshakeDone => self.fail(PROTOCOL_VIOLATION),
            Frame::Datagram(data) => {
                if self.incoming.len() >= self.config.recv_queue {
                    self.incoming.pop_front();
                }
                self.incoming.push_back(Datagram::from(data.to_vec()));
            }
        }
    }

    fn on_ack(&mut self, space: Space, ack: &Ack<'_>) {
        let Some(acked) = self.spaces[space.index()].on_ack(ack) else {
            return self.fail(PROTOCOL_VIOLATION);
        };
        if let Some(sent) = acked.largest_sent_at {
            self.recovery.on_rtt_sample(self.now.duration_since(sent));
        }
        self.recovery.on_acked(acked.bytes);
        self.stats.acknowledged += acked.bytes as u64;
        self.recovery.backoff = 0;
        if space == Space::Handshake {
            self.peer_unblocked = true;
        }
        self.detect_losses(space);
    }

    fn on_new_cid(&mut self, sequence: u64, cid: Cid, token: [u8; 16]) {
        let known = std::iter::once(&self.remote_id)
            .chain(&self.spare_ids)
            .any(|id| id.sequence >= sequence);
        let limit = self.config.cid_limit.saturating_sub(1);
        if !known && (self.spare_ids.len() as u64) < limit {
            self.spare_ids.push_back(RemoteId {
                sequence,
                cid,
                token: Some(token),
            });
        }
    }

    fn on_message(&mut self, space: Space, bytes: &[u8]) {
        let Some(message) = Message::decode(bytes) else {
            return self.alert(Alert::DecodeError);
        };
        match (self.side, space, message) {
            (
                Side::Server,
                Space::Initial,
                Message::ClientHello {
                    random, alpn, params, ..
                },
            ) => {
                self.on_client_hello(random, &alpn, params);
            }
            (Side::Client, Space::Initial, Message::ServerHello { random }) => {
                self.peer_random = random;
                self.install_handshake_keys();
            }
            (
                Side::Client,
                Space::Handshake,
                Message::ServerFlight {
                    alpn,
                    wants_certificate,
                    certificate,
                    params,
                },
            ) => {
                let required = self.config.trust != Trust::Anyone;
                if let Err(alert) = judge(
                    &self.config,
                    certificate.as_ref(),
                    self.server_name.as_deref(),
                    required,
                ) {
                    return self.alert(alert);
                }
                if !self.are_ids_confirmed(&params) {
                    return self.fail(TRANSPORT_PARAMETER_ERROR);
                }
                self.remote_id.token = params.reset_token;
                self.alpn = alpn;
                self.peer_certificate = certificate;
                self.peer_params = Some(params);
                let certificate = self.config.certificate.clone().filter(|_| wants_certificate);
                let finish = Message::ClientFinish { certificate }.encode(0);
                self.spaces[space.index()].crypto.push_message(&finish);
                self.state = State::Established;
            }
            (Side::Server, Space::Handshake, Message::ClientFinish { certificate }) => {
                let required = self.config.require_client_certificate;
                if let Err(alert) = judge(&self.config, certificate.as_ref(), None, required) {
                    return self.alert(alert);
                }
                self.peer_certificate = certificate;
                self.state = State::Established;
                self.discard(Space::Handshake);
                self.spaces[Space::Application.index()]
                    .controls
                    .push_back(Control::HandshakeDone);
            }
            (Side::Client | Side::Server, _, _) => self.fail(PROTOCOL_VIOLATION),
        }
    }

    fn on_client_hello(&mut self, random: [u8; 32], offered: &[Vec<u8>], params: Params) {
        self.peer_random = random;
        let alpn = match choose_alpn(&self.config.alpn, offered) {
            Ok(alpn) => alpn,
            Err(alert) => return self.alert(alert),
        };
        if params.initial_scid != Some(self.remote_id.cid) {
            return self.fail(TRANSPORT_PARAMETER_ERROR);
        }
        self.alpn.clone_from(&alpn);
        self.peer_params = Some(params);
        self.install_handshake_keys();
        let hello = Message::ServerHello { random: self.random }.encode(0);
        self.spaces[Space::Initial.index()].crypto.push_message(&hello);
        let flight = Message::ServerFlight {
            alpn,
            wants_certificate: self.config.require_client_certificate,
            certificate: self.config.certificate.clone(),
            params: self.params(),
        };
        self.spaces[Space::Handshake.index()]
            .crypto
            .push_message(&flight.encode(0));
    }

    /// Whether the server has seen the connection ids that we have (RFC 9000 §7.3).
    fn are_ids_confirmed(&self, params: &Params) -> bool {
        params.initial_scid == Some(self.remote_id.cid)
            && params.original_dcid == self.retry.map(|ids| ids.original).or(self.first_dcid)
            && params.retry_scid == self.retry.map(|ids| ids.retry)
    }

    fn on_retry(&mut self, datagram: &[u8], dcid: Cid, scid: Cid, token: &[u8]) {
        let expected = self.side == Side::Client && self.stats.received == 0 && self.retry.is_none();
        let mine = self.local_ids.iter().any(|id| id.cid == dcid);
        let Some(original) = self.first_dcid.filter(|_| expected && mine) else {
            return;
        };
        let Some((sealed, tag)) = datagram.split_last_chunk::<TAG_LEN>() else {
            return;
        };
        if packet::retry_key(&original).tag(0, sealed) != *tag || scid == original {
            return;
        }
        self.retry = Some(crate::quic::RetryIds {
            original,
            retry: scid,
        });
        self.token = token.to_vec();
        self.remote_id.cid = scid;
        self.install_initial_keys(scid);
        self.spaces[Space::Initial.index()].crypto.restart();
    }

    fn on_negotiation(&mut self, dcid: Cid, scid: Cid, versions: &[u8]) {
        let mine = self.local_ids.iter().any(|id| id.cid == dcid) && scid == self.remote_id.cid;
        let early = self.side == Side::Client && self.stats.received == 0;
        let offered = versions
            .chunks_exact(4)
            .any(|version| version == VERSION.to_be_bytes());
        // A list with our version in it contradicts itself and is ignored (RFC 9000 §6.2).
        if mine && early && !offered {
            self.vanish(CloseReason::Reset);
        }
    }
}
