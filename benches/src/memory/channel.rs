//! Relay channels in memory: agents and a connector of v2, and the real intermediate between them.
//!
//! What a shell would send out of the receive buffer is only counted; the system calls are measured with real programs.

use std::num::NonZeroUsize;
use std::time::Instant;

use proto_core::channel::ChannelStats;
use proto_core::id::ServiceId;
use proto_core::intermediate::Intermediate;
use proto_core::machine::{Ecn, FourTuple, Machine, Received, Wake};
use proto_core::quic::Provider;
use proto_core::rng::Seed;
use proto_core::wire::channel::channel_prefix;
use proto_core::wire::datagram::Role;

use super::buffers::Buffers;
use super::{MOST_TURNS, SERVICE_NAME, Stack, address, intermediate};
use crate::client::{Client, ClientConfig, Speaks};
use crate::cpu::Cost;

/// Agents with a channel each, an intermediate and the connector at the other end of all of them.
#[derive(Debug)]
pub struct MemoryChannels<Q: Provider> {
    relay: Intermediate<Q>,
    /// The connector is the last.
    clients: Vec<Client<Q>>,
    /// One batch of each agent.
    batches: Vec<Vec<u8>>,
    frame: usize,
    buffer: Vec<u8>,
    wires: [Buffers; 2],
}

impl<Q: Provider> MemoryChannels<Q> {
    /// Connects everyone and opens the channels; a batch of each agent is `batch` frames of `len` bytes.
    ///
    /// # Panics
    /// If that does not work, which would be a bug.
    pub fn new<S: Stack<Provider = Q>>(
        stack: &mut S,
        agents: usize,
        (batch, len): (usize, usize),
        mut clock: impl FnMut() -> Instant,
    ) -> Self {
        let now = clock();
        let service = ServiceId::parse(SERVICE_NAME.as_bytes()).expect("a name");
        let mut client = |role: Role, host: u8| {
            let config = ClientConfig {
                speaks: Speaks::V2,
                role,
                services: vec![service.clone()],
                server_name: Some("localhost".into()),
                path: path(host),
                max_connections: 1,
            };
            let provider = stack.client(role, Speaks::V2);
            let mut client = Client::new(config, provider, &Seed([host; 32]), now);
            client.connect(now).expect("a connection");
            client
        };
        let mut clients: Vec<_> = (0..agents)
            .map(|index| client(Role::Agent, 3 + index as u8))
            .collect();
        clients.push(client(Role::Connector, 2));
        let mut world = Self {
            relay: intermediate(stack.server(), now),
            clients,
            batches: Vec::new(),
            frame: len,
            buffer: vec![0; batch * len],
            wires: [Buffers::default(), Buffers::default()],
        };
        world.settle(&mut clock, |client| client.registered() == 1);
        for agent in &mut world.clients[..agents] {
            agent.open_channel(&service);
        }
        world.settle(&mut clock, |client| client.channel().is_some());
        for agent in &world.clients[..agents] {
            let mut frame = channel_prefix(agent.channel().expect("it is open")).to_vec();
            frame.resize(len, 0x5a);
            world.batches.push(frame.repeat(batch));
        }
        world
    }

    /// Lets everyone speak until all clients are as wanted.
    fn settle(&mut self, clock: &mut impl FnMut() -> Instant, wanted: impl Fn(&Client<Q>) -> bool) {
        for _ in 0..MOST_TURNS {
            if self.clients.iter().all(&wanted) {
                return;
            }
            self.speak(clock());
        }
        panic!("the clients got no channels: {:?}", self.relay.stats());
    }

    fn speak(&mut self, now: Instant) {
        let [there, back] = &mut self.wires;
        there.clear();
        for client in &mut self.clients {
            client.tick(now, &mut |_| None);
            while there.fill(|buf| client.transmit(buf, now)) {}
        }
        for (transmit, payload) in there.iter() {
            let received = Received {
                path: turned(transmit.path),
                ecn: transmit.ecn,
                stride: transmit.segment_size,
                payload,
            };
            let _ = self.relay.handle_datagram(received, now);
        }
        drain(&mut self.relay, back, now);
        for (transmit, payload) in back.iter() {
            let path = turned(transmit.path);
            let received = Received {
                path,
                ecn: transmit.ecn,
                stride: transmit.segment_size,
                payload,
            };
            if let Some(client) = self
                .clients
                .iter_mut()
                .find(|client| client.local() == path.local)
            {
                client.handle(received, now, &mut |_| None);
            }
        }
    }

    /// One batch of every agent, at the expense of `cost`; how many frames the shell would send on.
    pub fn turn(&mut self, cost: &mut Cost, now: Instant) -> u64 {
        let mut forwarded = 0;
        for (index, batch) in self.batches.iter().enumerate() {
            self.buffer.copy_from_slice(batch);
            let received = Received {
                path: turned(path(3 + index as u8)),
                ecn: Ecn::NotEct,
                stride: NonZeroUsize::new(self.frame).filter(|frame| frame.get() < batch.len()),
                payload: &mut self.buffer,
            };
            let relay = &mut self.relay;
            let forward = cost.measure(|| {
                let forward = relay.handle_datagram(received, now);
                // What a shell asks in each turn.
                std::hint::black_box(relay.poll_timeout());
                forward
            });
            for run in forward.runs() {
                forwarded += ((run.end - run.start) / self.frame) as u64;
            }
        }
        cost.measure(|| drain(&mut self.relay, &mut self.wires[1], now));
        forwarded
    }

    /// The counters of the channels.
    pub fn stats(&self) -> ChannelStats {
        self.relay.channel_stats()
    }
}

fn drain<Q: Provider>(relay: &mut Intermediate<Q>, wire: &mut Buffers, now: Instant) {
    let due = relay.poll_timeout();
    if due.is_some_and(|due| due.at <= now && due.wake != Wake::QueuedOutput) {
        relay.handle_timeout(now);
    }
    while relay.poll_event().is_some() {}
    wire.clear();
    while wire.fill(|buf| relay.poll_transmit(buf, now)) {}
}

fn path(host: u8) -> FourTuple {
    FourTuple {
        local: address(host, 5_000),
        remote: address(1, 4_433),
    }
}

/// The same path from its other end.
fn turned(path: FourTuple) -> FourTuple {
    FourTuple {
        local: path.remote,
        remote: path.local,
    }
}
