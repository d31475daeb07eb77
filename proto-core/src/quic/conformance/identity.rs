//! Who talks to whom: certificates and names.

use std::time::Duration;

use super::pair::Pair;
use super::{Harness, Identity, SERVER_NAME, Setup, Side};
use crate::quic::{CloseReason, Connection, State};

/// Each side sees the certificate of the other.
pub fn certificates_are_shown_to_the_other_side<H: Harness>(harness: &mut H) {
    let expected = [
        harness.certificate(Side::Server),
        harness.certificate(Side::Client),
    ];
    let mut pair = Pair::new(harness);
    assert_eq!(pair.client.peer_certificate(), None);
    pair.establish();
    assert_eq!(pair.client.peer_certificate(), Some(&*expected[0]));
    assert_eq!(pair.server().peer_certificate(), Some(&*expected[1]));
}

/// A client refuses a server that nobody it trusts has signed; both ends say so with a TLS alert.
pub fn untrusted_server_is_refused<H: Harness>(harness: &mut H) {
    let server = Setup {
        identity: Identity::Untrusted,
        ..Setup::new(Side::Server)
    };
    refused(
        harness,
        &Setup::new(Side::Client),
        &server,
        SERVER_NAME,
        Side::Client,
    );
}

/// A server refuses a client that nobody it trusts has signed.
pub fn untrusted_client_is_refused<H: Harness>(harness: &mut H) {
    let client = Setup {
        identity: Identity::Untrusted,
        ..Setup::new(Side::Client)
    };
    refused(
        harness,
        &client,
        &Setup::new(Side::Server),
        SERVER_NAME,
        Side::Server,
    );
}

/// A server refuses a client that shows no certificate.
pub fn client_without_certificate_is_refused<H: Harness>(harness: &mut H) {
    let client = Setup {
        identity: Identity::Missing,
        ..Setup::new(Side::Client)
    };
    refused(
        harness,
        &client,
        &Setup::new(Side::Server),
        SERVER_NAME,
        Side::Server,
    );
}

/// A client refuses a server whose certificate carries another name than asked for.
pub fn wrong_server_name_is_refused<H: Harness>(harness: &mut H) {
    let (client, server) = (Setup::new(Side::Client), Setup::new(Side::Server));
    refused(harness, &client, &server, "connector.other.ztna", Side::Client);
}

/// A client that asks for no name takes any trusted server.
pub fn unchecked_server_name_is_accepted<H: Harness>(harness: &mut H) {
    let mut pair = Pair::with(
        harness,
        &Setup::new(Side::Client),
        &Setup::new(Side::Server),
        None,
    );
    pair.establish();
}

/// The handshake fails at `judge`, and both ends close with the same TLS alert.
fn refused<H: Harness>(harness: &mut H, client: &Setup, server: &Setup, name: &str, judge: Side) {
    let mut pair = Pair::with(harness, client, server, Some(name));
    pair.run(Duration::from_secs(20));
    let other = if judge == Side::Client {
        Side::Server
    } else {
        Side::Client
    };
    let Some(CloseReason::Local {
        application: false,
        code,
    }) = pair.end(judge).close_reason()
    else {
        panic!("{judge:?} did not refuse: {:?}", pair.end(judge).close_reason());
    };
    assert!((0x100..0x200).contains(&code), "a TLS alert: {code:#x}");
    let Some(CloseReason::Peer {
        application: false,
        code: told,
        ..
    }) = pair.end(other).close_reason()
    else {
        panic!("{other:?} was not told: {:?}", pair.end(other).close_reason());
    };
    assert_eq!(told, code);
    assert_eq!(pair.client.state(), State::Closed);
    assert_eq!(pair.server().state(), State::Closed);
}
