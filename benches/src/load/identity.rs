//! Certificates for one measurement: written once, read by every process of it.

use std::fs;
use std::io;
use std::path::Path;

use proto_core::quic::quiche::{CLIENT_GROUPS, PemIdentity, QuicheConfig, QuicheProvider, Verify};
use proto_core::quic::testing::TestPki;
use proto_core::wire::datagram::Role;

fn name(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent",
        Role::Connector => "connector",
    }
}

/// Fills `dir`.
pub(super) fn write(dir: &Path, names: &[String]) -> io::Result<()> {
    let pki = TestPki::new();
    fs::create_dir_all(dir)?;
    fs::write(dir.join("ca.pem"), pki.authority())?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identities = [
        ("relay", pki.issue(&names)),
        (name(Role::Agent), pki.issue(&["agent.*.ztna"])),
        (name(Role::Connector), pki.issue(&["connector.*.ztna"])),
    ];
    for (file, PemIdentity { chain, key }) in identities {
        fs::write(dir.join(format!("{file}.pem")), chain)?;
        fs::write(dir.join(format!("{file}.key")), key)?;
    }
    Ok(())
}

/// A client's provider from what [`write`] has written.
pub(super) fn provider(dir: &Path, role: Role) -> io::Result<QuicheProvider> {
    let config = QuicheConfig {
        alpn: vec![b"ztna-v1".to_vec()],
        identity: Some(PemIdentity {
            chain: fs::read(dir.join(format!("{}.pem", name(role))))?,
            key: fs::read(dir.join(format!("{}.key", name(role))))?,
        }),
        trusted: fs::read(dir.join("ca.pem"))?,
        verify: Verify::Required,
        groups: CLIENT_GROUPS,
        idle_timeout: std::time::Duration::from_secs(30),
        max_udp_payload: 1_350,
        send_queue: 1_024,
        receive_queue: 1_024,
    };
    QuicheProvider::new(&config).map_err(io::Error::other)
}
