//! One socket and the connections on it: what a shell would do, in a loop of our own.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use proto_core::id::ServiceId;
use proto_core::machine::{Ecn, FourTuple, Received};
use proto_core::quic::Datagram;
use proto_core::quic::quiche::QuicheProvider;
use proto_core::rng::Seed;
use proto_core::wire::channel::CHANNEL;
use proto_core::wire::datagram::Role;

use super::{Relay, identity};
use crate::client::{Client, ClientConfig, Speaks};
use crate::socket::{BatchSocket, Offload, wait_readable};

/// How long connections and registrations may take.
const SETTLE: Duration = Duration::from_secs(20);

/// Batches sent in one turn, so that receiving is never put off for long.
const BATCHES: usize = 128;

/// A socket with a [`Client`] on it.
pub(super) struct Link {
    socket: BatchSocket,
    pub(super) client: Client<QuicheProvider>,
    buffer: Box<[u8]>,
}

impl Link {
    /// A socket of its own for up to `connections` connections, none of them open yet.
    pub(super) fn new(
        relay: &Relay,
        (role, speaks): (Role, Speaks),
        services: Vec<ServiceId>,
        connections: usize,
    ) -> io::Result<Self> {
        let socket = BatchSocket::bind(SocketAddr::new(relay.bind, 0), Offload::Segments)?;
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
            .map_err(|_| io::Error::other("no entropy"))?;
        let config = ClientConfig {
            speaks,
            role,
            services,
            server_name: Some(relay.relay.ip().to_string()),
            path: FourTuple {
                local: socket.local(),
                remote: relay.relay,
            },
            max_connections: connections,
        };
        let client = Client::new(
            config,
            identity::provider(&relay.pki, role, speaks)?,
            &Seed(seed),
            Instant::now(),
        );
        Ok(Self {
            socket,
            client,
            buffer: vec![0; 65_487].into_boxed_slice(),
        })
    }

    /// Opens connections until `count` hold their registrations.
    pub(super) fn settle(&mut self, count: usize) -> io::Result<()> {
        let until = Instant::now() + SETTLE;
        let mut opened = 0;
        loop {
            let now = Instant::now();
            let registered = self.client.registered();
            if registered >= count {
                return Ok(());
            }
            if now >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{registered} of {count} connections registered; {:?}",
                        self.client.stats()
                    ),
                ));
            }
            // Not all at once: the handshakes of the last would time out behind those of the first.
            while opened < count && opened < registered + 32 {
                self.client.connect(now).map_err(io::Error::other)?;
                opened += 1;
            }
            self.client.repeat_registrations(now);
            if !self.turn(&mut |_| None)? {
                wait_readable(&[self.as_fd()], Duration::from_millis(5))?;
            }
        }
    }

    /// Receives, lets time pass, and sends; whether anything came or went.
    pub(super) fn turn(
        &mut self,
        on_packet: &mut dyn FnMut(Datagram) -> Option<Datagram>,
    ) -> io::Result<bool> {
        self.turn_with_frames(on_packet, &mut |_| {})
    }

    /// Sends frames of a channel, all of one size.
    pub(super) fn send_frames(&mut self, frames: &[u8], size: usize) -> io::Result<()> {
        let relay = self.client.relay();
        self.socket.send(relay, frames, size).map(drop)
    }

    /// The same; bare frames of channels go to `on_frame`.
    pub(super) fn turn_with_frames(
        &mut self,
        on_packet: &mut dyn FnMut(Datagram) -> Option<Datagram>,
        on_frame: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        let now = Instant::now();
        let (client, local) = (&mut self.client, self.socket.local());
        let mut moved = self.socket.receive(|remote, stride, payload| {
            if payload.first() == Some(&CHANNEL) {
                payload.chunks(stride).for_each(&mut *on_frame);
                return;
            }
            let stride = NonZeroUsize::new(stride).filter(|stride| stride.get() < payload.len());
            let path = FourTuple { local, remote };
            client.handle(
                Received {
                    path,
                    ecn: Ecn::NotEct,
                    stride,
                    payload,
                },
                now,
                on_packet,
            );
        })?;
        self.client.tick(now, on_packet);
        for _ in 0..BATCHES {
            let Some(transmit) = self.client.transmit(&mut self.buffer, now) else {
                break;
            };
            let segment = transmit.segment_size.map_or(transmit.len, NonZeroUsize::get);
            self.socket
                .send(transmit.path.remote, &self.buffer[..transmit.len], segment)?;
            moved = true;
        }
        Ok(moved)
    }

    /// How long nothing is due, at most `most`.
    pub(super) fn idle_for(&self, most: Duration) -> Duration {
        let due = self.client.poll_timeout();
        due.map_or(most, |at| at.saturating_duration_since(Instant::now()).min(most))
    }

    /// Says goodbye.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.client.close_all(Instant::now());
        for _ in 0..64 {
            if !self.turn(&mut |_| None)? {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
