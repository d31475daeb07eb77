//! The machine contract, for the roles.

use proptest::prelude::*;
use proto_core::config::{
    AgentConfig, AgentService, ConnectorConfig, ConnectorService, IntermediateEndpoint, Protocol,
    TunnelLimits,
};
use proto_core::id::ServiceId;
use proto_core::machine::{Tunnel, contract};
use proto_core::netstack::NetstackLimits;
use proto_core::rng::Seed;
use proto_core::sim::{BackendsHost, EchoBackends, MachineHost, TunnelHost};

use crate::setup::{FakeQuic, Quic, RELAY_NAME, intermediate, udp};

fn agent_config(relay: &str, local: &str) -> AgentConfig {
    AgentConfig {
        intermediate: IntermediateEndpoint {
            addresses: vec![relay.parse().unwrap()],
            server_name: Some(RELAY_NAME.to_owned()),
        },
        local: local.parse().unwrap(),
        services: vec![AgentService {
            id: ServiceId::parse(b"echo").unwrap(),
            virtual_addresses: vec!["10.100.0.1".parse().unwrap()],
        }],
        limits: TunnelLimits::default(),
    }
}

fn connector_config(relay: &str, local: &str) -> ConnectorConfig {
    let AgentConfig {
        intermediate, local, ..
    } = agent_config(relay, local);
    let service = |id: &[u8], protocol| ConnectorService {
        id: ServiceId::parse(id).unwrap(),
        backend: "127.0.0.1:7".parse().unwrap(),
        protocol,
        virtual_addresses: Vec::new(),
    };
    ConnectorConfig {
        intermediate,
        local,
        services: vec![service(b"echo", Protocol::Both), service(b"web", Protocol::Tcp)],
        limits: NetstackLimits::default(),
    }
}

type FakeConnector = proto_core::connector::Connector<<FakeQuic as Quic>::Provider>;
type FakeAgent = proto_core::agent::Agent<<FakeQuic as Quic>::Provider>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_intermediate_keeps_the_contract(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| MachineHost::new(intermediate(&mut FakeQuic::fixed(), Seed([1; 32]), now)))
            .with_peer(|now| {
                let config = agent_config("192.0.2.1:4433", "192.0.2.2:4433");
                let provider = FakeQuic::fixed().client(&["agent.echo.ztna"]);
                TunnelHost::new(FakeAgent::new(config, provider, &Seed([2; 32]), now))
            })
            .bounded(|host| host.machine.connections(), 100)
            .check(&contract::inputs(&bytes));
    }

    #[test]
    fn an_agent_keeps_the_contract(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| {
            let config = agent_config("192.0.2.2:4433", "192.0.2.1:4433");
            let provider = FakeQuic::fixed().client(&["agent.echo.ztna"]);
            TunnelHost::new(FakeAgent::new(config, provider, &Seed([2; 32]), now))
        })
        .with_peer(|now| MachineHost::new(intermediate(&mut FakeQuic::fixed(), Seed([1; 32]), now)))
        .with_application(|host, _, bytes, now| {
            let _ = host.machine.send_packet(bytes, now);
            let _ = host.machine.send_packet(&udp("10.9.0.1:1", "10.100.0.1:2", bytes), now);
        })
        .check(&contract::inputs(&bytes));
    }

    #[test]
    fn a_connector_keeps_the_contract(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| {
            let config = connector_config("192.0.2.2:4433", "192.0.2.1:4433");
            let provider = FakeQuic::fixed().client(&["connector.echo.ztna"]);
            let connector = FakeConnector::new(config, provider, &Seed([2; 32]), now);
            BackendsHost::new(connector, EchoBackends::default())
        })
        .with_peer(|now| MachineHost::new(intermediate(&mut FakeQuic::fixed(), Seed([1; 32]), now)))
        .bounded(|host| host.backend.open, 1000)
        .check(&contract::inputs(&bytes));
    }
}
