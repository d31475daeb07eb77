//! Certificates made on the spot, and a provider that uses them: for tests and benchmarks.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::quiche::{CLIENT_GROUPS, PemIdentity, QuicheConfig, QuicheProvider, SERVER_GROUPS, Verify};
use crate::config::limits::MAX_UDP_PAYLOAD;

/// A certification authority that exists for one test.
#[derive(Debug)]
pub struct TestPki {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestPki {
    /// Makes the authority.
    ///
    /// # Panics
    /// If the operating system gives no entropy.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("entropy");
        let certificate = params.self_signed(&key).expect("a valid authority");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> Vec<u8> {
        self.pem.clone().into_bytes()
    }

    /// A certificate for these DNS names and addresses, as `ztna pki issue` makes them: with names of agents or connectors
    /// for clients, with others for servers, with both for both.
    ///
    /// # Panics
    /// If a name cannot stand in a certificate.
    pub fn issue(&self, names: &[&str]) -> PemIdentity {
        self.issue_to(false, names)
    }

    /// The same to a client in any case, whatever it is called.
    fn issue_to(&self, client: bool, names: &[&str]) -> PemIdentity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().expect("a DNS name")),
            })
            .collect();
        let is_client = |name: &&str| name.starts_with("agent.") || name.starts_with("connector.");
        if !names.iter().all(is_client) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if client || names.iter().any(is_client) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let key = KeyPair::generate().expect("entropy");
        let certificate = params.signed_by(&key, &self.issuer).expect("a valid certificate");
        PemIdentity {
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// The configuration of a server or client of this authority, with the transport parameters of `ztna-v1`.
    pub fn config(&self, server: bool, names: &[&str]) -> QuicheConfig {
        QuicheConfig {
            alpn: vec![b"ztna-v1".to_vec()],
            session_alpn: Vec::new(),
            identity: Some(self.issue_to(!server, names)),
            trusted: self.authority(),
            verify: Verify::Required,
            groups: if server { SERVER_GROUPS } else { CLIENT_GROUPS },
            idle_timeout: Duration::from_secs(30),
            max_udp_payload: MAX_UDP_PAYLOAD,
            send_queue: 1024,
            receive_queue: 1024,
        }
    }

    /// A provider for [`TestPki::config`].
    ///
    /// # Panics
    /// If the TLS library refuses what was just made.
    pub fn provider(&self, server: bool, names: &[&str]) -> QuicheProvider {
        QuicheProvider::new(&self.config(server, names)).expect("a usable configuration")
    }
}

impl Default for TestPki {
    fn default() -> Self {
        Self::new()
    }
}
