//! Generated worlds: any bytes make a story of agents, connectors, an intermediate and everything that befalls them, and
//! an oracle judges every packet that comes out of it.
//!
//! After the story the weather clears, and everyone must find everyone again within [`RECOVERY`]. Then all leave, and no
//! table may hold anything, no timer run. The same bytes tell the same story, to the byte.

mod oracle;
mod script;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::cast;
use super::{BackendModel, BackendsHost, HostId, LinkConfig, MachineHost, TunnelHost, World};
use crate::agent::Agent;
use crate::backend::{FlowId, Refusal, Transport};
use crate::connector::Connector;
use crate::intermediate::Intermediate;
use crate::link::LinkEvent;
use crate::machine::{Deadline, Machine, Tunnel as _};
use crate::quic::fake::FakeProvider;
use oracle::Oracle;
pub use script::{Cast, Event, read};

/// Within this time of the last fault everyone has found everyone: an idle client notices with its next sign of life (10 s)
/// and patience (4 s) that its connection is gone, may just have begun a handshake in vain (5 s), pauses (8 s at most)
/// and repeats a lost registration (2 s each).
pub const RECOVERY: Duration = Duration::from_secs(40);

/// Longer than anything is remembered about someone who has left.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The key by which an intermediate can say that it has been restarted.
const RESET_KEY: [u8; 32] = [5; 32];

type AgentHost = TunnelHost<Agent<FakeProvider>>;
type ConnectorHost = BackendsHost<Connector<FakeProvider>, Recorder>;
type RelayHost = MachineHost<Intermediate<FakeProvider>>;

/// What a story came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: u64,
    /// Payloads that reached a backend.
    pub arrived: u64,
    /// Answers that reached their agent.
    pub answered: u64,
    /// ICMP errors that reached an agent.
    pub errors: u64,
    /// How often an agent lost its connection.
    pub disconnections: u64,
}

/// Tells the story of these bytes.
///
/// # Panics
/// If anything happens that must not.
pub fn tell(bytes: &[u8]) -> Outcome {
    let (cast, events) = read(bytes);
    let mut story = Story::new(cast);
    // In good weather everyone is registered before anything befalls them.
    story.world.run_for(Duration::from_secs(1));
    for event in &events {
        story.tell(event);
        story.judge();
    }
    story.recover();
    story.everyone_reaches_everyone();
    story.everyone_leaves();
    Outcome {
        hash: story.world.trace().hash(),
        arrived: story.oracle.arrived,
        answered: story.oracle.answered,
        errors: story.oracle.errors,
        disconnections: story.disconnections,
    }
}

/// A client by its kind.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Agent(HostId<AgentHost>),
    Connector(HostId<ConnectorHost>),
}

/// A client and what has become of it.
#[derive(Debug)]
struct Client {
    kind: Kind,
    /// Among those of its kind.
    number: u8,
    address: SocketAddr,
    /// How often it was restarted.
    life: u32,
    asleep: bool,
    left: bool,
}

impl Client {
    fn host(&self) -> HostId<()> {
        match self.kind {
            Kind::Agent(host) => host.erased(),
            Kind::Connector(host) => host.erased(),
        }
    }

    fn is_awake(&self) -> bool {
        !self.asleep && !self.left
    }
}

struct Story {
    world: World,
    cast: Cast,
    relay: HostId<RelayHost>,
    /// The agents, then the connectors.
    clients: Vec<Client>,
    oracle: Oracle,
    /// How many public addresses were given out by NATs.
    faces: u16,
    disconnections: u64,
}

impl Story {
    fn new(cast: Cast) -> Self {
        let mut world = World::seeded(cast.seed);
        let relay = new_relay(&mut world, true);
        let relay = world.add("relay", cast::RELAY, relay);
        let mut story = Self {
            world,
            cast,
            relay,
            clients: Vec::new(),
            oracle: Oracle::default(),
            faces: 0,
            disconnections: 0,
        };
        for number in 0..cast.agents {
            let address = SocketAddr::from(([198, 51, 100, number + 1], 1111));
            let host = story.new_agent(number, address);
            let host = story
                .world
                .add(&format!("agent {number}"), &address.to_string(), host);
            story.enter(Kind::Agent(host), number, address);
        }
        for number in 0..cast.connectors {
            let address = SocketAddr::from(([203, 0, 113, number + 1], 3333));
            let host = story.new_connector(number, address);
            let host = story
                .world
                .add(&format!("connector {number}"), &address.to_string(), host);
            story.enter(Kind::Connector(host), number, address);
        }
        story
    }

    fn enter(&mut self, kind: Kind, number: u8, address: SocketAddr) {
        self.clients.push(Client {
            kind,
            number,
            address,
            life: 0,
            asleep: false,
            left: false,
        });
    }

    fn new_agent(&mut self, number: u8, address: SocketAddr) -> AgentHost {
        let services: Vec<u8> = (0..self.cast.services).collect();
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        TunnelHost::new(cast::agent(number, address, &services, &seed, now))
    }

    fn new_connector(&mut self, number: u8, address: SocketAddr) -> ConnectorHost {
        let services: Vec<u8> = (0..self.cast.services)
            .filter(|service| service % self.cast.connectors == number)
            .collect();
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let connector = cast::connector(number, address, &services, &seed, now);
        BackendsHost::new(connector, Recorder::default())
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Send {
                agent,
                service,
                port,
                filling,
            } => {
                let agent = usize::from(agent % self.cast.agents);
                self.send(agent, service % self.cast.services, *port, *filling);
            }
            Event::Pass(time) => self.world.run_for(*time),
            Event::Weather(weather) => self.set_weather(*weather),
            Event::Cut { client } => {
                let host = self.clients[self.pick(*client)].host();
                self.world.cut(host, self.relay);
            }
            Event::Mend { client } => {
                let host = self.clients[self.pick(*client)].host();
                self.world.mend(host, self.relay);
            }
            Event::Rebind { client } => {
                self.faces += 1;
                let [high, low] = self.faces.to_be_bytes();
                let face = SocketAddr::from((Ipv4Addr::new(100, 64, high, low), 61_000));
                let host = self.clients[self.pick(*client)].host();
                self.world.rebind(host, &face.to_string());
            }
            Event::Sleep { client } => {
                let client = self.pick(*client);
                self.clients[client].asleep = true;
                self.world.take_down(self.clients[client].host());
            }
            Event::Wake { client } => self.wake(self.pick(*client)),
            Event::RestartIntermediate { keyed } => {
                let relay = new_relay(&mut self.world, *keyed);
                self.relay = self.world.replace(self.relay, relay);
            }
            Event::Restart { client } => self.restart(self.pick(*client)),
            Event::Leave { client } => self.leave(self.pick(*client)),
        }
    }

    fn pick(&self, client: u8) -> usize {
        usize::from(client) % self.clients.len()
    }

    /// Lets an agent's host send a packet; its number, if the agent took it.
    fn send(&mut self, agent: usize, service: u8, port: u8, filling: u16) -> Option<u32> {
        let client = &self.clients[agent];
        let Kind::Agent(host) = client.kind else {
            return None;
        };
        if !client.is_awake() {
            return None;
        }
        let (number, packet) = self.oracle.packet((agent, client.life), service, port, filling);
        let taken = self
            .world
            .with(host, |host, now| host.machine.send_packet(&packet, now));
        taken.is_ok().then_some(number)
    }

    fn set_weather(&mut self, weather: LinkConfig) {
        self.world.set_default_link(weather);
        for client in &self.clients {
            self.world.set_link(client.host(), self.relay, weather);
        }
    }

    fn wake(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if std::mem::take(&mut client.asleep) {
            self.world.bring_up(client.host());
        }
    }

    fn restart(&mut self, client: usize) {
        let Client {
            kind,
            number,
            address,
            ..
        } = self.clients[client];
        match kind {
            Kind::Agent(host) => {
                // What the old one has given out was its own.
                self.judge();
                let fresh = self.new_agent(number, address);
                self.world.replace(host, fresh);
            }
            Kind::Connector(host) => {
                self.judge();
                let fresh = self.new_connector(number, address);
                self.world.replace(host, fresh);
            }
        }
        let client = &mut self.clients[client];
        client.life += 1;
        (client.asleep, client.left) = (false, false);
    }

    fn leave(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if !client.is_awake() {
            return;
        }
        client.left = true;
        match client.kind {
            Kind::Agent(host) => self.world.with(host, |host, now| host.machine.shut_down(now)),
            Kind::Connector(host) => self.world.with(host, |host, now| host.machine.shut_down(now)),
        }
    }

    /// Shows everything that came out since the last time to the oracle.
    fn judge(&mut self) {
        for client in &self.clients {
            if let Kind::Connector(host) = client.kind {
                for (backend, payload) in std::mem::take(&mut self.world[host].backend.received) {
                    self.oracle.at_backend(backend, &payload);
                }
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if let Kind::Agent(host) = client.kind {
                for packet in std::mem::take(&mut self.world[host].packets) {
                    self.oracle.at_agent((index, client.life), &packet);
                }
                for event in std::mem::take(&mut self.world[host].events) {
                    self.disconnections += u64::from(matches!(event, LinkEvent::Disconnected(_)));
                }
            }
        }
    }

    /// Ends all faults and waits until everyone is registered.
    fn recover(&mut self) {
        self.set_weather(LinkConfig::default());
        for index in 0..self.clients.len() {
            self.world.mend(self.clients[index].host(), self.relay);
            self.wake(index);
            if self.clients[index].left {
                self.restart(index);
            }
        }
        self.world.run_for(RECOVERY);
        self.judge();
        for client in &self.clients {
            let ready = match client.kind {
                Kind::Agent(host) => {
                    let status = self.world[host].machine.status();
                    status.services.iter().all(|(_, registered)| *registered)
                }
                Kind::Connector(host) => {
                    let status = self.world[host].machine.status();
                    status.iter().all(|service| service.registered)
                }
            };
            assert!(
                ready,
                "{client:?} is not registered {RECOVERY:?} after the last fault"
            );
        }
    }

    /// With all faults over, every question is answered.
    fn everyone_reaches_everyone(&mut self) {
        for agent in 0..usize::from(self.cast.agents) {
            for service in 0..self.cast.services {
                let number = self
                    .send(agent, service, 0, 100)
                    .expect("a registered agent takes packets");
                self.world.run_for(Duration::from_secs(1));
                self.judge();
                assert!(
                    self.oracle.is_answered(number),
                    "agent {agent} does not reach service {service}"
                );
            }
        }
    }

    fn everyone_leaves(&mut self) {
        (0..self.clients.len()).for_each(|client| self.leave(client));
        self.world.run_for(FORGOTTEN);
        for client in &self.clients {
            let (drained, timeout) = match client.kind {
                Kind::Agent(host) => end(&self.world[host].machine),
                Kind::Connector(host) => {
                    assert!(
                        self.world[host].backend.flows.is_empty(),
                        "a backend is still open"
                    );
                    end(&self.world[host].machine)
                }
            };
            assert!(drained && timeout.is_none(), "{client:?} has left: {timeout:?}");
        }
        let relay = &self.world[self.relay].machine;
        assert_eq!(
            (
                relay.connections(),
                relay.flows(),
                relay.registry().registrations()
            ),
            (0, 0, 0),
            "the intermediate remembers those who have left"
        );
        assert_eq!(relay.poll_timeout(), None);
    }
}

fn new_relay(world: &mut World, keyed: bool) -> RelayHost {
    let (seed, now) = (world.draw_seed(), world.now());
    MachineHost::new(cast::intermediate(keyed.then_some(RESET_KEY), &seed, now))
}

fn end<M: Machine>(machine: &M) -> (bool, Option<Deadline>) {
    (machine.is_drained(), machine.poll_timeout())
}

/// Backends that answer every payload with itself, and remember it.
#[derive(Debug, Default)]
struct Recorder {
    flows: BTreeMap<FlowId, SocketAddr>,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl BackendModel for Recorder {
    fn open(&mut self, flow: FlowId, _: Transport, address: SocketAddr) -> Result<(), Refusal> {
        self.flows.insert(flow, address);
        Ok(())
    }

    fn datagram(&mut self, flow: FlowId, payload: &[u8]) -> Vec<Vec<u8>> {
        let backend = self.flows.get(&flow).expect("a datagram on an open flow");
        self.received.push((*backend, payload.to_vec()));
        vec![payload.to_vec()]
    }

    fn take(&mut self, _: FlowId, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn fill(&mut self, _: FlowId, _: &mut [u8]) -> usize {
        0
    }

    fn half_close(&mut self, _: FlowId) {}

    fn is_finished(&self, _: FlowId) -> bool {
        true
    }

    fn close(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
    }
}
