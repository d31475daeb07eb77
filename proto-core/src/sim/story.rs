//! Generated worlds: any bytes make a story of agents, connectors, an intermediate and everything that befalls them, and
//! an oracle judges every packet that comes out of it.
//!
//! After the story the weather clears, and everyone must find everyone again within [`RECOVERY`]. Then all leave, and no
//! table may hold anything, no timer run. The same bytes tell the same story, to the byte.

mod ending;
mod oracle;
mod recorder;
mod script;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::cast::{self, Casting};
use super::{BackendsHost, HostId, LinkConfig, MachineHost, TunnelHost, World};
use crate::agent::Agent;
use crate::connector::Connector;
use crate::intermediate::Intermediate;
use crate::link::LinkEvent;
use crate::machine::{Machine as _, Tunnel as _};
use oracle::Oracle;
use recorder::Recorder;
pub use script::{Cast, Event, read};

/// Within this time of the last fault everyone has found everyone: an idle client notices with its next sign of life (10 s)
/// and patience (4 s) that its connection is gone, may just have begun a handshake in vain (5 s), pauses (8 s at most)
/// and repeats a lost registration (2 s each).
pub const RECOVERY: Duration = Duration::from_secs(40);

/// The key by which an intermediate can say that it has been restarted.
const RESET_KEY: [u8; 32] = [5; 32];

type AgentHost<T> = TunnelHost<Agent<<T as Casting>::Provider>>;
type ConnectorHost<T> = BackendsHost<Connector<<T as Casting>::Provider>, Recorder>;
type RelayHost<T> = MachineHost<Intermediate<<T as Casting>::Provider>>;

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

/// Tells the story of these bytes, over the QUIC stand-in.
///
/// # Panics
/// If anything happens that must not.
pub fn tell(bytes: &[u8]) -> Outcome {
    tell_with(cast::StandIns, bytes)
}

/// Tells the story of these bytes, over any QUIC. Where that draws entropy of its own, the hash differs every time.
///
/// # Panics
/// If anything happens that must not.
pub fn tell_with<T: Casting + 'static>(casting: T, bytes: &[u8]) -> Outcome {
    let (cast, events) = read(bytes);
    let mut story = Story::new(casting, cast);
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

/// What an intermediate speaks.
fn protocols(modern: bool) -> &'static [&'static [u8]] {
    if modern { cast::BOTH } else { cast::V1 }
}

/// A client by its kind.
enum Kind<T: Casting> {
    Agent(HostId<AgentHost<T>>),
    Connector(HostId<ConnectorHost<T>>),
}

impl<T: Casting> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Casting> Copy for Kind<T> {}

/// A client and what has become of it.
struct Client<T: Casting> {
    kind: Kind<T>,
    name: String,
    /// Among those of its kind.
    number: u8,
    address: SocketAddr,
    /// How often it was restarted.
    life: u32,
    asleep: bool,
    left: bool,
}

impl<T: Casting> Client<T> {
    fn new(kind: Kind<T>, name: String, number: u8, address: SocketAddr) -> Self {
        Self {
            kind,
            name,
            number,
            address,
            life: 0,
            asleep: false,
            left: false,
        }
    }

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

struct Story<T: Casting> {
    casting: T,
    world: World<T::Clock>,
    cast: Cast,
    relay: HostId<RelayHost<T>>,
    /// The agents, then the connectors.
    clients: Vec<Client<T>>,
    oracle: Oracle,
    /// How many public addresses were given out by NATs.
    faces: u16,
    disconnections: u64,
}

impl<T: Casting + 'static> Story<T> {
    fn new(mut casting: T, cast: Cast) -> Self {
        let mut world = World::with_clock(casting.clock(), cast.seed);
        let (seed, now) = (world.draw_seed(), world.now());
        let protocols = protocols(cast.modern);
        let relay = cast::intermediate(&mut casting, protocols, Some(RESET_KEY), &seed, now);
        let relay = world.add("relay", cast::RELAY, MachineHost::new(relay));
        let mut story = Self {
            casting,
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
            let name = format!("agent {number}");
            let kind = Kind::Agent(story.world.add(&name, &address.to_string(), host));
            story.clients.push(Client::new(kind, name, number, address));
        }
        for number in 0..cast.connectors {
            let address = SocketAddr::from(([203, 0, 113, number + 1], 3333));
            let host = story.new_connector(number, address);
            let name = format!("connector {number}");
            let kind = Kind::Connector(story.world.add(&name, &address.to_string(), host));
            story.clients.push(Client::new(kind, name, number, address));
        }
        story
    }

    fn new_agent(&mut self, number: u8, address: SocketAddr) -> AgentHost<T> {
        let services: Vec<u8> = (0..self.cast.services).collect();
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let agent = cast::agent(&mut self.casting, number, address, &services, &seed, now);
        TunnelHost::new(agent)
    }

    fn new_connector(&mut self, number: u8, address: SocketAddr) -> ConnectorHost<T> {
        let services: Vec<u8> = (0..self.cast.services)
            .filter(|service| service % self.cast.connectors == number)
            .collect();
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let connector = cast::connector(&mut self.casting, number, address, &services, &seed, now);
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
            Event::Rebind { .. } if !T::MOVES => {}
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
            Event::RestartIntermediate { keyed, modern } => {
                let (seed, now) = (self.world.draw_seed(), self.world.now());
                let key = keyed.then_some(RESET_KEY);
                let protocols = protocols(*modern);
                let relay = cast::intermediate(&mut self.casting, protocols, key, &seed, now);
                self.relay = self.world.replace(self.relay, MachineHost::new(relay));
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
                    let now = self.world.now();
                    self.oracle.at_agent((index, client.life), &packet, now);
                }
                for event in std::mem::take(&mut self.world[host].events) {
                    self.disconnections += u64::from(matches!(event, LinkEvent::Disconnected(_)));
                }
            }
        }
    }
}
