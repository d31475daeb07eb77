//! A plain UDP forwarder: what a relay would cost that neither decrypts nor routes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::control::{Command, Control, LOOK, answer, misplaced};
use crate::socket::{BatchSocket, Offload, wait_readable};

pub(super) fn run(
    listen: SocketAddr,
    to: SocketAddr,
    offload: Offload,
    lifetime: Duration,
) -> io::Result<()> {
    let control = Control::new(lifetime);
    let mut socket = BatchSocket::bind(listen, offload)?;
    let out = BatchSocket::reply_of(&socket)?;
    answer(&json!({ "ready": 1 }))?;
    let mut back = None;
    let mut forwarded = 0;
    let mut looked = Instant::now();
    loop {
        let mut failed = Ok(0);
        let moved = socket.receive(|from, stride, payload| {
            let destination = if from == to {
                back
            } else {
                back = Some(from);
                Some(to)
            };
            if let Some(destination) = destination.filter(|_| failed.is_ok()) {
                failed = out.send(destination, payload, stride);
                forwarded += failed.as_ref().copied().unwrap_or(0);
            }
        })?;
        failed?;
        if !moved {
            wait_readable(&[socket.as_fd()], LOOK)?;
        }
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        match control.next()? {
            None => {}
            Some(Command::Take) => {
                answer(&json!({ "forwarded": forwarded }))?;
                forwarded = 0;
            }
            Some(Command::End) => return Ok(()),
            Some(command) => return Err(misplaced(command)),
        }
    }
}
