//! What can happen to hosts and links, now or at a set time.

use std::net::SocketAddr;
use std::time::Duration;

use super::trace::Entry;
use super::{Clock, Happening, Host, HostId, World};

impl<C: Clock + 'static> World<C> {
    /// Does something at a time, counted from now.
    pub fn after(&mut self, time: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let at = self.now() + time;
        self.schedule(at, Happening::Action(Box::new(action)));
    }

    /// Does something at a time, counted from the beginning of the world.
    pub fn at(&mut self, time: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let at = self.start + time;
        self.schedule(at, Happening::Action(Box::new(action)));
    }

    /// Puts a host to sleep: nothing reaches it, not even time.
    pub fn take_down<H>(&mut self, id: HostId<H>) {
        self.note(id, "down");
        self.hosts[id.index].down = true;
    }

    /// Wakes a host up: all the time that has passed reaches it at once.
    #[track_caller]
    pub fn bring_up<H>(&mut self, id: HostId<H>) {
        self.note(id, "up");
        self.hosts[id.index].down = false;
        let now = self.now();
        self.hosts[id.index].host.handle_timeout(now);
        self.settle(id.index);
    }

    /// Restarts a host with a fresh machine at the same addresses, possibly of another kind; what was on its way still
    /// arrives. An id of the former kind is no longer usable then.
    #[track_caller]
    pub fn replace<H, N: Host>(&mut self, id: HostId<H>, host: N) -> HostId<N> {
        self.note(id, "restarted");
        let slot = &mut self.hosts[id.index];
        slot.host = Box::new(host);
        slot.down = false;
        self.settle(id.index);
        HostId::new(id.index)
    }

    /// Lets nothing pass between two hosts, in either direction; what is on its way still arrives.
    pub fn cut<A, B>(&mut self, a: HostId<A>, b: HostId<B>) {
        self.set_cut(a, b, true);
    }

    /// Undoes [`World::cut`].
    pub fn mend<A, B>(&mut self, a: HostId<A>, b: HostId<B>) {
        self.set_cut(a, b, false);
    }

    fn set_cut<A, B>(&mut self, a: HostId<A>, b: HostId<B>, cut: bool) {
        let what = if cut { "cut" } else { "mended" };
        let names = (&self.hosts[a.index].name, &self.hosts[b.index].name);
        let action = format!("{} - {} {what}", names.0, names.1);
        self.record(Entry::Action(action));
        self.link(a.index, b.index).cut = cut;
        self.link(b.index, a.index).cut = cut;
    }

    /// Gives a host's first address another public face, as a NAT does that has forgotten the old one: the machine notices
    /// nothing, others see its datagrams come from elsewhere, and what they send to the old address is lost.
    ///
    /// # Panics
    /// If the address is not one, or taken.
    #[track_caller]
    pub fn rebind<H>(&mut self, id: HostId<H>, public: &str) {
        let public: SocketAddr = public.parse().expect("an address with a port");
        self.note(id, &format!("rebound to {public}"));
        let realm = self.hosts[id.index].realm;
        if let Some((_, face)) = self.hosts[id.index].addresses.first_mut() {
            let old = std::mem::replace(face, public);
            self.directory.remove(&(realm, old));
        }
        let taken = self.directory.insert((realm, public), id.index);
        assert!(taken.is_none(), "{public} is taken");
    }

    /// Gives a host one more address, which it and the network see alike.
    ///
    /// # Panics
    /// If the address is not one, or taken.
    #[track_caller]
    pub fn add_address<H>(&mut self, id: HostId<H>, address: &str) {
        let address = address.parse().expect("an address with a port");
        let slot = &mut self.hosts[id.index];
        slot.addresses.push((address, address));
        let taken = self.directory.insert((slot.realm, address), id.index);
        assert!(taken.is_none(), "{address} is taken");
    }

    fn note<H>(&mut self, id: HostId<H>, what: &str) {
        let action = format!("{} {what}", self.hosts[id.index].name);
        self.record(Entry::Action(action));
    }
}
