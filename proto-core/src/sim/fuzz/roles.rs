//! The roles under the contract of every machine, each with a live peer.

use std::time::Instant;

use crate::agent::Agent;
use crate::connector::Connector;
use crate::intermediate::Intermediate;
use crate::machine::{Tunnel as _, contract};
use crate::quic::fake::FakeProvider;
use crate::rng::Seed;
use crate::sim::cast::StandIns;
use crate::sim::{BackendsHost, EchoBackends, MachineHost, TunnelHost, cast};

/// Where the client is.
const CLIENT: &str = "192.0.2.2:4433";

/// More connections than any script opens.
const MANY: usize = 100;

fn relay(now: Instant) -> MachineHost<Intermediate<FakeProvider>> {
    relay_of(cast::BOTH, now)
}

/// One that knows the first version only.
fn old_relay(now: Instant) -> MachineHost<Intermediate<FakeProvider>> {
    relay_of(cast::V1, now)
}

fn relay_of(protocols: &[&[u8]], now: Instant) -> MachineHost<Intermediate<FakeProvider>> {
    MachineHost::new(cast::intermediate(
        &mut StandIns,
        protocols,
        Some([5; 32]),
        &Seed([1; 32]),
        now,
    ))
}

fn client(now: Instant) -> TunnelHost<Agent<FakeProvider>> {
    let local = CLIENT.parse().expect("an address");
    TunnelHost::new(cast::agent(&mut StandIns, 0, local, &[0, 1], &Seed([2; 32]), now))
}

fn publisher(now: Instant) -> BackendsHost<Connector<FakeProvider>, EchoBackends> {
    let local = CLIENT.parse().expect("an address");
    let connector = cast::connector(&mut StandIns, 0, local, &[0, 1], &Seed([3; 32]), now);
    BackendsHost::new(connector, EchoBackends::default())
}

/// An intermediate, with an agent or (by the first byte) a connector as its peer.
///
/// # Panics
/// If it breaks the contract.
pub fn intermediate(bytes: &[u8]) {
    let (choice, script) = bytes
        .split_first()
        .map_or((0, bytes), |(choice, rest)| (*choice, rest));
    let subject = contract::Subject::new(relay).bounded(|host| host.machine.connections(), MANY);
    let subject = if choice.is_multiple_of(2) {
        subject.with_peer(client)
    } else {
        subject.with_peer(publisher)
    };
    subject.check(&contract::inputs(script));
}

/// An agent, whose host sends any packets, well-formed ones for a service among them.
///
/// # Panics
/// If it breaks the contract.
pub fn agent(bytes: &[u8]) {
    at_client(contract::Subject::new(client))
        .with_peer(relay)
        .with_application(|host, choice, bytes, now| {
            let _ = match choice % 2 {
                0 => host.machine.send_packet(bytes, now),
                _ => host.machine.send_packet(&question(choice, bytes), now),
            };
        })
        .check(&contract::inputs(bytes));
}

/// A connector with backends that echo; by the length of the input its intermediate speaks `ztna-v2` or not.
///
/// # Panics
/// If it breaks the contract.
pub fn connector(bytes: &[u8]) {
    let subject = at_client(contract::Subject::new(publisher));
    let subject = if bytes.len().is_multiple_of(2) {
        subject.with_peer(relay)
    } else {
        subject.with_peer(old_relay)
    };
    subject.check(&contract::inputs(bytes));
}

fn at_client<H: crate::sim::Host>(subject: contract::Subject<H>) -> contract::Subject<H> {
    let (local, remote) = (CLIENT.parse(), cast::RELAY.parse());
    subject.at(local.expect("an address"), remote.expect("an address"))
}

/// A UDP packet for one of three services, of which the agent uses two.
fn question(choice: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let source = std::net::SocketAddr::from(([10, 9, 0, 1], u16::from(choice)));
    let service = std::net::SocketAddr::new(cast::virtual_address(choice % 3), cast::SERVICE_PORT);
    crate::routing::packet::udp(source, service, payload, &mut packet);
    packet
}
