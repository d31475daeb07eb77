//! Real quiche under the conformance suite, in virtual time: this binary answers `clock_gettime` itself.

#![cfg(target_os = "linux")]

use std::time::Instant;

use proto_core::quic::conformance::{Harness, IDLE_TIMEOUT, Identity, SERVER_NAME, Setup, Side};
use proto_core::quic::quiche::{PemIdentity, QuicheConfig, QuicheProvider};
use proto_core::quic::testing::TestPki;
use proto_core::sim::Clock;
use virtual_clock::VirtualClock;

proto_core::quic_conformance!(QuicheHarness::new());

struct QuicheHarness {
    trusted: TestPki,
    untrusted: TestPki,
    server: PemIdentity,
    client: PemIdentity,
}

impl QuicheHarness {
    fn new() -> Self {
        let trusted = TestPki::new();
        Self {
            server: trusted.issue(&[SERVER_NAME]),
            client: trusted.issue(&["agent.conformance.ztna"]),
            trusted,
            untrusted: TestPki::new(),
        }
    }

    fn identity(&self, side: Side) -> &PemIdentity {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl Harness for QuicheHarness {
    type Provider = QuicheProvider;
    type Clock = ThreadClock;

    fn clock(&mut self) -> ThreadClock {
        ThreadClock(VirtualClock::start())
    }

    fn provider(&mut self, setup: &Setup) -> QuicheProvider {
        let server = setup.side == Side::Server;
        let usual = self.trusted.config(server, &[SERVER_NAME]);
        let config = QuicheConfig {
            alpn: setup.alpn.clone(),
            session_alpn: Vec::new(),
            identity: match setup.identity {
                Identity::Trusted => Some(self.identity(setup.side).clone()),
                Identity::Untrusted => Some(self.untrusted.issue(&[SERVER_NAME, "agent.conformance.ztna"])),
                Identity::Missing => None,
            },
            idle_timeout: IDLE_TIMEOUT,
            send_queue: setup.queue,
            receive_queue: setup.queue,
            ..usual
        };
        QuicheProvider::new(&config).expect("a usable configuration")
    }

    fn certificate(&mut self, side: Side) -> Vec<u8> {
        let pem = &self.identity(side).chain;
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).expect("a PEM certificate");
        pem.contents
    }
}

/// The virtual time of the test's thread, which is also the one that quiche reads.
struct ThreadClock(VirtualClock);

impl Clock for ThreadClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn advance_to(&mut self, at: Instant) {
        self.0.advance(at.saturating_duration_since(self.0.now()));
    }
}
