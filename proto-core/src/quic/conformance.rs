//! What every QUIC implementation behind [`Provider`] has to do, as one suite.
//!
//! A [`Harness`] makes providers and says where time comes from; the macro
//! [`quic_conformance!`](crate::quic_conformance) turns the suite into tests. The suite looks at connections through their trait and at packets
//! through the fields that never change (RFC 8999), so that it says nothing about how an implementation works inside.

mod closing;
mod datagrams;
mod handshake;
mod identity;
mod pair;
mod streams;
mod timing;

use std::time::Duration;

pub use closing::*;
pub use datagrams::*;
pub use handshake::*;
pub use identity::*;
pub use streams::*;
pub use timing::*;

use super::Provider;
use crate::sim::Clock;

/// The name that the trusted server's certificate carries.
pub const SERVER_NAME: &str = "server.conformance.test";

/// The application protocol of the suite, where nothing else is said.
pub const ALPN: &[u8] = b"conformance";

/// Idle timeout of all providers of the suite.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Server,
}

/// The certificate of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Signed by the authority that all providers of the suite trust; a server's carries [`SERVER_NAME`].
    Trusted,
    /// Signed by an authority that nobody trusts, with the same names.
    Untrusted,
    /// None at all; only clients.
    Missing,
}

/// What a provider of the suite is to be made with.
///
/// All of them verify the peer: servers ask for a certificate and refuse clients without one. Idle timeout is
/// [`IDLE_TIMEOUT`], DATAGRAMs are on, UDP payloads have [`MAX_UDP_PAYLOAD`](crate::config::limits::MAX_UDP_PAYLOAD) bytes, at least three connection ids are kept per peer.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which end it is for.
    pub side: Side,
    /// The application protocols, best first.
    pub alpn: Vec<Vec<u8>>,
    /// Its certificate.
    pub identity: Identity,
    /// How many DATAGRAMs the send queue and the receive queue take, each.
    pub queue: usize,
}

impl Setup {
    /// The usual one.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            alpn: vec![ALPN.to_vec()],
            identity: Identity::Trusted,
            queue: 64,
        }
    }
}

/// What an implementation brings to the suite.
pub trait Harness {
    /// The implementation.
    type Provider: Provider;
    /// Its time.
    type Clock: Clock;

    /// A clock; the suite drops it before it asks for another.
    fn clock(&mut self) -> Self::Clock;

    /// A provider; asked for while a clock lives.
    fn provider(&mut self, setup: &Setup) -> Self::Provider;

    /// The certificate (DER) that a provider with the trusted identity shows.
    fn certificate(&mut self, side: Side) -> Vec<u8>;
}

/// Turns the conformance suite into tests of the surrounding module; `$harness` is evaluated for each of them.
#[macro_export]
macro_rules! quic_conformance {
    ($harness:expr) => {
        $crate::quic_conformance! { @tests $harness;
            handshake_completes
            handshake_survives_the_loss_of_any_packet
            handshake_survives_duplicates
            handshake_survives_reordering
            handshake_without_a_common_protocol_closes_both
            handshake_prefers_the_clients_protocol
            handshake_starts_with_a_full_initial
            handshake_follows_a_retry
            handshake_ends_on_version_negotiation
            handshake_gives_up_in_silence
            junk_changes_nothing
            certificates_are_shown_to_the_other_side
            untrusted_server_is_refused
            untrusted_client_is_refused
            client_without_certificate_is_refused
            wrong_server_name_is_refused
            unchecked_server_name_is_accepted
            datagrams_travel_both_ways
            datagrams_wait_for_the_handshake
            largest_datagram_fits_exactly
            datagram_queue_is_bounded
            datagrams_received_are_bounded
            replayed_packets_deliver_once
            timeouts_may_come_early_late_and_twice
            silence_ends_the_connection
            hours_may_pass_in_one_step
            ping_is_acknowledged
            ping_keeps_the_connection
            idle_connections_are_quiet
            losses_are_counted
            close_reaches_the_peer
            close_before_the_handshake_ends_it
            closing_takes_bounded_time
            stateless_reset_ends_the_connection
            address_change_is_reported
            connection_ids_can_be_provided
            discarding_streams_is_harmless
            streams_carry_bytes_both_ways
            streams_take_nothing_where_they_cannot
            unread_streams_hold_up_their_sender
            big_messages_arrive_whole
            streams_survive_a_bad_wire
            lost_ends_of_streams_are_repeated
            closing_mid_stream_ends_it
            discarded_streams_hold_nobody_up
        }
    };
    (@tests $harness:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::quic::conformance::$name(&mut $harness);
            }
        )*
    };
}
