//! The smallest machine around a QUIC connection: one connection, its DATAGRAMs as events, echoed by servers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Transmit, Wake};
use proto_core::quic::{Accept, Cid, CloseReason, Connect, Connection, Datagram, Provider, Purpose, State};

/// What an endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Established,
    Received(Vec<u8>),
    Moved(SocketAddr),
    Ended(CloseReason),
}

/// One connection and its provider.
#[derive(Debug)]
pub(crate) struct Endpoint<P: Provider> {
    provider: P,
    is_server: bool,
    pub(crate) connection: Option<P::Connection>,
    state: State,
    events: VecDeque<Event>,
    /// The time of the last input, while what it caused may not have been taken yet.
    touched: Option<Instant>,
    now: Instant,
}

impl<P: Provider> Endpoint<P> {
    pub(crate) fn client(mut provider: P, path: FourTuple, name: &str, now: Instant) -> Self {
        let scid = Cid::new(b"client-1").expect("it is short enough");
        let connect = Connect {
            server_name: Some(name),
            scid,
            path,
            purpose: Purpose::Control,
        };
        let connection = provider.connect(connect, now).expect("a usable configuration");
        Self {
            connection: Some(connection),
            touched: Some(now),
            is_server: false,
            ..Self::server(provider, now)
        }
    }

    pub(crate) fn server(provider: P, now: Instant) -> Self {
        let state = State::Handshaking;
        Self {
            provider,
            is_server: true,
            connection: None,
            state,
            events: VecDeque::new(),
            touched: None,
            now,
        }
    }

    /// Queues a DATAGRAM; whether there was room.
    pub(crate) fn send(&mut self, payload: &[u8], now: Instant) -> bool {
        self.touch(now);
        let datagram = Datagram::from(payload.to_vec());
        self.connection
            .as_mut()
            .is_some_and(|connection| connection.send_datagram(datagram).is_ok())
    }

    fn touch(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.touched = Some(self.now);
    }

    /// Turns what the connection has for us into events; servers send back what they receive.
    fn collect(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let state = connection.state();
        if state == State::Established && self.state == State::Handshaking {
            self.events.push_back(Event::Established);
        }
        if state == State::Closed && self.state != State::Closed {
            let reason = connection
                .close_reason()
                .expect("a closed connection has a reason");
            self.events.push_back(Event::Ended(reason));
        }
        self.state = state;
        while let Some(datagram) = connection.poll_datagram() {
            self.events.push_back(Event::Received(datagram.to_vec()));
            if self.is_server {
                // A full queue drops, as everywhere.
                let _ = connection.send_datagram(datagram);
            }
        }
        while let Some(path) = connection.poll_path_change() {
            self.events.push_back(Event::Moved(path.remote));
        }
    }
}

impl<P: Provider> Machine for Endpoint<P> {
    type Event = Event;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.touch(now);
        let (size, path) = (received.segment_size(), received.path);
        for packet in received.payload.chunks_mut(size) {
            let initial = packet.len() >= 1200 && packet[0] & 0xf0 == 0xc0 && packet[1..5] == [0, 0, 0, 1];
            if self.connection.is_none() && initial {
                let scid = Cid::new(b"server-1").expect("it is short enough");
                let accept = Accept {
                    scid,
                    retry: None,
                    reset_token: [7; 16],
                    path,
                    purpose: Purpose::Control,
                };
                self.connection = self.provider.accept(accept, self.now).ok();
            }
            if let Some(connection) = &mut self.connection {
                connection.handle_packet(packet, path, self.now);
            }
        }
        self.collect();
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.touch(now);
        if let Some(connection) = &mut self.connection {
            connection.handle_timeout(self.now);
        }
        self.collect();
    }

    fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        self.now = self.now.max(now);
        let room = buf.len().min(MAX_UDP_PAYLOAD);
        let out = self
            .connection
            .as_mut()
            .and_then(|connection| connection.poll_packet(&mut buf[..room], self.now));
        if out.is_none() {
            self.touched = None;
            self.collect();
        }
        out.map(|out| Transmit {
            path: out.path,
            ecn: Ecn::NotEct,
            len: out.len,
            segment_size: None,
        })
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let queued = self.touched.or((!self.events.is_empty()).then_some(self.now));
        let queued = queued.map(|at| Deadline {
            at,
            wake: Wake::QueuedOutput,
        });
        let quic = self.connection.as_ref().and_then(Connection::poll_timeout);
        Deadline::earliest(queued, quic.map(|at| Deadline { at, wake: Wake::Quic }))
    }

    fn shut_down(&mut self, now: Instant) {
        self.touch(now);
        if let Some(connection) = &mut self.connection {
            connection.close(0, b"done", self.now);
        }
    }

    fn is_drained(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(|connection| connection.state() == State::Closed)
    }
}
