//! A plain UDP prober: it tells from outside and from inside what a translator does, and whether two hosts can meet.
//!
//! Messages are lines of text. To the reflector: `tell TOKEN` (answered with `seen TOKEN ADDRESS`), `from N MILLIS TOKEN` (the
//! same answer from its N-th socket after a while), `to ADDRESS N TOKEN` (the N-th socket sends `stranger TOKEN` there; it goes to
//! hosts of the laboratory only), `meet NAME PEER` (answered with `peer ADDRESS` once both have said so). Between two hosts that
//! meet: `probe NAME HEARD`.

pub(super) mod classify;
pub(super) mod meet;
pub(super) mod reflector;
pub(super) mod watch;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A socket on any port.
fn socket() -> Result<UdpSocket> {
    Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
}

/// The next datagram before `end`, as text, and from whom.
fn receive(socket: &UdpSocket, end: Instant) -> Result<Option<(String, SocketAddr)>> {
    let mut buffer = [0; 512];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_micros(50))))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                return Ok(Some((text, from)));
            }
            // The others are errors of packets sent before; they say nothing about what will come.
            Err(error) if error.kind() == ErrorKind::InvalidInput => bail!("cannot receive: {error}"),
            Err(_) => {}
        }
    }
}
