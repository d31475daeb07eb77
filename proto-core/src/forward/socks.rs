//! SOCKS 5 (RFC 1928) as a machine on bytes: how many it wants next, what it answers, what was asked for.
//!
//! It never asks for a byte behind the request, so what a program sends ahead stays in the socket for the connection.
//! Only the method without authentication is offered: listeners are on loopback. Nothing here knows services; names are
//! handed on as they came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The longest message of a program: a request with a name of 255 bytes.
pub(super) const LONGEST: usize = 4 + 1 + 255 + 2;

/// What is known of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, as the program wrote it.
    Name(Box<str>),
}

/// What a program wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A TCP connection.
    Connect(Host, u16),
    /// A relay for UDP.
    Associate,
}

/// The REP field of an answer (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// Succeeded.
    Succeeded = 0,
    /// General failure.
    Failed = 1,
    /// Not allowed.
    NotAllowed = 2,
    /// Network unreachable.
    NetworkUnreachable = 3,
    /// Host unreachable.
    HostUnreachable = 4,
    /// Connection refused.
    Refused = 5,
    /// Command not supported.
    CommandNotSupported = 7,
    /// Address type not supported.
    AddressNotSupported = 8,
}

impl Reply {
    /// The message, with the address that the far end sees, or zeroes.
    pub fn message(self, bound: Option<SocketAddr>) -> Vec<u8> {
        let mut message = vec![VERSION, self as u8, 0];
        put_address(bound.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()), &mut message);
        message
    }
}

/// What follows some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are wanted, nothing is to be said.
    More,
    /// This is to be said, and more bytes are wanted.
    Say(&'static [u8]),
    /// The program has asked; the answer is the caller's.
    Asked(Request),
    /// The program is to be told this, and nothing more is wanted of it.
    Refuse(Vec<u8>),
    /// This is no SOCKS 5: close without a word.
    Alien,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Request,
    Done,
}

/// One negotiation.
#[derive(Clone, Debug)]
pub struct Negotiation {
    stage: Stage,
    /// The message under way.
    bytes: Vec<u8>,
}

impl Default for Negotiation {
    fn default() -> Self {
        Self {
            stage: Stage::Greeting,
            bytes: Vec::new(),
        }
    }
}

impl Negotiation {
    /// How many bytes may be given next: never more than the message under way is known to have. 0 when done.
    pub fn wants(&self) -> usize {
        let whole = match self.stage {
            // The version first: what is of another is left in the socket.
            Stage::Greeting | Stage::Request if self.bytes.is_empty() => 1,
            Stage::Greeting => match self.bytes.get(1) {
                None => 2,
                Some(methods) => 2 + usize::from(*methods),
            },
            Stage::Request => match (self.bytes.get(3), self.bytes.get(4)) {
                (Some(&IPV4), _) => 4 + 4 + 2,
                (Some(&IPV6), _) => 4 + 16 + 2,
                (Some(&NAME), Some(len)) => 4 + 1 + usize::from(*len) + 2,
                (Some(&NAME), None) => 5,
                (Some(_) | None, _) => 4,
            },
            Stage::Done => 0,
        };
        whole.saturating_sub(self.bytes.len())
    }

    /// Takes at most [`Negotiation::wants`] bytes; what is beyond is not looked at.
    pub fn feed(&mut self, bytes: &[u8]) -> Step {
        let taken = bytes.len().min(self.wants());
        self.bytes.extend_from_slice(&bytes[..taken]);
        let step = match self.stage {
            Stage::Greeting => self.greeting(),
            Stage::Request => self.request(),
            Stage::Done => Step::More,
        };
        if matches!(step, Step::Asked(_) | Step::Refuse(_) | Step::Alien) {
            self.stage = Stage::Done;
            self.bytes = Vec::new();
        }
        step
    }

    fn greeting(&mut self) -> Step {
        if self.bytes.first().is_some_and(|version| *version != VERSION) {
            return Step::Alien;
        }
        if self.wants() > 0 || self.bytes.len() < 2 {
            return Step::More;
        }
        if !self.bytes[2..].contains(&NO_AUTHENTICATION) {
            return Step::Refuse(vec![VERSION, NO_ACCEPTABLE_METHOD]);
        }
        self.stage = Stage::Request;
        self.bytes.clear();
        Step::Say(&[VERSION, NO_AUTHENTICATION])
    }

    fn request(&self) -> Step {
        let refuse = |reply: Reply| Step::Refuse(reply.message(None));
        let [version, command, _, kind, ..] = *self.bytes.as_slice() else {
            return match self.bytes.first() {
                Some(version) if *version != VERSION => Step::Alien,
                Some(_) | None => Step::More,
            };
        };
        if version != VERSION {
            return Step::Alien;
        }
        if command != CONNECT && command != UDP_ASSOCIATE {
            return refuse(Reply::CommandNotSupported);
        }
        if !matches!(kind, IPV4 | NAME | IPV6) {
            return refuse(Reply::AddressNotSupported);
        }
        if self.wants() > 0 {
            return Step::More;
        }
        match address(&self.bytes[3..]) {
            // RFC 1928 §4: where the program will send from, which most do not know yet.
            _ if command == UDP_ASSOCIATE => Step::Asked(Request::Associate),
            Some((host, port, _)) => Step::Asked(Request::Connect(host, port)),
            None => refuse(Reply::Failed),
        }
    }
}

/// Reads ATYP, address and port; also says how many bytes they are. `None` if they are cut or no name.
fn address(bytes: &[u8]) -> Option<(Host, u16, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let (host, rest) = match *kind {
        IPV4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Host::Address(Ipv4Addr::from(*octets).into()), rest)
        }
        IPV6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Host::Address(Ipv6Addr::from(*octets).to_canonical()), rest)
        }
        NAME => {
            let (len, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*len))?;
            let name = std::str::from_utf8(name).ok()?;
            // Some programs write an address as a name.
            let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            let host = match bare.unwrap_or(name).parse::<IpAddr>() {
                Ok(address) => Host::Address(address.to_canonical()),
                Err(_) if name.is_empty() => return None,
                Err(_) => Host::Name(name.into()),
            };
            (host, rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((host, u16::from_be_bytes(*port), bytes.len() - rest.len()))
}

fn put_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Splits a datagram of a program into destination and payload (RFC 1928 §7); `None` if it is a fragment or cut.
pub fn split_datagram(bytes: &[u8]) -> Option<(Host, u16, &[u8])> {
    let ([0, 0, 0], rest) = bytes.split_first_chunk::<3>()? else {
        return None;
    };
    let (host, port, len) = address(rest)?;
    Some((host, port, rest.get(len..)?))
}

/// The header of a datagram for a program: who sent the payload behind it.
pub fn datagram_header(source: SocketAddr) -> Vec<u8> {
    let mut header = vec![0, 0, 0];
    put_address(source, &mut header);
    header
}

#[cfg(test)]
mod tests;
