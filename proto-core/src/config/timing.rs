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
