//! A world in virtual time for whole scenarios: hosts, links between them, faults, and a trace.
//!
//! The world keeps the contract of [`machine`](crate::machine) as a shell does, and asserts it at every step: whoever
//! has something to give must have asked to be woken now, and whoever has been drained must not ask again. Everything
//! random comes from one seed; a failing scenario prints it with the last events, and `SIM_SEED=… cargo test` replays it.
//!
//! ```
//! # use std::time::Duration;
//! # use proto_core::sim::{LinkConfig, World};
//! let mut world = World::new();
//! world.set_default_link(LinkConfig::new(Duration::from_millis(20)).with_loss(1));
//! // let relay = world.add("relay", "192.0.2.1:4433", MachineHost::new(relay));
//! // world.at(Duration::from_secs(5), move |world| world.take_down(relay));
//! // world.run_until(|world| world[agent].events.contains(&Event::Lost), Duration::from_secs(60));
//! world.run_for(Duration::from_secs(1));
//! ```

pub mod cast;
pub mod clock;
mod drive;
pub mod encounter;
mod faults;
pub mod fuzz;
pub mod host;
pub mod link;
pub mod locals;
pub mod nat;
mod neighbourhood;
pub mod story;
#[cfg(test)]
mod tests;
pub mod trace;

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

pub use clock::{Clock, ManualClock};
pub use host::{BackendModel, BackendsHost, EchoBackends, Host, HostId, MachineHost, TunnelHost};
use link::Link;
pub use link::{Chance, LinkConfig, Loss};
pub use locals::{LocalsHost, Program};
pub use neighbourhood::NatId;
use neighbourhood::{Realm, Router};
pub use trace::{Digest, Entry, Trace};

use crate::rng::{Rng, Seed};

/// The seed of a world that nobody has given another.
const DEFAULT_SEED: u64 = 1;

/// What a transmit buffer holds: one batch of segmentation offload.
const BATCH: usize = 65_507;

/// A host and what the world knows about it.
struct Slot {
    name: String,
    host: Box<dyn Host>,
    /// Addresses as the machine sees them, and as the network does.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    realm: Realm,
    down: bool,
    /// Its deadline after the last drain.
    wake_at: Option<Instant>,
}

/// A step of a scenario.
type Action<C> = Box<dyn FnOnce(&mut World<C>)>;

/// Something that will happen.
enum Happening<C: Clock> {
    Arrival {
        /// Where the two addresses mean something.
        realm: Realm,
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    Action(Action<C>),
}

/// How much a world's network did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Datagrams sent by machines.
    pub sent: u64,
    /// Datagrams handed to machines.
    pub delivered: u64,
    /// Datagrams that did not arrive, for any reason.
    pub dropped: u64,
}

/// Hosts and a network between them, in virtual time.
pub struct World<C: Clock = ManualClock> {
    clock: C,
    start: Instant,
    seed: u64,
    rng: Rng,
    hosts: Vec<Slot>,
    /// Who is at an address, as the network there sees it.
    directory: BTreeMap<(Realm, SocketAddr), usize>,
    routers: Vec<Router>,
    links: BTreeMap<(usize, usize), Link>,
    default_link: LinkConfig,
    queue: BTreeMap<(Instant, u64), Happening<C>>,
    sequence: u64,
    trace: Trace,
    stats: NetworkStats,
    coalescing: bool,
    /// Whether all links draw from one sequence of random numbers.
    frugal: bool,
    /// Whether no record is kept.
    silent: bool,
    buffer: Vec<u8>,
}

impl World {
    /// A world with a clock of its own, and the seed of `SIM_SEED` or the default one.
    pub fn new() -> Self {
        Self::with_clock(ManualClock::new(), DEFAULT_SEED)
    }

    /// A world with this seed, unless `SIM_SEED` gives another.
    pub fn seeded(seed: u64) -> Self {
        Self::with_clock(ManualClock::new(), seed)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock + 'static> World<C> {
    /// A world on a given clock, for machines that read the process's clock; `SIM_SEED` overrides the seed.
    ///
    /// # Panics
    /// If `SIM_SEED` is not a number.
    pub fn with_clock(clock: C, seed: u64) -> Self {
        let seed = match std::env::var("SIM_SEED") {
            Ok(given) => given.parse().expect("SIM_SEED is a number"),
            Err(_) => seed,
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            start: clock.now(),
            clock,
            seed,
            rng: Rng::new(&Seed(bytes)),
            hosts: Vec::new(),
            directory: BTreeMap::new(),
            routers: Vec::new(),
            links: BTreeMap::new(),
            default_link: LinkConfig::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            trace: Trace::default(),
            stats: NetworkStats::default(),
            coalescing: true,
            frugal: false,
            silent: false,
            buffer: vec![0; BATCH],
        }
    }

    /// Adds a host at an address, which it and the network see alike.
    ///
    /// # Panics
    /// If the address is not one, or taken.
    #[track_caller]
    pub fn add<H: Host>(&mut self, name: &str, address: &str, host: H) -> HostId<H> {
        self.put(Realm::Public, name, address, host)
    }

    #[track_caller]
    fn put<H: Host>(&mut self, realm: Realm, name: &str, address: &str, host: H) -> HostId<H> {
        let address = address.parse().expect("an address with a port");
        let index = self.hosts.len();
        let taken = self.directory.insert((realm, address), index);
        assert!(taken.is_none(), "{address} is taken");
        self.hosts.push(Slot {
            name: name.to_owned(),
            host: Box::new(host),
            addresses: vec![(address, address)],
            realm,
            down: false,
            wake_at: None,
        });
        self.settle(index);
        HostId::new(index)
    }

    /// Sets both directions between two hosts.
    pub fn set_link<A, B>(&mut self, a: HostId<A>, b: HostId<B>, config: LinkConfig) {
        self.link(a.index, b.index).config = config;
        self.link(b.index, a.index).config = config;
    }

    /// Sets one direction.
    pub fn set_one_way<A, B>(&mut self, from: HostId<A>, to: HostId<B>, config: LinkConfig) {
        self.link(from.index, to.index).config = config;
    }

    /// Sets what all links without a configuration of their own are like, from their first datagram on.
    pub fn set_default_link(&mut self, config: LinkConfig) {
        self.default_link = config;
    }

    /// Whether datagrams that arrive together reach a machine in one batch; they do unless switched off.
    pub fn set_coalescing(&mut self, on: bool) {
        self.coalescing = on;
    }

    /// Draws random numbers more cheaply, and keeps no record of what happens unless `SIM_SEED` asks for one world: for worlds so
    /// many that these are what they cost.
    pub(crate) fn be_brief(&mut self) {
        self.frugal = true;
        self.silent = std::env::var_os("SIM_SEED").is_none();
    }

    /// The current time of the world.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// How much time has passed.
    pub fn elapsed(&self) -> Duration {
        self.now().saturating_duration_since(self.start)
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A seed for a machine of this world.
    pub fn draw_seed(&mut self) -> Seed {
        let mut bytes = [0; 32];
        self.rng.fill(&mut bytes);
        Seed(bytes)
    }

    /// What happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What the network did so far.
    pub fn stats(&self) -> NetworkStats {
        self.stats
    }

    /// Calls into a host (an application's input), then drains it as a shell would.
    pub fn with<H: Host, T>(&mut self, id: HostId<H>, call: impl FnOnce(&mut H, Instant) -> T) -> T {
        let now = self.now();
        let result = call(&mut self[id], now);
        self.settle(id.index);
        result
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let config = self.default_link;
        self.links.entry((from, to)).or_insert_with(|| Link::new(config))
    }

    fn record(&mut self, entry: Entry) {
        if self.silent {
            return;
        }
        self.trace.record(self.elapsed(), entry);
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!("after {:?}: {why}", self.elapsed());
    }
}

impl<C: Clock, H: Host> Index<HostId<H>> for World<C> {
    type Output = H;

    fn index(&self, id: HostId<H>) -> &H {
        let host: &dyn Any = &*self.hosts[id.index].host;
        host.downcast_ref().expect("a host keeps its type")
    }
}

impl<C: Clock, H: Host> IndexMut<HostId<H>> for World<C> {
    fn index_mut(&mut self, id: HostId<H>) -> &mut H {
        let host: &mut dyn Any = &mut *self.hosts[id.index].host;
        host.downcast_mut().expect("a host keeps its type")
    }
}

impl<C: Clock> std::fmt::Debug for World<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<C: Clock> Drop for World<C> {
    #[expect(clippy::print_stderr, reason = "a failed scenario tells how to replay it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SIM_SEED={} replays this; {}", self.seed, self.trace);
        }
    }
}
