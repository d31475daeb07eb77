//! What the stories are told with: providers, certificates, clocks, and an intermediate.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proto_core::config::{IntermediateConfig, IntermediateLimits};
use proto_core::intermediate::Intermediate;
use proto_core::quic::fake::{FakeCertificate, FakeConfig, FakeProvider, Trust};
use proto_core::quic::identity::{Authority, SanAuthority};
use proto_core::quic::quiche::{PemIdentity, QuicheProvider};
use proto_core::quic::testing::TestPki;
use proto_core::quic::{ALPN_SESSION, ALPN_V1, Provider};
use proto_core::rng::{Rng, Seed};
use proto_core::sim::{Clock, HostId, LinkConfig, MachineHost, ManualClock, World};
use virtual_clock::VirtualClock;

use crate::raw::Raw;
use crate::speaker::Speaker;

/// Where the intermediate is.
pub(crate) const RELAY: &str = "192.0.2.1:4433";

/// The name in its certificate.
pub(crate) const RELAY_NAME: &str = "relay.test";

/// The round trip of every path in these worlds is twice this.
pub(crate) const DELAY: Duration = Duration::from_millis(10);

/// The protocols of a client of v1.
pub(crate) const V1: &[&[u8]] = &[b"ztna-v1"];

/// The protocols of an intermediate, and of a client of v2.
pub(crate) const BOTH: &[&[u8]] = &[b"ztna-v2", b"ztna-v1"];

/// A QUIC implementation as the stories need it.
pub(crate) trait Quic: 'static {
    type Provider: Provider + 'static;
    type Clock: Clock + 'static;

    fn clock(&self) -> Self::Clock;
    fn server(&mut self) -> Self::Provider {
        self.server_of(BOTH)
    }
    /// An intermediate that speaks these protocols.
    fn server_of(&mut self, protocols: &[&[u8]]) -> Self::Provider;
    /// A client with a certificate of its own that carries these names.
    fn client(&mut self, names: &[&str]) -> Self::Provider;
    /// The same, and it offers `ztna-v2` first.
    fn speaker(&mut self, names: &[&str]) -> Self::Provider;
    /// The same, and it has sessions.
    fn partner(&mut self, names: &[&str]) -> Self::Provider;
    /// A connector that has sessions, and lets v1 agents come directly.
    fn publisher(&mut self, names: &[&str]) -> Self::Provider;
    /// Several clients that share one certificate: one process, started again and again.
    fn same_client(&mut self, names: &[&str], count: usize) -> Vec<Self::Provider>;
    /// The same for two that speak v2.
    fn same_speakers(&mut self, names: &[&str]) -> [Self::Provider; 2];
}

pub(crate) struct FakeQuic {
    /// Makes certificates; without it everyone has [`CERTIFICATE`], which is the same in every run.
    pki: Option<TestPki>,
    rng: Rng,
}

/// A certificate for `agent.echo.ztna` and `connector.echo.ztna`, made once per process.
static CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();

impl FakeQuic {
    pub(crate) fn new() -> Self {
        Self {
            pki: Some(TestPki::new()),
            rng: Rng::new(&Seed([3; 32])),
        }
    }

    /// Makes equal providers every time.
    pub(crate) fn fixed() -> Self {
        Self {
            pki: None,
            rng: Rng::new(&Seed([3; 32])),
        }
    }

    fn provider(&mut self, names: &[&str], protocols: &[&[u8]]) -> FakeProvider {
        let certificate = self.certificate(names);
        self.provider_of(certificate, protocols)
    }

    fn certificate(&self, names: &[&str]) -> FakeCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let text: Vec<&str> = names.iter().map(String::as_str).collect();
        let der = match &self.pki {
            Some(pki) => der(&pki.issue(&text)),
            None => CERTIFICATE
                .get_or_init(|| der(&TestPki::new().issue(&["agent.echo.ztna", "connector.echo.ztna"])))
                .clone(),
        };
        FakeCertificate {
            der,
            issuer: 1,
            names,
        }
    }

    fn provider_of(&mut self, certificate: FakeCertificate, protocols: &[&[u8]]) -> FakeProvider {
        let config = self.config_of(certificate, protocols);
        FakeProvider::new(config, self.rng.fork())
    }

    fn config_of(&self, certificate: FakeCertificate, protocols: &[&[u8]]) -> FakeConfig {
        let mut config = FakeConfig::new(protocols);
        config.certificate = Some(certificate);
        config.trust = Trust::Issuers(vec![1]);
        config.require_client_certificate = true;
        config
    }
}

impl Quic for FakeQuic {
    type Provider = FakeProvider;
    type Clock = ManualClock;

    fn clock(&self) -> ManualClock {
        ManualClock::new()
    }

    fn server_of(&mut self, protocols: &[&[u8]]) -> FakeProvider {
        self.provider(&[RELAY_NAME], protocols)
    }

    fn client(&mut self, names: &[&str]) -> FakeProvider {
        self.provider(names, V1)
    }

    fn speaker(&mut self, names: &[&str]) -> FakeProvider {
        self.provider(names, BOTH)
    }

    fn partner(&mut self, names: &[&str]) -> FakeProvider {
        let certificate = self.certificate(names);
        let mut config = self.config_of(certificate, BOTH);
        config.session_alpn = vec![ALPN_SESSION.to_vec()];
        FakeProvider::new(config, self.rng.fork())
    }

    fn publisher(&mut self, names: &[&str]) -> FakeProvider {
        let certificate = self.certificate(names);
        let mut config = self.config_of(certificate, BOTH);
        config.session_alpn = vec![ALPN_SESSION.to_vec(), ALPN_V1.to_vec()];
        FakeProvider::new(config, self.rng.fork())
    }

    fn same_client(&mut self, names: &[&str], count: usize) -> Vec<FakeProvider> {
        let certificate = self.certificate(names);
        (0..count)
            .map(|_| self.provider_of(certificate.clone(), V1))
            .collect()
    }

    fn same_speakers(&mut self, names: &[&str]) -> [FakeProvider; 2] {
        let certificate = self.certificate(names);
        [(); 2].map(|()| self.provider_of(certificate.clone(), BOTH))
    }
}

pub(crate) struct RealQuic(TestPki);

impl RealQuic {
    pub(crate) fn new() -> Self {
        Self(TestPki::new())
    }
}

impl Quic for RealQuic {
    type Provider = QuicheProvider;
    type Clock = ThreadClock;

    fn clock(&self) -> ThreadClock {
        ThreadClock(VirtualClock::start())
    }

    fn server_of(&mut self, protocols: &[&[u8]]) -> QuicheProvider {
        let mut config = self.0.config(true, &[RELAY_NAME]);
        config.alpn = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        QuicheProvider::new(&config).unwrap()
    }

    fn client(&mut self, names: &[&str]) -> QuicheProvider {
        self.0.provider(false, names)
    }

    fn speaker(&mut self, names: &[&str]) -> QuicheProvider {
        let mut config = self.0.config(false, names);
        config.alpn = BOTH.iter().map(|protocol| protocol.to_vec()).collect();
        QuicheProvider::new(&config).unwrap()
    }

    fn partner(&mut self, names: &[&str]) -> QuicheProvider {
        let mut config = self.0.config(false, names);
        config.alpn = BOTH.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_alpn = vec![ALPN_SESSION.to_vec()];
        QuicheProvider::new(&config).unwrap()
    }

    fn publisher(&mut self, names: &[&str]) -> QuicheProvider {
        let mut config = self.0.config(false, names);
        config.alpn = BOTH.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_alpn = vec![ALPN_SESSION.to_vec(), ALPN_V1.to_vec()];
        QuicheProvider::new(&config).unwrap()
    }

    fn same_client(&mut self, names: &[&str], count: usize) -> Vec<QuicheProvider> {
        let config = self.0.config(false, names);
        (0..count)
            .map(|_| QuicheProvider::new(&config).unwrap())
            .collect()
    }

    fn same_speakers(&mut self, names: &[&str]) -> [QuicheProvider; 2] {
        let mut config = self.0.config(false, names);
        config.alpn = BOTH.iter().map(|protocol| protocol.to_vec()).collect();
        [(); 2].map(|()| QuicheProvider::new(&config).unwrap())
    }
}

/// The virtual time of the test's thread, which is also the one that quiche reads.
pub(crate) struct ThreadClock(VirtualClock);

impl Clock for ThreadClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn advance_to(&mut self, at: Instant) {
        self.0.advance(at.saturating_duration_since(self.0.now()));
    }
}

fn der(identity: &PemIdentity) -> Vec<u8> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(&identity.chain).unwrap();
    pem.contents
}

pub(crate) type Relay<Q> = MachineHost<Intermediate<<Q as Quic>::Provider>>;
pub(crate) type SpeakerHost<Q> = MachineHost<Speaker<<Q as Quic>::Provider>>;
pub(crate) type RawHost<Q> = MachineHost<Raw<<Q as Quic>::Provider>>;

/// A world with an intermediate, to which clients are added.
pub(crate) struct Scene<Q: Quic> {
    pub(crate) quic: Q,
    pub(crate) world: World<Q::Clock>,
    pub(crate) relay: HostId<Relay<Q>>,
}

impl<Q: Quic> Scene<Q> {
    pub(crate) fn new(mut quic: Q) -> Self {
        let mut world = World::with_clock(quic.clock(), 1);
        world.set_default_link(LinkConfig::new(DELAY));
        let relay = intermediate(&mut quic, world.draw_seed(), world.now());
        let relay = world.add("relay", RELAY, MachineHost::new(relay));
        Self { quic, world, relay }
    }

    /// The same with an intermediate that has other limits, or another authority.
    pub(crate) fn special(quic: Q, limits: IntermediateLimits, authority: Box<dyn Authority + Send>) -> Self {
        let mut scene = Self::new(quic);
        let (seed, now) = (scene.world.draw_seed(), scene.world.now());
        let relay = special_intermediate(&mut scene.quic, limits, authority, seed, now);
        scene.relay = scene.world.replace(scene.relay, MachineHost::new(relay));
        scene
    }

    /// A client that sends and receives raw DATAGRAMs; connected when this returns.
    pub(crate) fn raw(&mut self, name: &str, address: &str, names: &[&str]) -> HostId<RawHost<Q>> {
        let provider = self.quic.client(names);
        let raw = Raw::new(provider, address, self.world.draw_seed(), self.world.now());
        let host = self.world.add(name, address, MachineHost::new(raw));
        self.world
            .run_until(|world| world[host].machine.is_connected(), Duration::from_secs(5));
        self.world.run_for(4 * DELAY);
        host
    }

    /// A client that speaks v2 and has not said anything; connected when this returns.
    pub(crate) fn silent(&mut self, name: &str, address: &str, names: &[&str]) -> HostId<SpeakerHost<Q>> {
        let provider = self.quic.speaker(names);
        self.silent_with(name, address, provider)
    }

    /// The same with a provider that is there already.
    pub(crate) fn silent_with(
        &mut self,
        name: &str,
        address: &str,
        provider: Q::Provider,
    ) -> HostId<SpeakerHost<Q>> {
        let speaker = Speaker::new(provider, address, self.world.draw_seed(), self.world.now());
        let host = self.world.add(name, address, MachineHost::new(speaker));
        self.world
            .run_until(|world| world[host].machine.is_connected(), Duration::from_secs(5));
        self.world.run_for(4 * DELAY);
        host
    }

    /// Sends DATAGRAMs from a raw client and lets them arrive, be relayed and be answered.
    pub(crate) fn send(&mut self, host: HostId<RawHost<Q>>, datagrams: &[&[u8]]) {
        self.world.with(host, |host, _| {
            datagrams.iter().for_each(|datagram| host.machine.send(datagram))
        });
        self.world.run_for(6 * DELAY);
    }

    /// A raw client that holds a registration.
    pub(crate) fn registered(
        &mut self,
        name: &str,
        address: &str,
        kind: u8,
        service: &str,
    ) -> HostId<RawHost<Q>> {
        let capacity = if kind == 0x11 { "connector" } else { "agent" };
        let host = self.raw(name, address, &[&format!("{capacity}.{service}.ztna")]);
        self.send(host, &[&message(kind, service)]);
        assert!(
            self.received(host)
                .contains(&[&[0x12, 0][..], &message(0, service)[1..]].concat())
        );
        self.world.with(host, |host, _| host.machine.received.clear());
        host
    }

    pub(crate) fn received(&self, host: HostId<RawHost<Q>>) -> Vec<Vec<u8>> {
        self.world[host].machine.received.clone()
    }

    pub(crate) fn relay(&self) -> &Intermediate<Q::Provider> {
        &self.world[self.relay].machine
    }
}

/// The intermediate of every scene.
pub(crate) fn intermediate<Q: Quic>(quic: &mut Q, seed: Seed, now: Instant) -> Intermediate<Q::Provider> {
    let authority = Box::new(SanAuthority::default());
    special_intermediate(quic, IntermediateLimits::default(), authority, seed, now)
}

/// One with other limits, or another authority.
pub(crate) fn special_intermediate<Q: Quic>(
    quic: &mut Q,
    limits: IntermediateLimits,
    authority: Box<dyn Authority + Send>,
    seed: Seed,
    now: Instant,
) -> Intermediate<Q::Provider> {
    let config = IntermediateConfig {
        retry: true,
        reset_key: Some([5; 32]),
        limits,
    };
    Intermediate::new(&config, quic.server(), authority, &seed, now)
}

/// A type byte, a length byte and a service.
pub(crate) fn message(kind: u8, service: &str) -> Vec<u8> {
    [&[kind, service.len() as u8][..], service.as_bytes()].concat()
}

/// A packet wrapped for a service.
pub(crate) fn routed(service: &str, packet: &[u8]) -> Vec<u8> {
    [&message(0x2f, service)[..], packet].concat()
}

/// A UDP packet.
pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    assert!(proto_core::routing::packet::udp(
        source,
        destination,
        payload,
        &mut packet
    ));
    packet
}
