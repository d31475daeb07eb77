//! Stories of sessions: agent and connector speak to each other, whatever is between them.

use std::time::Duration;

use proto_core::agent::{Agent, ServicePath};
use proto_core::config::{IntermediateLimits, SessionConfig};
use proto_core::connector::Connector;
use proto_core::id::ServiceId;
use proto_core::machine::Machine as _;
use proto_core::quic::identity::{Authority, Capacity, Identity};
use proto_core::sim::nat::{NatConfig, can_meet};
use proto_core::sim::{BackendsHost, EchoBackends, HostId, LinkConfig, TunnelHost, World};

use crate::people::{AgentHost, ConnectorHost, Service, agent_config, connector_config};
use crate::setup::{DELAY, Quic, Scene, V1, udp};

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
    config.sessions = Some(SessionConfig::default());
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
    config.sessions = Some(SessionConfig::default());
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
    assert_eq!(scene.world[connector].machine.stats().stray, 0);
    let stats = scene.world[agent].machine.session_stats();
    assert!(stats.direct_sent > 0 && stats.direct_received > 0, "{stats:?}");
}

/// Sends a numbered datagram every millisecond for so long, and returns when each answer came, from the beginning.
fn stream<Q: Quic>(
    scene: &mut Scene<Q>,
    agent: HostId<AgentHost<Q>>,
    numbers: &mut u64,
    time: Duration,
) -> Vec<Duration> {
    let mut answers = Vec::new();
    let end = scene.world.elapsed() + time;
    scene.packets(agent);
    while scene.world.elapsed() < end {
        let packet = udp(INNER, SERVICE, &numbers.to_be_bytes());
        *numbers += 1;
        // Refused where there is no way; that is a gap like any other.
        let _ = scene.send_packet(agent, &packet);
        scene.world.run_for(Duration::from_millis(1));
        let now = scene.world.elapsed();
        answers.extend(scene.packets(agent).iter().map(|_| now));
    }
    answers
}

/// The longest time without an answer.
fn longest_gap(answers: &[Duration]) -> Duration {
    let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(Duration::MAX)
}

fn is_direct<Q: Quic>(world: &World<Q::Clock>, agent: HostId<AgentHost<Q>>) -> bool {
    matches!(path::<Q>(world, agent), ServicePath::Direct(_))
}

/// A pair whose packets go straight.
fn direct_pair<Q: Quic>(scene: &mut Scene<Q>) -> Pair<Q> {
    let (agent, connector) = pair(scene);
    assert!(echoes(scene, agent, b"hello"));
    scene
        .world
        .run_until(|world| is_direct::<Q>(world, agent), Duration::from_secs(5));
    (agent, connector)
}

/// Three round trips of the direct path, or 100 ms.
const ALLOWED_GAP: Duration = Duration::from_millis(100);

pub(crate) fn a_cut_direct_path_is_left_and_taken_again<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    let mut numbers = 0;
    let mut answers = stream(&mut scene, agent, &mut numbers, Duration::from_secs(1));
    scene.world.cut(agent, connector);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(3)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::Relayed);
    scene.world.mend(agent, connector);
    let healed = scene.world.elapsed();
    let mut returned = None;
    while returned.is_none() && scene.world.elapsed() < healed + Duration::from_secs(5) {
        answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_millis(20)));
        returned = is_direct::<Q>(&scene.world, agent).then(|| scene.world.elapsed() - healed);
    }
    assert!(returned.unwrap() <= Duration::from_secs(1), "{returned:?}");
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(1)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    let stats = scene.world[agent].machine.session_stats();
    assert!(
        stats.duplicates > 0,
        "both paths were used for a moment: {stats:?}"
    );
    assert!(answers.len() as u64 > numbers * 95 / 100);
}

pub(crate) fn a_direct_path_that_dies_one_way_is_left_by_both<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    let mut numbers = 0;
    let mut answers = stream(&mut scene, agent, &mut numbers, Duration::from_secs(1));
    let dead = LinkConfig::new(DELAY).with_loss(100);
    scene.world.set_one_way(connector, agent, dead);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(3)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    scene.world.set_one_way(connector, agent, LinkConfig::new(DELAY));
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(2)));
    scene.world.set_one_way(agent, connector, dead);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(3)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
}

pub(crate) fn a_direct_path_outlives_the_intermediate<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    let mut numbers = 0;
    let mut answers = stream(&mut scene, agent, &mut numbers, Duration::from_secs(1));
    scene.world.take_down(scene.relay);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(40)));
    assert!(is_direct::<Q>(&scene.world, agent));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    scene.restart_relay(None);
    scene.world.bring_up(scene.relay);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(20)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    // The relayed path is warm again: the direct one may die.
    scene.world.cut(agent, connector);
    answers.extend(stream(&mut scene, agent, &mut numbers, Duration::from_secs(2)));
    assert!(
        longest_gap(&answers) <= ALLOWED_GAP,
        "{:?}",
        longest_gap(&answers)
    );
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::Relayed);
    assert_eq!(scene.world[connector].machine.sessions().relayed, 1);
}

pub(crate) fn packets_are_relayed_where_hosts_cannot_meet<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = new_connector(&mut scene, CONNECTOR, &["connector.*.ztna"]);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = new_agent(&mut scene, AGENT, &["agent.*.ztna"]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.world.cut(agent, connector);
    scene.await_agent(agent, Duration::from_secs(5));
    assert!(echoes(&mut scene, agent, b"relayed"));
    let mut numbers = 0;
    let answers = stream(&mut scene, agent, &mut numbers, Duration::from_secs(10));
    assert!(
        longest_gap(&answers) <= Duration::from_millis(5),
        "{:?}",
        longest_gap(&answers)
    );
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::Relayed);
    assert_eq!(scene.relay().stats().relayed, 0, "nothing went wrapped");
    // As soon as they can, and an address that never answered may be asked again, they do.
    scene.world.mend(agent, connector);
    let minutes = (0..20).find(|_| {
        scene.world.run_for(Duration::from_secs(60));
        assert!(echoes(&mut scene, agent, b"still"));
        is_direct::<Q>(&scene.world, agent)
    });
    assert!(minutes.is_some_and(|minutes| minutes < 12), "{minutes:?}");
}

pub(crate) fn every_pair_of_translators_meets_exactly_when_it_can<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let mut number = 0;
    for (left, a) in NatConfig::ALL {
        for (right, b) in NatConfig::ALL {
            number += 1;
            let home = "192.168.1.2:1111";
            let nats = [("a", a, 2 * number), ("b", b, 2 * number + 1)].map(|(side, config, octet)| {
                let outer = format!("203.0.113.{octet}");
                scene.world.add_nat(&format!("{side}{number}"), config, &outer)
            });
            let connector = new_connector(&mut scene, home, &["connector.*.ztna"]);
            let connector = scene.world.add_behind(nats[1], "connector", home, connector);
            scene.await_connector(connector, Duration::from_secs(5));
            let agent = new_agent(&mut scene, home, &["agent.*.ztna"]);
            let agent = scene.world.add_behind(nats[0], "agent", home, agent);
            scene.await_agent(agent, Duration::from_secs(5));
            assert!(echoes(&mut scene, agent, b"there"), "{left} and {right}");
            scene.world.run_for(Duration::from_secs(2));
            let direct = is_direct::<Q>(&scene.world, agent);
            assert_eq!(direct, can_meet(Some(&a), Some(&b)), "{left} and {right}");
            if direct {
                let took = scene.world[agent].machine.status().services[0].time_to_direct;
                assert!(
                    took.unwrap() <= Duration::from_millis(250),
                    "{left} and {right}: {took:?}"
                );
            }
            scene.world.with(agent, |host, now| host.machine.shut_down(now));
            scene
                .world
                .with(connector, |host, now| host.machine.shut_down(now));
            scene.world.run_for(Duration::from_secs(2));
        }
    }
    scene.world.run_for(Duration::from_secs(60));
    assert_eq!(scene.relay().channels(), 0);
}

pub(crate) fn a_connector_without_the_right_name_gets_no_packet<Q: Quic>(quic: Q) {
    let mut scene = Scene::special(
        quic,
        IntermediateLimits::default(),
        // An intermediate that lets anybody publish anything.
        Box::new(Everyone),
    );
    let connector = new_connector(&mut scene, CONNECTOR, &["connector.other.ztna"]);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = new_agent(&mut scene, AGENT, &["agent.*.ztna"]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.await_agent(agent, Duration::from_secs(5));
    for _ in 0..10 {
        let _ = scene.send_packet(agent, &udp(INNER, SERVICE, b"secret"));
        scene.world.run_for(Duration::from_millis(300));
    }
    assert_eq!(scene.packets(agent), Vec::<Vec<u8>>::new());
    assert_eq!(scene.world[connector].machine.stats().received, 0);
    assert_eq!(scene.relay().stats().relayed, 0);
}

pub(crate) fn a_second_service_of_a_connector_needs_its_name_as_well<Q: Quic>(quic: Q) {
    const BOTH: &[Service<'static>] = &[("echo", "10.100.0.1"), ("web", "10.100.0.2")];
    let mut scene = Scene::special(quic, IntermediateLimits::default(), Box::new(Everyone));
    let provider = scene.quic.partner(&["connector.echo.ztna"]);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let mut config = connector_config(CONNECTOR, BOTH);
    config.sessions = Some(SessionConfig::default());
    let connector = BackendsHost::new(
        Connector::new(config, provider, &seed, now),
        EchoBackends::default(),
    );
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let provider = scene.quic.partner(&["agent.*.ztna"]);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let mut config = agent_config(AGENT, BOTH);
    config.sessions = Some(SessionConfig::default());
    let agent = TunnelHost::new(Agent::new(config, provider, &seed, now));
    let agent = scene.world.add("agent", AGENT, agent);
    scene.await_agent(agent, Duration::from_secs(5));
    assert!(echoes(&mut scene, agent, b"its own"));
    for _ in 0..5 {
        let _ = scene.send_packet(agent, &udp(INNER, "10.100.0.2:9999", b"not its own"));
        scene.world.run_for(Duration::from_secs(1));
    }
    assert_eq!(scene.world[connector].machine.netstack_stats().udp_flows, 1);
    assert!(echoes(&mut scene, agent, b"still its own"));
}

pub(crate) fn an_agent_without_the_right_name_reaches_nothing<Q: Quic>(quic: Q) {
    let mut scene = Scene::special(quic, IntermediateLimits::default(), Box::new(Everyone));
    let connector = new_connector(&mut scene, CONNECTOR, &["connector.*.ztna"]);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = new_agent(&mut scene, AGENT, &["agent.other.ztna"]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.await_agent(agent, Duration::from_secs(5));
    for _ in 0..10 {
        let _ = scene.send_packet(agent, &udp(INNER, SERVICE, b"mine"));
        scene.world.run_for(Duration::from_millis(300));
    }
    assert_eq!(scene.packets(agent), Vec::<Vec<u8>>::new());
    assert_eq!(scene.world[connector].machine.netstack_stats().udp_flows, 0);
    // What it may not use, it is not kept a session for either.
    scene.world.run_for(Duration::from_secs(30));
    assert_eq!(scene.world[connector].machine.sessions().direct, 0);
}

pub(crate) fn an_idle_session_ends_and_comes_back<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    // The flow ends after 300 s, the session 120 s later.
    scene.world.run_for(Duration::from_secs(500));
    let sessions = scene.world[connector].machine.sessions();
    assert_eq!((sessions.relayed, sessions.direct), (0, 0));
    assert_eq!(scene.world[agent].machine.session_count(), 0);
    assert_eq!(scene.relay().channels(), 0);
    assert!(echoes(&mut scene, agent, b"again"));
    assert!(is_direct::<Q>(&scene.world, agent));
}

pub(crate) fn a_direct_path_follows_an_agent_whose_translator_forgets_it<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    scene.world.rebind(agent, "198.51.100.77:7777");
    for _ in 0..30 {
        assert!(echoes(&mut scene, agent, b"still"));
        scene.world.run_for(Duration::from_secs(1));
    }
    let stats = scene.world[connector].machine.session_stats();
    assert_eq!((stats.direct_established, stats.direct_lost), (1, 0));
    assert!(is_direct::<Q>(&scene.world, agent));
}

pub(crate) fn nothing_is_left_of_a_session_whose_ends_have_left<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    scene.world.with(agent, |host, now| host.machine.shut_down(now));
    scene.world.run_for(Duration::from_secs(40));
    let sessions = scene.world[connector].machine.sessions();
    assert_eq!((sessions.relayed, sessions.direct), (0, 0));
    assert!(scene.world[agent].machine.is_drained());
    assert_eq!(scene.relay().channels(), 0);
    scene
        .world
        .with(connector, |host, now| host.machine.shut_down(now));
    scene.world.run_for(Duration::from_secs(40));
    assert!(scene.world[connector].machine.is_drained());
    assert_eq!(scene.relay().connections(), 0);
}

pub(crate) fn a_connector_of_v1_is_reached_wrapped<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let provider = scene.quic.client(&["connector.*.ztna"]);
    scene.connector_with(provider, "connector", CONNECTOR, ECHO);
    let agent = new_agent(&mut scene, AGENT, &["agent.*.ztna"]);
    let agent = scene.world.add("agent", AGENT, agent);
    scene.await_agent(agent, Duration::from_secs(5));
    assert!(echoes(&mut scene, agent, b"old"));
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::Wrapped);
    assert!(scene.relay().stats().relayed > 0);
}

pub(crate) fn an_agent_of_v1_reaches_a_connector_with_sessions<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let connector = new_connector(&mut scene, CONNECTOR, &["connector.*.ztna"]);
    let connector = scene.world.add("connector", CONNECTOR, connector);
    scene.await_connector(connector, Duration::from_secs(5));
    let agent = scene.agent("agent", AGENT, ECHO);
    assert!(echoes(&mut scene, agent, b"old"));
}

pub(crate) fn an_intermediate_of_v1_serves_both_as_ever<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    scene.restart_relay_as(V1, None);
    let (agent, _) = pair(&mut scene);
    assert!(echoes(&mut scene, agent, b"old"));
    assert_eq!(path::<Q>(&scene.world, agent), ServicePath::Wrapped);
}

pub(crate) fn a_connector_that_was_restarted_is_found_again<Q: Quic>(quic: Q) {
    let mut scene = Scene::new(quic);
    let (agent, connector) = direct_pair(&mut scene);
    let fresh = new_connector(&mut scene, CONNECTOR, &["connector.*.ztna"]);
    let connector = scene.world.replace(connector, fresh);
    scene.world.run_for(Duration::from_secs(40));
    scene.await_connector(connector, Duration::from_secs(60));
    let mut numbers = 0;
    stream(&mut scene, agent, &mut numbers, Duration::from_secs(40));
    scene.world.run_for(Duration::from_millis(100));
    assert!(echoes(&mut scene, agent, b"again"));
    assert!(is_direct::<Q>(&scene.world, agent));
}

#[derive(Debug)]
struct Everyone;

impl Authority for Everyone {
    fn permits(&self, _: Option<&Identity>, _: Capacity, _: &ServiceId) -> bool {
        true
    }
}
