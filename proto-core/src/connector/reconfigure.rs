//! Another configuration while everything runs.
//!
//! Services are told apart by their ids. One that stays keeps its registration and its sessions; its backends, checks and list
//! are replaced, and hold for what begins from then on. One that is new is registered; one that is gone loses its sessions at
//! once, and its registration a moment later, so that the agents hear the resets.

use std::time::{Duration, Instant};

use super::{Connector, Published};
use crate::config::{ConnectorConfig, ConnectorService};
use crate::id::ServiceIndex;
use crate::link::Link;
use crate::quic::Provider;
use crate::wire::datagram::{Role, routed_prefix};

/// How long the registration of a removed service stays, for the resets of its sessions.
const FAREWELL: Duration = Duration::from_millis(250);

/// The largest packet of a service before its live connection says otherwise: any IPv6 path carries this.
const MTU: usize = 1280;

impl<Q: Provider> Connector<Q> {
    /// Takes the services of another configuration. Its other parts hold only at a start.
    pub fn reconfigure(&mut self, config: ConnectorConfig, now: Instant) {
        let now = now.max(self.pool.now());
        let gone: Vec<ServiceIndex> = (0..)
            .map(ServiceIndex)
            .zip(&self.services)
            .filter_map(|(index, service)| {
                let service = service.as_ref().filter(|service| !service.is_leaving())?;
                let stays = config.services.iter().any(|kept| kept.id == service.id);
                (!stays).then_some(index)
            })
            .collect();
        for index in gone {
            self.netstack.remove(index, now);
            if let Some(Some(service)) = self.services.get_mut(usize::from(index.0)) {
                service.leaves_at = Some(now + FAREWELL);
            }
            self.activate(index);
            self.settle(index);
        }
        for service in config.services {
            self.publish(service, now);
        }
        self.process(now);
    }

    /// Serves a service so from now on: one that is there already, or a new one.
    pub(super) fn publish(&mut self, service: ConnectorService, now: Instant) {
        let known = self.services.iter().position(|known| {
            let known = known.as_ref();
            known.is_some_and(|known| known.id == service.id)
        });
        let free = || self.services.iter().position(Option::is_none);
        let place = known.or_else(free).unwrap_or(self.services.len());
        let Ok(number) = u16::try_from(place) else { return };
        let index = ServiceIndex(number);
        if self.services.len() <= place {
            self.services.resize_with(place + 1, || None);
            self.is_active.resize(place + 1, false);
        }
        if let Some(place) = self.services.get_mut(place) {
            match place {
                Some(known) => known.leaves_at = None,
                None => {
                    let mut link = Link::new(
                        Role::Connector,
                        vec![service.id.clone()],
                        self.endpoint.clone(),
                        self.local,
                        self.rng.fork(),
                        now,
                    );
                    // Until a backend is well, and a link of its own is what it needs.
                    link.withdraw(&mut self.pool, b"", now);
                    *place = Some(Published {
                        id: service.id.clone(),
                        prefix: routed_prefix(&service.id),
                        offered_as: None,
                        told: false,
                        link,
                        lane: self.netstack.open_lane(index, None, MTU),
                        leaves_at: None,
                    });
                }
            }
        }
        self.netstack.install(index, service.netstack(), now);
        self.settle(index);
    }

    /// The end of a service that was removed, when its time has come.
    pub(super) fn leave(&mut self, index: ServiceIndex, now: Instant) {
        let Some(place) = self.services.get_mut(usize::from(index.0)) else {
            return;
        };
        let Some(mut service) = place.take_if(|service| service.leaves_at.is_some_and(|at| at <= now)) else {
            return;
        };
        self.end_service(index, &service.id, now);
        service.link.shut_down(&mut self.pool, now);
        self.retired = self.retired.plus(service.link.stats());
        self.netstack.close_lane(service.lane, now);
        self.forget_timer(index);
        self.offer(now);
    }
}
