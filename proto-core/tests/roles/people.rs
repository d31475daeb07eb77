//! Agents in a scene, as the stories meet them.

use std::time::Duration;

use proto_core::agent::Agent;
use proto_core::config::{
    AgentConfig, AgentService, ConnectorConfig, ConnectorService, IntermediateConfig, IntermediateEndpoint,
    IntermediateLimits, Protocol, TunnelLimits,
};
use proto_core::connector::Connector;
use proto_core::id::{ServiceId, ServiceIndex};
use proto_core::intermediate::Intermediate;
use proto_core::link::LinkEvent;
use proto_core::machine::{SendError, Tunnel as _};
use proto_core::netstack::NetstackLimits;
use proto_core::quic::identity::SanAuthority;
use proto_core::service::Offer;
use proto_core::sim::{BackendsHost, EchoBackends, HostId, MachineHost, TunnelHost, World};

use crate::impostor::Impostor;
use crate::setup::{BOTH, Quic, RELAY, RELAY_NAME, Scene, udp};

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

pub(crate) fn agent_config(local: &str, services: &[Service<'_>]) -> AgentConfig {
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
        sessions: None,
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
        let ready = |world: &World<Q::Clock>| {
            let status = world[agent].machine.status();
            status.services.iter().all(|service| service.registered)
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
        self.restart_relay_as(BOTH, reset_key);
    }

    /// The same with one that speaks these protocols.
    pub(crate) fn restart_relay_as(&mut self, protocols: &[&[u8]], reset_key: Option<[u8; 32]>) {
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let config = IntermediateConfig {
            retry: true,
            reset_key,
            limits: IntermediateLimits::default(),
        };
        let authority = Box::new(SanAuthority::default());
        let provider = self.quic.server_of(protocols);
        let relay = Intermediate::new(&config, provider, authority, &seed, now);
        self.world.replace(self.relay, MachineHost::new(relay));
    }

    /// Puts an impostor with a genuine certificate in the place of the intermediate.
    pub(crate) fn replace_relay_by_impostor(&mut self) -> HostId<MachineHost<Impostor<Q::Provider>>> {
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        let impostor = Impostor::new(self.quic.server(), seed, now);
        self.world.replace(self.relay, MachineHost::new(impostor))
    }
}

/// A connector whose services are echoes of UDP and TCP.
pub(crate) fn connector_config(local: &str, services: &[Service<'_>]) -> ConnectorConfig {
    ConnectorConfig {
        intermediate: endpoint(),
        local: local.parse().unwrap(),
        sessions: None,
        services: services
            .iter()
            .map(|(id, virtual_address)| ConnectorService {
                id: ServiceId::parse(id.as_bytes()).unwrap(),
                offer: Offer::single(BACKEND.parse().unwrap(), Protocol::Both),
                virtual_addresses: vec![virtual_address.parse().unwrap()],
            })
            .collect(),
        limits: NetstackLimits::default(),
    }
}

/// The first service of an agent.
pub(crate) const FIRST: ServiceIndex = ServiceIndex(0);

pub(crate) type ConnectorHost<Q> = BackendsHost<Connector<<Q as Quic>::Provider>, EchoBackends>;

/// Where the services of a connector really listen.
pub(crate) const BACKEND: &str = "10.200.0.1:9999";

impl<Q: Quic> Scene<Q> {
    /// A connector that is not part of the world yet: to restart one.
    pub(crate) fn new_connector(
        &mut self,
        provider: Q::Provider,
        address: &str,
        services: &[Service<'_>],
    ) -> ConnectorHost<Q> {
        let config = connector_config(address, services);
        let (seed, now) = (self.world.draw_seed(), self.world.now());
        BackendsHost::new(
            Connector::new(config, provider, &seed, now),
            EchoBackends::default(),
        )
    }

    /// A connector that holds all its registrations, over one connection if the intermediate is not of v1.
    pub(crate) fn connector(
        &mut self,
        name: &str,
        address: &str,
        services: &[Service<'_>],
    ) -> HostId<ConnectorHost<Q>> {
        let provider = self.quic.speaker(&["connector.*.ztna"]);
        self.connector_with(provider, name, address, services)
    }

    /// The same with a provider of its own.
    pub(crate) fn connector_with(
        &mut self,
        provider: Q::Provider,
        name: &str,
        address: &str,
        services: &[Service<'_>],
    ) -> HostId<ConnectorHost<Q>> {
        let connector = self.new_connector(provider, address, services);
        let connector = self.world.add(name, address, connector);
        self.await_connector(connector, Duration::from_secs(5));
        connector
    }

    /// Waits until a connector holds all its registrations.
    #[track_caller]
    pub(crate) fn await_connector(&mut self, connector: HostId<ConnectorHost<Q>>, within: Duration) {
        let ready = |world: &World<Q::Clock>| {
            let status = world[connector].machine.status();
            status.iter().all(|service| service.registered)
        };
        self.world.run_until(ready, within);
    }

    /// Asks a service by UDP and returns whatever comes back within a second.
    pub(crate) fn ask(
        &mut self,
        agent: HostId<AgentHost<Q>>,
        source: &str,
        service: &str,
        payload: &[u8],
    ) -> Vec<Vec<u8>> {
        self.packets(agent);
        self.send_packet(agent, &udp(source, service, payload)).unwrap();
        self.world.run_for(Duration::from_secs(1));
        self.packets(agent)
    }
}
