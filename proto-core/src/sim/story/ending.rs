//! How every story ends: all faults are over, everyone finds everyone again, everyone leaves, and nothing is left.

use std::time::Duration;

use super::{Kind, RECOVERY, Story};
use crate::machine::{Deadline, Machine};
use crate::sim::LinkConfig;
use crate::sim::cast::Casting;

/// Longer than anything is remembered about someone who has left.
const FORGOTTEN: Duration = Duration::from_secs(600);

impl<T: Casting + 'static> Story<T> {
    /// Ends all faults and waits until everyone is registered.
    pub(super) fn recover(&mut self) {
        self.set_weather(LinkConfig::default());
        for index in 0..self.clients.len() {
            self.world.mend(self.clients[index].host(), self.relay);
            self.wake(index);
            if self.clients[index].left {
                self.restart(index);
            }
        }
        self.world.run_for(RECOVERY);
        self.judge();
        for client in &self.clients {
            let ready = match client.kind {
                Kind::Agent(host) => {
                    let status = self.world[host].machine.status();
                    status.services.iter().all(|service| service.registered)
                }
                Kind::Connector(host) => {
                    let status = self.world[host].machine.status();
                    status.iter().all(|service| service.registered)
                }
            };
            assert!(
                ready,
                "{} is not registered {RECOVERY:?} after the last fault",
                client.name
            );
        }
    }

    /// With all faults over, every question is answered.
    pub(super) fn everyone_reaches_everyone(&mut self) {
        for agent in 0..usize::from(self.cast.agents) {
            for service in 0..self.cast.services {
                let number = self
                    .send(agent, service, 0, 100)
                    .expect("a registered agent takes packets");
                self.world.run_for(Duration::from_secs(1));
                self.judge();
                assert!(
                    self.oracle.is_answered(number),
                    "agent {agent} does not reach service {service}"
                );
            }
        }
    }

    pub(super) fn everyone_leaves(&mut self) {
        (0..self.clients.len()).for_each(|client| self.leave(client));
        self.world.run_for(FORGOTTEN);
        for client in &self.clients {
            let (drained, timeout) = match client.kind {
                Kind::Agent(host) => end(&self.world[host].machine),
                Kind::Connector(host) => {
                    assert!(
                        self.world[host].backend.flows.is_empty(),
                        "a backend is still open"
                    );
                    end(&self.world[host].machine)
                }
            };
            assert!(
                drained && timeout.is_none(),
                "{} has left: {timeout:?}",
                client.name
            );
        }
        let relay = &self.world[self.relay].machine;
        assert_eq!(
            (
                relay.connections(),
                relay.flows(),
                relay.registry().registrations()
            ),
            (0, 0, 0),
            "the intermediate remembers those who have left"
        );
        assert_eq!(relay.poll_timeout(), None);
    }
}

fn end<M: Machine>(machine: &M) -> (bool, Option<Deadline>) {
    (machine.is_drained(), machine.poll_timeout())
}
