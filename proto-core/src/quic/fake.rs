//! A deterministic stand-in for QUIC, for simulations.
//!
//! It speaks version 1 as far as others can see: real long and short headers, Initials of 1200 bytes, a handshake of
//! one round trip with certificates and application protocols, acknowledgements, loss detection and probes, DATAGRAMs
//! in bounded queues, two streams with flow control, idle timeout, closing and draining, stateless resets, connection ids, path validation, Retry and
//! Version Negotiation. So pools, roles and their timers meet what they meet over a real implementation, at a fraction
//! of the cost, and twice the same seed gives twice the same bytes.
//!
//! What it leaves out: cryptography (a keyed checksum tells forged from genuine), header protection, other streams, and
//! congestion control beyond a plain window. It talks to itself only.

mod codec;
mod connection;
mod crypto;
mod frame;
mod handshake;
mod packet;
mod paths;
mod ranges;
mod receive;
mod recovery;
mod seal;
mod send;
mod space;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use connection::FakeConnection;

use super::{Accept, CannotConnect, Cid, Connect, Provider, Purpose, WriteRetry};
use crate::config::limits::MAX_UDP_PAYLOAD;
use crate::rng::Rng;
use crate::wire::channel;

/// A certificate: any bytes that pass for its DER, and what a verifier would read out of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeCertificate {
    /// What [`Connection::peer_certificate`](super::Connection::peer_certificate) shows to the peer.
    pub der: Vec<u8>,
    /// Who signed it.
    pub issuer: u32,
    /// The host names it carries, compared without regard to ASCII case.
    pub names: Vec<String>,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those signed by one of these issuers, with the server's name checked by clients.
    Issuers(Vec<u32>),
    /// Any, also none at all, and no name is checked.
    Anyone,
}

/// What a [`FakeProvider`] makes its connections with.
#[derive(Clone, Debug)]
pub struct FakeConfig {
    /// Application protocols: a client offers all, a server takes the first offered that it speaks.
    pub alpn: Vec<Vec<u8>>,
    /// The same for connections between agents and connectors; none if this program has no part in any.
    pub session_alpn: Vec<Vec<u8>>,
    /// Our own certificate. A server without one cannot be verified by anybody.
    pub certificate: Option<FakeCertificate>,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// Whether a server asks for the client's certificate and refuses clients without one.
    pub require_client_certificate: bool,
    /// How long a connection survives without hearing from its peer.
    pub idle_timeout: Duration,
    /// The UDP payload of packets after the handshake, in bytes.
    pub max_udp_payload: usize,
    /// The largest DATAGRAM frame we take; `None` takes none.
    pub max_datagram_frame: Option<u64>,
    /// How many DATAGRAMs wait to be sent at most; more are refused.
    pub send_queue: usize,
    /// How many received DATAGRAMs wait to be polled at most; the oldest are dropped for more.
    pub recv_queue: usize,
    /// The least size of a ClientHello in bytes; more than about 1100 makes it span several Initials.
    pub hello_len: usize,
    /// How many connection ids of the peer we keep.
    pub cid_limit: u64,
}

impl FakeConfig {
    /// A configuration with the overlay's defaults: 30 s idle, the overlay's largest payloads, no certificate, everyone trusted.
    pub fn new(alpn: &[&[u8]]) -> Self {
        Self {
            alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
            session_alpn: Vec::new(),
            certificate: None,
            trust: Trust::Anyone,
            require_client_certificate: false,
            idle_timeout: Duration::from_secs(30),
            max_udp_payload: MAX_UDP_PAYLOAD,
            max_datagram_frame: Some(65_535),
            send_queue: 1024,
            recv_queue: 1024,
            hello_len: 300,
            cid_limit: 4,
        }
    }
}

/// Makes [`FakeConnection`]s.
#[derive(Debug)]
pub struct FakeProvider {
    control: Arc<FakeConfig>,
    /// Of connections between agents and connectors, if this program has a part in any.
    session: Option<Arc<FakeConfig>>,
    carried: Option<Arc<FakeConfig>>,
    rng: Rng,
}

impl FakeProvider {
    /// A provider whose every random choice comes from `rng`.
    pub fn new(config: FakeConfig, rng: Rng) -> Self {
        let session = (!config.session_alpn.is_empty()).then(|| FakeConfig {
            alpn: config.session_alpn.clone(),
            ..config.clone()
        });
        let carried = session.clone().map(|session| FakeConfig {
            max_udp_payload: session.max_udp_payload - channel::PREFIX_LEN,
            ..session
        });
        Self {
            control: Arc::new(config),
            session: session.map(Arc::new),
            carried: carried.map(Arc::new),
            rng,
        }
    }

    fn config(&self, purpose: Purpose) -> Result<Arc<FakeConfig>, CannotConnect> {
        let config = match purpose {
            Purpose::Control => Some(&self.control),
            Purpose::Session => self.session.as_ref(),
            Purpose::Carried => self.carried.as_ref(),
        };
        let missing = || CannotConnect("this program has no sessions".to_owned());
        config.cloned().ok_or_else(missing)
    }
}

impl Provider for FakeProvider {
    type Connection = FakeConnection;

    fn connect(&mut self, connect: Connect<'_>, now: Instant) -> Result<FakeConnection, CannotConnect> {
        if connect.server_name.is_some_and(str::is_empty) {
            return Err(CannotConnect("the server name is empty".to_owned()));
        }
        Ok(FakeConnection::client(
            self.config(connect.purpose)?,
            self.rng.fork(),
            &connect,
            now,
        ))
    }

    fn accept(&mut self, accept: Accept, now: Instant) -> Result<FakeConnection, CannotConnect> {
        Ok(FakeConnection::server(
            self.config(accept.purpose)?,
            self.rng.fork(),
            accept,
            now,
        ))
    }

    fn is_supported(&self, version: u32) -> bool {
        version == packet::VERSION
    }

    fn write_retry(&self, retry: WriteRetry<'_>, out: &mut [u8]) -> Option<usize> {
        let WriteRetry {
            client_scid,
            original_dcid,
            retry_scid,
            token,
            version,
        } = retry;
        if version != packet::VERSION {
            return None;
        }
        packet::write_retry(out, &client_scid, &retry_scid, &original_dcid, token)
    }

    fn write_version_negotiation(
        &self,
        client_scid: &Cid,
        client_dcid: &Cid,
        out: &mut [u8],
    ) -> Option<usize> {
        packet::write_negotiation(out, client_scid, client_dcid)
    }
}

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}
