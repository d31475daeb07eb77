//! A client of `ztna-v2` that says whatever messages a story wants, and sends whatever frames.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::id::ConnId;
use proto_core::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Transmit, Wake};
use proto_core::messages::MessageStream;
use proto_core::quic::{Admission, CloseReason, Pool, PoolConfig, PoolEvent, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::channel::channel_prefix;
use proto_core::wire::control::{ControlMessage, SignalingMessage};
use proto_core::wire::framing::write_frame;

use crate::setup::{RELAY, RELAY_NAME};

#[derive(Debug)]
pub(crate) struct Speaker<Q: Provider> {
    pool: Pool<Q>,
    id: ConnId,
    path: FourTuple,
    stream: MessageStream,
    connected: bool,
    pub(crate) closed: Option<CloseReason>,
    /// What the intermediate has said, oldest first.
    pub(crate) heard: Vec<ControlMessage>,
    /// What v1 agents have said through it.
    pub(crate) signalled: Vec<SignalingMessage>,
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Frames that came bare, and from where.
    pub(crate) frames: Vec<(SocketAddr, Vec<u8>)>,
    outgoing: VecDeque<(FourTuple, Vec<u8>, Option<NonZeroUsize>)>,
    /// Whether it reads what it is told.
    pub(crate) listens: bool,
}

impl<Q: Provider> Speaker<Q> {
    pub(crate) fn new(provider: Q, local: &str, seed: Seed, now: Instant) -> Self {
        let config = PoolConfig {
            admission: Admission::Nobody,
            raw: false,
            reset_key: None,
            max_connections: 1,
            max_handshakes: 1,
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
            path,
            stream: MessageStream::new(0),
            connected: false,
            closed: None,
            heard: Vec::new(),
            signalled: Vec::new(),
            datagrams: Vec::new(),
            frames: Vec::new(),
            outgoing: VecDeque::new(),
            listens: true,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn alpn(&self) -> &[u8] {
        self.pool.alpn(self.id)
    }

    pub(crate) fn say(&mut self, message: &ControlMessage) {
        assert!(self.stream.send(message.write()));
        self.stream.flush(&mut self.pool, self.id);
    }

    pub(crate) fn signal(&mut self, message: &SignalingMessage) {
        assert!(self.stream.send(message.write()));
        self.stream.flush(&mut self.pool, self.id);
    }

    /// A frame of the stream with any payload.
    pub(crate) fn mutter(&mut self, payload: &[u8]) {
        assert!(self.stream.send(write_frame(payload)));
        self.stream.flush(&mut self.pool, self.id);
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        let datagram = datagram.to_vec().into();
        self.pool.send_datagram(self.id, datagram).unwrap();
    }

    /// Sends packets of a channel bare, as one batch if they are of one size.
    pub(crate) fn send_frames(&mut self, channel: u32, packets: &[&[u8]]) {
        let frames: Vec<_> = packets.iter().map(|packet| frame(channel, packet)).collect();
        let size = frames.first().map(Vec::len).unwrap_or_default();
        let stride = NonZeroUsize::new(size).filter(|_| frames.len() > 1);
        self.outgoing.push_back((self.path, frames.concat(), stride));
    }

    fn process(&mut self) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(_) => self.connected = true,
                PoolEvent::Readable(id) => {
                    let more = std::iter::from_fn(|| self.pool.poll_datagram(id));
                    self.datagrams.extend(more.map(|datagram| datagram.to_vec()));
                    self.stream.flush(&mut self.pool, id);
                    if self.listens {
                        self.stream
                            .read(
                                &mut self.pool,
                                id,
                                &mut |payload| match ControlMessage::parse(payload) {
                                    Ok(message) => self.heard.push(message),
                                    Err(_) => self.signalled.push(SignalingMessage::parse(payload).unwrap()),
                                },
                            );
                    }
                }
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(_, reason) => self.closed = Some(reason),
            }
        }
    }
}

impl<Q: Provider> Machine for Speaker<Q> {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        let size = received.segment_size();
        for payload in received.payload.chunks_mut(size) {
            if payload.first() == Some(&0x21) {
                self.frames.push((received.path.remote, payload.to_vec()));
                continue;
            }
            let received = Received {
                stride: None,
                payload,
                ..received
            };
            self.pool.handle_datagram(received, now);
        }
        self.process();
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        self.process();
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        if let Some((path, bytes, segment_size)) = self.outgoing.pop_front() {
            buf[..bytes.len()].copy_from_slice(&bytes);
            return Some(Transmit {
                path,
                ecn: Ecn::NotEct,
                len: bytes.len(),
                segment_size,
            });
        }
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
        let own = (!self.outgoing.is_empty()).then(|| Deadline {
            at: self.pool.now(),
            wake: Wake::QueuedOutput,
        });
        Deadline::earliest(own, self.pool.poll_timeout())
    }

    fn shut_down(&mut self, now: Instant) {
        self.pool.close(self.id, 0, b"", now);
    }

    fn is_drained(&self) -> bool {
        self.pool.is_drained()
    }
}

/// A packet in a channel.
pub(crate) fn frame(channel: u32, packet: &[u8]) -> Vec<u8> {
    [&channel_prefix(channel)[..], packet].concat()
}
