//! Clients of an intermediate without tunnel, programs or backends: connections, registrations and DATAGRAMs, from the
//! core's own parts. One [`Client`] is one socket; it may hold many connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto_core::config::limits::{MAX_UDP_PAYLOAD, SEND_QUEUE};
use proto_core::id::{ConnId, ServiceId};
use proto_core::machine::{FourTuple, Received, Transmit, Wake};
use proto_core::messages::MessageStream;
use proto_core::quic::{
    Admission, CannotConnect, Datagram, DatagramError, Pool, PoolConfig, PoolEvent, Provider,
};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::control::{ControlMessage, TAKES_CHANNELS};
use proto_core::wire::datagram::{FromIntermediate, Role, parse_from_intermediate, write_register};

/// Registrations are repeated after this time, as `ztna-v1` has it.
const REGISTER_AGAIN: Duration = Duration::from_secs(2);

/// Which protocol a client speaks with its intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// DATAGRAMs only.
    V1,
    /// A control stream.
    V2,
}

/// What the clients of one socket are, and whom they talk to.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// What its provider offers.
    pub speaks: Speaks,
    /// Agents or connectors.
    pub role: Role,
    /// The services each connection registers for.
    pub services: Vec<ServiceId>,
    /// The name in the intermediate's certificate.
    pub server_name: Option<String>,
    /// This socket and the intermediate's.
    pub path: FourTuple,
    /// Most connections at one time.
    pub max_connections: usize,
}

#[derive(Debug)]
struct Session {
    id: ConnId,
    established: bool,
    registered: usize,
    asked: Instant,
    /// The control stream of v2.
    control: Option<Box<MessageStream>>,
    /// The number of the channel that was opened last.
    channel: Option<u32>,
}

/// How many connections have come and gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Handshakes completed.
    pub established: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Registrations refused.
    pub refused: u64,
}

/// The connections of one socket.
#[derive(Debug)]
pub struct Client<Q: Provider> {
    pool: Pool<Q>,
    config: ClientConfig,
    sessions: VecDeque<Session>,
    stats: ClientStats,
}

impl<Q: Provider> Client<Q> {
    /// A socket without connections.
    pub fn new(config: ClientConfig, provider: Q, seed: &Seed, now: Instant) -> Self {
        let pool = PoolConfig {
            admission: Admission::Nobody,
            raw: false,
            reset_key: None,
            max_connections: config.max_connections,
            max_handshakes: config.max_connections,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        Self {
            pool: Pool::new(provider, pool, Rng::new(seed), now),
            config,
            sessions: VecDeque::new(),
            stats: ClientStats::default(),
        }
    }

    /// Opens one more connection.
    ///
    /// # Errors
    /// If the configuration is unusable or there are too many.
    pub fn connect(&mut self, now: Instant) -> Result<(), CannotConnect> {
        let id = self
            .pool
            .connect(self.config.server_name.as_deref(), self.config.path, now)?;
        self.sessions.push_back(Session {
            id,
            established: false,
            registered: 0,
            asked: now,
            control: None,
            channel: None,
        });
        Ok(())
    }

    /// Asks for a channel to the connector of a service, on the first connection. Only clients of v2 can.
    pub fn open_channel(&mut self, service: &ServiceId) {
        let message = ControlMessage::OpenChannel {
            request: 1,
            service: service.as_str().to_owned(),
        };
        if let Some(session) = self.sessions.front_mut() {
            session.say(&mut self.pool, &message);
        }
    }

    /// The number of the channel of the first connection, once it is open.
    pub fn channel(&self) -> Option<u32> {
        self.sessions.front()?.channel
    }

    /// Takes one received batch; `on_packet` takes each IP packet and may answer it.
    pub fn handle(
        &mut self,
        received: Received<'_>,
        now: Instant,
        on_packet: &mut dyn FnMut(Datagram) -> Option<Datagram>,
    ) {
        self.pool.handle_datagram(received, now);
        self.process(now, on_packet);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant, on_packet: &mut dyn FnMut(Datagram) -> Option<Datagram>) {
        let due = self
            .pool
            .poll_timeout()
            .is_some_and(|due| due.at <= now && due.wake != Wake::QueuedOutput);
        if due {
            self.pool.handle_timeout(now);
        }
        self.process(now, on_packet);
    }

    /// Asks again for registrations that had no answer. Looks at every connection: not for the fast path.
    pub fn repeat_registrations(&mut self, now: Instant) {
        for session in &mut self.sessions {
            let missing = session.established && session.registered < self.config.services.len();
            if missing
                && session.control.is_none()
                && now.saturating_duration_since(session.asked) >= REGISTER_AGAIN
            {
                session.asked = now;
                session.registered = 0;
                register(&mut self.pool, &self.config, session.id);
            }
        }
    }

    /// Writes the next batch.
    pub fn transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        self.pool.poll_transmit(buf, now)
    }

    /// When [`Client::tick`] or a drain is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pool.poll_timeout().map(|deadline| deadline.at)
    }

    /// Queues a DATAGRAM on the first connection.
    ///
    /// # Errors
    /// As [`Pool::send_datagram`].
    pub fn send(&mut self, datagram: Datagram) -> Result<(), DatagramError> {
        let session = self.sessions.front().ok_or(DatagramError::NotReady)?;
        self.pool.send_datagram(session.id, datagram)
    }

    /// How many DATAGRAMs wait to be sent on the first connection.
    pub fn queued(&self) -> usize {
        let space = self
            .sessions
            .front()
            .map_or(SEND_QUEUE, |session| self.pool.datagram_space(session.id));
        SEND_QUEUE.saturating_sub(space)
    }

    /// Connections that hold all their registrations.
    pub fn registered(&self) -> usize {
        let wanted = self.config.services.len();
        self.sessions
            .iter()
            .filter(|session| session.established && session.registered >= wanted)
            .count()
    }

    /// Connections, handshakes included.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    /// The address of this socket.
    pub fn local(&self) -> SocketAddr {
        self.config.path.local
    }

    /// Where the intermediate is.
    pub fn relay(&self) -> SocketAddr {
        self.config.path.remote
    }

    /// Counters.
    pub fn stats(&self) -> ClientStats {
        self.stats
    }

    /// Shows a sign of life on the connection that has been silent longest.
    pub fn ping_next(&mut self) {
        if let Some(session) = self.sessions.pop_front() {
            self.pool.ping(session.id);
            self.sessions.push_back(session);
        }
    }

    /// Closes every connection.
    pub fn close_all(&mut self, now: Instant) {
        self.pool.close_all(0, b"done", now);
        self.sessions.clear();
    }

    /// Closes the connections whose handshake has been complete for `age` and forgets them; returns how many. A client
    /// that closes before its last handshake packet has left leaves a server that waits for it.
    pub fn close_established(&mut self, age: Duration, now: Instant) -> usize {
        let before = self.sessions.len();
        let pool = &mut self.pool;
        self.sessions.retain(|session| {
            let ripe = session.established && now.saturating_duration_since(session.asked) >= age;
            if ripe {
                pool.close(session.id, 0, b"done", now);
            }
            !ripe
        });
        before - self.sessions.len()
    }

    fn process(&mut self, now: Instant, on_packet: &mut dyn FnMut(Datagram) -> Option<Datagram>) {
        while let Some(event) = self.pool.poll_event() {
            match event {
                PoolEvent::Established(id) => {
                    self.stats.established += 1;
                    if let Some(session) = self.sessions.iter_mut().rev().find(|session| session.id == id) {
                        session.established = true;
                        session.asked = now;
                        if self.config.speaks == Speaks::V2 {
                            session.introduce(&mut self.pool, &self.config);
                            continue;
                        }
                    }
                    register(&mut self.pool, &self.config, id);
                }
                PoolEvent::Readable(id) => {
                    if self.config.speaks == Speaks::V2
                        && let Some(session) = self.sessions.iter_mut().rev().find(|session| session.id == id)
                    {
                        session.listen(&mut self.pool);
                    }
                    while let Some(mut datagram) = self.pool.poll_datagram(id) {
                        let parsed = parse_from_intermediate(&datagram);
                        if let Ok(FromIntermediate::Introduced { packet_at, .. }) = parsed {
                            datagram.advance(packet_at);
                        }
                        match parse_from_intermediate(&datagram) {
                            Ok(FromIntermediate::Packet) => {
                                if let Some(answer) = on_packet(datagram) {
                                    // A full queue drops it; the sender of the question counts.
                                    let _ = self.pool.send_datagram(id, answer);
                                }
                            }
                            Ok(FromIntermediate::Registered { .. }) => {
                                if let Some(session) =
                                    self.sessions.iter_mut().rev().find(|session| session.id == id)
                                {
                                    session.registered += 1;
                                }
                            }
                            Ok(FromIntermediate::Refused { .. }) => self.stats.refused += 1,
                            Ok(FromIntermediate::Observed(_) | FromIntermediate::Introduced { .. })
                            | Err(_) => {}
                        }
                    }
                }
                PoolEvent::PathChanged(..) => {}
                PoolEvent::Closed(id, _) => {
                    self.stats.closed += 1;
                    self.sessions.retain(|session| session.id != id);
                }
            }
        }
    }
}

impl Session {
    /// Says hello and asks for the services.
    fn introduce<Q: Provider>(&mut self, pool: &mut Pool<Q>, config: &ClientConfig) {
        self.control = Some(Box::new(MessageStream::new(0)));
        let hello = ControlMessage::Hello {
            role: config.role,
            instance: 1,
            capabilities: TAKES_CHANNELS,
        };
        self.say(pool, &hello);
        for service in &config.services {
            let service = service.as_str().to_owned();
            self.say(pool, &ControlMessage::Register { service });
        }
    }

    fn say<Q: Provider>(&mut self, pool: &mut Pool<Q>, message: &ControlMessage) {
        if let Some(control) = &mut self.control {
            // What does not fit is missing in what is measured, and noticed there.
            let _ = control.send(message.write());
            control.flush(pool, self.id);
        }
    }

    fn listen<Q: Provider>(&mut self, pool: &mut Pool<Q>) {
        let Some(control) = &mut self.control else { return };
        control.flush(pool, self.id);
        let (registered, channel) = (&mut self.registered, &mut self.channel);
        control.read(
            pool,
            self.id,
            &mut |payload| match ControlMessage::parse(payload) {
                Ok(ControlMessage::Registered { .. }) => *registered += 1,
                Ok(ControlMessage::ChannelOpened { channel: number, .. }) => *channel = Some(number),
                Ok(_) | Err(_) => {}
            },
        );
    }
}

fn register<Q: Provider>(pool: &mut Pool<Q>, config: &ClientConfig, id: ConnId) {
    for service in &config.services {
        // Lost with a full queue: asked again.
        let _ = pool.send_datagram(id, write_register(config.role, service).into());
    }
}
