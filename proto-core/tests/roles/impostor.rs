//! An intermediate that accepts everyone, answers nothing, and says what a story makes it say.

use std::time::Instant;

use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::id::ConnId;
use proto_core::machine::{Deadline, Forward, Machine, Received, Transmit};
use proto_core::quic::{Admission, Pool, PoolConfig, PoolEvent, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::control::SignalingMessage;

#[derive(Debug)]
pub(crate) struct Impostor<Q: Provider> {
    pool: Pool<Q>,
    clients: Vec<ConnId>,
    /// What it says on a stream to everyone who connects.
    pub(crate) greeting: Vec<SignalingMessage>,
}

impl<Q: Provider> Impostor<Q> {
    pub(crate) fn new(provider: Q, seed: Seed, now: Instant) -> Self {
        let config = PoolConfig {
            admission: Admission::Anybody { retry: true },
            raw: false,
            reset_key: None,
            max_connections: 100,
            max_handshakes: 100,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        Self {
            pool: Pool::new(provider, config, Rng::new(&seed), now),
            clients: Vec::new(),
            greeting: Vec::new(),
        }
    }

    /// Sends a DATAGRAM to everyone.
    pub(crate) fn say(&mut self, datagram: &[u8]) {
        for client in &self.clients {
            self.pool
                .send_datagram(*client, datagram.to_vec().into())
                .unwrap();
        }
    }

    fn process(&mut self) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) => {
                    self.clients.push(id);
                    for message in &self.greeting {
                        self.pool.send_stream(id, 1, &message.write().unwrap());
                    }
                }
                PoolEvent::Readable(id) => while self.pool.poll_datagram(id).is_some() {},
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(id, _) => self.clients.retain(|client| *client != id),
            }
        }
    }
}

impl<Q: Provider> Machine for Impostor<Q> {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.pool.handle_datagram(received, now);
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
        self.pool.close_all(0, b"", now);
    }

    fn is_drained(&self) -> bool {
        self.pool.is_drained()
    }
}
