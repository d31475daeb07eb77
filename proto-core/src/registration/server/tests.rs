use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Owner, Registry, RegistryLimits, Unroutable, Verdict};
use crate::id::ConnId;
use crate::rng::{Rng, Seed};
use crate::wire::datagram::{NackStatus, Role};

const ALICE: Option<Owner> = Some(Owner([1; 32]));
const BOB: Option<Owner> = Some(Owner([2; 32]));
const ACCEPTED: Verdict = Verdict::Accepted { replaced: None };

fn registry(limits: RegistryLimits) -> Registry {
    Registry::new(limits, &mut Rng::new(&Seed([3; 32])))
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 7 }
}

fn counts(registry: &Registry) -> [usize; 4] {
    [
        registry.agents(),
        registry.connectors(),
        registry.services(),
        registry.registrations(),
    ]
}

fn limits() -> RegistryLimits {
    crate::config::IntermediateLimits::default().registry()
}

#[test]
fn a_packet_finds_the_connector_of_a_service_its_sender_is_registered_for() {
    let mut registry = registry(limits());
    let (agent, connector) = (conn(0), conn(1));
    assert_eq!(registry.route(agent, b"echo"), Err(Unroutable::NotRegistered));
    assert_eq!(registry.route_implicit(agent), Err(Unroutable::NotRegistered));
    assert_eq!(
        registry.register(agent, ALICE, Role::Agent, b"echo", true),
        ACCEPTED
    );
    assert_eq!(registry.route(agent, b"echo"), Err(Unroutable::NoConnector));
    assert_eq!(registry.route_implicit(agent), Err(Unroutable::NoConnector));
    assert_eq!(
        registry.register(connector, BOB, Role::Connector, b"echo", true),
        ACCEPTED
    );
    assert_eq!(registry.route(agent, b"echo"), Ok(connector));
    assert_eq!(registry.route_implicit(agent), Ok(connector));
    assert_eq!(
        registry.route(connector, b"echo"),
        Err(Unroutable::NotRegistered),
        "a connector is no agent"
    );
    assert_eq!(registry.route_implicit(connector), Err(Unroutable::NotRegistered));
    assert_eq!(registry.route(conn(2), b"echo"), Err(Unroutable::NotRegistered));
    assert_eq!(
        registry.route(
            ConnId {
                index: 0,
                generation: 8
            },
            b"echo"
        ),
        Err(Unroutable::NotRegistered)
    );
    assert_eq!(
        (registry.role(agent), registry.role(connector)),
        (Some(Role::Agent), Some(Role::Connector))
    );
    assert_eq!(counts(&registry), [1, 1, 1, 2]);
}

#[test]
fn a_bare_packet_of_an_agent_with_several_services_is_ambiguous() {
    let mut registry = registry(limits());
    registry.register(conn(0), ALICE, Role::Agent, b"a", true);
    registry.register(conn(0), ALICE, Role::Agent, b"b", true);
    registry.register(conn(1), BOB, Role::Connector, b"b", true);
    assert_eq!(registry.route_implicit(conn(0)), Err(Unroutable::Ambiguous));
    assert_eq!(registry.route(conn(0), b"b"), Ok(conn(1)));
    assert_eq!(registry.route(conn(0), b"a"), Err(Unroutable::NoConnector));
}

#[test]
fn refusals_change_nothing() {
    let mut registry = registry(limits());
    let refused = |status| Verdict::Refused(status);
    for role in [Role::Agent, Role::Connector] {
        assert_eq!(
            registry.register(conn(0), ALICE, role, b"", true),
            refused(NackStatus::InvalidId)
        );
        assert_eq!(
            registry.register(conn(0), ALICE, role, &[0xFF], true),
            refused(NackStatus::InvalidId)
        );
        assert_eq!(
            registry.register(conn(0), ALICE, role, &[b'x'; 256], true),
            refused(NackStatus::InvalidId)
        );
        assert_eq!(
            registry.register(conn(0), ALICE, role, b"a", false),
            refused(NackStatus::NotAuthorised)
        );
    }
    assert_eq!(counts(&registry), [0; 4]);
    assert_eq!(registry.role(conn(0)), None);
    registry.register(conn(0), ALICE, Role::Agent, b"a", true);
    let both = registry.register(conn(0), ALICE, Role::Connector, b"b", true);
    assert_eq!(
        both,
        refused(NackStatus::NotAuthorised),
        "one connection, one role"
    );
    assert_eq!(counts(&registry), [1, 0, 1, 1]);
}

#[test]
fn a_service_is_taken_over_by_the_same_owner_only() {
    let cases = [
        (ALICE, ALICE, true),
        (None, None, true),
        (ALICE, BOB, false),
        (ALICE, None, false),
        (None, BOB, false),
    ];
    for (first, second, taken_over) in cases {
        let mut registry = registry(limits());
        registry.register(conn(9), BOB, Role::Agent, b"a", true);
        assert_eq!(
            registry.register(conn(0), first, Role::Connector, b"a", true),
            ACCEPTED
        );
        assert_eq!(
            registry.register(conn(0), first, Role::Connector, b"a", true),
            ACCEPTED,
            "repeated"
        );
        let verdict = registry.register(conn(1), second, Role::Connector, b"a", true);
        if taken_over {
            assert_eq!(
                verdict,
                Verdict::Accepted {
                    replaced: Some(conn(0))
                }
            );
            assert_eq!(registry.route(conn(9), b"a"), Ok(conn(1)));
            assert_eq!(
                (registry.role(conn(0)), registry.role(conn(1))),
                (None, Some(Role::Connector))
            );
            // The replaced connection ends at last, and takes nothing with it.
            registry.remove(conn(0));
            assert_eq!(registry.route(conn(9), b"a"), Ok(conn(1)));
        } else {
            assert_eq!(verdict, Verdict::Refused(NackStatus::Taken));
            assert_eq!(registry.route(conn(9), b"a"), Ok(conn(0)));
            registry.remove(conn(0));
            assert_eq!(
                registry.register(conn(1), second, Role::Connector, b"a", true),
                ACCEPTED,
                "free now"
            );
        }
        assert_eq!(counts(&registry), [1, 1, 1, 2]);
    }
}

#[test]
fn the_older_of_two_living_connectors_does_not_take_its_service_back() {
    let mut registry = registry(limits());
    let (older, newer) = (
        ConnId {
            index: 0,
            generation: 7,
        },
        ConnId {
            index: 1,
            generation: 8,
        },
    );
    registry.register(older, ALICE, Role::Connector, b"a", true);
    let replaced = Some(older);
    let taken_over = Verdict::Accepted { replaced };
    assert_eq!(
        registry.register(newer, ALICE, Role::Connector, b"a", true),
        taken_over
    );
    let again = registry.register(older, ALICE, Role::Connector, b"a", true);
    assert_eq!(again, Verdict::Refused(NackStatus::Taken));
    registry.remove(newer);
    assert_eq!(
        registry.register(older, ALICE, Role::Connector, b"a", true),
        ACCEPTED,
        "free now"
    );
    // The count of connections wraps, and the first after it is still the newer one.
    let (last, first) = (
        ConnId {
            index: 2,
            generation: u32::MAX,
        },
        ConnId {
            index: 3,
            generation: 0,
        },
    );
    registry.remove(older);
    registry.register(last, ALICE, Role::Connector, b"a", true);
    let replaced = Some(last);
    assert_eq!(
        registry.register(first, ALICE, Role::Connector, b"a", true),
        Verdict::Accepted { replaced }
    );
}

#[test]
fn a_replaced_connector_keeps_its_other_services() {
    let mut registry = registry(limits());
    for name in [&b"a"[..], b"b"] {
        registry.register(conn(0), ALICE, Role::Connector, name, true);
        registry.register(conn(9), BOB, Role::Agent, name, true);
    }
    registry.register(conn(1), ALICE, Role::Connector, b"a", true);
    assert_eq!(
        (registry.route(conn(9), b"a"), registry.route(conn(9), b"b")),
        (Ok(conn(1)), Ok(conn(0)))
    );
    assert_eq!(counts(&registry), [1, 2, 2, 4]);
}

#[test]
fn limits_refuse_what_is_beyond_them_and_repetitions_stay_accepted() {
    let limits = RegistryLimits {
        services_per_connection: 2,
        services: 3,
        registrations: 4,
    };
    let full = Verdict::Refused(NackStatus::AtCapacity);
    let mut registry = registry(limits);
    let mut agent = |index, name: &[u8]| registry.register(conn(index), ALICE, Role::Agent, name, true);
    assert_eq!(
        (agent(0, b"a"), agent(0, b"b"), agent(0, b"c")),
        (ACCEPTED, ACCEPTED, full),
        "per connection"
    );
    assert_eq!((agent(1, b"c"), agent(1, b"d")), (ACCEPTED, full), "services");
    assert_eq!(
        (agent(1, b"a"), agent(2, b"a")),
        (ACCEPTED, full),
        "registrations"
    );
    assert_eq!(agent(0, b"a"), ACCEPTED);
    assert_eq!(registry.role(conn(2)), None, "a refused client leaves no trace");
    registry.remove(conn(0));
    assert_eq!(
        registry.register(conn(2), ALICE, Role::Connector, b"a", true),
        ACCEPTED
    );
    assert_eq!(
        registry.register(conn(3), ALICE, Role::Connector, b"c", true),
        ACCEPTED
    );
    let takeover = registry.register(conn(4), ALICE, Role::Connector, b"c", true);
    assert_eq!(
        takeover,
        Verdict::Accepted {
            replaced: Some(conn(3))
        },
        "a full registry still lets a connector restart"
    );
}

#[test]
fn a_slot_of_the_pool_used_anew_inherits_nothing() {
    let mut registry = registry(limits());
    let (old, new) = (
        conn(0),
        ConnId {
            index: 0,
            generation: 8,
        },
    );
    registry.register(old, ALICE, Role::Connector, b"a", true);
    assert_eq!(registry.register(new, BOB, Role::Agent, b"a", true), ACCEPTED);
    assert_eq!(
        (registry.role(old), registry.role(new)),
        (None, Some(Role::Agent))
    );
    assert_eq!(registry.route(new, b"a"), Err(Unroutable::NoConnector));
    registry.remove(old);
    assert_eq!(counts(&registry), [1, 0, 1, 1]);
    registry.remove(new);
    registry.remove(new);
    assert_eq!(counts(&registry), [0; 4]);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Register {
        conn: u32,
        agent: bool,
        owner: u8,
        service: u8,
    },
    Unregister {
        conn: u32,
        service: u8,
    },
    Remove {
        conn: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6u32, any::<bool>(), 0..3u8, 0..4u8)
            .prop_map(|(conn, agent, owner, service)| Op::Register { conn, agent, owner, service }),
        2 => (0..6u32, 0..4u8).prop_map(|(conn, service)| Op::Unregister { conn, service }),
        1 => (0..6u32).prop_map(|conn| Op::Remove { conn }),
    ]
}

/// The same rules over one flat list: (connection, role, owner, service).
#[derive(Default)]
struct Model(Vec<(u32, Role, Option<Owner>, u8)>);

impl Model {
    fn connector(&self, service: u8) -> Option<(u32, Option<Owner>)> {
        let held = |entry: &&(u32, Role, Option<Owner>, u8)| entry.1 == Role::Connector && entry.3 == service;
        self.0.iter().find(held).map(|entry| (entry.0, entry.2))
    }

    fn register(&mut self, index: u32, role: Role, owner: Option<Owner>, service: u8) -> Verdict {
        if self.0.iter().any(|entry| entry.0 == index && entry.1 != role) {
            return Verdict::Refused(NackStatus::NotAuthorised);
        }
        if self.0.iter().any(|entry| entry.0 == index && entry.3 == service) {
            return ACCEPTED;
        }
        let mut replaced = None;
        if let (Role::Connector, Some((holder, of))) = (role, self.connector(service)) {
            if of != owner {
                return Verdict::Refused(NackStatus::Taken);
            }
            self.0.retain(|entry| entry.0 != holder || entry.3 != service);
            replaced = Some(conn(holder));
        }
        self.0.push((index, role, owner, service));
        Verdict::Accepted { replaced }
    }

    fn route(&self, index: u32, service: u8) -> Result<ConnId, Unroutable> {
        if !self
            .0
            .iter()
            .any(|entry| (entry.0, entry.1, entry.3) == (index, Role::Agent, service))
        {
            return Err(Unroutable::NotRegistered);
        }
        self.connector(service)
            .map(|(holder, _)| conn(holder))
            .ok_or(Unroutable::NoConnector)
    }
}

proptest! {
    #[test]
    fn agrees_with_a_flat_list(ops in prop::collection::vec(op(), 0..120)) {
        let mut registry = registry(limits());
        let mut model = Model::default();
        // The certificate belongs to the connection, so it is that of its first registration.
        let mut owners: BTreeMap<u32, Option<Owner>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Register { conn: index, agent, owner, service } => {
                    let role = if agent { Role::Agent } else { Role::Connector };
                    let owner = *owners.entry(index).or_insert((owner > 0).then_some(Owner([owner; 32])));
                    let verdict = registry.register(conn(index), owner, role, &[b'a' + service], true);
                    prop_assert_eq!(verdict, model.register(index, role, owner, service));
                }
                Op::Unregister { conn: index, service } => {
                    let held = model.0.iter().any(|entry| (entry.0, entry.3) == (index, service));
                    prop_assert_eq!(registry.unregister(conn(index), &[b'a' + service]), held);
                    model.0.retain(|entry| (entry.0, entry.3) != (index, service));
                }
                Op::Remove { conn: index } => {
                    registry.remove(conn(index));
                    owners.remove(&index);
                    model.0.retain(|entry| entry.0 != index);
                }
            }
            prop_assert_eq!(registry.registrations(), model.0.len());
            for index in 0..6 {
                let mut last = None;
                for service in 0..4 {
                    let name = [b'a' + service];
                    prop_assert_eq!(registry.route(conn(index), &name), model.route(index, service));
                    let held = model.0.iter().any(|entry| (entry.0, entry.3) == (index, service));
                    prop_assert_eq!(registry.holds(conn(index), &name), held);
                    let published = model.connector(service).is_some_and(|(holder, _)| holder == index);
                    prop_assert_eq!(registry.publishes_again(conn(index), &name, &mut last), published);
                    prop_assert_eq!(registry.publishes_again(conn(index), &name, &mut last), published);
                    for agent in (0..6).filter(|_| published) {
                        let uses = model.route(agent, service).is_ok();
                        prop_assert_eq!(registry.is_used_by(conn(agent), last.unwrap()), uses);
                    }
                }
            }
        }
        for index in 0..6 {
            registry.remove(conn(index));
        }
        prop_assert_eq!(counts(&registry), [0; 4]);
    }
}
