//! What the translators between this host and the reflector do (RFC 4787), found as in RFC 5780 with two addresses and two ports.
//!
//! Every question is asked from a socket of its own, so that no answer depends on the holes that another question made.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{receive, socket};
use crate::args::Args;
use crate::lab::nat::{Behaviour, Dependence, Ports};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// How often a question is asked before it counts as unanswered.
const ATTEMPTS: u32 = 2;

/// The reflector's sockets in its order: first address and port, first address and other port, second address and port, second
/// address and other port.
type Servers = [SocketAddr; 4];

pub(crate) fn main(args: &mut Args) -> Result<()> {
    let list: String = args.required("--servers")?;
    let lifetime: Option<u64> = args.value("--lifetime")?;
    args.finish()?;
    let servers: Vec<SocketAddr> = list
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("--servers")?;
    let Ok(servers) = Servers::try_from(servers) else {
        bail!("--servers takes two addresses with two ports each");
    };
    if tell(&socket()?, servers[0])?.is_none() {
        println!("no UDP");
        return Ok(());
    }
    if let Some(millis) = lifetime {
        let lived = outlives(&servers, millis)?;
        println!("lifetime: silent for {millis} ms, lived={lived}");
        return Ok(());
    }
    let (mapping, ports) = mapping(&servers)?;
    let behaviour = Behaviour {
        mapping,
        filtering: filtering(&servers)?,
        ports,
        hairpin: hairpin(&servers)?,
        poisoned: ports == Ports::Preserved && poisoned(&servers)?,
    };
    println!("{behaviour}");
    Ok(())
}

/// How `server` sees this socket.
fn tell(socket: &UdpSocket, server: SocketAddr) -> Result<Option<SocketAddr>> {
    for attempt in 0..ATTEMPTS {
        let token = attempt.to_string();
        socket.send_to(format!("tell {token}").as_bytes(), server)?;
        let end = Instant::now() + PATIENCE;
        while let Some((text, from)) = receive(socket, end)? {
            if from == server
                && let Some(address) = seen(&text)
            {
                return Ok(Some(address));
            }
        }
    }
    Ok(None)
}

fn seen(text: &str) -> Option<SocketAddr> {
    let (_, address) = text.strip_prefix("seen ")?.split_once(' ')?;
    address.parse().ok()
}

fn told(socket: &UdpSocket, server: SocketAddr) -> Result<SocketAddr> {
    tell(socket, server)?.with_context(|| format!("{server} does not answer any more"))
}

fn mapping(servers: &Servers) -> Result<(Dependence, Ports)> {
    let socket = socket()?;
    let [first, other_port, other_address, _] = servers.map(|server| told(&socket, server));
    let (first, other_port, other_address) = (first?, other_port?, other_address?);
    let mapping = if first == other_port && first == other_address {
        Dependence::Endpoint
    } else if first == other_port {
        Dependence::Address
    } else {
        Dependence::AddressAndPort
    };
    let local = socket.local_addr()?.port();
    let ports = if first.port() == local {
        Ports::Preserved
    } else if first.port().checked_add(1) == Some(other_port.port())
        && first.port().checked_add(2) == Some(other_address.port())
    {
        Ports::Sequential
    } else {
        Ports::Random
    };
    Ok((mapping, ports))
}

/// Whether an answer comes from `from` to a socket that has spoken to the first server only.
fn answered_from(servers: &Servers, from: usize) -> Result<bool> {
    let socket = socket()?;
    told(&socket, servers[0])?;
    for _ in 0..ATTEMPTS {
        socket.send_to(format!("from {from} 0 other").as_bytes(), servers[0])?;
        let end = Instant::now() + PATIENCE;
        while let Some((text, source)) = receive(&socket, end)? {
            if servers.get(from) == Some(&source) && text.starts_with("seen other ") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn filtering(servers: &Servers) -> Result<Dependence> {
    // The last differs in address and port, the second in the port alone.
    if answered_from(servers, 3)? {
        Ok(Dependence::Endpoint)
    } else if answered_from(servers, 1)? {
        Ok(Dependence::Address)
    } else {
        Ok(Dependence::AddressAndPort)
    }
}

/// Whether a packet to one's own outer address comes back, and as from outside: with the outer address as its source.
fn hairpin(servers: &Servers) -> Result<bool> {
    let (one, other) = (socket()?, socket()?);
    let (outer, outer_other) = (told(&one, servers[0])?, told(&other, servers[0])?);
    for _ in 0..ATTEMPTS {
        one.send_to(b"hairpin", outer_other)?;
        let end = Instant::now() + PATIENCE;
        while let Some((text, from)) = receive(&other, end)? {
            if text == "hairpin" {
                return Ok(from.ip() == outer.ip());
            }
        }
    }
    Ok(false)
}

/// Whether a stranger who knows the outer port of a socket can take it away from it, as far as the stranger is concerned.
fn poisoned(servers: &Servers) -> Result<bool> {
    let [server, .., stranger] = *servers;
    let socket = socket()?;
    let outer = told(&socket, server)?;
    socket.send_to(format!("to {outer} 3 here").as_bytes(), server)?;
    // Time for the stranger's packet to arrive; whether it is let in is another question.
    let end = Instant::now() + PATIENCE;
    while receive(&socket, end)?.is_some() {}
    Ok(told(&socket, stranger)? != outer)
}

/// Whether the mapping of a socket that sent one packet is there after this time without another.
fn outlives(servers: &Servers, millis: u64) -> Result<bool> {
    let socket = socket()?;
    socket.send_to(format!("from 0 {millis} late").as_bytes(), servers[0])?;
    let end = Instant::now() + Duration::from_millis(millis) + PATIENCE;
    while let Some((text, _)) = receive(&socket, end)? {
        if text.starts_with("seen late ") {
            return Ok(true);
        }
    }
    Ok(false)
}
