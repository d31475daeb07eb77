//! Forgetting every connection that the kernel tracks in this namespace, as a router does that starts again.
//!
//! `conntrack --flush` without conntrack(8): one netlink message.

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::args::Args;

/// `AF_NETLINK` and its protocol `NETLINK_NETFILTER` (linux/netlink.h).
const NETLINK: (i32, i32) = (16, 12);
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE` (linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h).
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 1 | 4;
/// `NLMSG_ERROR`: the answer to a request that wanted one.
const ANSWER: u16 = 2;

pub(super) fn main(args: &mut Args) -> Result<()> {
    args.finish()?;
    let (domain, protocol) = NETLINK;
    let socket = Socket::new(Domain::from(domain), Type::RAW, Some(Protocol::from(protocol)))?;
    let socket: std::net::UdpSocket = socket.into();
    // Header of 16 bytes, then nfgenmsg: family 0 (all), version 0, resource 0. No attribute: all connections.
    let mut message = Vec::new();
    message.extend_from_slice(&20_u32.to_ne_bytes());
    message.extend_from_slice(&DELETE.to_ne_bytes());
    message.extend_from_slice(&FLAGS.to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    socket.send(&message).context("netlink")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    let (kind, error) = (answer.get(4..6), answer.get(16..20));
    let (Some(&[a, b]), Some(&[c, d, e, f])) = (kind, error) else {
        bail!("the kernel answered with {length} bytes");
    };
    if u16::from_ne_bytes([a, b]) != ANSWER || i32::from_ne_bytes([c, d, e, f]) != 0 {
        bail!("the kernel refuses: {:?}", answer.get(..length));
    }
    Ok(())
}
