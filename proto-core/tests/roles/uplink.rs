//! Stories of the connections between a connector and its intermediate: one for all services in v2, one for each in v1.

use std::time::Duration;

use proto_core::config::ConnectorConfig;
use proto_core::connector::{ConnectorEvent, ConnectorNews};
use proto_core::id::ServiceIndex;
use proto_core::link::LinkEvent;
use proto_core::service::Offer;
use proto_core::service::health::{HealthCheck, Question};
use proto_core::sim::HostId;

use crate::people::{AgentHost, ConnectorHost, Service, connector_config};
use crate::setup::{BOTH, DELAY, Quic, Scene, V1, udp};

const CONNECTOR: &str = "203.0.113.9:7777";
const AGENT: &str = "198.51.100.2:1111";
const INNER_AGENT: &str = "10.9.0.1:5000";
const MOMENT: Duration = Duration::from_secs(1);
const KEY: Option<[u8; 32]> = Some([5; 32]);

const ALL: [Service<'_>; 3] = [
    ("one", "10.100.0.1"),
    ("two", "10.100.0.2"),
    ("three", "10.100.0.3"),
];

fn at(service: usize) -> String {
    format!("{}:9999", ALL[service].1)
}

/// Where a service really listens, when each has a place of its own.
fn backend(service: usize) -> std::net::SocketAddr {
    format!("10.200.0.{}:9999", service + 1).parse().unwrap()
}

struct Told<Q: Quic> {
    scene: Scene<Q>,
    connector: HostId<ConnectorHost<Q>>,
    agent: HostId<AgentHost<Q>>,
}

impl<Q: Quic> Told<Q> {
    /// An intermediate of these protocols, a connector that speaks both, and an agent that uses everything.
    fn new(quic: Q, protocols: &[&[u8]]) -> Self {
        let mut scene = Scene::new(quic);
        scene.restart_relay_as(protocols, KEY);
        let connector = scene.connector("connector", CONNECTOR, &ALL);
        let agent = scene.agent("agent", AGENT, &ALL);
        Self {
            scene,
            connector,
            agent,
        }
    }

    /// The same, and each service has a backend of its own, which is asked every second.
    fn checked(quic: Q, protocols: &[&[u8]]) -> Self {
        let mut told = Self::new(quic, protocols);
        told.reconfigure(|_| {});
        told.scene.world.run_for(2 * MOMENT);
        told
    }

    fn reconfigure(&mut self, change: impl FnOnce(&mut ConnectorConfig)) {
        let mut config = connector_config(CONNECTOR, &ALL);
        for (index, service) in config.services.iter_mut().enumerate() {
            service.offer = Offer::single(backend(index), proto_core::config::Protocol::Both);
            service.offer.health = Some(HealthCheck {
                question: Question::Connect,
                interval: MOMENT,
                timeout: MOMENT,
                healthy: 1,
                unhealthy: 2,
            });
        }
        change(&mut config);
        self.scene
            .world
            .with(self.connector, |host, now| host.machine.reconfigure(config, now));
    }

    fn is_heard(&mut self, service: usize) -> bool {
        let address = at(service);
        let answers = self.scene.ask(self.agent, INNER_AGENT, &address, b"question");
        answers == [udp(&address, INNER_AGENT, b"question")]
    }

    fn all_are_heard(&mut self) -> bool {
        (0..ALL.len()).all(|service| self.is_heard(service))
    }

    /// Connections of the connector.
    fn connections(&self) -> usize {
        self.scene.relay().connections() - 1
    }

    fn registered(&self) -> Vec<bool> {
        let status = self.scene.world[self.connector].machine.status();
        status.iter().map(|service| service.registered).collect()
    }

    #[track_caller]
    fn until_registered(&mut self, registered: [bool; 3], within: Duration) {
        let connector = self.connector;
        self.scene.world.run_until(
            |world| {
                let status = world[connector].machine.status();
                status.iter().map(|service| service.registered).eq(registered)
            },
            within,
        );
    }

    fn events(&mut self) -> Vec<ConnectorEvent> {
        std::mem::take(&mut self.scene.world[self.connector].events)
    }
}

fn link_events(events: &[ConnectorEvent]) -> Vec<(Option<ServiceIndex>, LinkEvent)> {
    let of_links = events.iter().filter_map(|event| match &event.event {
        ConnectorNews::Link(news) => Some((event.service, news.clone())),
        ConnectorNews::Backends(_) => None,
    });
    of_links.collect()
}

pub(crate) fn one_connection_carries_all_services<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, BOTH);
    assert_eq!(told.connections(), 1);
    assert!(told.all_are_heard());
    let news = link_events(&told.events());
    let connected = |event: &LinkEvent| matches!(event, LinkEvent::Connected { .. });
    assert!(
        news.iter()
            .any(|(service, event)| service.is_none() && connected(event))
    );
    let mut registered: Vec<_> = news
        .iter()
        .filter(|(_, event)| matches!(event, LinkEvent::Registered(_)))
        .map(|(service, _)| *service)
        .collect();
    registered.sort();
    let each = [0, 1, 2].map(|index| Some(ServiceIndex(index)));
    assert_eq!(registered, each, "each is told once");
    // Leases are renewed for hours.
    told.scene.world.run_for(3600 * MOMENT);
    assert!(told.all_are_heard());
    assert_eq!(told.connections(), 1);
    let stats = told.scene.world[told.connector].machine.link_stats();
    assert_eq!((stats.connections, stats.malformed), (1, 0));
}

pub(crate) fn a_service_comes_and_goes_without_the_others_noticing<Q: Quic>(quic: Q) {
    let mut told = Told::checked(quic, BOTH);
    assert!(told.all_are_heard());
    told.events();
    let opened = told.scene.world[told.connector].backend.opened;
    for _ in 0..3 {
        let connector = told.connector;
        told.scene.world[connector].backend.sick_at = Some(backend(1));
        told.until_registered([true, false, true], 4 * MOMENT);
        told.scene.world.run_for(4 * DELAY);
        assert_eq!(told.scene.relay().registry().registrations(), 2 + ALL.len());
        assert!(told.is_heard(0) && told.is_heard(2));
        assert!(!told.is_heard(1), "nobody is there");
        told.scene.world[connector].backend.sick_at = None;
        told.until_registered([true; 3], 4 * MOMENT);
        assert!(told.all_are_heard());
    }
    // The flows of the others are those of before.
    assert_eq!(told.scene.world[told.connector].backend.opened, opened);
    assert_eq!(
        told.scene.world[told.connector].machine.link_stats().connections,
        1
    );
    let about_others = link_events(&told.events());
    let about_others = about_others
        .iter()
        .filter(|(service, _)| *service != Some(ServiceIndex(1)));
    assert_eq!(about_others.count(), 0);
}

pub(crate) fn a_removed_service_says_goodbye_to_its_sessions_and_leaves_the_others<Q: Quic>(quic: Q) {
    let mut told = Told::checked(quic, BOTH);
    assert!(told.all_are_heard());
    told.scene.packets(told.agent);
    told.reconfigure(|config| {
        config.services.remove(1);
    });
    told.scene.world.run_for(6 * DELAY);
    let last = told.scene.packets(told.agent);
    assert_eq!(last.len(), 1, "the agent of the flow that ended hears of it");
    told.scene.world.run_for(MOMENT);
    assert_eq!(told.scene.relay().registry().registrations(), 2 + ALL.len());
    assert!(told.is_heard(0) && told.is_heard(2) && !told.is_heard(1));
    told.reconfigure(|_| {});
    told.scene.world.run_for(2 * MOMENT);
    assert!(told.all_are_heard());
    assert_eq!(
        told.scene.world[told.connector].machine.link_stats().connections,
        1
    );
}

pub(crate) fn an_intermediate_of_v1_gets_a_connection_per_service<Q: Quic>(quic: Q) {
    let mut told = Told::checked(quic, V1);
    told.scene.world.run_for(60 * MOMENT);
    assert_eq!((told.connections(), told.registered()), (3, vec![true; 3]));
    assert!(told.all_are_heard());
    let connector = told.connector;
    told.scene.world[connector].backend.sick_at = Some(backend(1));
    told.until_registered([true, false, true], 4 * MOMENT);
    told.scene.world.run_for(MOMENT);
    assert_eq!(told.connections(), 2);
    told.scene.world[connector].backend.sick_at = None;
    told.until_registered([true; 3], 4 * MOMENT);
    assert!(told.all_are_heard());
}

pub(crate) fn an_intermediate_is_upgraded_and_taken_back<Q: Quic>(quic: Q) {
    let mut told = Told::checked(quic, V1);
    for round in 0..3 {
        assert!(told.all_are_heard());
        let flows = told.scene.world[told.connector].backend.opened;
        told.scene.restart_relay_as(BOTH, KEY);
        told.scene.world.run_for(60 * MOMENT);
        assert_eq!(
            (told.connections(), told.registered()),
            (1, vec![true; 3]),
            "round {round}"
        );
        assert!(told.all_are_heard());
        told.scene.world.run_for(100 * MOMENT);
        told.scene.restart_relay_as(V1, KEY);
        told.scene.world.run_for(60 * MOMENT);
        assert_eq!(
            (told.connections(), told.registered()),
            (3, vec![true; 3]),
            "round {round}"
        );
        assert!(told.all_are_heard());
        assert_eq!(
            told.scene.world[told.connector].backend.opened, flows,
            "flows outlive it all"
        );
    }
}

/// Two intermediates of different age behind one address would be called in turn: not without a pause.
pub(crate) fn two_minds_of_an_intermediate_cost_no_storm<Q: Quic>(quic: Q) {
    let mut told = Told::checked(quic, V1);
    for _ in 0..10 {
        told.scene.restart_relay_as(BOTH, KEY);
        told.scene.world.run_for(8 * MOMENT);
        told.scene.restart_relay_as(V1, KEY);
        told.scene.world.run_for(8 * MOMENT);
    }
    told.scene.restart_relay_as(BOTH, KEY);
    told.scene.world.run_for(60 * MOMENT);
    assert_eq!(told.registered(), [true; 3]);
    assert!(
        told.all_are_heard(),
        "whatever the mode, each link speaks what it can"
    );
    // The pause has doubled a few times by now, and passes.
    told.scene.world.run_for(3600 * MOMENT);
    assert_eq!((told.connections(), told.registered()), (1, vec![true; 3]));
    assert!(told.all_are_heard());
}
