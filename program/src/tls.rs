//! Who this program is and whom it trusts: certificate, key and CA from files, and what `--insecure-dev` leaves of it.
//!
//! Every program uses the same three keys, `cert_path`, `key_path` and `ca_cert`. Nothing of a key is ever shown.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proto_core::config::limits::{MAX_UDP_PAYLOAD, RECEIVE_QUEUE, SEND_QUEUE};
use proto_core::config::timing::IDLE_TIMEOUT;
use proto_core::quic::quiche::{
    CLIENT_GROUPS, ConfigError, PemIdentity, QuicheConfig, QuicheProvider, SERVER_GROUPS, Verify,
};
use proto_core::quic::{ALPN_SESSION, ALPN_V1, ALPN_V2};
use ring::hkdf;

use crate::pki;
use crate::settings::{Input, Settings, SettingsError, describe};

/// A PEM file larger than this is something else.
const MAX_PEM: u64 = 1 << 20;

/// Which end of the connection a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It accepts: it cannot do without a certificate.
    Server,
    /// It connects: it needs a certificate to be let in.
    Client,
    /// The same, and agents connect to it.
    Connector,
}

/// TLS, ready to use.
#[derive(Debug)]
pub struct Tls {
    /// Makes connections.
    pub provider: QuicheProvider,
    /// The key of stateless reset tokens (RFC 9000 §10.3), the same for the same private key.
    pub reset_key: Option<[u8; 32]>,
}

/// Loads what the settings name and checks that it fits together.
///
/// # Errors
/// Names the key, the file and what to do.
pub fn load(settings: &Settings, end: End, insecure_dev: bool) -> Result<Tls, SettingsError> {
    let identity = identity(settings, end, insecure_dev)?;
    let trusted = match settings.input("ca_cert") {
        // Given and not used; a file that cannot be read is still a mistake.
        Some(input) => read(&input, &input.path()?)?,
        None if insecure_dev => Vec::new(),
        None => return Err(missing_ca(settings, end)),
    };
    let reset_key = identity.as_ref().and_then(|identity| reset_key(&identity.key));
    let config = QuicheConfig {
        alpn: vec![ALPN_V2.to_vec(), ALPN_V1.to_vec()],
        session_alpn: match end {
            End::Server => Vec::new(),
            End::Client => vec![ALPN_SESSION.to_vec()],
            // v1 agents that look for a direct path speak to connectors what they speak to the intermediate.
            End::Connector => vec![ALPN_SESSION.to_vec(), ALPN_V1.to_vec()],
        },
        identity,
        trusted,
        verify: if insecure_dev {
            Verify::InsecureNone
        } else {
            Verify::Required
        },
        groups: match end {
            End::Server => SERVER_GROUPS,
            End::Client | End::Connector => CLIENT_GROUPS,
        },
        idle_timeout: IDLE_TIMEOUT,
        max_udp_payload: MAX_UDP_PAYLOAD,
        send_queue: SEND_QUEUE,
        receive_queue: RECEIVE_QUEUE,
    };
    let provider = QuicheProvider::new(&config).map_err(|error| refused(settings, error))?;
    Ok(Tls { provider, reset_key })
}

fn identity(settings: &Settings, end: End, insecure_dev: bool) -> Result<Option<PemIdentity>, SettingsError> {
    let cert = settings.input("cert_path");
    let key = settings.input("key_path");
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(PemIdentity {
            chain: read(&cert, &cert.path()?)?,
            key: read_private(&key, &key.path()?)?,
        })),
        (None, None) if insecure_dev => match end {
            End::Client | End::Connector => Ok(None),
            End::Server => {
                log::warn!("no cert_path: using a certificate made for this run, which nobody can verify");
                let made = pki::ephemeral()
                    .map_err(|error| settings.missing("cert_path", &format!("a certificate ({error})")))?;
                Ok(Some(PemIdentity {
                    chain: made.certificate.into_bytes(),
                    key: made.key.into_bytes(),
                }))
            }
        },
        (None, _) => Err(settings.missing(
            "cert_path",
            "the certificate of this program (`ztna pki issue` makes one)",
        )),
        (Some(_), None) => Err(settings.missing("key_path", "the private key of cert_path")),
    }
}

fn missing_ca(settings: &Settings, end: End) -> SettingsError {
    let what = match end {
        End::Server => "the CA that signs the clients' certificates (`ztna pki init` makes one)",
        End::Client | End::Connector => {
            "the CA that signs the intermediate's certificate (`ztna pki init` makes one)"
        }
    };
    settings.missing("ca_cert", what)
}

/// Says which file the TLS library did not take.
fn refused(settings: &Settings, error: ConfigError) -> SettingsError {
    let (key, fix) = match error {
        ConfigError::Certificate => ("cert_path", "name a file with -----BEGIN CERTIFICATE-----"),
        ConfigError::Key => ("key_path", "name a file with -----BEGIN PRIVATE KEY-----"),
        ConfigError::KeyMismatch => ("key_path", "name the key that was made together with cert_path"),
        ConfigError::Trusted => ("ca_cert", "name a file with -----BEGIN CERTIFICATE-----"),
        ConfigError::Tls => ("cert_path", "check certificate, key and CA"),
    };
    match settings.input(key) {
        Some(input) => input.error(format!("{}: {error}", input.shown()), fix),
        None => SettingsError::new(key, error.to_string(), fix),
    }
}

fn read(input: &Input<'_>, path: &Path) -> Result<Vec<u8>, SettingsError> {
    let file = open(input, path)?;
    slurp(input, path, file)
}

/// As [`read`], for a file that nobody else may read.
fn read_private(input: &Input<'_>, path: &Path) -> Result<Vec<u8>, SettingsError> {
    let file = open(input, path)?;
    let mode = file
        .metadata()
        .map_err(|error| unreadable(input, path, &error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(input.error(
            format!(
                "{} can be read by others (mode {:04o})",
                shown(path),
                mode & 0o7777
            ),
            format!("run `chmod 600 {}`", path.display()),
        ));
    }
    slurp(input, path, file)
}

fn open(input: &Input<'_>, path: &Path) -> Result<File, SettingsError> {
    let file = File::open(path).map_err(|error| unreadable(input, path, &error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(input.error(format!("{} is not a file", shown(path)), "name a PEM file")),
        Err(error) => Err(unreadable(input, path, &error)),
    }
}

fn slurp(input: &Input<'_>, path: &Path, file: File) -> Result<Vec<u8>, SettingsError> {
    let mut bytes = Vec::new();
    file.take(MAX_PEM + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(input, path, &error))?;
    if bytes.len() as u64 > MAX_PEM {
        return Err(input.error(format!("{} is larger than 1 MiB", shown(path)), "name a PEM file"));
    }
    Ok(bytes)
}

fn unreadable(input: &Input<'_>, path: &Path, error: &std::io::Error) -> SettingsError {
    let fix = if error.kind() == std::io::ErrorKind::NotFound {
        "create the file or name another"
    } else {
        "make it a file that this user can read"
    };
    input.error(format!("cannot read {}: {}", shown(path), describe(error)), fix)
}

fn shown(path: &Path) -> String {
    format!("{:?}", PathBuf::from(path))
}

/// A key for stateless resets that a restart does not change: HKDF-SHA-256 of the private key (RFC 5869).
fn reset_key(private_key: &[u8]) -> Option<[u8; 32]> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ztna stateless reset");
    let mut key = [0; 32];
    salt.extract(private_key)
        .expand(&[b"ztna-v1 reset token key"], hkdf::HKDF_SHA256)
        .ok()?
        .fill(&mut key)
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests;
