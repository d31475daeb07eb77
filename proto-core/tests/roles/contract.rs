//! The machine contract, for the roles.

use std::net::SocketAddr;
use std::time::Instant;

use proptest::prelude::*;
use proto_core::config::{
    AgentConfig, AgentService, ConnectorConfig, ConnectorService, IntermediateEndpoint, Protocol,
    SessionConfig, TunnelLimits,
};
use proto_core::id::ServiceId;
use proto_core::local::{DatagramSocket, ListenerIndex};
use proto_core::machine::{Tunnel, contract};
use proto_core::netstack::NetstackLimits;
use proto_core::punch::Interface;
use proto_core::rng::Seed;
use proto_core::service::Offer;
use proto_core::sim::{BackendsHost, EchoBackends, LocalsHost, MachineHost, Program, TunnelHost};
use proto_core::wire::control::{Candidate, CandidateKind, ControlMessage, SignalingMessage};
use proto_core::wire::datagram::Role;

use crate::impostor::Impostor;
use crate::locals::forward_config;
use crate::setup::{FakeQuic, Quic, RELAY_NAME, V1, intermediate, udp};
use crate::speaker::Speaker;

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
        sessions: None,
        limits: TunnelLimits::default(),
    }
}

fn connector_config(relay: &str, local: &str) -> ConnectorConfig {
    let AgentConfig {
        intermediate, local, ..
    } = agent_config(relay, local);
    let service = |id: &[u8], protocol| ConnectorService {
        id: ServiceId::parse(id).unwrap(),
        offer: Offer::single("127.0.0.1:7".parse().unwrap(), protocol),
        virtual_addresses: Vec::new(),
    };
    ConnectorConfig {
        intermediate,
        local,
        sessions: None,
        services: vec![service(b"echo", Protocol::Both), service(b"web", Protocol::Tcp)],
        limits: NetstackLimits::default(),
    }
}

fn candidate(address: &str) -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        address: address.parse().unwrap(),
        priority: 1,
        foundation: String::new(),
        related: None,
    }
}

type FakeConnector = proto_core::connector::Connector<<FakeQuic as Quic>::Provider>;
type FakeAgent = proto_core::agent::Agent<<FakeQuic as Quic>::Provider>;

type FakeForwarder = proto_core::forward::Forwarder<<FakeQuic as Quic>::Provider>;

/// Programs connect, speak SOCKS or anything else, send datagrams, say more, and go.
fn act(host: &mut LocalsHost<FakeForwarder>, what: u8, bytes: &[u8], now: Instant) {
    let listener = ListenerIndex(u16::from(what / 8 % 5));
    let program: SocketAddr = ([127, 0, 0, 1], 1000 + u16::from(what)).into();
    let first = host.programs().map(|(flow, _)| flow).nth(usize::from(what / 64));
    match (what % 8, first) {
        (0, _) => {
            let program = Program::saying(bytes.to_vec(), what >= 128);
            host.connect(listener, program, now);
        }
        (1, _) => {
            let greeting = [5, 1, 0, 5, 1 + what / 128 * 2, 0, 3, 4];
            let words = [&greeting[..], b"echo", &[0, 7], bytes].concat();
            let program = Program::saying(words, false);
            host.connect(ListenerIndex(1), program, now);
        }
        (2 | 3, _) => host.send(DatagramSocket::Listener(listener), program, bytes, now),
        (4, Some(flow)) => host.send(DatagramSocket::Relay(flow), program, bytes, now),
        (5, Some(flow)) => host.reset(flow, now),
        (6, Some(flow)) => host.change(flow, |program| program.ends = true, now),
        (7, Some(flow)) => host.change(flow, |program| program.words.extend_from_slice(bytes), now),
        (_, _) => {}
    }
}

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
    fn an_intermediate_keeps_the_contract_with_a_client_of_v2(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| MachineHost::new(intermediate(&mut FakeQuic::fixed(), Seed([1; 32]), now)))
            .with_peer(|now| {
                let provider = FakeQuic::fixed().speaker(&["agent.echo.ztna"]);
                let mut peer = Speaker::new(provider, "192.0.2.2:4433", Seed([2; 32]), now);
                let service = || "echo".to_owned();
                for message in [
                    ControlMessage::Hello { role: Role::Agent, instance: 1, capabilities: 0 },
                    ControlMessage::Register { service: service() },
                    ControlMessage::OpenChannel { request: 1, service: service() },
                ] {
                    peer.say(&message);
                }
                MachineHost::new(peer)
            })
            .bounded(|host| host.machine.connections() + host.machine.registry().registrations(), 100)
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
    fn a_forwarder_keeps_the_contract(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| {
            let agent = agent_config("192.0.2.2:4433", "192.0.2.1:4433");
            let config = forward_config("192.0.2.1:4433", agent);
            let provider = FakeQuic::fixed().client(&["agent.echo.ztna"]);
            let mut host = LocalsHost::new(FakeForwarder::new(config, provider, &Seed([2; 32]), now));
            host.relay = Some("127.0.0.1:5000".parse().unwrap());
            host
        })
        .with_peer(|now| MachineHost::new(intermediate(&mut FakeQuic::fixed(), Seed([1; 32]), now)))
        .with_application(act)
        .bounded(|host| host.machine.streams() + host.machine.udp_flows(), 2000)
        .check(&contract::inputs(&bytes));
    }

    /// The intermediate, which speaks v1, names its own address and the one that junk comes from as those of agents.
    #[test]
    fn a_connector_keeps_the_contract_with_v1_agents(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        contract::Subject::new(|now| {
            let mut config = connector_config("192.0.2.2:4433", "192.0.2.1:4433");
            config.sessions = Some(SessionConfig::default());
            let provider = FakeQuic::fixed().publisher(&["connector.echo.ztna"]);
            let mut connector = FakeConnector::new(config, provider, &Seed([2; 32]), now);
            let address = "192.0.2.1".parse().unwrap();
            connector.set_interfaces(&[Interface { name: "eth0".into(), address }]);
            BackendsHost::new(connector, EchoBackends::default())
        })
        .with_peer(|now| {
            let mut impostor = Impostor::new(FakeQuic::fixed().server_of(V1), Seed([1; 32]), now);
            for session in 0..3 {
                impostor.greeting.push(SignalingMessage::CandidateOffer {
                    session,
                    service: "echo".into(),
                    candidates: ["192.0.2.2:4433", "203.0.113.9:999"].map(candidate).into(),
                });
                impostor.greeting.push(SignalingMessage::StartPunching {
                    session,
                    start_delay_ms: 100 * session,
                    peer_candidates: Vec::new(),
                });
            }
            MachineHost::new(impostor)
        })
        .bounded(|host| host.machine.v1_meetings() + host.machine.v1_agents(), 300)
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
