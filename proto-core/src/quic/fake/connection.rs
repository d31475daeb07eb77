//! One connection: its state, and the application's side of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::codec::push_varint;
use super::frame::DATAGRAM_OVERHEAD;
use super::handshake::{Alert, Message, Params};
use super::packet::Space;
use super::paths::Paths;
use super::recovery::Recovery;
use super::seal::{Key, TAG_LEN};
use super::send::INITIAL_LEN;
use super::space::{Control, Keys, PacketSpace};
use super::{FakeCertificate, FakeConfig, Side};
use crate::machine::FourTuple;
use crate::quic::{
    Accept, Cid, CloseReason, Connect, Connection, ConnectionStats, Datagram, DatagramError, PacketOut,
    RetryIds, State,
};
use crate::rng::Rng;

/// A close that is to be told to the peer.
#[derive(Debug)]
pub(super) struct Goodbye {
    pub(super) application: bool,
    pub(super) code: u64,
    pub(super) reason: Vec<u8>,
}

/// A connection id of ours that the peer may use.
#[derive(Debug)]
pub(super) struct LocalId {
    pub(super) sequence: u64,
    pub(super) cid: Cid,
}

/// A connection id of the peer's that we may use.
#[derive(Debug)]
pub(super) struct RemoteId {
    pub(super) sequence: u64,
    pub(super) cid: Cid,
    pub(super) token: Option<[u8; 16]>,
}

/// One connection of a [`FakeProvider`](super::FakeProvider).
#[derive(Debug)]
pub struct FakeConnection {
    pub(super) config: Arc<FakeConfig>,
    pub(super) side: Side,
    pub(super) rng: Rng,
    /// The latest time seen: it never runs backwards in here.
    pub(super) now: Instant,
    /// When timers were last looked at.
    pub(super) timers_ran_at: Option<Instant>,
    pub(super) state: State,
    pub(super) reason: Option<CloseReason>,
    pub(super) goodbye: Option<Goodbye>,
    pub(super) close_at: Option<Instant>,
    pub(super) spaces: [PacketSpace; 3],
    pub(super) recovery: Recovery,
    pub(super) paths: Paths,

    pub(super) local_ids: Vec<LocalId>,
    next_sequence: u64,
    pub(super) retired: VecDeque<Cid>,
    pub(super) remote_id: RemoteId,
    pub(super) spare_ids: VecDeque<RemoteId>,

    /// The destination id of the client's first Initial; a server learns it from that packet.
    pub(super) first_dcid: Option<Cid>,
    pub(super) retry: Option<RetryIds>,
    /// The token of a Retry, which every Initial brings back.
    pub(super) token: Vec<u8>,
    pub(super) reset_token: Option<[u8; 16]>,
    pub(super) server_name: Option<String>,
    pub(super) random: [u8; 32],
    pub(super) peer_random: [u8; 32],
    pub(super) peer_params: Option<Params>,
    pub(super) peer_certificate: Option<FakeCertificate>,
    pub(super) alpn: Vec<u8>,
    /// The peer has shown that it holds handshake keys, so our probes are not needed to unblock it.
    pub(super) peer_unblocked: bool,

    pub(super) outgoing: VecDeque<Datagram>,
    pub(super) incoming: VecDeque<Datagram>,
    pub(super) ping: bool,
    pub(super) started: Instant,
    pub(super) active_at: Instant,
    /// An ack-eliciting packet was sent since the last one received: only the first restarts the idle timer.
    pub(super) spoke_since_heard: bool,
    pub(super) stats: ConnectionStats,
}

impl FakeConnection {
    pub(super) fn client(config: Arc<FakeConfig>, mut rng: Rng, connect: &Connect<'_>, now: Instant) -> Self {
        let mut first_dcid = [0; 16];
        rng.fill(&mut first_dcid);
        let dcid = Cid::new(&first_dcid);
        let mut client = Self::new(config, Side::Client, rng, connect.scid, connect.path, true, now);
        client.first_dcid = dcid;
        client.server_name = connect.server_name.map(str::to_owned);
        if let Some(dcid) = dcid {
            client.remote_id.cid = dcid;
            client.install_initial_keys(dcid);
        }
        let hello = Message::ClientHello {
            random: client.random,
            alpn: client.config.alpn.clone(),
            server_name: client.server_name.clone(),
            params: client.params(),
        };
        let hello = hello.encode(client.config.hello_len);
        client.spaces[Space::Initial.index()].crypto.push_message(&hello);
        client
    }

    pub(super) fn server(config: Arc<FakeConfig>, rng: Rng, accept: Accept, now: Instant) -> Self {
        let validated = accept.retry.is_some();
        let mut server = Self::new(
            config,
            Side::Server,
            rng,
            accept.scid,
            accept.path,
            validated,
            now,
        );
        server.retry = accept.retry;
        server.reset_token = Some(accept.reset_token);
        server
    }

    fn new(
        config: Arc<FakeConfig>,
        side: Side,
        mut rng: Rng,
        scid: Cid,
        path: FourTuple,
        validated: bool,
        now: Instant,
    ) -> Self {
        let mut random = [0; 32];
        rng.fill(&mut random);
        Self {
            config,
            side,
            rng,
            now,
            timers_ran_at: None,
            state: State::Handshaking,
            reason: None,
            goodbye: None,
            close_at: None,
            spaces: [PacketSpace::new(), PacketSpace::new(), PacketSpace::new()],
            recovery: Recovery::new(),
            paths: Paths::new(path, validated),
            local_ids: vec![LocalId {
                sequence: 0,
                cid: scid,
            }],
            next_sequence: 1,
            retired: VecDeque::new(),
            remote_id: RemoteId {
                sequence: 0,
                cid: scid,
                token: None,
            },
            spare_ids: VecDeque::new(),
            first_dcid: None,
            retry: None,
            token: Vec::new(),
            reset_token: None,
            server_name: None,
            random,
            peer_random: [0; 32],
            peer_params: None,
            peer_certificate: None,
            alpn: Vec::new(),
            peer_unblocked: side == Side::Server,
            outgoing: VecDeque::new(),
            incoming: VecDeque::new(),
            ping: false,
            started: now,
            active_at: now,
            spoke_since_heard: false,
            stats: ConnectionStats::default(),
        }
    }

    /// Our transport parameters.
    pub(super) fn params(&self) -> Params {
        Params {
            initial_scid: self.local_ids.first().map(|id| id.cid),
            original_dcid: match self.side {
                Side::Client => None,
                Side::Server => self.retry.map(|ids| ids.original).or(self.first_dcid),
            },
            retry_scid: self
                .retry
                .filter(|_| self.side == Side::Server)
                .map(|ids| ids.retry),
            reset_token: self.reset_token,
            max_datagram_frame: self.config.max_datagram_frame.unwrap_or(0),
            idle_ms: u64::try_from(self.config.idle_timeout.as_millis()).unwrap_or(u64::MAX >> 2),
            cid_limit: self.config.cid_limit,
        }
    }

    pub(super) fn install_initial_keys(&mut self, dcid: Cid) {
        self.install_keys(Space::Initial, &[dcid.as_bytes()]);
    }

    pub(super) fn install_handshake_keys(&mut self) {
        let (client, server) = match self.side {
            Side::Client => (self.random, self.peer_random),
            Side::Server => (self.peer_random, self.random),
        };
        self.install_keys(Space::Handshake, &[&client, &server]);
        self.install_keys(Space::Application, &[&client, &server]);
    }

    fn install_keys(&mut self, space: Space, secrets: &[&[u8]]) {
        let key = |from: &[u8]| {
            let mut label = Vec::from(from);
            push_varint(&mut label, space.index() as u64);
            Key::derive(&label, secrets)
        };
        let (client, server) = (key(b"client"), key(b"server"));
        self.spaces[space.index()].keys = Some(match self.side {
            Side::Client => Keys {
                seal: client,
                open: server,
            },
            Side::Server => Keys {
                seal: server,
                open: client,
            },
        });
    }

    pub(super) fn discard(&mut self, space: Space) {
        let space = &mut self.spaces[space.index()];
        if !space.discarded {
            self.recovery.on_discarded(space.discard());
            self.recovery.backoff = 0;
        }
    }

    /// Ends the connection because of what the peer did, with a transport error code.
    pub(super) fn fail(&mut self, code: u64) {
        self.end(CloseReason::Local {
            application: false,
            code,
        });
        self.goodbye = Some(Goodbye {
            application: false,
            code,
            reason: Vec::new(),
        });
    }

    pub(super) fn alert(&mut self, alert: Alert) {
        self.fail(alert.code());
    }

    /// Enters the closing or draining period (RFC 9000 §10.2); the first reason stands.
    pub(super) fn end(&mut self, reason: CloseReason) {
        if matches!(self.state, State::Handshaking | State::Established) {
            self.state = State::Closing;
            self.reason = Some(reason);
            self.close_at = Some(self.now + self.recovery.pto() * 3);
            self.outgoing.clear();
        }
    }

    /// Over without a word.
    pub(super) fn vanish(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.reason.get_or_insert(reason);
        self.goodbye = None;
        self.outgoing.clear();
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Handshaking | State::Established)
    }

    pub(super) fn advance_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The bytes of UDP payload that a packet may have.
    pub(super) fn max_packet_len(&self) -> usize {
        match self.state {
            State::Handshaking => INITIAL_LEN,
            State::Established | State::Closing | State::Closed => self.config.max_udp_payload,
        }
    }
}

impl Connection for FakeConnection {
    fn handle_packet(&mut self, packet: &mut [u8], path: FourTuple, now: Instant) {
        self.advance_to(now);
        self.receive(packet, path);
        // Shorter round trips and fresh room to send can make timers due at once.
        self.run_timers();
    }

    fn is_stateless_reset(&self, packet: &[u8]) -> bool {
        // Shorter ones are no resets (RFC 9000 §10.3).
        let Some(token) = packet.last_chunk::<16>().filter(|_| packet.len() >= 21) else {
            return false;
        };
        let mut tokens = std::iter::once(&self.remote_id)
            .chain(&self.spare_ids)
            .filter_map(|id| id.token);
        packet[0] & 0xc0 == 0x40 && tokens.any(|known| known == *token)
    }

    fn poll_packet(&mut self, out: &mut [u8], now: Instant) -> Option<PacketOut> {
        self.advance_to(now);
        let len = self.write_packets(out)?;
        Some(PacketOut {
            len,
            path: self.paths.active(),
            is_probe: false,
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.advance_to(now);
        self.run_timers();
    }

    fn send_datagram(&mut self, datagram: Datagram) -> Result<(), DatagramError> {
        let Some(limit) = self
            .max_datagram_len()
            .filter(|_| self.state == State::Established)
        else {
            return Err(DatagramError::NotReady);
        };
        if datagram.len() > limit {
            return Err(DatagramError::TooLarge);
        }
        if self.datagram_space() == 0 {
            return Err(DatagramError::Full);
        }
        self.outgoing.push_back(datagram);
        Ok(())
    }

    fn poll_datagram(&mut self) -> Option<Datagram> {
        self.incoming.pop_front()
    }

    fn max_datagram_len(&self) -> Option<usize> {
        let frame = self.peer_params.as_ref()?.max_datagram_frame;
        let header = 1 + self.remote_id.cid.as_bytes().len() + 4 + TAG_LEN;
        let room = self.config.max_udp_payload.saturating_sub(header);
        room.min(usize::try_from(frame).unwrap_or(usize::MAX))
            .checked_sub(DATAGRAM_OVERHEAD)
    }

    fn path_datagram_len(&self) -> Option<usize> {
        self.max_datagram_len()
    }

    fn packet_size(&self) -> usize {
        self.config.max_udp_payload
    }

    fn take_outgrown(&mut self) -> u64 {
        0
    }

    fn datagram_space(&self) -> usize {
        self.config.send_queue.saturating_sub(self.outgoing.len())
    }

    fn datagrams_queued(&self) -> usize {
        self.outgoing.len()
    }

    fn send_stream(&mut self, stream: u64, bytes: &[u8]) -> usize {
        if self.state != State::Established {
            return 0;
        }
        let opens = stream == u64::from(self.side == Side::Server);
        self.spaces[Space::Application.index()]
            .streams
            .write(stream, opens, bytes)
    }

    fn read_stream(&mut self, out: &mut [u8]) -> Option<(u64, usize)> {
        let space = &mut self.spaces[Space::Application.index()];
        let (stream, len, tell) = space.streams.read(out)?;
        let room = Control::MaxStreamData { stream };
        if tell && self.state == State::Established && !space.controls.contains(&room) {
            space.controls.push_back(room);
        }
        Some((stream, len))
    }

    fn take_discarded(&mut self) -> u64 {
        std::mem::take(&mut self.spaces[Space::Application.index()].streams.discarded)
    }

    fn discard_streams(&mut self) -> usize {
        let (mut buffer, mut dropped) = ([0; 1024], 0);
        while let Some((_, len)) = self.read_stream(&mut buffer) {
            dropped += len;
        }
        dropped + self.take_discarded() as usize
    }

    fn ping(&mut self) {
        self.ping = self.is_open();
    }

    fn state(&self) -> State {
        self.state
    }

    fn close_reason(&self) -> Option<CloseReason> {
        self.reason.clone()
    }

    fn close(&mut self, code: u64, reason: &[u8], now: Instant) {
        self.advance_to(now);
        if !self.is_open() {
            return;
        }
        let established = self.state == State::Established;
        self.end(CloseReason::Local {
            application: true,
            code,
        });
        // Before the handshake is complete the application's words stay private (RFC 9000 §10.2.3).
        self.goodbye = Some(if established {
            let reason = reason[..reason.len().min(512)].to_vec();
            Goodbye {
                application: true,
                code,
                reason,
            }
        } else {
            Goodbye {
                application: false,
                code: 0x0c,
                reason: Vec::new(),
            }
        });
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificate
            .as_ref()
            .map(|certificate| &*certificate.der)
    }

    fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    fn poll_path_change(&mut self) -> Option<FourTuple> {
        self.paths.poll_change()
    }

    fn cids_wanted(&self) -> usize {
        let Some(params) = &self.peer_params else { return 0 };
        let limit = params.cid_limit.min(self.config.cid_limit);
        usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.local_ids.len())
    }

    fn provide_cid(&mut self, cid: Cid, reset_token: [u8; 16]) {
        if self.cids_wanted() == 0 || !self.is_open() {
            return;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.local_ids.push(LocalId { sequence, cid });
        let frame = Control::NewCid {
            sequence,
            cid,
            token: reset_token,
        };
        self.spaces[Space::Application.index()].controls.push_back(frame);
    }

    fn poll_retired_cid(&mut self) -> Option<Cid> {
        self.retired.pop_front()
    }

    fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            rtt: self.recovery.rtt(),
            ..self.stats
        }
    }
}
