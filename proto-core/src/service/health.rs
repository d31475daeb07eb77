//! Whether one backend is well: what its checks ask, what their answers mean, and how many of them it takes.
//!
//! The first answer decides at once, so that a service is published within one round trip of the start; after that it
//! takes as many equal answers in a row as the configuration says.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Host;
use crate::backend::{Refusal, Transport};

/// Bytes of an answer that are looked at: a status line, or a datagram of a name server.
pub const ANSWER: usize = 1024;

/// What a check asks of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// That it accepts a TCP connection.
    Connect,
    /// That it answers `GET path` over HTTP/1.1 with a status in this range.
    Http {
        /// Begins with `/`.
        path: Box<str>,
        /// The good statuses.
        status: RangeInclusive<u16>,
    },
    /// That it answers a datagram, if anything is expected; otherwise, that nobody says it is not there.
    Udp {
        /// What is sent.
        send: Box<[u8]>,
        /// What the answer begins with.
        expect: Option<Box<[u8]>>,
    },
}

impl Question {
    /// Over what it is asked.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Connect | Self::Http { .. } => Transport::Tcp,
            Self::Udp { .. } => Transport::Udp,
        }
    }

    /// Writes what is sent.
    pub(super) fn write(&self, host: &Host, out: &mut Vec<u8>) {
        match self {
            Self::Connect => {}
            Self::Http { path, .. } => {
                let host = match host {
                    Host::Name(name) => name.to_string(),
                    Host::Address(IpAddr::V4(ip)) => ip.to_string(),
                    Host::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
                };
                // RFC 9112 §3: one request, and no reason for the server to keep the connection.
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ztna-health\r\nAccept: */*\r\nConnection: \
                     close\r\n\r\n"
                );
                out.extend_from_slice(request.as_bytes());
            }
            Self::Udp { send, .. } => out.extend_from_slice(send),
        }
    }

    /// What the shell has to wait for.
    pub(super) fn awaits(&self) -> Awaited {
        match self {
            Self::Connect => Awaited::Connection,
            Self::Http { .. } => Awaited::Line,
            Self::Udp { .. } => Awaited::Datagram,
        }
    }

    /// What an answer says.
    pub(super) fn judge(&self, answer: &[u8]) -> Result<(), Ailment> {
        match self {
            Self::Connect => Ok(()),
            Self::Http { status, .. } => match status_of(answer) {
                Some(code) if status.contains(&code) => Ok(()),
                Some(code) => Err(Ailment::Status(code)),
                None => Err(Ailment::NotHttp),
            },
            Self::Udp { expect, .. } => match expect {
                Some(expect) if !answer.starts_with(expect) => Err(Ailment::OtherAnswer),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// What silence says, when the time is over.
    pub(super) fn silence(&self) -> Result<(), Ailment> {
        match self {
            // A service that answers only its own protocol; a host without it would have said so (RFC 1122 §4.1.3.1).
            Self::Udp { expect: None, .. } => Ok(()),
            Self::Connect | Self::Http { .. } | Self::Udp { .. } => Err(Ailment::Silent),
        }
    }
}

/// The status of a status line (RFC 9112 §4).
fn status_of(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(1..)?.strip_prefix(b" ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// What ends the wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The connection stands.
    Connection,
    /// A line, or the end of the stream, or [`ANSWER`] bytes.
    Line,
    /// One datagram.
    Datagram,
}

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ailment {
    /// It could not be reached.
    Unreachable(Refusal),
    /// No answer in time.
    Silent,
    /// An HTTP status that is not expected.
    Status(u16),
    /// Not an HTTP answer.
    NotHttp,
    /// Another answer than expected.
    OtherAnswer,
}

impl std::fmt::Display for Ailment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(Refusal::Refused) => f.write_str("connection refused"),
            Self::Unreachable(Refusal::TimedOut) => f.write_str("the connection timed out"),
            Self::Unreachable(Refusal::Unreachable) => f.write_str("host unreachable"),
            Self::Unreachable(Refusal::Exhausted) => f.write_str("no socket left to check with"),
            Self::Silent => f.write_str("no answer in time"),
            Self::Status(code) => write!(f, "HTTP status {code}"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::OtherAnswer => f.write_str("the answer is not the expected one"),
        }
    }
}

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: Question,
    /// The pause after each answer, give or take a tenth.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that bring a backend back; at least 1.
    pub healthy: u32,
    /// Bad answers in a row that take a backend out; at least 1.
    pub unhealthy: u32,
}

/// Where a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No check has been answered yet.
    Unchecked,
    Up,
    Down,
}

/// The record of one backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    pub(super) standing: Standing,
    /// Answers in a row that contradict the standing.
    against: u32,
}

impl Health {
    /// Of a backend that is not checked, or not yet.
    pub(super) fn new(checked: bool) -> Self {
        Self {
            standing: if checked {
                Standing::Unchecked
            } else {
                Standing::Up
            },
            against: 0,
        }
    }

    /// Notes an answer; whether the standing has changed.
    pub(super) fn record(&mut self, check: &HealthCheck, good: bool) -> bool {
        let (next, needed) = match (self.standing, good) {
            (Standing::Unchecked, true) => (Standing::Up, 1),
            (Standing::Unchecked, false) => (Standing::Down, 1),
            (Standing::Up, false) => (Standing::Down, check.unhealthy),
            (Standing::Down, true) => (Standing::Up, check.healthy),
            (Standing::Up, true) | (Standing::Down, false) => {
                self.against = 0;
                return false;
            }
        };
        self.against += 1;
        if self.against < needed {
            return false;
        }
        *self = Self {
            standing: next,
            against: 0,
        };
        true
    }
}
