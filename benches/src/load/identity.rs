//! What a client presents, from the files that `ztna pki` makes.

use std::fs;
use std::io;
use std::path::Path;

use proto_core::quic::quiche::{CLIENT_GROUPS, PemIdentity, QuicheConfig, QuicheProvider, Verify};
use proto_core::quic::{ALPN_V1, ALPN_V2};
use proto_core::wire::datagram::Role;

use crate::client::Speaks;

fn name(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent",
        Role::Connector => "connector",
    }
}

/// A client's provider: `ca.pem` and `agent.*` or `connector.*` of a directory.
pub(super) fn provider(dir: &Path, role: Role, speaks: Speaks) -> io::Result<QuicheProvider> {
    let config = QuicheConfig {
        alpn: vec![
            match speaks {
                Speaks::V1 => ALPN_V1,
                Speaks::V2 => ALPN_V2,
            }
            .to_vec(),
        ],
        session_alpn: Vec::new(),
        identity: Some(PemIdentity {
            chain: fs::read(dir.join(format!("{}.pem", name(role))))?,
            key: fs::read(dir.join(format!("{}.key", name(role))))?,
        }),
        trusted: fs::read(dir.join("ca.pem"))?,
        verify: Verify::Required,
        groups: CLIENT_GROUPS,
        idle_timeout: std::time::Duration::from_secs(30),
        max_udp_payload: proto_core::config::limits::MAX_UDP_PAYLOAD,
        send_queue: 1_024,
        receive_queue: 1_024,
    };
    QuicheProvider::new(&config).map_err(io::Error::other)
}
