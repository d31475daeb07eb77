//! The roles, ready to be put into a world: configured, and with certificates.
//!
//! With [`StandIns`] nothing is drawn from the operating system, certificates included: the same calls make the same
//! machines, in every process. So a world of them is replayed by its seed alone. A [`Casting`] of real QUIC puts the same
//! roles into the same worlds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use rcgen::{CertificateParams, KeyPair, SanType};

use crate::agent::Agent;
use crate::config::{
    AgentConfig, AgentService, ConnectorConfig, ConnectorService, IntermediateConfig, IntermediateEndpoint,
    IntermediateLimits, Protocol, TunnelLimits,
};
use crate::connector::Connector;
use crate::id::ServiceId;
use crate::intermediate::Intermediate;
use crate::quic::fake::{FakeCertificate, FakeConfig, FakeProvider, Trust};
use crate::quic::identity::SanAuthority;
use crate::quic::{ALPN_V1, ALPN_V2, Provider};
use crate::rng::{Rng, Seed};
use crate::service::Offer;
use crate::sim::{Clock, ManualClock};

/// Where the intermediate is.
pub const RELAY: &str = "192.0.2.1:4433";

/// The name in the intermediate's certificate.
pub const RELAY_NAME: &str = "relay.test";

/// The protocols of one that knows the first version only.
pub const V1: &[&[u8]] = &[ALPN_V1];

/// The protocols of one that knows both, the better one first.
pub const BOTH: &[&[u8]] = &[ALPN_V2, ALPN_V1];

/// The port of every service, as agents and as connectors see it.
pub const SERVICE_PORT: u16 = 9999;

/// The beginning of a private Ed25519 key in DER (RFC 8410 §7); 32 bytes of key follow.
const KEY_HEADER: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A certificate that is the same for the same names, in every run; other names make another.
///
/// # Panics
/// If a name cannot stand in a certificate.
pub fn certificate(names: &[&str]) -> FakeCertificate {
    // Ed25519 signs without entropy (RFC 8032 §5.1.6), and nobody checks the signature.
    let key = [&KEY_HEADER[..], &[7; 32]].concat();
    let key = KeyPair::try_from(key.as_slice()).expect("an Ed25519 key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::DnsName((*name).try_into().expect("a DNS name")))
        .collect();
    let certificate = params.self_signed(&key).expect("a valid certificate");
    FakeCertificate {
        der: certificate.der().to_vec(),
        issuer: 1,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Makes what depends on the QUIC implementation: providers, and the clock that it reads.
pub trait Casting {
    /// The QUIC implementation.
    type Provider: Provider + 'static;
    /// Its time.
    type Clock: Clock + 'static;

    /// Whether clients may appear at other addresses.
    const MOVES: bool = true;

    /// The clock of a new world.
    fn clock(&mut self) -> Self::Clock;

    /// A provider that offers or takes these protocols, with mutual authentication. The same names are the same certificate.
    fn provider(&mut self, server: bool, names: &[&str], protocols: &[&[u8]], rng: Rng) -> Self::Provider;
}

/// The deterministic stand-in for QUIC, in a time that is just a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandIns;

impl Casting for StandIns {
    type Provider = FakeProvider;
    type Clock = ManualClock;

    fn clock(&mut self) -> ManualClock {
        ManualClock::new()
    }

    fn provider(&mut self, _: bool, names: &[&str], protocols: &[&[u8]], rng: Rng) -> FakeProvider {
        let mut config = FakeConfig::new(protocols);
        config.certificate = Some(certificate(names));
        config.trust = Trust::Issuers(vec![1]);
        config.require_client_certificate = true;
        FakeProvider::new(config, rng)
    }
}

/// The name of the service with this number.
pub fn service_id(number: u8) -> ServiceId {
    ServiceId::parse(format!("service{number}").as_bytes()).expect("a short name")
}

/// The address of a service as agents see it.
pub fn virtual_address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 100, 0, number + 1).into()
}

/// The address of a service as its connector sees it.
pub fn backend(number: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 200, 0, number + 1).into(), SERVICE_PORT)
}

/// Where every client finds the intermediate.
pub fn endpoint() -> IntermediateEndpoint {
    IntermediateEndpoint {
        addresses: vec![RELAY.parse().expect("an address")],
        server_name: Some(RELAY_NAME.to_owned()),
    }
}

/// An intermediate; without a key it cannot say that it has been restarted.
pub fn intermediate<T: Casting>(
    casting: &mut T,
    protocols: &[&[u8]],
    reset_key: Option<[u8; 32]>,
    seed: &Seed,
    now: Instant,
) -> Intermediate<T::Provider> {
    let config = IntermediateConfig {
        retry: true,
        reset_key,
        limits: IntermediateLimits::default(),
    };
    let mut rng = Rng::new(seed);
    let provider = casting.provider(true, &[RELAY_NAME], protocols, rng.fork());
    Intermediate::new(
        &config,
        provider,
        Box::new(SanAuthority::default()),
        &draw(&mut rng),
        now,
    )
}

/// The agent with this number, which uses these services and speaks `ztna-v1`.
pub fn agent<T: Casting>(
    casting: &mut T,
    number: u8,
    local: SocketAddr,
    services: &[u8],
    seed: &Seed,
    now: Instant,
) -> Agent<T::Provider> {
    let mut rng = Rng::new(seed);
    let names = [&*format!("n{number}.agents.test"), "agent.*.ztna"];
    let provider = casting.provider(false, &names, V1, rng.fork());
    let config = AgentConfig {
        intermediate: endpoint(),
        local,
        services: services
            .iter()
            .map(|&service| AgentService {
                id: service_id(service),
                virtual_addresses: vec![virtual_address(service)],
            })
            .collect(),
        sessions: None,
        limits: TunnelLimits::default(),
    };
    Agent::new(config, provider, &draw(&mut rng), now)
}

/// The connector with this number, which publishes these services and speaks what the intermediate does.
pub fn connector<T: Casting>(
    casting: &mut T,
    number: u8,
    local: SocketAddr,
    services: &[u8],
    seed: &Seed,
    now: Instant,
) -> Connector<T::Provider> {
    let mut rng = Rng::new(seed);
    let names = [&*format!("n{number}.connectors.test"), "connector.*.ztna"];
    let provider = casting.provider(false, &names, BOTH, rng.fork());
    let config = ConnectorConfig {
        intermediate: endpoint(),
        local,
        sessions: None,
        services: services
            .iter()
            .map(|&service| ConnectorService {
                id: service_id(service),
                offer: Offer::single(backend(service), Protocol::Both),
                virtual_addresses: vec![virtual_address(service)],
            })
            .collect(),
        limits: Default::default(),
    };
    Connector::new(config, provider, &draw(&mut rng), now)
}

fn draw(rng: &mut Rng) -> Seed {
    let mut seed = [0; 32];
    rng.fill(&mut seed);
    Seed(seed)
}
