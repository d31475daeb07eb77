//! Who a peer is, read from the certificate that TLS has already verified.
//!
//! A certificate speaks for services through its SAN dNSNames: `agent.<service>.ztna` may act as an agent of the
//! service, `connector.<service>.ztna` may publish it; `*` as the service is any. What an identity may do is asked of
//! an [`Authority`], so that a control plane can answer later; [`SanAuthority`] is the built-in answer.

use std::fmt;
use std::net::IpAddr;

use ring::digest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::id::ServiceId;

/// What a peer wants to be for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capacity {
    /// Reach it.
    Agent,
    /// Publish it.
    Connector,
}

/// The SHA-256 of a certificate: the same peer, the same fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name of the SAN rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Grant {
    capacity: Capacity,
    /// Lower case; `*` is any.
    service: Box<str>,
}

/// A peer as its certificate describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    fingerprint: Fingerprint,
    name: Box<str>,
    grants: Vec<Grant>,
}

impl Identity {
    /// Reads a certificate in DER; `None` if it cannot be parsed.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let names = dns_names(der)?;
        let name = common_name(der)
            .or_else(|| names.first().cloned())
            .unwrap_or_default();
        let grants = names.iter().filter_map(|name| Grant::parse(name)).collect();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Some(Self {
            fingerprint: Fingerprint(fingerprint),
            name: name.into(),
            grants,
        })
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What the certificate calls its holder: the common name of its subject, else its first SAN dNSName, else nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the certificate carries any name of the rule at all.
    pub fn is_named(&self) -> bool {
        !self.grants.is_empty()
    }

    /// Whether the certificate names this service in this capacity.
    pub fn names(&self, capacity: Capacity, service: &ServiceId) -> bool {
        self.grants.iter().any(|grant| {
            grant.capacity == capacity
                && (&*grant.service == "*" || grant.service.eq_ignore_ascii_case(service.as_str()))
        })
    }
}

impl Grant {
    /// `<capacity>.<service>.ztna`; the service is everything between the first dot and the suffix.
    fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (capacity, service) = name.strip_suffix(".ztna")?.split_once('.')?;
        let capacity = match capacity {
            "agent" => Capacity::Agent,
            "connector" => Capacity::Connector,
            _ => return None,
        };
        if service.is_empty() {
            return None;
        }
        Some(Self {
            capacity,
            service: service.into(),
        })
    }
}

/// Whether a certificate names this address in a SAN iPAddress: TLS checks only host names.
pub fn names_address(der: &[u8], address: IpAddr) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let Ok(Some(san)) = certificate.subject_alternative_name() else {
        return false;
    };
    san.value.general_names.iter().any(|name| match (name, address) {
        (GeneralName::IPAddress(bytes), IpAddr::V4(ip)) => **bytes == ip.octets(),
        (GeneralName::IPAddress(bytes), IpAddr::V6(ip)) => **bytes == ip.octets(),
        _ => false,
    })
}

/// The first common name of the subject, with what is not UTF-8 replaced.
fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    let text = match name.as_str() {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(name.as_slice()).into_owned(),
    };
    Some(text).filter(|text| !text.is_empty())
}

fn dns_names(der: &[u8]) -> Option<Vec<String>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let Some(san) = certificate.subject_alternative_name().ok()? else {
        return Some(Vec::new());
    };
    let names = san.value.general_names.iter();
    Some(
        names
            .filter_map(|name| {
                if let GeneralName::DNSName(dns) = name {
                    Some((*dns).to_owned())
                } else {
                    None
                }
            })
            .collect(),
    )
}

/// The one question of trust that the roles ask.
pub trait Authority: fmt::Debug {
    /// Whether a peer may act for a service in a capacity, now. `None` is a peer without a certificate.
    fn permits(&self, peer: Option<&Identity>, capacity: Capacity, service: &ServiceId) -> bool;
}

/// The built-in answer: the SAN rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SanAuthority {
    /// Also permit certificates that carry no name of the rule, for any service.
    pub allow_unnamed: bool,
    /// Permit peers without any certificate: for development only.
    pub insecure_allow_anonymous: bool,
}

impl Authority for SanAuthority {
    fn permits(&self, peer: Option<&Identity>, capacity: Capacity, service: &ServiceId) -> bool {
        let Some(identity) = peer else {
            return self.insecure_allow_anonymous;
        };
        identity.names(capacity, service) || (self.allow_unnamed && !identity.is_named())
    }
}

#[cfg(test)]
mod tests;
