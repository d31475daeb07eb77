//! Addresses and routes of an interface, by the few rtnetlink requests they need (RFC 3549; `rtnetlink(7)`).

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::Prefix;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const CREATE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Nobody else is on the link, so an IPv6 address need not wait for duplicate detection.
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// The answer is the entry of the table, not the way of one packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// How long the fixed part of a route is.
const ROUTE: usize = 12;

/// What `errno(3)` says where there is nothing to remove, or no way.
const NOTHING: [Errno; 4] = [Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL, Errno::NOENT];
const NO_WAY: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const HEADER: usize = 16;

/// Where packets for a network go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// To this host.
    Local,
    /// To an interface, because of a network of this length.
    Interface(u32, u8),
}

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The name of an interface.
    pub(super) fn name_of(&self, interface: u32) -> Option<String> {
        rustix::net::netdevice::index_to_name(&self.socket, interface).ok()
    }

    pub(super) fn add_address(&mut self, interface: u32, address: Prefix) -> io::Result<()> {
        self.request(RTM_NEWADDR, CREATE, &address_body(interface, address))
            .and_then(acknowledged)
    }

    pub(super) fn remove_address(&mut self, interface: u32, address: Prefix) -> io::Result<()> {
        let removed = self.request(RTM_DELADDR, 0, &address_body(interface, address));
        forgive(removed.and_then(acknowledged), &NOTHING)
    }

    pub(super) fn add_route(&mut self, interface: u32, network: Prefix) -> io::Result<()> {
        self.request(RTM_NEWROUTE, CREATE, &route_body(interface, network))
            .and_then(acknowledged)
    }

    pub(super) fn remove_route(&mut self, interface: u32, network: Prefix) -> io::Result<()> {
        let removed = self.request(RTM_DELROUTE, 0, &route_body(interface, network));
        forgive(removed.and_then(acknowledged), &NOTHING)
    }

    /// Where packets for the first address of `network` go now.
    pub(super) fn find_route(&mut self, network: Prefix) -> io::Result<Option<Found>> {
        let address = octets(network.address);
        let mut body = vec![
            family(network.address),
            (8 * address.len()) as u8,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        body.extend(RTM_F_FIB_MATCH.to_ne_bytes());
        attribute(&mut body, RTA_DST, &address);
        match self.request(RTM_GETROUTE, 0, &body) {
            Ok(Answer::Message(RTM_NEWROUTE, body)) => Ok(parse_route(&body)),
            Ok(_) => Ok(None),
            Err(error) if Errno::from_io_error(&error).is_some_and(|errno| NO_WAY.contains(&errno)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one request and takes the kernel's answer, which it gives before `send` returns.
    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        // A question is answered, anything else acknowledged.
        let acknowledge = if kind == RTM_GETROUTE { 0 } else { NLM_F_ACK };
        let len = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | acknowledge | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (len, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        parse_answer(answer.get(..len).unwrap_or_default(), self.sequence)
    }
}

/// What the kernel says.
enum Answer {
    Done,
    /// A message of a kind, without its header.
    Message(u16, Vec<u8>),
}

fn acknowledged(answer: Answer) -> io::Result<()> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Message(..) => Err(odd()),
    }
}

fn forgive(result: io::Result<()>, errors: &[Errno]) -> io::Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error).is_some_and(|errno| errors.contains(&errno)) => Ok(()),
        result => result,
    }
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer that is none")
}

fn address_body(interface: u32, address: Prefix) -> Vec<u8> {
    let mut body = vec![
        family(address.address),
        address.len,
        IFA_F_NODAD,
        RT_SCOPE_UNIVERSE,
    ];
    body.extend(interface.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &octets(address.address));
    attribute(&mut body, IFA_ADDRESS, &octets(address.address));
    body
}

fn route_body(interface: u32, network: Prefix) -> Vec<u8> {
    let scope = if network.address.is_ipv4() {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    let mut body = vec![family(network.address), network.len, 0, 0];
    body.extend([RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, RTA_DST, &octets(first_of(network)));
    attribute(&mut body, RTA_OIF, &interface.to_ne_bytes());
    body
}

/// Interface and length of a route, or that it is an address of this host.
fn parse_route(body: &[u8]) -> Option<Found> {
    let (head, mut attributes) = body.split_at_checked(ROUTE)?;
    let (len, kind) = (*head.get(1)?, *head.get(7)?);
    if kind == RTN_LOCAL {
        return Some(Found::Local);
    }
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let [a, b, c, d] = *head;
        let size = usize::from(u16::from_ne_bytes([a, b])).checked_sub(4)?;
        if u16::from_ne_bytes([c, d]) == RTA_OIF {
            let index = rest.get(..size)?.first_chunk::<4>()?;
            return Some(Found::Interface(u32::from_ne_bytes(*index), len));
        }
        attributes = rest.get(size.next_multiple_of(4)..)?;
    }
    None
}

fn parse_answer(answer: &[u8], sequence: u32) -> io::Result<Answer> {
    let (header, body) = answer.split_at_checked(HEADER).ok_or_else(odd)?;
    let number = |range| header.get(range).and_then(<[u8]>::first_chunk::<2>).copied();
    let kind = number(4..6).map(u16::from_ne_bytes).ok_or_else(odd)?;
    if header.get(8..12) != Some(&sequence.to_ne_bytes()[..]) {
        return Err(odd());
    }
    if kind != NLMSG_ERROR {
        return Ok(Answer::Message(kind, body.to_vec()));
    }
    let code = body.first_chunk::<4>().ok_or_else(odd)?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(Answer::Done),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

/// Appends a type-length-value attribute, padded to four bytes. Values here have at most 16.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = (4 + value.len()) as u16;
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The first address of the network; the kernel refuses a route with host bits.
fn first_of(network: Prefix) -> IpAddr {
    let len = u32::from(network.len);
    match network.address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(len)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests;
