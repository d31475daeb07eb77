//! Stories of an agent without a tunnel interface: programs, SOCKS, refusals.

use std::net::SocketAddr;
use std::time::Duration;

use proto_core::backend::FlowId;
use proto_core::config::{AgentConfig, AgentService, TunnelLimits};
use proto_core::forward::{
    DRAIN, ForwardConfig, ForwardEvent, ForwardLimits, Forwarder, Listens, NotReached, internal_address,
};
use proto_core::id::{ServiceId, ServiceIndex};
use proto_core::local::{DatagramSocket, ListenerIndex};
use proto_core::machine::Machine as _;
use proto_core::sim::{Chance, HostId, LinkConfig, LocalsHost, Loss, Program};

use crate::people::{ConnectorHost, endpoint};
use crate::setup::{DELAY, Quic, Scene};

const AGENT: &str = "198.51.100.1:1111";
pub(crate) const CONNECTOR: &str = "203.0.113.1:3333";

/// The connector has an address for it; the agent has another.
pub(crate) const ECHO: (&str, &str) = ("echo", "10.100.0.1");

pub(crate) const STREAM: ListenerIndex = ListenerIndex(0);
const SOCKS: ListenerIndex = ListenerIndex(1);
const DATAGRAM: ListenerIndex = ListenerIndex(2);
pub(crate) const OTHER: ListenerIndex = ListenerIndex(3);

pub(crate) type Local<Q> = LocalsHost<Forwarder<<Q as Quic>::Provider>>;

/// Two services: `echo`, and one that nobody publishes.
pub(crate) fn forward_config(local: &str, agent: AgentConfig) -> ForwardConfig {
    let service = |id: &[u8], index| AgentService {
        id: ServiceId::parse(id).unwrap(),
        virtual_addresses: vec![internal_address(index)],
    };
    ForwardConfig {
        agent: AgentConfig {
            local: local.parse().unwrap(),
            services: vec![service(b"echo", 0), service(b"other", 1)],
            ..agent
        },
        addresses: vec!["10.100.255.1".parse().unwrap()],
        listeners: vec![
            Listens::Stream(ServiceIndex(0), 7),
            Listens::Socks,
            Listens::Datagram(ServiceIndex(0), 7),
            Listens::Stream(ServiceIndex(1), 7),
        ],
        limits: ForwardLimits::default(),
        drain: DRAIN,
    }
}

pub(crate) struct Told<Q: Quic> {
    pub(crate) scene: Scene<Q>,
    pub(crate) agent: HostId<Local<Q>>,
    pub(crate) connector: HostId<ConnectorHost<Q>>,
}

impl<Q: Quic> Told<Q> {
    pub(crate) fn new(quic: Q, names: &[&str]) -> Self {
        let mut scene = Scene::new(quic);
        let connector = scene.connector("connector", CONNECTOR, &[ECHO]);
        let agent = agent(&mut scene, names);
        Self {
            scene,
            agent,
            connector,
        }
    }

    pub(crate) fn connect(&mut self, listener: ListenerIndex, words: &[u8], ends: bool) -> FlowId {
        let program = Program::saying(words.to_vec(), ends);
        let connect = |host: &mut Local<Q>, now| host.connect(listener, program, now);
        self.scene.world.with(self.agent, connect).unwrap()
    }

    pub(crate) fn program(&self, flow: FlowId) -> &Program {
        self.scene.world[self.agent].program(flow).unwrap()
    }

    #[track_caller]
    pub(crate) fn until(&mut self, flow: FlowId, is: impl Fn(&Program) -> bool, within: Duration) {
        let agent = self.agent;
        let is = |program: Option<&Program>| program.is_some_and(&is);
        self.scene
            .world
            .run_until(|world| is(world[agent].program(flow)), within);
    }

    /// Why a program did not reach its service, and after which time it heard.
    #[track_caller]
    pub(crate) fn refused(&mut self, flow: FlowId, within: Duration) -> (NotReached, Duration) {
        let begun = self.scene.world.elapsed();
        self.until(flow, |program| program.reset, within);
        let took = self.scene.world.elapsed() - begun;
        let events = &self.scene.world[self.agent].events;
        let why = events.iter().rev().find_map(|event| match event {
            ForwardEvent::NotReached { why, .. } => Some(*why),
            ForwardEvent::Link(_) | ForwardEvent::Ended { .. } => None,
        });
        (why.unwrap(), took)
    }
}

fn agent<Q: Quic>(scene: &mut Scene<Q>, names: &[&str]) -> HostId<Local<Q>> {
    let config = AgentConfig {
        intermediate: endpoint(),
        local: AGENT.parse().unwrap(),
        services: Vec::new(),
        sessions: None,
        limits: TunnelLimits::default(),
    };
    let provider = scene.quic.client(names);
    let (seed, now) = (scene.world.draw_seed(), scene.world.now());
    let machine = Forwarder::new(forward_config(AGENT, config), provider, &seed, now);
    scene.world.add("agent", AGENT, LocalsHost::new(machine))
}

fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8 ^ salt).collect()
}

/// The path to and from the intermediate loses, repeats and reorders.
fn roughen<Q: Quic>(scene: &mut Scene<Q>, percent: u32) {
    let mut link = LinkConfig::new(DELAY);
    link.loss = Loss::Uniform(Chance::percent(percent));
    link.duplicates = Chance::percent(1);
    link.reordered = Chance::percent(2);
    link.reordering = DELAY;
    scene.world.set_default_link(link);
}

pub(crate) fn streams_arrive_whole_over_a_rough_path_and_leave_nothing<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    // The first one comes before anything is registered, and over a good path.
    let early = told.connect(STREAM, b"early", true);
    told.until(early, |program| program.closed, Duration::from_secs(5));
    assert_eq!(told.program(early).heard, b"early");

    roughen(&mut told.scene, 3);
    let sizes = [0, 1, 1000, 60_000, 300_000, 300_000];
    let flows: Vec<(FlowId, Vec<u8>)> = (0_u8..)
        .zip(sizes)
        .map(|(salt, len)| {
            let words = pattern(len, salt);
            (told.connect(STREAM, &words, true), words)
        })
        .collect();
    for (flow, words) in &flows {
        told.until(*flow, |program| program.closed, Duration::from_secs(120));
        let program = told.program(*flow);
        assert!(program.heard == *words, "{} bytes", words.len());
        assert!(program.heard_end && !program.reset);
    }
    told.scene.world.run_for(Duration::from_secs(30));
    let machine = &told.scene.world[told.agent].machine;
    assert_eq!(machine.streams(), 0);
    assert_eq!(machine.buffered(), 0);
    assert_eq!(machine.stats().established, 7);
    assert_eq!(told.scene.world[told.connector].backend.open, 0);
}

pub(crate) fn a_deaf_program_holds_its_service_back_and_nobody_else<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let words = pattern(8_000_000, 0);
    let deaf = told.connect(STREAM, &words, true);
    let is_deaf = |host: &mut Local<Q>, now| host.change(deaf, |program| program.deaf = true, now);
    told.scene.world.with(told.agent, is_deaf);
    told.scene.world.run_for(Duration::from_secs(10));
    let said = told.program(deaf).said;
    assert!(said < words.len(), "all {said} bytes went somewhere");
    let other = told.connect(STREAM, b"others", true);
    told.until(other, |program| program.closed, Duration::from_secs(2));
    let hears = |host: &mut Local<Q>, now| host.change(deaf, |program| program.deaf = false, now);
    told.scene.world.with(told.agent, hears);
    told.until(deaf, |program| program.closed, Duration::from_secs(300));
    assert!(told.program(deaf).heard == words);
}

pub(crate) fn a_reset_passes_in_both_directions<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let flow = told.connect(STREAM, b"words", false);
    told.until(flow, |program| program.heard == b"words", Duration::from_secs(5));
    assert_eq!(told.scene.world[told.connector].backend.open, 1);
    told.scene
        .world
        .with(told.agent, |host, now| host.reset(flow, now));
    told.scene.world.run_for(Duration::from_secs(1));
    assert_eq!(told.scene.world[told.connector].backend.open, 0);
    assert_eq!(told.scene.world[told.agent].machine.streams(), 0);

    // The connector starts anew and knows nothing of this stream.
    let flow = told.connect(STREAM, b"words", false);
    told.until(flow, |program| program.heard == b"words", Duration::from_secs(5));
    let provider = told.scene.quic.client(&["connector.*.ztna"]);
    let fresh = told.scene.new_connector(provider, CONNECTOR, &[ECHO]);
    told.connector = told.scene.world.replace(told.connector, fresh);
    told.scene
        .await_connector(told.connector, Duration::from_secs(60));
    let say_more = |host: &mut Local<Q>, now| {
        host.change(flow, |program| program.words.extend_from_slice(b"more"), now);
    };
    told.scene.world.with(told.agent, say_more);
    told.until(flow, |program| program.reset, Duration::from_secs(30));
    assert_eq!(told.program(flow).heard, b"words");
}

pub(crate) fn each_way_not_to_reach_a_service_is_told_apart<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.echo.ztna"]);
    let denied = told.connect(OTHER, b"", false);
    let (why, took) = told.refused(denied, Duration::from_secs(5));
    assert_eq!(why, NotReached::NotAllowed);
    assert!(took < Duration::from_secs(1));
    // Later ones hear at once.
    let denied = told.connect(OTHER, b"", false);
    assert_eq!(told.refused(denied, Duration::from_secs(1)).1, Duration::ZERO);

    // A world of its own: there is one time for each thread.
    let Scene { quic, world, .. } = told.scene;
    drop(world);
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let silent = told.connect(OTHER, b"", false);
    let (why, took) = told.refused(silent, Duration::from_secs(30));
    assert!(
        matches!(why, NotReached::Unreachable | NotReached::TimedOut),
        "{why:?}"
    );
    assert!(took <= proto_core::forward::REGISTRATION_PATIENCE + proto_core::forward::CONNECT_PATIENCE);

    // No intermediate any more.
    told.scene.world.cut(told.agent, told.scene.relay);
    told.scene.world.run_for(Duration::from_secs(60));
    let lost = told.connect(STREAM, b"", false);
    let (why, took) = told.refused(lost, Duration::from_secs(30));
    assert_eq!(why, NotReached::NotRegistered);
    assert_eq!(took, proto_core::forward::REGISTRATION_PATIENCE);
}

pub(crate) fn socks_reaches_by_name_and_says_no_by_number<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.echo.ztna"]);
    let request = |name: &str| {
        let mut words = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
        words.extend_from_slice(name.as_bytes());
        words.extend_from_slice(&[0, 7]);
        words
    };
    // Words sent ahead of the reply wait for the connection.
    let mut words = request("Echo.ZTNA");
    words.extend_from_slice(b"ahead");
    let flow = told.connect(SOCKS, &words, true);
    told.until(flow, |program| program.closed, Duration::from_secs(5));
    let heard = told.program(flow).heard.clone();
    assert_eq!(heard[..6], [5, 0, 5, 0, 0, 1]);
    assert_eq!(&heard[12..], b"ahead");
    // Ours in the tunnel, and the port of the connection.
    assert_eq!(heard[6..10], [10, 100, 255, 1]);

    for (name, code) in [("example.com", 2), ("other", 2)] {
        let flow = told.connect(SOCKS, &request(name), false);
        told.until(flow, |program| program.closed, Duration::from_secs(5));
        assert_eq!(told.program(flow).heard[..4], [5, 0, 5, code], "{name}");
    }
    // One that never says what it wants.
    let silent = told.connect(SOCKS, &[5, 1], false);
    told.until(silent, |program| program.closed, Duration::from_secs(11));
    assert_eq!(told.scene.world[told.agent].machine.streams(), 0);
}

pub(crate) fn datagrams_of_any_size_find_their_way_back<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let socket = DatagramSocket::Listener(DATAGRAM);
    let programs: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
    let sizes = [0, 1, 1200, 5000, 40_000];
    for program in programs {
        for len in sizes {
            let payload = pattern(len, program.port() as u8);
            // The first ones are early: they wait for the registration.
            let send = |host: &mut Local<Q>, now| host.send(socket, program, &payload, now);
            told.scene.world.with(told.agent, send);
        }
    }
    told.scene.world.run_for(Duration::from_secs(2));
    let host = &mut told.scene.world[told.agent];
    let heard = std::mem::take(&mut host.datagrams);
    assert_eq!(heard.len(), 2 * sizes.len());
    for program in programs {
        let own = heard.iter().filter(|(_, to, _)| *to == program);
        let mut own: Vec<&Vec<u8>> = own.map(|(_, _, payload)| payload).collect();
        own.sort_by_key(|payload| payload.len());
        for (payload, len) in own.into_iter().zip(sizes) {
            assert!(*payload == pattern(len, program.port() as u8), "{len}");
        }
    }
    assert_eq!(host.machine.udp_flows(), 2);
    told.scene
        .world
        .run_for(proto_core::forward::UDP_IDLE + Duration::from_secs(1));
    assert_eq!(told.scene.world[told.agent].machine.udp_flows(), 0);
}

/// What a program says from now on.
pub(crate) fn say<Q: Quic>(told: &mut Told<Q>, flow: FlowId, words: &[u8], ends: bool) {
    let more = |host: &mut Local<Q>, now| {
        let change = |program: &mut Program| {
            program.words.extend_from_slice(words);
            program.ends = ends;
        };
        host.change(flow, change, now);
    };
    told.scene.world.with(told.agent, more);
}

pub(crate) fn the_end_waits_for_running_streams_and_takes_no_new_ones<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let running = told.connect(STREAM, b"words", false);
    told.until(
        running,
        |program| program.heard == b"words",
        Duration::from_secs(5),
    );
    // This one has not said where it wants to go.
    let undecided = told.connect(SOCKS, &[5], false);
    told.scene
        .world
        .with(told.agent, |host, now| host.machine.shut_down(now));
    let late = |host: &mut Local<Q>, now| host.connect(STREAM, Program::default(), now);
    assert_eq!(told.scene.world.with(told.agent, late), None);
    told.until(undecided, |program| program.closed, Duration::from_millis(100));

    told.scene.world.run_for(DRAIN - Duration::from_secs(1));
    assert!(!told.scene.world[told.agent].machine.is_drained());
    say(&mut told, running, b" and more", true);
    told.until(running, |program| program.closed, Duration::from_secs(1));
    let program = told.program(running);
    assert_eq!(program.heard, b"words and more");
    assert!(program.heard_end && !program.reset);
    let agent = told.agent;
    told.scene
        .world
        .run_until(|world| world[agent].machine.is_drained(), Duration::from_secs(1));
    assert_eq!(told.scene.world[told.connector].backend.open, 0);
}

pub(crate) fn the_end_waits_no_longer_than_it_was_told<Q: Quic>(quic: Q) {
    let mut told = Told::new(quic, &["agent.*.ztna"]);
    let running = told.connect(STREAM, b"words", false);
    told.until(
        running,
        |program| program.heard == b"words",
        Duration::from_secs(5),
    );
    told.scene
        .world
        .with(told.agent, |host, now| host.machine.shut_down(now));
    told.scene.world.run_for(DRAIN - Duration::from_millis(1));
    assert!(!told.program(running).reset);
    told.until(running, |program| program.reset, Duration::from_millis(1));
    let agent = told.agent;
    told.scene
        .world
        .run_until(|world| world[agent].machine.is_drained(), Duration::from_secs(3));
    // The service hears it as well, before the goodbye.
    told.scene.world.run_for(Duration::from_secs(1));
    assert_eq!(told.scene.world[told.connector].backend.open, 0);
}
