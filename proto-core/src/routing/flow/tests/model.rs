//! A naive model: one flat list of who sent what, as the connector saw it.

use proptest::prelude::*;

use super::*;
use crate::routing::packet::{ICMP, TCP, UDP};

const AGENTS: usize = 4;
const CONNECTORS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Op {
    Send {
        agent: usize,
        connector: usize,
        source: usize,
        port: u16,
        protocol: u8,
    },
    Reply {
        pick: usize,
    },
    AgentLeaves(usize),
    ConnectorLeaves(usize),
    Pass(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ICMP), Just(33)];
    prop_oneof![
        8 => (0..AGENTS, 0..CONNECTORS, 0..6usize, 1..4u16, protocol).prop_map(
            |(agent, connector, source, port, protocol)| Op::Send { agent, connector, source, port, protocol }
        ),
        8 => any::<usize>().prop_map(|pick| Op::Reply { pick }),
        1 => (0..AGENTS).prop_map(Op::AgentLeaves),
        1 => (0..CONNECTORS).prop_map(Op::ConnectorLeaves),
        2 => (0..400u16).prop_map(Op::Pass),
    ]
}

/// A flow that the connector has seen.
#[derive(Clone, Debug)]
struct Seen {
    agent: ConnId,
    connector: ConnId,
    sent: FiveTuple,
    seen: FiveTuple,
    forwarded: Vec<u8>,
    touched: Instant,
}

struct World {
    table: FlowTable,
    now: Instant,
    agents: Vec<ConnId>,
    connectors: Vec<ConnId>,
    /// Newest last; a tuple seen again replaces its entry.
    seen: Vec<Seen>,
    /// Whether the limits are so wide that no living flow may be lost.
    roomy: bool,
}

impl World {
    fn new(limits: FlowLimits, roomy: bool) -> Self {
        let conn = |index: usize| ConnId {
            index: index as u32,
            generation: 0,
        };
        Self {
            table: table(limits),
            now: origin(),
            agents: (0..AGENTS).map(conn).collect(),
            connectors: (AGENTS..AGENTS + CONNECTORS).map(conn).collect(),
            seen: Vec::new(),
            roomy,
        }
    }

    fn lives(&self, flow: &Seen) -> bool {
        let idle = match flow.sent.protocol {
            TCP => 7440,
            UDP => 300,
            _ => 60,
        };
        self.agents.contains(&flow.agent)
            && self.connectors.contains(&flow.connector)
            && self.now - flow.touched < seconds(idle)
    }

    fn packet(&self, source: usize, port: u16, protocol: u8) -> Vec<u8> {
        // Two ordinary addresses a family, and the aliases of two agents.
        let alias = |agent: usize, like: &str| alias::of(self.agents[agent], ip(like)).unwrap().to_string();
        let source = match source {
            0 => V4[0].to_string(),
            1 => "192.0.2.7".to_string(),
            2 => V6[0].to_string(),
            3 => alias(0, V4[0]),
            4 => alias(1, V6[0]),
            _ => alias(1, V4[0]),
        };
        let ends = [&*source, if source.contains(':') { V6[1] } else { V4[1] }];
        match protocol {
            TCP => tcp(ends, port, 80, Flags::ACK),
            UDP => udp(ends, port, 53),
            ICMP => echo(ends, port),
            _ => other(ends, protocol),
        }
    }

    fn send(&mut self, agent: ConnId, connector: ConnId, sent: &[u8]) {
        let mut forwarded = sent.to_vec();
        let verdict = self.table.outbound(agent, connector, &mut forwarded, self.now);
        assert!(verify_checksums(&parse(&forwarded).unwrap(), &forwarded));
        let (sent, seen) = (tuple(sent), tuple(&forwarded));
        if let Err(refusal) = verdict {
            assert_eq!(sent, seen);
            self.refused(agent, connector, sent, refusal);
            return;
        }
        let same = |flow: &Seen| (flow.connector, flow.seen) == (connector, seen);
        if let Some(before) = self.seen.iter().find(|flow| same(flow))
            && self.roomy
            && self.lives(before)
        {
            assert_eq!(
                (before.agent, before.sent),
                (agent, sent),
                "two living flows look the same to the connector"
            );
        }
        self.seen.retain(|flow| !same(flow));
        self.seen.push(Seen {
            agent,
            connector,
            sent,
            seen,
            forwarded,
            touched: self.now,
        });
    }

    /// A refusal needs a reason.
    fn refused(&self, agent: ConnId, connector: ConnId, sent: FiveTuple, refusal: FlowRefusal) {
        match refusal {
            FlowRefusal::Full => assert!(!self.roomy),
            FlowRefusal::Taken => {
                let untranslatable = sent.protocol == 33;
                let alias = alias::of(agent, sent.source).unwrap();
                let wanted = FiveTuple {
                    source: alias,
                    ..sent
                };
                let met = self.seen.iter().any(|flow| {
                    (flow.connector, flow.seen, flow.agent) == (connector, wanted, agent) && flow.sent != sent
                });
                assert!(untranslatable || met, "{sent:?}");
            }
            FlowRefusal::Malformed | FlowRefusal::Fragment | FlowRefusal::NoFlow => panic!("{refusal:?}"),
        }
    }

    fn reply(&mut self, pick: usize) {
        if self.seen.is_empty() {
            return;
        }
        let at = pick % self.seen.len();
        let flow = self.seen[at].clone();
        let mut packet = reply(&flow.forwarded);
        match self.table.inbound(flow.connector, &mut packet, self.now) {
            Some(agent) => {
                assert!(self.lives(&flow), "a flow that is over came back");
                assert_eq!((agent, tuple(&packet)), (flow.agent, flow.sent.reversed()));
                assert!(verify_checksums(&parse(&packet).unwrap(), &packet));
                self.seen[at].touched = self.now;
            }
            None => assert!(!self.roomy || !self.lives(&flow), "a living flow lost its reply"),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Send {
                agent,
                connector,
                source,
                port,
                protocol,
            } => {
                let packet = self.packet(source, port, protocol);
                self.send(self.agents[agent], self.connectors[connector], &packet);
            }
            Op::Reply { pick } => self.reply(pick),
            Op::AgentLeaves(agent) => {
                self.table.remove(self.agents[agent]);
                self.agents[agent].generation += 1;
            }
            Op::ConnectorLeaves(connector) => {
                self.table.remove(self.connectors[connector]);
                self.connectors[connector].generation += 1;
            }
            Op::Pass(passed) => self.now += seconds(passed.into()),
        }
    }

    fn everyone_leaves(mut self) {
        for conn in self.connectors.iter().chain(&self.agents) {
            self.table.remove(*conn);
        }
        assert!(self.table.is_empty());
        assert!(self.table.by_key.is_empty());
    }
}

proptest! {
    /// Never a reply to the wrong agent, and always one to the right agent while the flow lives.
    #[test]
    fn every_reply_reaches_the_agent_that_asked(ops in prop::collection::vec(op(), 0..250)) {
        let mut world = World::new(crate::config::IntermediateLimits::default().flow_table(), true);
        for op in ops {
            world.apply(op);
        }
        world.everyone_leaves();
    }

    /// When there is no room, replies may be lost, but still none goes astray.
    #[test]
    fn no_reply_goes_astray_in_a_table_that_is_too_small(
        ops in prop::collection::vec(op(), 0..250), per_agent in 0..5usize, total in 0..9usize,
    ) {
        let mut world = World::new(FlowLimits { per_agent, total }, false);
        for op in ops {
            world.apply(op);
            prop_assert!(world.table.len() <= total);
        }
        world.everyone_leaves();
    }

    #[test]
    fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
        let mut table = table(crate::config::IntermediateLimits::default().flow_table());
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let _ = table.outbound(A, CONNECTOR, &mut bytes, origin());
        let _ = table.outbound(B, CONNECTOR, &mut bytes, origin());
        let _ = table.inbound(CONNECTOR, &mut bytes, origin());
    }
}
