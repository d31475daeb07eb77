//! A development CA: two files, and certificates whose names say what their holders may do.
//!
//! Names follow the SAN rule: `agent.<service>.ztna` and `connector.<service>.ztna`, `*` for any service; a server's
//! certificate carries its host names and addresses. All keys are ECDSA P-256. Nothing is ever overwritten, a key file
//! is made with mode 0600 before anything is in it, and no key is ever shown.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto_core::id::ServiceId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

/// The file names of an authority, in its directory.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The private key of an authority, in its directory.
pub const CA_KEY: &str = "ca.key";

/// Certificates are valid from a little before they are made: clocks differ.
const BACKDATE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(86_400);

/// Longest life of a certificate, in days; a hundred years.
pub const MAX_DAYS: u32 = 36_500;

/// Why nothing was made; the text is fit for the operator.
#[derive(Debug)]
pub enum PkiError {
    /// The file is there already and is not overwritten.
    Exists(PathBuf),
    /// The directory holds no authority.
    NoAuthority(PathBuf),
    /// The file cannot be read or written.
    File(PathBuf, io::Error),
    /// The authority's files are not what this program wrote.
    Authority(PathBuf),
    /// The text cannot stand in a certificate.
    Name(String),
    /// A certificate that says nothing is of no use.
    NoName,
    /// The cryptographic library failed.
    Crypto,
}

impl fmt::Display for PkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                f,
                "{} exists already and is not overwritten; choose another name or directory, or remove it",
                path.display()
            ),
            Self::NoAuthority(dir) => write!(
                f,
                "{} holds no {CA_CERTIFICATE}; run `ztna pki init --dir {}` first",
                dir.display(),
                dir.display()
            ),
            Self::File(path, error) => {
                write!(
                    f,
                    "cannot use {}: {}",
                    path.display(),
                    crate::settings::describe(error)
                )
            }
            Self::Authority(path) => write!(
                f,
                "{} is not an authority made by `ztna pki init`; name its directory",
                path.display()
            ),
            Self::Name(name) => write!(
                f,
                "{name:?} cannot stand in a certificate; use letters, digits, hyphens and dots"
            ),
            Self::NoName => f.write_str(
                "the certificate would permit nothing; give --server HOST, --agent SERVICE or --connector SERVICE",
            ),
            Self::Crypto => f.write_str("the cryptographic library failed; the system may be out of entropy"),
        }
    }
}

impl std::error::Error for PkiError {}

/// What a certificate says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Host names and addresses of a server.
    pub servers: Vec<String>,
    /// Services it may reach; `*` is any.
    pub agents: Vec<String>,
    /// Services it may publish; `*` is any.
    pub connectors: Vec<String>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, and behind it nothing: the authority is a root.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(..)")
    }
}

/// A certification authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// Makes an authority and writes it into `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// If one of its files exists already, or cannot be written.
    pub fn create(dir: &Path, days: u32) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
        fs::create_dir_all(dir).map_err(|error| PkiError::File(dir.to_owned(), error))?;
        refuse_existing(&[&certificate_path, &key_path])?;
        let key = new_key()?;
        let mut params = valid_for(days);
        params
            .distinguished_name
            .push(DnType::CommonName, "ztna development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|_| PkiError::Crypto)?.pem();
        write_new(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        write_new(&certificate_path, certificate.as_bytes(), 0o644)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// Loads the authority of a directory.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    PkiError::NoAuthority(dir.to_owned())
                } else {
                    PkiError::File(path, error)
                }
            })
        };
        let certificate = read(CA_CERTIFICATE)?;
        let damaged = |_| PkiError::Authority(dir.to_owned());
        let key = KeyPair::from_pem(&read(CA_KEY)?).map_err(damaged)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(damaged)?;
        Ok(Self { issuer, certificate })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a certificate.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, or there is none.
    pub fn issue(&self, name: &str, grants: &Grants, days: u32) -> Result<Issued, PkiError> {
        let mut params = valid_for(days);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = alt_names(grants)?;
        if params.subject_alt_names.is_empty() {
            return Err(PkiError::NoName);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if !grants.servers.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if !grants.agents.is_empty() || !grants.connectors.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|_| PkiError::Crypto)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Writes `NAME.pem` and `NAME.key` into a directory, which is made if it is missing; returns both paths.
///
/// # Errors
/// If one of them exists already, or cannot be written.
pub fn write(dir: &Path, name: &str, issued: &Issued) -> Result<(PathBuf, PathBuf), PkiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) || name == "ca" {
        return Err(PkiError::Name(name.to_owned()));
    }
    let certificate = dir.join(format!("{name}.pem"));
    let key = dir.join(format!("{name}.key"));
    fs::create_dir_all(dir).map_err(|error| PkiError::File(dir.to_owned(), error))?;
    refuse_existing(&[&certificate, &key])?;
    write_new(&key, issued.key.as_bytes(), 0o600)?;
    write_new(&certificate, issued.certificate.as_bytes(), 0o644)?;
    Ok((certificate, key))
}

/// A certificate of a server that nobody can verify, for a development server that was given none.
///
/// # Errors
/// If the cryptographic library fails.
pub fn ephemeral() -> Result<Issued, PkiError> {
    let key = new_key()?;
    let mut params = valid_for(30);
    params
        .distinguished_name
        .push(DnType::CommonName, "ztna ephemeral");
    params.subject_alt_names = vec![SanType::DnsName(dns_name("localhost")?)];
    let certificate = params.self_signed(&key).map_err(|_| PkiError::Crypto)?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| PkiError::Crypto)
}

fn valid_for(days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + DAY * days.clamp(1, MAX_DAYS)).into();
    params
}

fn alt_names(grants: &Grants) -> Result<Vec<SanType>, PkiError> {
    let servers = grants
        .servers
        .iter()
        .map(|server| match server.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => host_name(server),
        });
    let agents = grants.agents.iter().map(|service| service_name("agent", service));
    let connectors = grants
        .connectors
        .iter()
        .map(|service| service_name("connector", service));
    servers.chain(agents).chain(connectors).collect()
}

fn host_name(server: &str) -> Result<SanType, PkiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
    if server.is_empty() || !server.chars().all(plain) {
        return Err(PkiError::Name(server.to_owned()));
    }
    dns_name(server).map(SanType::DnsName)
}

fn service_name(capacity: &str, service: &str) -> Result<SanType, PkiError> {
    let printable = |c: char| c.is_ascii_graphic();
    if ServiceId::parse(service.as_bytes()).is_err() || !service.chars().all(printable) {
        return Err(PkiError::Name(service.to_owned()));
    }
    dns_name(&format!("{capacity}.{service}.ztna")).map(SanType::DnsName)
}

fn dns_name(name: &str) -> Result<rcgen::string::Ia5String, PkiError> {
    name.try_into().map_err(|_| PkiError::Name(name.to_owned()))
}

fn refuse_existing(paths: &[&Path]) -> Result<(), PkiError> {
    match paths.iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(PkiError::Exists((*path).to_owned())),
        None => Ok(()),
    }
}

/// Makes a file that was not there, with its mode from the first moment.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            PkiError::Exists(path.to_owned())
        } else {
            PkiError::File(path.to_owned(), error)
        }
    };
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests;
