use super::{FakeCertificate, FakeConfig, FakeProvider, Trust};
use crate::quic::conformance::{Harness, Identity, SERVER_NAME, Setup, Side};
use crate::rng::{Rng, Seed};
use crate::sim::ManualClock;

mod suite {
    crate::quic_conformance!(super::FakeHarness::default());
}

const TRUSTED: u32 = 1;
const UNTRUSTED: u32 = 2;

#[derive(Default)]
struct FakeHarness {
    seed: u8,
}

fn certificate(side: Side, issuer: u32) -> FakeCertificate {
    let der = format!("certificate of the {side:?}").repeat(20).into_bytes();
    FakeCertificate {
        der,
        issuer,
        names: vec![SERVER_NAME.to_owned()],
    }
}

impl Harness for FakeHarness {
    type Provider = FakeProvider;
    type Clock = ManualClock;

    fn clock(&mut self) -> ManualClock {
        ManualClock::new()
    }

    fn provider(&mut self, setup: &Setup) -> FakeProvider {
        let mut config = FakeConfig::new(&[]);
        config.alpn.clone_from(&setup.alpn);
        config.trust = Trust::Issuers(vec![TRUSTED]);
        config.require_client_certificate = true;
        config.send_queue = setup.queue;
        config.recv_queue = setup.queue;
        config.certificate = match setup.identity {
            Identity::Trusted => Some(certificate(setup.side, TRUSTED)),
            Identity::Untrusted => Some(certificate(setup.side, UNTRUSTED)),
            Identity::Missing => None,
        };
        self.seed += 1;
        FakeProvider::new(config, Rng::new(&Seed([self.seed; 32])))
    }

    fn certificate(&mut self, side: Side) -> Vec<u8> {
        certificate(side, TRUSTED).der
    }
}
