//! QUIC by quiche: the only file that names that crate, and the only place of the core where a clock is read and entropy
//! drawn, inside the library. Tests replace both from outside (the `virtual-clock` crate).
//!
//! TLS is configured in `quic::tls`. A server name that is an address is checked against the certificate's SAN
//! iPAddress, because TLS itself only checks host names.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use super::tls::{CLIENT_GROUPS, ConfigError, PemIdentity, QuicheConfig, SERVER_GROUPS, Verify};

use super::identity::names_address;
use super::mtu::{BASE, PathSize};
use super::tls::tls_context;
use super::{
    Accept, CannotConnect, Cid, CloseReason, Connect, Connection, ConnectionStats, Datagram, DatagramError,
    PacketOut, Provider, Purpose, State, WriteRetry,
};
use crate::machine::FourTuple;
use crate::wire::channel;

/// Most packets without a DATAGRAM that one event brings forth; a handshake takes a tenth of it. When probes are due while
/// the congestion window is full, quiche offers acknowledgements without end: it asks for a PING with them that finds no
/// room. What is held back here goes out after the next packet or timeout.
const MAX_UNPROMPTED: usize = 64;

/// Packets that may be on the way however many are lost: the initial congestion window, which is the least one of BBR too.
///
/// What the tunnel carries is TCP for the most part, which meets every loss of the tunnel as its own and slows down for it. A
/// window that shrinks for the same loss makes it pay twice: at 1 % loss and 20 ms, CUBIC lets 8 Mbit/s through, whatever
/// the link could carry; BBR without this floor 20, with it 147. RFC 8085 §3.1.11 asks no congestion control of a tunnel for
/// traffic that has its own; above the floor, this one has it all the same. Where the link is slower, its queue fills
/// instead of ours, and the TCP inside sees what it would see without a tunnel.
///
/// More would let a TCP by BBR inside have more of a lossy path: 350 Mbit/s with 1,024 packets and 390 with 4,096, of the 555
/// that it gets without a tunnel. But then a path that silently carries less than before is given up only after 9 s
/// (768 packets) or not at all (2,048), see `tests/path_mtu.rs`; that comes first.
const LEAST_WINDOW: usize = 256;

/// What a connection whose peer has moved falls back to first, when long packets vanish: the library searches the size of a
/// connection's first path only, and this much gives IPv6 its 1,280 bytes inside.
const MOVED: usize = 1_350;

/// What a peer may send on a stream before it is read, in bytes.
const STREAM_WINDOW: u64 = 64 * 1024;

/// What a peer may send on all streams before it is read, in bytes.
const CONNECTION_WINDOW: u64 = 4 * STREAM_WINDOW;

/// Longest reason phrase of a peer that is kept.
const MAX_REASON_LEN: usize = 128;

/// TLS alert 42, `bad_certificate` (RFC 8446 §6), as a QUIC error code (RFC 9001 §4.8).
const BAD_CERTIFICATE: u64 = 0x100 + 42;

/// quiche's buffers: received DATAGRAMs become [`Datagram`]s without a copy, and are sent without one.
#[derive(Clone, Debug, Default)]
pub struct Buffers;

/// Stream data on its way to the peer.
#[derive(Clone, Debug)]
pub struct StreamBuffer(std::sync::Arc<[u8]>);

impl AsRef<[u8]> for StreamBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl quiche::BufFactory for Buffers {
    type Buf = StreamBuffer;
    type DgramBuf = Datagram;

    fn buf_from_slice(buf: &[u8]) -> StreamBuffer {
        StreamBuffer(buf.into())
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Datagram {
        buf.to_vec().into()
    }
}

/// Makes quiche connections.
pub struct QuicheProvider {
    control: quiche::Config,
    /// Of connections between agents and connectors, if this program has a part in any.
    session: Option<quiche::Config>,
    send_queue: usize,
    max_udp_payload: usize,
}

impl fmt::Debug for QuicheProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicheProvider")
    }
}

impl QuicheProvider {
    /// Loads identities and trust, and fixes the transport parameters.
    ///
    /// # Errors
    /// Names the part of the configuration that cannot be used.
    pub fn new(config: &QuicheConfig) -> Result<Self, ConfigError> {
        let session =
            (!config.session_alpn.is_empty()).then(|| transport(config, &config.session_alpn, true));
        Ok(Self {
            control: transport(config, &config.alpn, false)?,
            session: session.transpose()?,
            send_queue: config.send_queue,
            max_udp_payload: config.max_udp_payload,
        })
    }

    /// What connections for this purpose are made of, and how long their packets may be.
    fn settings(&mut self, purpose: Purpose) -> Result<(&mut quiche::Config, usize), CannotConnect> {
        let whole = self.max_udp_payload;
        let (config, size) = match purpose {
            Purpose::Control => (Some(&mut self.control), whole),
            Purpose::Session => (self.session.as_mut(), whole),
            Purpose::Carried => (self.session.as_mut(), whole - channel::PREFIX_LEN),
        };
        let config = config.ok_or_else(|| CannotConnect("this program has no sessions".into()))?;
        config.set_max_send_udp_payload_size(size);
        Ok((config, size))
    }
}

/// The settings of connections that speak these application protocols.
fn transport(config: &QuicheConfig, alpn: &[Vec<u8>], sessions: bool) -> Result<quiche::Config, ConfigError> {
    let tls = tls_context(config, sessions)?;
    let mut quic = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls)
        .map_err(|_| ConfigError::Tls)?;
    let protocols: Vec<&[u8]> = alpn.iter().map(Vec::as_slice).collect();
    quic.set_application_protos(&protocols)
        .map_err(|_| ConfigError::Tls)?;
    quic.set_max_idle_timeout(config.idle_timeout.as_millis() as u64);
    quic.set_max_recv_udp_payload_size(config.max_udp_payload);
    quic.set_max_send_udp_payload_size(config.max_udp_payload);
    quic.discover_pmtu(true);
    quic.enable_dgram(true, config.receive_queue, config.send_queue);
    // Streams carry control messages, a few at a time. The windows stay as they begin: the library would widen them
    // for a peer that sends much, up to 24 MB that wait here whenever nobody reads.
    quic.set_initial_max_data(CONNECTION_WINDOW);
    quic.set_max_connection_window(CONNECTION_WINDOW);
    quic.set_initial_max_stream_data_bidi_local(STREAM_WINDOW);
    quic.set_initial_max_stream_data_bidi_remote(STREAM_WINDOW);
    quic.set_max_stream_window(STREAM_WINDOW);
    quic.set_initial_max_streams_bidi(4);
    quic.set_active_connection_id_limit(4);
    quic.set_cc_algorithm(quiche::CongestionControlAlgorithm::Bbr2Gcongestion);
    quic.set_initial_congestion_window_packets(LEAST_WINDOW);
    // The shell does not delay packets: release times would be ignored anyway.
    quic.enable_pacing(false);
    Ok(quic)
}

fn id(cid: &Cid) -> quiche::ConnectionId<'_> {
    quiche::ConnectionId::from_ref(cid.as_bytes())
}

impl Provider for QuicheProvider {
    type Connection = QuicheConnection;

    fn connect(&mut self, connect: Connect<'_>, now: Instant) -> Result<QuicheConnection, CannotConnect> {
        let expected_address = connect.server_name.and_then(|name| name.parse::<IpAddr>().ok());
        let host = connect.server_name.filter(|_| expected_address.is_none());
        let send_queue = self.send_queue;
        let (config, size) = self.settings(connect.purpose)?;
        config.set_stateless_reset_token(None);
        let FourTuple { local, remote } = connect.path;
        let connection = quiche::connect_with_buffer_factory(host, &id(&connect.scid), local, remote, config)
            .map_err(|error| CannotConnect(format!("cannot open a connection: {error}")))?;
        Ok(QuicheConnection::new(
            connection,
            expected_address,
            send_queue,
            size,
            now,
        ))
    }

    fn accept(&mut self, accept: Accept, now: Instant) -> Result<QuicheConnection, CannotConnect> {
        let send_queue = self.send_queue;
        let (config, size) = self.settings(accept.purpose)?;
        config.set_stateless_reset_token(Some(u128::from_be_bytes(accept.reset_token)));
        let FourTuple { local, remote } = accept.path;
        let scid = id(&accept.scid);
        let connection = match &accept.retry {
            None => quiche::accept_with_buf_factory(&scid, None, local, remote, config),
            Some(ids) => {
                let retry = quiche::RetryConnectionIds {
                    original_destination_cid: &id(&ids.original),
                    retry_source_cid: &id(&ids.retry),
                };
                quiche::accept_with_retry(&scid, retry, local, remote, config)
            }
        };
        let connection = connection.map_err(|error| CannotConnect(format!("cannot accept: {error}")))?;
        Ok(QuicheConnection::new(connection, None, send_queue, size, now))
    }

    fn is_supported(&self, version: u32) -> bool {
        quiche::version_is_supported(version)
    }

    fn write_retry(&self, retry: WriteRetry<'_>, out: &mut [u8]) -> Option<usize> {
        let WriteRetry {
            client_scid,
            original_dcid,
            retry_scid,
            token,
            version,
        } = retry;
        quiche::retry(
            &id(&client_scid),
            &id(&original_dcid),
            &id(&retry_scid),
            token,
            version,
            out,
        )
        .ok()
    }

    fn write_version_negotiation(
        &self,
        client_scid: &Cid,
        client_dcid: &Cid,
        out: &mut [u8],
    ) -> Option<usize> {
        quiche::negotiate_version(&id(client_scid), &id(client_dcid), out).ok()
    }
}

/// A quiche connection.
pub struct QuicheConnection {
    connection: quiche::Connection<Buffers>,
    /// A server that was named by address must prove it; checked once, before the connection counts as established.
    expected_address: Option<IpAddr>,
    path: Option<FourTuple>,
    /// A new address of the peer that is not validated yet, and when to ask again.
    unvalidated: Option<(FourTuple, Instant)>,
    /// When the last packet came.
    last_seen: Instant,
    send_queue: usize,
    /// Packets without a DATAGRAM written since anything happened to the connection.
    unprompted: usize,
    size: PathSize,
    /// The path whose size the library searches, once the handshake is over: the first one.
    searched: Option<FourTuple>,
    /// Whether packets take another path than that one.
    moved: bool,
    /// DATAGRAMs that waited when the path turned out to carry less than they have, not yet counted by the pool.
    outgrown: u64,
    /// Which of the streams 0 and 1 may have bytes to be read: the library names a stream once, and again only when more
    /// has come.
    readable: [bool; 2],
    /// Bytes of other streams, dropped and not yet counted by the pool.
    discarded: u64,
}

/// How long to wait for the answer of a path challenge before the next one, at least.
const REPROBE_INTERVAL: Duration = Duration::from_millis(200);

impl fmt::Debug for QuicheConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicheConnection")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl QuicheConnection {
    fn new(
        connection: quiche::Connection<Buffers>,
        expected_address: Option<IpAddr>,
        send_queue: usize,
        max_udp_payload: usize,
        now: Instant,
    ) -> Self {
        Self {
            connection,
            expected_address,
            path: None,
            unvalidated: None,
            last_seen: now,
            send_queue,
            unprompted: 0,
            size: PathSize::new(max_udp_payload),
            searched: None,
            moved: false,
            outgrown: 0,
            readable: [false; 2],
            discarded: 0,
        }
    }

    /// The path that packets take, and what it carries as far as the library knows.
    fn active_path(&self) -> Option<quiche::PathStats> {
        self.connection.path_stats().find(|path| path.active)
    }

    /// What a packet holds besides the one DATAGRAM in it.
    fn overhead(&self) -> Option<usize> {
        let room = self.connection.dgram_max_writable_len()?;
        Some(self.connection.max_send_udp_payload_size().saturating_sub(room))
    }

    /// After anything that may have changed what packets may have: an answer to a probe, its loss, the peer's move.
    fn follow_size(&mut self, now: Instant) {
        if self.searched.is_none() {
            self.begin_search(now);
        }
        if self.size.is_searching() {
            self.read_size(now);
        }
        if self.size.is_judgement_due(now) {
            self.judge_long_packets(now);
        }
    }

    fn begin_search(&mut self, now: Instant) {
        if !self.connection.is_established() {
            return;
        }
        let Some(path) = self.active_path() else { return };
        self.searched = Some(FourTuple {
            local: path.local_addr,
            remote: path.peer_addr,
        });
        // The library probes with what it was configured for, whatever the peer said that it takes. A peer that means it
        // loses the probe, and the search ends below; nothing else is sent before.
        let takes = self
            .connection
            .peer_transport_params()
            .map_or(u64::MAX, |params| params.max_udp_payload_size);
        self.size
            .search(usize::try_from(takes).unwrap_or(usize::MAX), now);
    }

    fn read_size(&mut self, now: Instant) {
        let Some(path) = self.active_path() else { return };
        self.moved = !self.is_searched(&path);
        let fell = if !self.moved {
            let is_final = self.connection.pmtu().is_some();
            self.size.found(path.pmtu, is_final, now)
        } else {
            // Nobody searches here: what the last path carried is the best guess.
            self.size.found(self.size.limit(), true, now)
        };
        if fell {
            self.drop_outgrown();
        }
    }

    fn is_searched(&self, path: &quiche::PathStats) -> bool {
        self.searched
            .is_some_and(|first| (first.local, first.remote) == (path.local_addr, path.peer_addr))
    }

    /// What waits and does not fit any more is dropped: the library would neither send it nor anything behind it.
    fn drop_outgrown(&mut self) {
        let Some(overhead) = self.overhead() else { return };
        let room = self.size.limit().saturating_sub(overhead);
        let queued = self.connection.dgram_send_queue_len();
        self.connection
            .dgram_purge_outgoing(|datagram| datagram.len() > room);
        self.outgrown += (queued - self.connection.dgram_send_queue_len()) as u64;
    }

    fn judge_long_packets(&mut self, now: Instant) {
        let Some(path) = self.active_path() else { return };
        let lost = self.connection.stats().lost as u64;
        if !self.size.is_black_hole(lost, path.rtt, now) {
            return;
        }
        if !self.moved {
            self.connection.revalidate_pmtu();
            if self.connection.pmtu().is_none() {
                self.size.search(self.size.told(), now);
            }
            self.read_size(now);
        } else {
            let smaller = if self.size.limit() > MOVED { MOVED } else { BASE };
            self.size.found(smaller, true, now);
            self.drop_outgrown();
        }
    }

    /// Has the library write a packet, and tells whether it is a probe.
    ///
    /// While it searches, the library fills whatever it is given up to the size that it wants to try, and it does so before
    /// it may probe at all: the last flight of a client's handshake would become one datagram of that size, lost with every
    /// repetition where the path carries less. So it is given what the path is known to carry; only when it has nothing
    /// left for that, more, and what it writes then is a probe.
    ///
    /// Towards an address that is not validated it pads whatever it writes to all that it is given (RFC 9000 §8.2.1): that
    /// has to be what any path carries, or a peer that moved to a smaller path would hear nothing and never answer.
    /// DATAGRAMs that are longer wait for the validation, for a round trip in most cases.
    fn write(&mut self, out: &mut [u8]) -> quiche::Result<(usize, quiche::SendInfo, bool)> {
        let most = if self.unvalidated.is_some() {
            BASE
        } else {
            self.size.limit()
        };
        let room = out.len().min(most);
        match self.connection.send(&mut out[..room]) {
            Err(quiche::Error::Done) if room < out.len() && self.may_probe() => {
                let (len, info) = self.connection.send(out)?;
                Ok((len, info, len > room))
            }
            written => written.map(|(len, info)| (len, info, false)),
        }
    }

    /// On a path that is not the first, the library would fill packets up to the size that it was configured for.
    fn may_probe(&self) -> bool {
        self.searched.is_some()
            && !self.moved
            && self.unvalidated.is_none()
            && self.connection.pmtu().is_none()
    }

    /// Reads a stream to its end for now and keeps nothing; returns the bytes dropped.
    fn drain(&mut self, stream: u64) -> usize {
        let mut dropped = 0;
        while let Ok((len, is_end)) = self.connection.stream_discard(stream, usize::MAX) {
            dropped += len;
            if is_end || len == 0 {
                break;
            }
        }
        dropped
    }

    /// Notes which of the streams 0 and 1 have something, and drops what the others have.
    fn sort_streams(&mut self) {
        while let Some(stream) = self.connection.stream_readable_next() {
            match usize::try_from(stream)
                .ok()
                .and_then(|index| self.readable.get_mut(index))
            {
                Some(readable) => *readable = true,
                None => self.discarded += self.drain(stream) as u64,
            }
        }
    }

    fn check_address(&mut self) {
        let Some(address) = self.expected_address.filter(|_| self.connection.is_established()) else {
            return;
        };
        self.expected_address = None;
        let named = self
            .connection
            .peer_cert()
            .is_some_and(|der| names_address(der, address));
        if !named {
            let _ = self.connection.close(
                false,
                BAD_CERTIFICATE,
                b"the certificate does not name this address",
            );
        }
    }
}

impl Connection for QuicheConnection {
    fn handle_packet(&mut self, packet: &mut [u8], path: FourTuple, now: Instant) {
        self.last_seen = now;
        self.unprompted = 0;
        let info = quiche::RecvInfo {
            from: path.remote,
            to: path.local,
        };
        // An error closes the connection inside; the state tells.
        let _ = self.connection.recv(packet, info);
        if self.expected_address.is_some() {
            self.check_address();
        }
        self.follow_size(now);
    }

    fn is_stateless_reset(&self, packet: &[u8]) -> bool {
        let token = self
            .connection
            .peer_transport_params()
            .and_then(|params| params.stateless_reset_token);
        let (Some(token), Some(end)) = (token, packet.last_chunk::<16>()) else {
            return false;
        };
        // All bytes are compared whatever they hold: the token is a secret until it is used.
        token ^ u128::from_be_bytes(*end) == 0
    }

    fn poll_packet(&mut self, out: &mut [u8], now: Instant) -> Option<PacketOut> {
        if self.unprompted >= MAX_UNPROMPTED {
            return None;
        }
        let queued = self.connection.dgram_send_queue_len();
        match self.write(out) {
            Ok((len, info, is_probe)) => {
                if !is_probe {
                    let connection = &self.connection;
                    self.size.on_sent(len, || connection.stats().lost as u64, now);
                }
                if self.connection.dgram_send_queue_len() == queued {
                    self.unprompted += 1;
                }
                Some(PacketOut {
                    len,
                    path: FourTuple {
                        local: info.from,
                        remote: info.to,
                    },
                    is_probe,
                })
            }
            Err(quiche::Error::Done) => {
                // The library notices the loss of a probe when it writes.
                if self.size.is_searching() {
                    self.read_size(now);
                }
                None
            }
            Err(error) => {
                let _ = self.connection.close(false, 1, error.to_string().as_bytes());
                None
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let probe = self.unvalidated.map(|(_, at)| at);
        [self.connection.timeout_instant(), probe, self.size.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.unprompted = 0;
        self.connection.on_timeout();
        self.follow_size(now);
        if let Some((path, at)) = self.unvalidated.filter(|(_, at)| *at <= now) {
            // The library repeats a challenge only when its own timer fires, which traffic keeps pushing away: a lost
            // answer would leave a moved peer at the old address for good.
            let pending = self.connection.is_path_validated(path.local, path.remote) == Ok(false);
            let asked = pending && self.connection.probe_path(path.local, path.remote).is_ok();
            self.unvalidated = asked.then_some((path, at.max(now) + REPROBE_INTERVAL));
        }
    }

    fn send_datagram(&mut self, datagram: Datagram) -> Result<(), DatagramError> {
        if self.state() != State::Established {
            return Err(DatagramError::NotReady);
        }
        let overhead = self.overhead().ok_or(DatagramError::NotReady)?;
        if datagram.len() + overhead > self.size.limit() {
            return Err(DatagramError::TooLarge);
        }
        self.unprompted = 0;
        match self.connection.dgram_send_buf(datagram) {
            Ok(()) => Ok(()),
            Err(quiche::Error::Done) => Err(DatagramError::Full),
            Err(quiche::Error::BufferTooShort) => Err(DatagramError::TooLarge),
            Err(_) => Err(DatagramError::NotReady),
        }
    }

    fn poll_datagram(&mut self) -> Option<Datagram> {
        self.connection.dgram_recv_buf().ok()
    }

    fn max_datagram_len(&self) -> Option<usize> {
        Some(self.size.limit().saturating_sub(self.overhead()?))
    }

    fn path_datagram_len(&self) -> Option<usize> {
        Some(self.size.told().saturating_sub(self.overhead()?))
    }

    fn packet_size(&self) -> usize {
        self.size.told()
    }

    fn take_outgrown(&mut self) -> u64 {
        std::mem::take(&mut self.outgrown)
    }

    fn datagram_space(&self) -> usize {
        self.send_queue
            .saturating_sub(self.connection.dgram_send_queue_len())
    }

    fn datagrams_queued(&self) -> usize {
        self.connection.dgram_send_queue_len()
    }

    fn send_stream(&mut self, stream: u64, bytes: &[u8]) -> usize {
        if self.state() != State::Established || stream > 1 || bytes.is_empty() {
            return 0;
        }
        self.unprompted = 0;
        self.connection.stream_send(stream, bytes, false).unwrap_or(0)
    }

    fn read_stream(&mut self, out: &mut [u8]) -> Option<(u64, usize)> {
        self.sort_streams();
        while let Some(stream) = self.readable.iter().position(|readable| *readable) {
            let read = match out.len() {
                0 => return None,
                _ => self.connection.stream_recv(stream as u64, out),
            };
            match read {
                Ok((len, is_end)) => {
                    self.readable[stream] = !is_end;
                    if len > 0 {
                        return Some((stream as u64, len));
                    }
                }
                // Nothing left, or the peer has reset it.
                Err(_) => self.readable[stream] = false,
            }
        }
        None
    }

    fn take_discarded(&mut self) -> u64 {
        std::mem::take(&mut self.discarded)
    }

    fn discard_streams(&mut self) -> usize {
        self.sort_streams();
        let mut dropped = std::mem::take(&mut self.discarded) as usize;
        for stream in 0..self.readable.len() {
            if std::mem::take(&mut self.readable[stream]) {
                dropped += self.drain(stream as u64);
            }
        }
        dropped
    }

    fn ping(&mut self) {
        self.unprompted = 0;
        let _ = self.connection.send_ack_eliciting();
    }

    fn state(&self) -> State {
        if self.connection.is_closed() {
            State::Closed
        } else if self.connection.is_draining() || self.connection.local_error().is_some() {
            State::Closing
        } else if self.connection.is_established() && self.expected_address.is_none() {
            State::Established
        } else {
            State::Handshaking
        }
    }

    fn close_reason(&self) -> Option<CloseReason> {
        if let Some(error) = self.connection.peer_error() {
            let end = error.reason.len().min(MAX_REASON_LEN);
            let reason = String::from_utf8_lossy(&error.reason[..end]).into_owned();
            return Some(CloseReason::Peer {
                application: error.is_app,
                code: error.error_code,
                reason,
            });
        }
        if let Some(error) = self.connection.local_error() {
            return Some(CloseReason::Local {
                application: error.is_app,
                code: error.error_code,
            });
        }
        if self.connection.is_timed_out() {
            return Some(CloseReason::TimedOut);
        }
        self.connection.is_closed().then_some(CloseReason::Reset)
    }

    fn close(&mut self, code: u64, reason: &[u8], _now: Instant) {
        self.unprompted = 0;
        let _ = self.connection.close(true, code, reason);
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_cert()
    }

    fn alpn(&self) -> &[u8] {
        self.connection.application_proto()
    }

    fn poll_path_change(&mut self) -> Option<FourTuple> {
        while let Some(event) = self.connection.path_event_next() {
            match event {
                quiche::PathEvent::New(local, remote) => {
                    // Asked at once by the library; asked again by `handle_timeout` until it is answered.
                    self.unvalidated = Some((FourTuple { local, remote }, self.last_seen + REPROBE_INTERVAL));
                }
                quiche::PathEvent::PeerMigrated(local, remote) => {
                    let path = FourTuple { local, remote };
                    self.read_size(self.last_seen);
                    if self.path.replace(path) != Some(path) {
                        return Some(path);
                    }
                }
                quiche::PathEvent::Validated(local, remote)
                | quiche::PathEvent::FailedValidation(local, remote) => {
                    let path = FourTuple { local, remote };
                    self.unvalidated.take_if(|(pending, _)| *pending == path);
                }
                quiche::PathEvent::Closed(..) | quiche::PathEvent::ReusedSourceConnectionId(..) => {}
                quiche::PathEvent::PmtuUpdated { .. } => self.read_size(self.last_seen),
                // The library may add events; a later one changes nothing for us until we read it.
                _ => {}
            }
        }
        None
    }

    fn cids_wanted(&self) -> usize {
        self.connection.scids_left()
    }

    fn provide_cid(&mut self, cid: Cid, reset_token: [u8; 16]) {
        let _ = self
            .connection
            .new_scid(&id(&cid), u128::from_be_bytes(reset_token), false);
    }

    fn poll_retired_cid(&mut self) -> Option<Cid> {
        Cid::new(&self.connection.retired_scid_next()?)
    }

    fn stats(&self) -> ConnectionStats {
        let stats = self.connection.stats();
        let rtt = self
            .connection
            .path_stats()
            .find(|path| path.active)
            .map_or(Duration::ZERO, |path| path.rtt);
        ConnectionStats {
            received: stats.recv as u64,
            sent: stats.sent as u64,
            lost: stats.lost as u64,
            acknowledged: stats.acked_bytes,
            rtt,
        }
    }
}

#[cfg(test)]
mod tests;
