//! Who an agent is, as the intermediate introduced it, and whether a service lets it in.
//!
//! The intermediate has verified the certificate and tells its SHA-256 and its name. A service without a list lets in
//! everyone; one with a list lets in nobody whom the intermediate did not introduce.

use crate::quic::identity::Fingerprint;

/// An agent as the intermediate introduced it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// The name in its certificate; may be empty.
    pub name: Box<str>,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Allowed {
    /// The name of a certificate, compared without regard to case.
    Name(Box<str>),
    /// One certificate.
    Certificate(Fingerprint),
}

/// The agents that a service lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Allowed>);

impl AllowList {
    /// Takes the entries; an empty list lets nobody in.
    pub fn new(entries: impl IntoIterator<Item = Allowed>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// Whether an agent, known or not, is on the list.
    pub fn permits(&self, peer: Option<&Peer>) -> bool {
        let Some(peer) = peer else { return false };
        self.0.iter().any(|entry| match entry {
            Allowed::Name(name) => !name.is_empty() && name.eq_ignore_ascii_case(&peer.name),
            Allowed::Certificate(fingerprint) => *fingerprint == peer.fingerprint,
        })
    }
}
