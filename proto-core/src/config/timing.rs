//! Every duration of the protocol, with its argument.

use std::time::Duration;

/// Silence after which a QUIC connection is given up: fixed by `ztna-v1`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client waits for a handshake before it tries the next address. Three probe timeouts at the initial RTT of
/// RFC 9002 §6.2.2 (1 s, 2 s) fit with room for a slow path.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client shows itself this often at least: a third of the idle timeout, so that two lost packets do not end a
/// connection, and below the 30 s that Linux keeps an unreplied UDP mapping.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long after the last packet in either direction a client asks for a sign of life, once. Who falls silent after being
/// busy would learn of a restarted intermediate with the next keepalive only; this way it takes a second.
pub const LISTENING: Duration = Duration::from_secs(1);

/// How long something sent may go unanswered before the intermediate counts as gone. QUIC has probed at least three
/// times by then on any path whose RTT is below 500 ms.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// First pause before connecting again.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);

/// Longest pause before connecting again: a restarted intermediate has its clients back within this time.
pub const RECONNECT_CAP: Duration = Duration::from_secs(8);

/// How long a client of v2 holds a service without asking again; it asks after half of it. Long enough that a thousand clients of
/// a few services each cost some ten messages a second, short enough that a change of policy reaches everybody in time.
pub const LEASE: Duration = Duration::from_secs(120);

/// When a client may ask again for what was refused and may pass: soon enough for a service that is being restarted, late enough
/// that asking is no load.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The same where waiting seconds changes nothing: a limit is reached, or the connector speaks v1.
pub const ASK_AGAIN_LATER: Duration = Duration::from_secs(30);

/// How long before its end an intermediate says so: a few round trips, in which clients take another path; below what anybody
/// who stops a program notices.
pub const LEAVING: Duration = Duration::from_millis(250);
