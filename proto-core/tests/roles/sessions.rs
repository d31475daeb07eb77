//! Stories of sessions: agent and connector speak to each other, whatever is between them.

use std::time::Duration;

use proto_core::agent::{Agent, ServicePath};
use proto_core::connector::Connector;
use proto_core::quic::identity::SanAuthority;
use proto_core::sim::{BackendsHost, EchoBackends, HostId, TunnelHost, World};

use crate::people::{AgentHost, ConnectorHost, Service, agent_config, connector_config};
use crate::setup::{Quic, Scene, udp};

const ECHO: &[Service<'static>] = &[("echo", "10.100.0.1")];
const INNER: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";
const AGENT: &str = "198.51.100.10:4000";
const CONNECTOR: &str = "198.51.100.20:5000";

/// An agent that has sessions.
pub(crate) fn new_agent<Q: Quic>(scene: &mut Scene<Q>, address: &str, names: &[&str]) -> AgentHost<Q> {
    let provider = scene.quic.partner(names);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let mut config = agent_config(address, ECHO);
    config.sessions = Some(SanAuthority::default());
    TunnelHost::new(Agent::new(config, provider, &seed, now))
}

/// A connector that has sessions.
pub(crate) fn new_connector<Q: Quic>(
    scene: &mut Scene<Q>,
    address: &str,
    names: &[&str],
) -> ConnectorHost<Q> {
    let provider = scene.quic.partner(names);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let mut config = connector_config(address, ECHO);
    config.sessions = Some(SanAuthority::default());
    BackendsHost::new(
        Connector::new(config, provider, &seed, now),
        EchoBackends::default(),
    )
}

type Pair<Q> = (HostId<AgentHost<Q>>, HostId<ConnectorHost<Q>>);

fn pair<Q: Quic>(scene: &mut Scene<Q>) -> Pair<Q> {
    let connector = new_connector(scene, CONNECTOR, &["connector.*.ztna"]);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = new_agent(scene, AGENT, &["agent.*.ztna"]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.await_agent(agent, Duration::from_secs(5));
    (agent, connector)
}

pub(crate) fn path<Q: Quic>(world: &World<Q::Clock>, agent: HostId<AgentHost<Q>>) -> ServicePath {
    world[agent].machine.status().services[0].path
}

fn echoes<Q: Quic>(scene: &mut Scene<Q>, agent: HostId<AgentHost<Q>>, text: &[u8]) -> bool {
    scene.ask(agent, INNER, SERVICE, text) == [udp(SERVICE, INNER, text)]
}

pub(crate) fn packets_go_straight_and_nobody_reads_them_on_the_way<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = pair(&mut scene);
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::None);
    assert!(echoes(&mut scene, agent, b"first"));
    assert_eq!(
        path::<Q>(&scene.world, agent),
        ServicePath::Direct(CONNECTOR.parse().unwrap())
    );
    assert!(echoes(&mut scene, agent, b"second"));
    let counts = scene.world[connector].machine.sessions();
    assert_eq!((counts.relayed, counts.direct), (0, 1));
    assert_eq!(scene.relay().stats().relayed, 0, "nothing went wrapped");
    let stats = scene.world[agent].machine.session_stats();
    assert!(stats.direct_sent > 0 && stats.direct_received > 0, "{stats:?}");
}
