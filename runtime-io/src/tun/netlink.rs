//! Addresses and routes of an interface, by the two rtnetlink requests they need (RFC 3549; `rtnetlink(7)`).

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::Prefix;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

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

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const HEADER: usize = 16;

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

    pub(super) fn add_address(&mut self, interface: u32, address: Prefix) -> io::Result<()> {
        let mut body = vec![
            family(address.address),
            address.len,
            IFA_F_NODAD,
            RT_SCOPE_UNIVERSE,
        ];
        body.extend(interface.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &octets(address.address));
        attribute(&mut body, IFA_ADDRESS, &octets(address.address));
        self.request(RTM_NEWADDR, &body)
    }

    pub(super) fn add_route(&mut self, interface: u32, network: Prefix) -> io::Result<()> {
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
        self.request(RTM_NEWROUTE, &body)
    }

    /// Sends one request and takes the kernel's answer, which it gives before `send` returns.
    fn request(&mut self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (len, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        parse_answer(answer.get(..len).unwrap_or_default(), self.sequence)
    }
}

fn parse_answer(answer: &[u8], sequence: u32) -> io::Result<()> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is none");
    let (header, body) = answer.split_at_checked(HEADER).ok_or_else(odd)?;
    let is_error = header.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes()[..]);
    let is_ours = header.get(8..12) == Some(&sequence.to_ne_bytes()[..]);
    let code = body
        .first_chunk::<4>()
        .filter(|_| is_error && is_ours)
        .ok_or_else(odd)?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
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
