//! Hosts behind translators.

use std::time::Duration;

use super::PingPong;
use crate::sim::nat::NatConfig;
use crate::sim::{MachineHost, World};

const PUBLIC: &str = "198.51.100.9:4000";
const HOME: &str = "192.168.1.2:1111";

fn second() -> Duration {
    Duration::from_secs(1)
}

#[test]
fn a_host_inside_is_seen_at_the_outer_address_and_gets_its_answers() {
    let mut world = World::new();
    let home = world.add_nat("home", NatConfig::SYMMETRIC, "203.0.113.1");
    let answerer = world.add("answerer", PUBLIC, MachineHost::new(PingPong::default()));
    let pinging = PingPong::pinging(HOME, PUBLIC, world.now());
    let pinger = world.add_behind(home, "pinger", HOME, MachineHost::new(pinging));
    world.run_for(second());
    let seen: Vec<_> = world[answerer].events.iter().map(|heard| heard.from).collect();
    assert!(
        seen.iter()
            .all(|from| from.ip().to_string() == "203.0.113.1" && from.port() != 1111)
    );
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "one mapping");
    assert!(world[pinger].events.len() >= 9);
    let before = seen[0];
    world.flush(home);
    world.run_for(second());
    let after = world[answerer].events.last().unwrap().from;
    assert_ne!(before, after, "it got another port");
    assert_eq!(world.mappings(home), 1);
    world.take_down(pinger);
    world.run_for(Duration::from_secs(31));
    assert_eq!(world.mappings(home), 0);
}

#[test]
fn a_stranger_is_let_in_only_by_a_full_cone() {
    for (config, expected) in [
        (NatConfig::FULL_CONE, true),
        (NatConfig::ADDRESS_RESTRICTED, false),
    ] {
        let mut world = World::new();
        let home = world.add_nat("home", config, "203.0.113.1");
        world.add("answerer", PUBLIC, MachineHost::new(PingPong::default()));
        let pinging = PingPong::pinging(HOME, PUBLIC, world.now());
        let inside = world.add_behind(home, "inside", HOME, MachineHost::new(pinging));
        world.run_for(second());
        let stranger = PingPong::pinging("198.51.100.77:5000", "203.0.113.1:1111", world.now());
        world.add("stranger", "198.51.100.77:5000", MachineHost::new(stranger));
        world.run_for(second());
        let strangers = world[inside]
            .events
            .iter()
            .filter(|heard| heard.from.port() == 5000)
            .count();
        assert_eq!(strangers > 0, expected, "{config:?}");
    }
}

#[test]
fn neighbours_meet_inside_and_by_hairpin_only_where_there_is_one() {
    const NEIGHBOUR: &str = "192.168.1.3:2222";
    for (config, to, expected) in [
        (NatConfig::FULL_CONE, NEIGHBOUR, true),
        (NatConfig::FULL_CONE, "203.0.113.1:2222", false),
        (NatConfig::FULL_CONE.with_hairpin(), "203.0.113.1:2222", true),
    ] {
        let mut world = World::new();
        let home = world.add_nat("home", config, "203.0.113.1");
        world.add("answerer", PUBLIC, MachineHost::new(PingPong::default()));
        // The neighbour has a mapping, because it speaks to somebody outside.
        let neighbour = PingPong::pinging(NEIGHBOUR, PUBLIC, world.now());
        let neighbour = world.add_behind(home, "neighbour", NEIGHBOUR, MachineHost::new(neighbour));
        world.run_for(second());
        let pinging = PingPong::pinging(HOME, to, world.now());
        world.add_behind(home, "pinger", HOME, MachineHost::new(pinging));
        world.run_for(second());
        let met = world[neighbour]
            .events
            .iter()
            .any(|heard| heard.from.port() == 1111);
        assert_eq!(met, expected, "{to}");
    }
}
