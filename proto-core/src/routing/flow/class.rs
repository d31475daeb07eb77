//! How long a flow may rest before it is over, by protocol.

use std::time::Duration;

use crate::routing::packet::{Kind, Parsed, TcpFlags};

/// Flows that may rest equally long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tcp,
    /// A TCP connection of which one side has said that it ends.
    TcpClosing,
    Udp,
    /// ICMP, and every protocol not known here.
    Other,
}

impl Class {
    /// How many classes there are.
    pub(super) const COUNT: usize = 4;

    /// The class of a flow after a packet; `before` is that of a flow that exists already.
    pub(super) fn of(parsed: &Parsed, before: Option<Self>) -> Self {
        match (parsed.kind, before) {
            (Kind::Tcp(TcpFlags { fin: true, .. } | TcpFlags { rst: true, .. }), _) => Self::TcpClosing,
            // The addresses and ports are used anew.
            (Kind::Tcp(TcpFlags { syn: true, .. }), _) => Self::Tcp,
            (_, Some(before)) => before,
            (Kind::Tcp(_), None) => Self::Tcp,
            (Kind::Udp, None) => Self::Udp,
            (Kind::EchoRequest | Kind::EchoReply | Kind::IcmpError | Kind::Other, None) => Self::Other,
        }
    }

    /// A flow that rests this long is over.
    pub(super) fn idle(self) -> Duration {
        Duration::from_secs(match self {
            // RFC 5382 REQ-5: established connections, not less than 2 hours and 4 minutes.
            Self::Tcp => 7440,
            // The same: transitory connections, not less than 4 minutes.
            Self::TcpClosing => 240,
            // RFC 4787 REQ-5: 5 minutes or more is recommended.
            Self::Udp => 300,
            // RFC 5508 REQ-2: queries, not less than 60 seconds.
            Self::Other => 60,
        })
    }

    /// The position of its list.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::TcpClosing => 1,
            Self::Udp => 2,
            Self::Other => 3,
        }
    }
}
