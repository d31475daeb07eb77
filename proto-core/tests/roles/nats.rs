//! Stories behind translators: what the relay needs passes all of them.

use std::time::Duration;

use proto_core::machine::Machine as _;
use proto_core::sim::nat::NatConfig;
use proto_core::sim::{HostId, NatId};

use crate::people::{AgentHost, ConnectorHost, Service};
use crate::setup::{Quic, Scene, udp};

const ECHO: &[Service<'static>] = &[("echo", "10.100.0.1")];
const INNER_AGENT: &str = "10.9.0.1:5000";
const SERVICE: &str = "10.100.0.1:9999";

/// Behind a translator every host may have this one.
const HOME: &str = "192.168.1.2:1111";

type Pair<Q> = (HostId<AgentHost<Q>>, HostId<ConnectorHost<Q>>);

/// An agent and a connector, each behind a translator, with the same address there.
fn behind<Q: Quic>(scene: &mut Scene<Q>, agents: NatId, connectors: NatId, addresses: [&str; 2]) -> Pair<Q> {
    let provider = scene.quic.client(&["connector.*.ztna"]);
    let connector = scene.new_connector(provider, addresses[1], ECHO);
    let connector = scene
        .world
        .add_behind(connectors, "connector", addresses[1], connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = scene.new_agent(addresses[0], &["agent.*.ztna"], ECHO);
    let agent = scene.world.add_behind(agents, "agent", addresses[0], agent);
    scene.await_agent(agent, Duration::from_secs(5));
    (agent, connector)
}

fn echoes<Q: Quic>(scene: &mut Scene<Q>, agent: HostId<AgentHost<Q>>, text: &[u8]) -> bool {
    scene.ask(agent, INNER_AGENT, SERVICE, text) == [udp(SERVICE, INNER_AGENT, text)]
}

pub(crate) fn the_relay_is_reached_through_every_kind_of_translator<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    for (index, (name, config)) in NatConfig::ALL.into_iter().enumerate() {
        let nat = |side: &str| {
            (
                format!("{name} of the {side}"),
                format!("203.0.113.{}", 2 * index + side.len() % 2),
            )
        };
        let [agents, connectors] = ["agents", "connector"].map(nat);
        let agents = scene.world.add_nat(&agents.0, config, &agents.1);
        let connectors = scene.world.add_nat(&connectors.0, config, &connectors.1);
        let (agent, connector) = behind(&mut scene, agents, connectors, [HOME; 2]);
        assert!(echoes(&mut scene, agent, name.as_bytes()), "{name}");
        assert!(scene.world.mappings(agents) >= 1);
        scene.world.with(agent, |host, now| host.machine.shut_down(now));
        scene
            .world
            .with(connector, |host, now| host.machine.shut_down(now));
        scene.world.run_for(Duration::from_secs(60));
        assert_eq!(
            scene.world.mappings(agents) + scene.world.mappings(connectors),
            0,
            "{name}"
        );
    }
}

pub(crate) fn carriers_and_homes_translate_one_after_the_other<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let carrier = scene
        .world
        .add_nat("carrier", NatConfig::SYMMETRIC, "203.0.113.7");
    let home = scene
        .world
        .add_nat_behind(carrier, "home", NatConfig::LINUX, "100.64.0.2");
    let other = scene
        .world
        .add_nat_behind(carrier, "other home", NatConfig::LINUX, "100.64.0.3");
    let (agent, _) = behind(&mut scene, home, other, [HOME; 2]);
    assert!(echoes(&mut scene, agent, b"twice translated"));
}

pub(crate) fn neighbours_behind_one_translator_use_the_relay_as_well<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let home = scene
        .world
        .add_nat("home", NatConfig::PORT_RESTRICTED, "203.0.113.7");
    let (agent, _) = behind(&mut scene, home, home, [HOME, "192.168.1.3:1111"]);
    assert!(echoes(&mut scene, agent, b"next door"));
}

/// RFC 4787 REQ-5 asks two minutes of a translator; many have 30 seconds. What it forgets while nobody speaks would cut the
/// connector off: signs of life keep it.
pub(crate) fn an_idle_connector_stays_reachable_through_short_mappings<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let short = NatConfig::SYMMETRIC.with_lifetime(Duration::from_secs(15));
    let agents = scene.world.add_nat("agents", short, "203.0.113.7");
    let connectors = scene.world.add_nat("connectors", short, "203.0.113.8");
    let (agent, _) = behind(&mut scene, agents, connectors, [HOME; 2]);
    for _ in 0..5 {
        scene.world.run_for(Duration::from_secs(97));
        assert!(echoes(&mut scene, agent, b"still there"));
    }
    assert_eq!(scene.world[agent].machine.link_stats().reconnections, 0);
}

pub(crate) fn a_translator_that_forgets_everything_costs_no_connection<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let agents = scene.world.add_nat("agents", NatConfig::SYMMETRIC, "203.0.113.7");
    let connectors = scene
        .world
        .add_nat("connectors", NatConfig::SYMMETRIC, "203.0.113.8");
    let (agent, _) = behind(&mut scene, agents, connectors, [HOME; 2]);
    assert!(echoes(&mut scene, agent, b"before"));
    scene.events(agent);
    scene.world.flush(agents);
    assert!(echoes(&mut scene, agent, b"from another port"));
    scene.world.flush(connectors);
    // An idle connector is found again with its next sign of life.
    scene.world.run_for(Duration::from_secs(11));
    assert!(echoes(&mut scene, agent, b"to another port"));
    assert_eq!(scene.world[agent].machine.link_stats().reconnections, 0);
}
