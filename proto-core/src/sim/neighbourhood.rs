//! Hosts behind translators: who is where, and what an address means from there.
//!
//! The public network and the inside of each translator are *realms*. An address is looked up in the realm where it is said: a
//! host there, the outer side of a translator there, or else it is somewhere farther out, and the datagram leaves through the
//! translator of the realm.

use std::net::SocketAddr;
use std::time::Duration;

use super::nat::{Nat, NatConfig};
use super::trace::Entry;
use super::{Clock, Host, HostId, World};

/// A translator of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatId(usize);

/// A place where addresses have one meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Realm {
    /// The public network.
    #[default]
    Public,
    /// Behind the translator with this index.
    Inside(usize),
}

/// A translator and where its outer side is.
pub(super) struct Router {
    name: String,
    nat: Nat,
    outside: Realm,
}

/// More translators than this between two hosts are a loop.
const MAX_HOPS: usize = 8;

/// What becomes of a datagram at the sender's side.
pub(super) enum Outward {
    /// It travels to this address in this realm, and comes from there. The host is whom the link is to.
    Travels {
        realm: Realm,
        from: SocketAddr,
        host: usize,
    },
    /// It gets nowhere.
    Lost(&'static str),
}

impl<C: Clock + 'static> World<C> {
    /// Adds a translator to the public network.
    ///
    /// # Panics
    /// If the address is not one.
    #[track_caller]
    pub fn add_nat(&mut self, name: &str, config: NatConfig, outer: &str) -> NatId {
        self.put_nat(name, config, outer, Realm::Public)
    }

    /// Adds a translator behind another, as carriers do.
    ///
    /// # Panics
    /// If the address is not one.
    #[track_caller]
    pub fn add_nat_behind(&mut self, nat: NatId, name: &str, config: NatConfig, outer: &str) -> NatId {
        self.put_nat(name, config, outer, Realm::Inside(nat.0))
    }

    #[track_caller]
    fn put_nat(&mut self, name: &str, config: NatConfig, outer: &str, outside: Realm) -> NatId {
        let outer = outer.parse().expect("an address");
        let nat = Nat::new(config, outer, self.rng.fork());
        self.routers.push(Router {
            name: name.to_owned(),
            nat,
            outside,
        });
        NatId(self.routers.len() - 1)
    }

    /// Adds a host behind a translator, at an address that means something only there.
    ///
    /// # Panics
    /// If the address is not one, or taken.
    #[track_caller]
    pub fn add_behind<H: Host>(&mut self, nat: NatId, name: &str, address: &str, host: H) -> HostId<H> {
        self.put(Realm::Inside(nat.0), name, address, host)
    }

    /// A translator forgets its mappings, as after a restart: what comes from outside is not let in any more, and what leaves
    /// may get other addresses.
    pub fn flush(&mut self, nat: NatId) {
        let router = &mut self.routers[nat.0];
        router.nat.flush();
        let action = format!("{} forgot its mappings", router.name);
        self.record(Entry::Action(action));
    }

    /// A translator behaves otherwise from now on, and has forgotten its mappings.
    pub fn set_nat(&mut self, nat: NatId, config: NatConfig) {
        let outer = self.routers[nat.0].nat.outer();
        self.routers[nat.0].nat = Nat::new(config, outer, self.rng.fork());
    }

    /// Mappings of a translator that live.
    pub fn mappings(&mut self, nat: NatId) -> usize {
        let now = self.now();
        let nat = &mut self.routers[nat.0].nat;
        nat.expire(now);
        nat.len()
    }

    /// How long a translator's mappings live without traffic.
    pub fn mapping_lifetime(&self, nat: NatId) -> Duration {
        self.routers[nat.0].nat.config().lifetime
    }

    /// Takes a datagram out of its realm as far as it has to go, and finds whom it is for. Whether it is let in is decided when
    /// it arrives.
    pub(super) fn outward(&mut self, mut realm: Realm, mut from: SocketAddr, to: SocketAddr) -> Outward {
        let now = self.now();
        for _ in 0..MAX_HOPS {
            if let Some(&host) = self.directory.get(&(realm, to)) {
                return Outward::Travels { realm, from, host };
            }
            if let Some(router) = self.router_at(realm, to) {
                return match self.somebody_behind(router) {
                    Some(host) => Outward::Travels { realm, from, host },
                    None => Outward::Lost("nobody is behind it"),
                };
            }
            let Realm::Inside(own) = realm else {
                return Outward::Lost("nobody is there");
            };
            let router = &mut self.routers[own];
            from = router.nat.outbound(from, to, now);
            realm = router.outside;
            if router.nat.outer() == to.ip() {
                // Its own outer address, from inside.
                return match (router.nat.config().hairpin, self.somebody_behind(own)) {
                    (true, Some(host)) => Outward::Travels { realm, from, host },
                    _ => Outward::Lost("no hairpin"),
                };
            }
        }
        Outward::Lost("it went in circles")
    }

    /// Brings a datagram that has travelled in from the outer sides of translators to a host; with the address that the host
    /// knows itself by.
    pub(super) fn inward(
        &mut self,
        mut realm: Realm,
        from: SocketAddr,
        mut to: SocketAddr,
    ) -> Result<(usize, SocketAddr), &'static str> {
        let now = self.now();
        for _ in 0..MAX_HOPS {
            if let Some(&host) = self.directory.get(&(realm, to)) {
                return Ok((host, to));
            }
            let router = self.router_at(realm, to).ok_or("nobody is there any more")?;
            let inner = self.routers[router].nat.inbound(from, to.port(), now);
            to = inner.ok_or("a translator does not let it in")?;
            realm = Realm::Inside(router);
        }
        Err("it went in circles")
    }

    /// The translator whose outer address this is, in that realm.
    fn router_at(&self, realm: Realm, to: SocketAddr) -> Option<usize> {
        let at = |router: &Router| router.outside == realm && router.nat.outer() == to.ip();
        self.routers.iter().position(at)
    }

    /// Any host behind a translator: datagrams to its outer address take the link to that one.
    fn somebody_behind(&self, router: usize) -> Option<usize> {
        let within = |mut realm: Realm| {
            for _ in 0..MAX_HOPS {
                match realm {
                    Realm::Public => return false,
                    Realm::Inside(own) if own == router => return true,
                    Realm::Inside(own) => realm = self.routers[own].outside,
                }
            }
            false
        };
        self.hosts.iter().position(|slot| within(slot.realm))
    }
}
