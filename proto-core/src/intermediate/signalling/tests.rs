use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::rng::{Rng, Seed};
use crate::sim::{Clock, ManualClock};
use crate::wire::control::CandidateKind;

const AGENT: ConnId = conn(1);
const CONNECTOR: ConnId = conn(2);
const STRANGER: ConnId = conn(3);

const fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 7 }
}

fn candidate(port: u16) -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        address: ([192, 0, 2, 1], port).into(),
        priority: 1,
        foundation: "host_192.0.2.1".into(),
        related: None,
    }
}

fn offer(session: u64) -> SignalingMessage {
    SignalingMessage::CandidateOffer {
        session,
        service: "echo".into(),
        candidates: vec![candidate(1)],
    }
}

fn answer(session: u64) -> SignalingMessage {
    SignalingMessage::CandidateAnswer {
        session,
        candidates: vec![candidate(2)],
    }
}

fn start(session: u64, port: u16) -> SignalingMessage {
    SignalingMessage::StartPunching {
        session,
        start_delay_ms: 100,
        peer_candidates: vec![candidate(port)],
    }
}

/// The code of the only message, which is an error about this session.
fn refusal(messages: &[(ConnId, SignalingMessage)], to: ConnId, about: u64) -> ErrorCode {
    match messages {
        [
            (
                whom,
                SignalingMessage::Error {
                    session: Some(session),
                    code,
                    ..
                },
            ),
        ] => {
            assert_eq!((*whom, *session), (to, about));
            *code
        }
        other => panic!("no single error: {other:?}"),
    }
}

struct Table {
    signalling: Signalling,
    now: Instant,
}

impl Table {
    fn new() -> Self {
        Self {
            signalling: Signalling::new(&mut Rng::new(&Seed([4; 32]))),
            now: ManualClock::new().now(),
        }
    }

    fn say(&mut self, from: ConnId, message: SignalingMessage) -> Vec<(ConnId, SignalingMessage)> {
        self.say_by(from, message, Ok(CONNECTOR))
    }

    fn say_by(
        &mut self,
        from: ConnId,
        message: SignalingMessage,
        way: Result<ConnId, Unroutable>,
    ) -> Vec<(ConnId, SignalingMessage)> {
        self.signalling.handle(from, message, |_| way, self.now);
        self.messages()
    }

    fn messages(&mut self) -> Vec<(ConnId, SignalingMessage)> {
        std::iter::from_fn(|| self.signalling.poll_message()).collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<(ConnId, SignalingMessage)> {
        self.now += time;
        self.signalling.handle_timeout(self.now);
        self.messages()
    }
}

#[test]
fn an_offer_reaches_its_connector_and_the_answer_starts_both() {
    let mut table = Table::new();
    assert_eq!(table.say(AGENT, offer(5)), [(CONNECTOR, offer(5))]);
    assert_eq!(
        table.say(CONNECTOR, answer(5)),
        [(AGENT, start(5, 2)), (CONNECTOR, start(5, 1))]
    );
    assert_eq!(table.signalling.stats.started, 1);
    // A second answer, and the agent's own offer once more, change nothing.
    assert_eq!(table.say(CONNECTOR, answer(5)), []);
    assert_eq!(table.say(AGENT, offer(5)), []);
    let result = |success| SignalingMessage::PunchingResult {
        session: 5,
        success,
        working: None,
    };
    assert_eq!(table.say(AGENT, result(true)), []);
    assert_eq!(table.say(CONNECTOR, result(false)), []);
    assert_eq!(
        (table.signalling.stats.succeeded, table.signalling.stats.failed),
        (1, 1)
    );
    assert_eq!(table.wait(SESSION_LIFETIME), []);
    assert_eq!(table.signalling.len(), 0);
    assert!(table.signalling.of_client.is_empty());
}

#[test]
fn offers_without_a_way_are_refused_by_reason() {
    let mut table = Table::new();
    for (way, code) in [
        (Unroutable::NotRegistered, ErrorCode::ServiceNotFound),
        (Unroutable::Ambiguous, ErrorCode::ServiceNotFound),
        (Unroutable::NoConnector, ErrorCode::NoConnectorAvailable),
    ] {
        let refused = table.say_by(AGENT, offer(5), Err(way));
        assert_eq!(refusal(&refused, AGENT, 5), code);
    }
    assert_eq!(table.signalling.len(), 0);
}

#[test]
fn strangers_have_no_say_in_a_session() {
    let mut table = Table::new();
    table.say(AGENT, offer(5));
    let result = SignalingMessage::PunchingResult {
        session: 5,
        success: true,
        working: None,
    };
    for message in [answer(5), result] {
        let refused = table.say(STRANGER, message.clone());
        assert_eq!(refusal(&refused, STRANGER, 5), ErrorCode::PeerRejected);
    }
    // Nor does the agent answer itself, and another agent takes no session over.
    assert_eq!(
        refusal(&table.say(AGENT, answer(5)), AGENT, 5),
        ErrorCode::PeerRejected
    );
    assert_eq!(
        refusal(&table.say(STRANGER, offer(5)), STRANGER, 5),
        ErrorCode::InvalidMessage
    );
    // An error of a stranger ends nothing and is not answered.
    let error = SignalingMessage::Error {
        session: Some(5),
        code: ErrorCode::Unknown,
        text: String::new(),
    };
    assert_eq!(table.say(STRANGER, error), []);
    assert_eq!(table.say(CONNECTOR, answer(5)).len(), 2);
}

#[test]
fn sessions_that_are_over_are_unknown() {
    let mut table = Table::new();
    assert_eq!(
        refusal(&table.say(CONNECTOR, answer(5)), CONNECTOR, 5),
        ErrorCode::SessionNotFound
    );
    table.say(AGENT, offer(5));
    assert_eq!(table.wait(SESSION_LIFETIME - Duration::from_millis(1)), []);
    assert_eq!(
        table.signalling.poll_timeout(),
        Some(table.now + Duration::from_millis(1))
    );
    let expired = table.wait(Duration::from_millis(1));
    assert_eq!(refusal(&expired, AGENT, 5), ErrorCode::SessionTimeout);
    assert_eq!(table.signalling.poll_timeout(), None);
    assert_eq!(
        refusal(&table.say(CONNECTOR, answer(5)), CONNECTOR, 5),
        ErrorCode::SessionNotFound
    );
    // The time of a session ends even if nobody lets time pass but the message itself.
    table.say(AGENT, offer(6));
    table.now += SESSION_LIFETIME;
    let late = table.say(CONNECTOR, answer(6));
    assert_eq!(late.len(), 2, "the agent's timeout and the connector's refusal");
}

#[test]
fn a_connector_that_gives_up_or_leaves_is_told_to_the_agent() {
    let mut table = Table::new();
    table.say(AGENT, offer(5));
    let error = SignalingMessage::Error {
        session: Some(5),
        code: ErrorCode::ServiceNotFound,
        text: "é".repeat(100),
    };
    let told = table.say(CONNECTOR, error);
    assert_eq!(refusal(&told, AGENT, 5), ErrorCode::ServiceNotFound);
    table.say(AGENT, offer(6));
    table.signalling.remove(CONNECTOR);
    assert_eq!(
        refusal(&table.messages(), AGENT, 6),
        ErrorCode::NoConnectorAvailable
    );
    table.say(AGENT, offer(7));
    table.signalling.remove(AGENT);
    assert_eq!(table.messages(), []);
    assert_eq!(table.signalling.len(), 0);
    assert!(table.signalling.of_client.is_empty());
}

#[test]
fn sessions_are_bounded_per_agent_per_connector_and_by_size() {
    let mut table = Table::new();
    for session in 0..PER_AGENT as u64 {
        assert_eq!(table.say(AGENT, offer(session)).len(), 1);
    }
    assert_eq!(
        refusal(&table.say(AGENT, offer(99)), AGENT, 99),
        ErrorCode::Unknown
    );
    // Others are not concerned, until their connector has enough.
    let mut taken = PER_AGENT;
    for number in 0..PER_CONNECTOR as u32 {
        let session = 1_000 + u64::from(number);
        let told = table.say(conn(10 + number), offer(session));
        taken += usize::from(told[0].0 == CONNECTOR);
    }
    assert_eq!(taken, PER_CONNECTOR);
    assert_eq!(table.signalling.len(), PER_CONNECTOR);
    let wide = SignalingMessage::CandidateOffer {
        session: 1,
        service: "echo".into(),
        candidates: vec![candidate(1); CANDIDATES + 1],
    };
    let mut long = candidate(1);
    long.foundation = "x".repeat(FOUNDATION + 1);
    let long = SignalingMessage::CandidateAnswer {
        session: 0,
        candidates: vec![long],
    };
    assert_eq!(
        refusal(&table.say(STRANGER, wide), STRANGER, 1),
        ErrorCode::InvalidMessage
    );
    assert_eq!(
        refusal(&table.say(CONNECTOR, long), CONNECTOR, 0),
        ErrorCode::InvalidMessage
    );
    table.wait(SESSION_LIFETIME);
    assert_eq!(table.say(AGENT, offer(99)).len(), 1);
}

#[test]
fn a_pair_is_remembered_until_its_agent_leaves_and_is_nobody_elses() {
    let mut table = Table::new();
    table.say(AGENT, offer(5));
    assert_eq!(table.signalling.agent_of(CONNECTOR, 5), None);
    table.say(CONNECTOR, answer(5));
    table.wait(SESSION_LIFETIME * 100);
    assert_eq!(table.signalling.agent_of(CONNECTOR, 5), Some(AGENT));
    assert_eq!(table.signalling.agent_of(STRANGER, 5), None);
    // Another agent does not get the number, even if it knows it.
    assert_eq!(
        refusal(&table.say(STRANGER, offer(5)), STRANGER, 5),
        ErrorCode::InvalidMessage
    );
    for session in 6..6 + PAIRS as u64 {
        table.say(AGENT, offer(session));
        table.say(CONNECTOR, answer(session));
        table.wait(SESSION_LIFETIME);
    }
    assert_eq!(table.signalling.agent_of(CONNECTOR, 5), None);
    assert_eq!(table.signalling.agent_of(CONNECTOR, 6), Some(AGENT));
    table.signalling.remove(AGENT);
    assert_eq!(table.signalling.agent_of(CONNECTOR, 6), None);
    assert!(table.signalling.pairs.is_empty() && table.signalling.of_agent.is_empty());
}

#[test]
fn clients_do_not_start_anything() {
    let mut table = Table::new();
    table.say(AGENT, offer(5));
    let refused = table.say(AGENT, start(5, 1));
    assert_eq!(refusal(&refused, AGENT, 5), ErrorCode::InvalidMessage);
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u32, u64, u32),
    Answer(u32, u64),
    Fail(u32, u64),
    Leave(u32),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u32, 0..6_u64, 4..6_u32).prop_map(|(agent, session, to)| Step::Offer(agent, session, to)),
        (0..6_u32, 0..6_u64).prop_map(|(from, session)| Step::Answer(from, session)),
        (0..6_u32, 0..6_u64).prop_map(|(from, session)| Step::Fail(from, session)),
        (0..6_u32).prop_map(Step::Leave),
        (0..3_000_u64).prop_map(Step::Wait),
    ];
    vec(step, 0..80)
}

proptest! {
    /// Whatever is said in whatever order: the connector of an offer alone can start it, the two that are started are those
    /// of the offer, and nothing is left behind.
    #[test]
    fn only_the_two_of_a_session_are_ever_started(steps in steps()) {
        let mut table = Table::new();
        // Of each session: agent, connector, and when it was offered.
        let mut open: std::collections::BTreeMap<u64, (u32, u32, Instant)> = std::collections::BTreeMap::new();
        for step in steps {
            let now = table.now;
            open.retain(|_, (.., at)| now.duration_since(*at) < SESSION_LIFETIME);
            match step {
                Step::Offer(agent, session, to) => {
                    let sent = table.say_by(conn(agent), offer(session), Ok(conn(to)));
                    if sent.contains(&(conn(to), offer(session))) {
                        prop_assert!(!open.contains_key(&session));
                        open.insert(session, (agent, to, now));
                    }
                }
                Step::Answer(from, session) => {
                    let sent = table.say(conn(from), answer(session));
                    for (to, message) in sent {
                        if let SignalingMessage::StartPunching { session: started, .. } = message {
                            prop_assert_eq!(started, session);
                            let (agent, connector, _) = open[&session];
                            prop_assert_eq!(from, connector);
                            prop_assert!(to == conn(agent) || to == conn(connector));
                        }
                    }
                }
                Step::Fail(from, session) => {
                    let error = SignalingMessage::Error { session: Some(session), code: ErrorCode::Unknown, text: String::new() };
                    table.say(conn(from), error);
                    if open.get(&session).is_some_and(|(agent, connector, _)| [*agent, *connector].contains(&from)) {
                        open.remove(&session);
                    }
                }
                Step::Leave(who) => {
                    table.signalling.remove(conn(who));
                    table.messages();
                    open.retain(|_, (agent, connector, _)| ![*agent, *connector].contains(&who));
                }
                Step::Wait(millis) => {
                    table.wait(Duration::from_millis(millis));
                }
            }
            let now = table.now;
            open.retain(|_, (.., at)| now.duration_since(*at) < SESSION_LIFETIME);
            prop_assert!(table.signalling.len() >= open.len());
        }
        table.wait(SESSION_LIFETIME);
        prop_assert_eq!(table.signalling.len(), 0);
        prop_assert!(table.signalling.of_client.is_empty());
    }
}
