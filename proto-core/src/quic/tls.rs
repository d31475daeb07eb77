//! TLS as configured: the identity of this program, the authorities it trusts, and what a peer must show.
//!
//! Everything comes in as PEM texts; files and their permissions are the programs' business. Names in certificates are
//! read in [`super::identity`].

use std::fmt;
use std::time::Duration;

use boring::pkey::PKey;
use boring::ssl::{SslContextBuilder, SslMethod, SslVerifyMode};
use boring::x509::{X509, X509StoreContextRef, X509VerifyError};

/// TLS and transport of a [`QuicheProvider`](super::quiche::QuicheProvider).
#[derive(Clone)]
pub struct QuicheConfig {
    /// The application protocols offered or accepted, best first.
    pub alpn: Vec<Vec<u8>>,
    /// The same for connections between agents and connectors; none if this program has no part in any.
    pub session_alpn: Vec<Vec<u8>>,
    /// This program's certificate chain and private key, PEM; servers need one.
    pub identity: Option<PemIdentity>,
    /// The authorities whose certificates are accepted from peers, PEM. Empty with `Verify::Required` accepts nobody.
    pub trusted: Vec<u8>,
    /// Whether the peer must prove who it is.
    pub verify: Verify,
    /// The groups of the key exchange, in BoringSSL's notation, best first.
    pub groups: &'static str,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// Largest UDP payload sent and received, in bytes.
    pub max_udp_payload: usize,
    /// DATAGRAMs that may wait to be sent, per connection.
    pub send_queue: usize,
    /// DATAGRAMs that may wait to be read, per connection.
    pub receive_queue: usize,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub struct PemIdentity {
    /// Leaf first.
    pub chain: Vec<u8>,
    /// PKCS #8 or the traditional forms.
    pub key: Vec<u8>,
}

/// What is demanded of the peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It must present one that a trusted authority signed.
    Required,
    /// Nothing: development only.
    InsecureNone,
}

/// Towards a server: X25519 first, so that the ClientHello of a `ztna-v1` client fits one datagram.
pub const CLIENT_GROUPS: &str = "X25519:P-256";

/// What a server accepts, the post-quantum hybrid first.
pub const SERVER_GROUPS: &str = "X25519MLKEM768:X25519:P-256";

impl fmt::Debug for QuicheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicheConfig")
            .field("alpn", &self.alpn)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PemIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PemIdentity(..)")
    }
}

/// Why a configuration cannot be used; each variant names what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The certificate chain is not PEM or holds no certificate.
    Certificate,
    /// The private key is not PEM, or protected by a pass phrase.
    Key,
    /// The private key does not belong to the certificate.
    KeyMismatch,
    /// The trusted authorities are not PEM or hold no certificate.
    Trusted,
    /// The library refused the rest.
    Tls,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate is not a PEM certificate chain",
            Self::Key => "the private key is not an unencrypted PEM key",
            Self::KeyMismatch => "the private key does not belong to the certificate",
            Self::Trusted => "the CA file holds no PEM certificate",
            Self::Tls => "the TLS library refused the configuration",
        })
    }
}

impl std::error::Error for ConfigError {}

/// The context of a provider's connections: of sessions, or of all others.
pub(super) fn tls_context(config: &QuicheConfig, sessions: bool) -> Result<SslContextBuilder, ConfigError> {
    let mut tls = SslContextBuilder::new(SslMethod::tls()).map_err(|_| ConfigError::Tls)?;
    tls.set_curves_list(config.groups).map_err(|_| ConfigError::Tls)?;
    if let Some(identity) = &config.identity {
        let mut chain = X509::stack_from_pem(&identity.chain)
            .map_err(|_| ConfigError::Certificate)?
            .into_iter();
        let leaf = chain.next().ok_or(ConfigError::Certificate)?;
        tls.set_certificate(&leaf).map_err(|_| ConfigError::Certificate)?;
        for issuer in chain {
            tls.add_extra_chain_cert(issuer)
                .map_err(|_| ConfigError::Certificate)?;
        }
        let key = PKey::private_key_from_pem(&identity.key).map_err(|_| ConfigError::Key)?;
        tls.set_private_key(&key).map_err(|_| ConfigError::KeyMismatch)?;
        tls.check_private_key().map_err(|_| ConfigError::KeyMismatch)?;
    }
    match config.verify {
        Verify::Required => {
            let trusted = X509::stack_from_pem(&config.trusted).map_err(|_| ConfigError::Trusted)?;
            if trusted.is_empty() {
                return Err(ConfigError::Trusted);
            }
            for authority in trusted {
                tls.cert_store_mut()
                    .add_cert(&authority)
                    .map_err(|_| ConfigError::Trusted)?;
            }
            let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
            if sessions {
                tls.set_verify_callback(mode, connectors_are_no_servers);
            } else {
                tls.set_verify(mode);
            }
        }
        Verify::InsecureNone => tls.set_verify(SslVerifyMode::NONE),
    }
    Ok(tls)
}

/// In a session the connector is the TLS server, with the certificate of a client of the intermediate: it may be for clients
/// only (RFC 5280 §4.2.1.12). Who the peer is, its name says (`connector.<service>.ztna`), which the roles ask for before
/// anything else; no certificate has that name by accident.
fn connectors_are_no_servers(good: bool, chain: &mut X509StoreContextRef) -> bool {
    let of_leaf = chain.error_depth() == 0;
    let usage = chain.verify_result() == Err(X509VerifyError::INVALID_PURPOSE);
    if !good && of_leaf && usage {
        chain.set_error(Ok(()));
        return true;
    }
    good
}
