//! A client that sends whatever bytes a story wants and remembers whatever comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::id::ConnId;
use proto_core::machine::{Deadline, Forward, FourTuple, Machine, Received, Transmit};
use proto_core::messages::MessageStream;
use proto_core::quic::{Admission, CloseReason, MAX_RAW_LEN, Pool, PoolConfig, PoolEvent, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::control::SignalingMessage;

use crate::setup::{RELAY, RELAY_NAME};

#[derive(Debug)]
pub(crate) struct Raw<Q: Provider> {
    pool: Pool<Q>,
    id: ConnId,
    connected: bool,
    local: SocketAddr,
    /// A second connection, to a connector.
    direct: Option<ConnId>,
    pub(crate) direct_connected: bool,
    pub(crate) direct_closed: Option<CloseReason>,
    pub(crate) direct_received: Vec<Vec<u8>>,
    /// Messages beside QUIC, and from where they came.
    pub(crate) beside: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) received: Vec<Vec<u8>>,
    signals: MessageStream,
    pub(crate) signalled: Vec<SignalingMessage>,
    /// It does not read its streams.
    pub(crate) is_deaf: bool,
    /// Bytes for stream 0 that it has not taken yet.
    pub(crate) rest: Vec<u8>,
}

impl<Q: Provider> Raw<Q> {
    pub(crate) fn new(provider: Q, local: &str, seed: Seed, now: Instant) -> Self {
        let config = PoolConfig {
            admission: Admission::Nobody,
            raw: true,
            reset_key: None,
            max_connections: 2,
            max_handshakes: 2,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let mut pool = Pool::new(provider, config, Rng::new(&seed), now);
        let path = FourTuple {
            local: local.parse().unwrap(),
            remote: RELAY.parse().unwrap(),
        };
        let id = pool.connect(Some(RELAY_NAME), path, now).unwrap();
        Self {
            pool,
            id,
            connected: false,
            local: path.local,
            direct: None,
            direct_connected: false,
            direct_closed: None,
            direct_received: Vec::new(),
            beside: Vec::new(),
            closed: None,
            received: Vec::new(),
            signals: MessageStream::v1_client(),
            signalled: Vec::new(),
            is_deaf: false,
            rest: Vec::new(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.pool
            .send_datagram(self.id, datagram.to_vec().into())
            .unwrap();
    }

    /// Opens a connection to a connector.
    pub(crate) fn go_direct(&mut self, remote: SocketAddr, now: Instant) {
        let path = FourTuple {
            local: self.local,
            remote,
        };
        self.direct = Some(self.pool.connect(None, path, now).unwrap());
    }

    pub(crate) fn send_direct(&mut self, packet: &[u8]) {
        let id = self.direct.unwrap();
        self.pool.send_datagram(id, packet.to_vec().into()).unwrap();
    }

    /// Sends a message beside QUIC.
    pub(crate) fn send_beside(&mut self, remote: SocketAddr, payload: &[u8]) {
        let path = FourTuple {
            local: self.local,
            remote,
        };
        assert!(self.pool.send_raw(path, payload));
    }

    /// Sends a message of v1 signalling.
    pub(crate) fn signal(&mut self, message: &SignalingMessage) {
        assert!(self.signals.send(message.write()), "the stream takes no more");
        self.signals.flush(&mut self.pool, self.id);
    }

    /// Writes these bytes on a stream, as many as it takes.
    pub(crate) fn scribble(&mut self, stream: u64, bytes: &[u8]) -> usize {
        self.pool.send_stream(self.id, stream, bytes)
    }

    fn process(&mut self) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) if Some(id) == self.direct => self.direct_connected = true,
                PoolEvent::Readable(id) if Some(id) == self.direct => {
                    let more = std::iter::from_fn(|| self.pool.poll_datagram(id));
                    self.direct_received
                        .extend(more.map(|datagram| datagram.to_vec()));
                }
                PoolEvent::Closed(id, reason) if Some(id) == self.direct => {
                    self.direct_closed = Some(reason);
                }
                PoolEvent::Established(_) => self.connected = true,
                PoolEvent::Readable(id) => {
                    self.received
                        .extend(std::iter::from_fn(|| self.pool.poll_datagram(id)).map(|d| d.to_vec()));
                    let taken = self.pool.send_stream(id, 0, &self.rest);
                    self.rest.drain(..taken);
                    if self.is_deaf {
                        continue;
                    }
                    self.signals.flush(&mut self.pool, id);
                    let signalled = &mut self.signalled;
                    self.signals.read(&mut self.pool, id, &mut |payload| {
                        signalled.push(SignalingMessage::parse(payload).unwrap());
                    });
                }
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(_, reason) => self.closed = Some(reason),
            }
        }
    }
}

impl<Q: Provider> Raw<Q> {
    fn listen_beside(&mut self) {
        let mut payload = [0; MAX_RAW_LEN];
        while let Some((len, path)) = self.pool.poll_raw(&mut payload) {
            self.beside.push((path.remote, payload[..len].to_vec()));
        }
    }
}

impl<Q: Provider> Machine for Raw<Q> {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.pool.handle_datagram(received, now);
        self.listen_beside();
        self.process();
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        self.process();
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        let transmit = self.pool.poll_transmit(buf, now);
        if transmit.is_none() {
            self.process();
        }
        transmit
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.pool.poll_timeout()
    }

    fn shut_down(&mut self, now: Instant) {
        self.pool.close(self.id, 0, b"", now);
    }

    fn is_drained(&self) -> bool {
        self.pool.is_drained()
    }
}

/// Longer than any connection survives its peer.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(40);
