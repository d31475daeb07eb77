//! One echo at a time, of every size asked for: `size N ok`, or `size N: what went wrong`.
//!
//! `--ask TEXT` sends that text instead and prints the answer.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::payload::{make, socket};
use crate::args::Args;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let bind = args.value("--bind")?;
    let id: u32 = args.value("--id")?.unwrap_or(1);
    let patience = Duration::from_millis(args.value("--patience-ms")?.unwrap_or(3000));
    let ask: Option<String> = args.value("--ask")?;
    let sizes: String = args.value("--sizes")?.unwrap_or_default();
    args.finish()?;
    let socket = socket(bind, to)?;
    if let Some(text) = ask {
        let answer = exchange(&socket, text.as_bytes(), patience)?;
        println!("answer {}", String::from_utf8_lossy(&answer));
        return Ok(());
    }
    let mut wrong = 0;
    for (sequence, size) in (0..).zip(sizes.split(',').filter(|size| !size.is_empty())) {
        let size: usize = size.parse()?;
        let sent = make(id, sequence, size);
        let started = Instant::now();
        let outcome = match exchange(&socket, &sent, patience) {
            Ok(reply) if reply == sent => format!(" ok {} us", started.elapsed().as_micros()),
            Ok(reply) => format!(": {} other bytes came back", reply.len()),
            Err(error) => format!(": {error} after {} ms", started.elapsed().as_millis()),
        };
        wrong += u32::from(!outcome.starts_with(" ok"));
        println!("size {size}{outcome}");
    }
    if wrong > 0 {
        bail!("{wrong} sizes did not come back");
    }
    Ok(())
}

fn exchange(socket: &UdpSocket, payload: &[u8], patience: Duration) -> Result<Vec<u8>> {
    socket.send(payload)?;
    let give_up = Instant::now() + patience;
    let mut buffer = vec![0; 1 << 16];
    while Instant::now() < give_up {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no reply")
}
