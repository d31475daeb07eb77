//! The simplest opener there is: both sides send to each other's observed address at the same time, and to wherever an answer
//! could be for what arrives.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{receive, socket};
use crate::args::Args;

/// Between two rounds of probes.
const PACE: Duration = Duration::from_millis(20);

/// Addresses of the peer that are tried.
const ADDRESSES: usize = 8;

/// How long the one who is done still answers the other.
const LINGER: Duration = Duration::from_millis(400);

/// The hop limit of ordinary packets.
const ORDINARY: u32 = 64;

pub(crate) fn main(args: &mut Args) -> Result<()> {
    let server: SocketAddr = args.required("--server")?;
    let name: String = args.required("--name")?;
    let peer: String = args.required("--peer")?;
    let late = args.value("--late")?.unwrap_or(0);
    let low: Option<u32> = args.value("--low")?;
    let low_for = args.value("--low-for")?.unwrap_or(0);
    let patience = args.value("--patience")?.unwrap_or(2_000);
    args.finish()?;
    let socket = socket()?;
    let Some(address) = introduced(&socket, server, &name, &peer)? else {
        bail!("the reflector knows no {peer}");
    };
    std::thread::sleep(Duration::from_millis(late));
    let mut opener = Opener {
        socket,
        name,
        expected: format!("probe {peer} "),
        addresses: BTreeSet::from([address]),
        heard: false,
    };
    let low = low.map(|hops| (hops, Duration::from_millis(low_for)));
    match opener.open(low, Duration::from_millis(patience))? {
        Some((took, from)) => {
            let kind = if from == address {
                "the observed"
            } else {
                "a peer-reflexive"
            };
            println!("open after {} ms at {kind} address", took.as_millis());
        }
        None => println!("closed"),
    }
    Ok(())
}

/// The observed address of the peer, as soon as both are here.
fn introduced(socket: &UdpSocket, server: SocketAddr, name: &str, peer: &str) -> Result<Option<SocketAddr>> {
    for _ in 0..100 {
        socket.send_to(format!("meet {name} {peer}").as_bytes(), server)?;
        let end = Instant::now() + Duration::from_millis(100);
        while let Some((text, _)) = receive(socket, end)? {
            if let Some(address) = text.strip_prefix("peer ").and_then(|text| text.parse().ok()) {
                return Ok(Some(address));
            }
        }
    }
    Ok(None)
}

struct Opener {
    socket: UdpSocket,
    name: String,
    expected: String,
    addresses: BTreeSet<SocketAddr>,
    heard: bool,
}

impl Opener {
    /// Sends until a probe says that ours have arrived; returns how long that took and where it came from.
    fn open(
        &mut self,
        low: Option<(u32, Duration)>,
        patience: Duration,
    ) -> Result<Option<(Duration, SocketAddr)>> {
        let started = Instant::now();
        let mut done: Option<(Duration, SocketAddr)> = None;
        while started.elapsed() < done.map_or(patience, |(took, _)| took + LINGER) {
            let hops = low.filter(|(_, time)| started.elapsed() < *time);
            self.socket.set_ttl(hops.map_or(ORDINARY, |(hops, _)| hops))?;
            for address in &self.addresses {
                // Errors are those of earlier packets, or of an address that is none.
                let probe = format!("probe {} {}", self.name, self.heard);
                let _ = self.socket.send_to(probe.as_bytes(), address);
            }
            let end = Instant::now() + PACE;
            while let Some((text, from)) = receive(&self.socket, end)? {
                let Some(heard) = text.strip_prefix(&self.expected) else {
                    continue;
                };
                self.heard = true;
                if self.addresses.len() < ADDRESSES {
                    self.addresses.insert(from);
                }
                if heard == "true" && done.is_none() {
                    done = Some((started.elapsed(), from));
                }
            }
        }
        Ok(done)
    }
}
