//! The relay in memory: agents, the real intermediate machine and a connector, with nothing between them but buffers.
//!
//! One turn is what one turn of a busy shell is: batches from every agent, everything the relay makes of them, and the
//! acknowledgements. What is measured is the relay's part alone.

pub mod bare;
mod buffers;
pub mod channel;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use proto_core::config::{IntermediateConfig, IntermediateLimits};
use proto_core::id::ServiceId;
use proto_core::intermediate::{Intermediate, IntermediateStats};
use proto_core::machine::{FourTuple, Machine, Received, Wake};
use proto_core::quic::fake::{FakeCertificate, FakeConfig, FakeProvider};
use proto_core::quic::identity::SanAuthority;
use proto_core::quic::quiche::QuicheProvider;
use proto_core::quic::testing::TestPki;
use proto_core::quic::{ALPN_V1, ALPN_V2, Datagram, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::datagram::{Role, routed_prefix};

use crate::attributed::Attributed;
use crate::client::{Client, ClientConfig, Speaks};
use crate::cpu::Cost;
use crate::packet::{self, Mark};
use buffers::Buffers;

/// The service of every measurement.
pub const SERVICE_NAME: &str = "bench";

/// Turns after which a handshake that is not complete never will be.
const MOST_TURNS: usize = 2_000;

fn address(host: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, host), port).into()
}

/// The intermediate of every measurement.
fn intermediate<Q: Provider>(provider: Q, now: Instant) -> Intermediate<Q> {
    let config = IntermediateConfig {
        retry: false,
        reset_key: None,
        limits: IntermediateLimits::default(),
    };
    let authority = SanAuthority {
        allow_unnamed: true,
        insecure_allow_anonymous: true,
    };
    Intermediate::new(&config, provider, Box::new(authority), &Seed([1; 32]), now)
}

fn protocol(speaks: Speaks) -> &'static [u8] {
    match speaks {
        Speaks::V1 => ALPN_V1,
        Speaks::V2 => ALPN_V2,
    }
}

/// Which QUIC implementation, and with which identities.
pub trait Stack {
    /// The implementation.
    type Provider: Provider;
    /// One for the intermediate.
    fn server(&mut self) -> Self::Provider;
    /// One for a client in this role.
    fn client(&mut self, role: Role, speaks: Speaks) -> Self::Provider;
}

/// Real QUIC with certificates of its own.
#[derive(Debug, Default)]
pub struct Quiche(TestPki);

impl Stack for Quiche {
    type Provider = QuicheProvider;

    fn server(&mut self) -> QuicheProvider {
        let mut config = self.0.config(true, &["localhost"]);
        config.alpn = vec![ALPN_V2.to_vec(), ALPN_V1.to_vec()];
        QuicheProvider::new(&config).expect("a usable configuration")
    }

    fn client(&mut self, role: Role, speaks: Speaks) -> QuicheProvider {
        let capacity = match role {
            Role::Agent => "agent",
            Role::Connector => "connector",
        };
        let mut config = self
            .0
            .config(false, &[&format!("{capacity}.{SERVICE_NAME}.ztna")]);
        config.alpn = vec![protocol(speaks).to_vec()];
        QuicheProvider::new(&config).expect("a usable configuration")
    }
}

/// The deterministic stand-in: what is left of the cost without cryptography.
#[derive(Debug)]
pub struct Fake(Rng);

impl Default for Fake {
    fn default() -> Self {
        Self(Rng::new(&Seed([3; 32])))
    }
}

impl Stack for Fake {
    type Provider = FakeProvider;

    fn server(&mut self) -> FakeProvider {
        let mut config = FakeConfig::new(&[ALPN_V2, ALPN_V1]);
        config.certificate = Some(FakeCertificate {
            der: b"relay".to_vec(),
            issuer: 1,
            names: vec!["localhost".into()],
        });
        FakeProvider::new(config, self.0.fork())
    }

    fn client(&mut self, _: Role, speaks: Speaks) -> FakeProvider {
        FakeProvider::new(FakeConfig::new(&[protocol(speaks)]), self.0.fork())
    }
}

/// What one turn has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// DATAGRAMs that the agents gave to QUIC.
    pub sent: u64,
    /// DATAGRAMs that the connector got.
    pub arrived: u64,
}

/// Agents, an intermediate and a connector.
#[derive(Debug)]
pub struct MemoryRelay<Q: Provider> {
    relay: Intermediate<Q>,
    agents: Vec<Client<Q>>,
    connector: Client<Q>,
    wrapped: Vec<Vec<u8>>,
    to_relay: Buffers,
    from_relay: Buffers,
}

impl<Q: Provider> MemoryRelay<Q> {
    /// Connects and registers `agents` agents and a connector; packets are `len` bytes of IP. `clock` tells the time of
    /// each turn.
    ///
    /// # Panics
    /// If they cannot connect, which would be a bug.
    pub fn new<S: Stack<Provider = Q>>(
        stack: &mut S,
        agents: usize,
        len: usize,
        mut clock: impl FnMut() -> Instant,
    ) -> Self {
        let now = clock();
        let service = ServiceId::parse(SERVICE_NAME.as_bytes()).expect("a name");
        let prefix = routed_prefix(&service);
        let client = |stack: &mut S, role: Role, host: u8, now: Instant| {
            let config = ClientConfig {
                speaks: Speaks::V1,
                role,
                services: vec![service.clone()],
                server_name: Some("localhost".into()),
                path: FourTuple {
                    local: address(host, 5_000),
                    remote: address(1, 4_433),
                },
                max_connections: 4,
            };
            let mut client = Client::new(config, stack.client(role, Speaks::V1), &Seed([host; 32]), now);
            client.connect(now).expect("a connection");
            client
        };
        let mut world = Self {
            relay: intermediate(stack.server(), now),
            connector: client(stack, Role::Connector, 2, now),
            agents: (0..agents)
                .map(|index| client(stack, Role::Agent, 3 + index as u8, now))
                .collect(),
            wrapped: (0..agents)
                .map(|index| {
                    let packet = packet::template(packet::agent_address(index), packet::SERVICE, len);
                    [&prefix[..], &packet].concat()
                })
                .collect(),
            to_relay: Buffers::default(),
            from_relay: Buffers::default(),
        };
        for _ in 0..MOST_TURNS {
            if world.connector.registered() == 1 && world.agents.iter().all(|agent| agent.registered() == 1) {
                return world;
            }
            world.turn(0, &mut Cost::default(), clock());
        }
        panic!("the clients could not register: {:?}", world.relay.stats());
    }

    /// Turns until whole batches of `per_agent` pass at once and every buffer has grown to its size.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn warm_up(&mut self, per_agent: usize, mut clock: impl FnMut() -> Instant) {
        let wanted = (per_agent * self.agents.len()) as u64;
        let mut in_a_row = 0;
        for _ in 0..MOST_TURNS {
            let moved = self.turn(per_agent, &mut Cost::default(), clock());
            in_a_row = if moved.arrived == wanted { in_a_row + 1 } else { 0 };
            if in_a_row == 200 {
                return;
            }
        }
        panic!(
            "batches of {per_agent} never passed whole: {:?}",
            self.relay.stats()
        );
    }

    /// One turn: every agent sends `per_agent` packets, the relay works them off (at the expense of `cost`), and
    /// everyone reads what came.
    pub fn turn(&mut self, per_agent: usize, cost: &mut Cost, now: Instant) -> Moved {
        let mut moved = Moved::default();
        for (agent, wrapped) in self.agents.iter_mut().zip(&self.wrapped) {
            for _ in 0..per_agent {
                moved.sent += u64::from(agent.send(Datagram::from(wrapped.clone())).is_ok());
            }
        }
        self.to_relay.clear();
        for client in self.agents.iter_mut().chain([&mut self.connector]) {
            client.tick(now, &mut |_| None);
            while self.to_relay.fill(|buf| client.transmit(buf, now)) {}
        }
        cost.measure(|| self.relay_turn(now));
        for (transmit, bytes) in self.from_relay.iter() {
            let received = Received {
                path: FourTuple {
                    local: transmit.path.remote,
                    remote: transmit.path.local,
                },
                ecn: transmit.ecn,
                stride: transmit.segment_size,
                payload: bytes,
            };
            let to = received.path.local;
            if to == address(2, 5_000) {
                self.connector.handle(received, now, &mut |packet| {
                    moved.arrived += u64::from(packet.len() >= packet::HEADERS + Mark::LEN);
                    None
                });
            } else if let SocketAddr::V4(v4) = to
                && let Some(agent) = self
                    .agents
                    .get_mut(usize::from(v4.ip().octets()[3]).wrapping_sub(3))
            {
                agent.handle(received, now, &mut |_| None);
            }
        }
        moved
    }

    fn relay_turn(&mut self, now: Instant) {
        for (transmit, bytes) in self.to_relay.iter() {
            let received = Received {
                path: FourTuple {
                    local: transmit.path.remote,
                    remote: transmit.path.local,
                },
                ecn: transmit.ecn,
                stride: transmit.segment_size,
                payload: bytes,
            };
            let _ = self.relay.handle_datagram(received, now);
        }
        let due = self.relay.poll_timeout();
        if due.is_some_and(|due| due.at <= now && due.wake != Wake::QueuedOutput) {
            self.relay.handle_timeout(now);
        }
        while self.relay.poll_event().is_some() {}
        self.from_relay.clear();
        while self.from_relay.fill(|buf| self.relay.poll_transmit(buf, now)) {}
    }

    /// The intermediate's counters.
    pub fn stats(&self) -> IntermediateStats {
        self.relay.stats()
    }
}

/// Any stack with its allocations counted apart.
#[derive(Debug, Default)]
pub struct Apart<S>(pub S);

impl<S: Stack> Stack for Apart<S> {
    type Provider = Attributed<S::Provider>;

    fn server(&mut self) -> Self::Provider {
        Attributed(self.0.server())
    }

    fn client(&mut self, role: Role, speaks: Speaks) -> Self::Provider {
        Attributed(self.0.client(role, speaks))
    }
}
