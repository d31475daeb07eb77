//! Agents in a scene, as the stories meet them.

use std::time::Duration;

use proto_core::agent::Agent;
use proto_core::config::{
    AgentConfig, AgentService, IntermediateConfig, IntermediateEndpoint, IntermediateLimits, TunnelLimits,
};
use proto_core::id::{ServiceId, ServiceIndex};
use proto_core::intermediate::Intermediate;
use proto_core::link::LinkEvent;
use proto_core::machine::{SendError, Tunnel as _};
use proto_core::quic::identity::SanAuthority;
use proto_core::sim::{HostId, MachineHost, TunnelHost};

use crate::impostor::Impostor;
use crate::setup::{Quic, RELAY, RELAY_NAME, Scene};

pub(crate) type AgentHost<Q> = TunnelHost<Agent<<Q as Quic>::Provider>>;

/// A service by its name, and its address as agents see it.
pub(crate) type Service<'a> = (&'a str, &'a str);

/// Where every client finds the intermediate.
pub(crate) fn endpoint() -> IntermediateEndpoint {
    IntermediateEndpoint {
        addresses: vec![RELAY.parse().unwrap()],
        server_name: Some(RELAY_NAME.to_owned()),
    }
}

fn agent_config(local: &str, services: &[Service<'_>]) -> AgentConfig {
    AgentConfig {
        intermediate: endpoint(),
        local: local.parse().unwrap(),
        services: services
            .iter()
            .map(|(id, address)| AgentService {
                id: ServiceId::parse(id.as_bytes()).unwrap(),
                virtual_addresses: vec![address.parse().unwrap()],
            })
            .collect(),
        limits: TunnelLimits::default(),
    }
}

impl<Q: Quic> Scene<Q> {
    /// An agent whose certificate carries these names, just started.
    pub(crate) fn starting_agent(
        &mut self,
        name: &str,
        address: &str,
        names: &[&str],
        services: &[Service<'_>],
    ) -> HostId<AgentHost<Q>> {
        let agent = self.new_agent(address, names, services);
        self.world.add(name, address, agent)
    }

    /// An agent that is not part of the world yet: to restart one.
    pub(crate) fn new_agent(
        &mut self,
        address: &str,
        names: &[&str],
        services: &[Service<'_>],
    ) -> AgentHost<Q> {
        let provider = self.quic.client(names);
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        TunnelHost::new(Agent::new(agent_config(address, services), provider, &seed, now))
    }

    /// An agent that holds all its registrations.
    pub(crate) fn agent(
        &mut self,
        name: &str,
        address: &str,
        services: &[Service<'_>],
    ) -> HostId<AgentHost<Q>> {
        let agent = self.starting_agent(name, address, &["agent.*.ztna"], services);
        self.await_agent(agent, Duration::from_secs(5));
        agent
    }

    /// Waits until an agent holds all its registrations.
    #[track_caller]
    pub(crate) fn await_agent(&mut self, agent: HostId<AgentHost<Q>>, within: Duration) {
        let ready = |world: &proto_core::sim::World<Q::Clock>| {
            let status = world[agent].machine.status();
            status.services.iter().all(|(_, registered)| *registered)
        };
        self.world.run_until(ready, within);
    }

    /// Waits for the next event of an agent that is one of these, and returns when it came.
    #[track_caller]
    pub(crate) fn await_event(
        &mut self,
        agent: HostId<AgentHost<Q>>,
        wanted: impl Fn(&LinkEvent) -> bool,
        within: Duration,
    ) -> Duration {
        self.world[agent].events.clear();
        self.world
            .run_until(|world| world[agent].events.iter().any(&wanted), within);
        self.world.elapsed()
    }

    /// Lets the host of an agent send an IP packet.
    pub(crate) fn send_packet(
        &mut self,
        agent: HostId<AgentHost<Q>>,
        packet: &[u8],
    ) -> Result<(), SendError> {
        self.world
            .with(agent, |host, now| host.machine.send_packet(packet, now))
    }

    /// The IP packets that an agent's host has got since the last call.
    pub(crate) fn packets(&mut self, agent: HostId<AgentHost<Q>>) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.world[agent].packets)
    }

    /// The events of an agent since the last call.
    pub(crate) fn events(&mut self, agent: HostId<AgentHost<Q>>) -> Vec<LinkEvent> {
        std::mem::take(&mut self.world[agent].events)
    }

    /// Starts the intermediate anew, with or without the key by which it can say that it has.
    pub(crate) fn restart_relay(&mut self, reset_key: Option<[u8; 32]>) {
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let config = IntermediateConfig {
            retry: true,
            reset_key,
            limits: IntermediateLimits::default(),
        };
        let authority = Box::new(SanAuthority::default());
        let relay = Intermediate::new(&config, self.quic.server(), authority, &seed, now);
        self.world.replace(self.relay, MachineHost::new(relay));
    }

    /// Puts an impostor with a genuine certificate in the place of the intermediate.
    pub(crate) fn replace_relay_by_impostor(&mut self) -> HostId<MachineHost<Impostor<Q::Provider>>> {
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let impostor = Impostor::new(self.quic.server(), seed, now);
        self.world.replace(self.relay, MachineHost::new(impostor))
    }
}

/// The first service of an agent.
pub(crate) const FIRST: ServiceIndex = ServiceIndex(0);
