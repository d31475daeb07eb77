//! A UDP echo server that can also say who it is.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};

use super::payload::widen;
use crate::args::Args;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let bind: SocketAddr = args.required("--bind")?;
    let name: String = args.value("--name")?.unwrap_or_default();
    args.finish()?;
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    widen(&socket);
    println!("ready on {bind}");
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An ICMP error of an earlier reply surfaces here; it concerns nobody else.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let received = buffer.get(..length).unwrap_or_default();
        let reply = if received == b"who are you?" {
            name.as_bytes()
        } else {
            received
        };
        let _ = socket.send_to(reply, from);
    }
}
