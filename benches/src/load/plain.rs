//! Plain UDP with the same marks, for figures without a tunnel, and for hosts behind a real one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::control::{Command, Control, LOOK, answer, misplaced};
use super::sender::{Carrier, Rounds};
use super::tally::Tally;
use crate::packet::{HEADERS, Mark};
use crate::socket::{BatchSocket, Offload, wait_readable};

/// Datagrams that wait in one sender: one batch.
pub(super) const BATCH: usize = 50;

struct Port {
    socket: BatchSocket,
    queue: Vec<u8>,
    queued: usize,
}

struct Plain {
    to: SocketAddr,
    ports: Vec<Port>,
    size: usize,
}

/// A UDP payload as long as that of an inner packet of `size` bytes.
pub(super) fn payload_len(size: usize) -> usize {
    size.saturating_sub(HEADERS).max(Mark::LEN)
}

/// Sends as commands say.
pub(super) fn send(
    to: SocketAddr,
    bind: IpAddr,
    senders: usize,
    offload: Offload,
    lifetime: Duration,
) -> io::Result<()> {
    let control = Control::new(lifetime);
    let ports = (0..senders.max(1)).map(|_| {
        let socket = BatchSocket::bind(SocketAddr::new(bind, 0), offload)?;
        Ok(Port {
            socket,
            queue: Vec::new(),
            queued: 0,
        })
    });
    let mut plain = Plain {
        to,
        ports: ports.collect::<io::Result<_>>()?,
        size: 0,
    };
    let mut rounds = Rounds::new();
    answer(&json!({ "ready": senders }))?;
    loop {
        let result = match control.wait()? {
            Command::Run(plan) => rounds.run(&mut plain, plan)?,
            Command::Ping { count, size } => rounds.ping(&mut plain, count, size)?,
            Command::End => return Ok(()),
            command @ (Command::Handshakes { .. }
            | Command::Idle { .. }
            | Command::Take
            | Command::Measure { .. }
            | Command::Aead) => return Err(misplaced(command)),
        };
        answer(&result)?;
    }
}

impl Carrier for Plain {
    fn senders(&self) -> usize {
        self.ports.len()
    }

    fn room(&self, sender: usize) -> u64 {
        self.ports
            .get(sender)
            .map_or(0, |port| BATCH.saturating_sub(port.queued)) as u64
    }

    fn offer(&mut self, mark: Mark, size: usize) -> bool {
        let Some(port) = self.ports.get_mut(mark.sender as usize) else {
            return false;
        };
        self.size = payload_len(size);
        let at = port.queue.len();
        port.queue.resize(at + self.size, 0x5a);
        mark.write(&mut port.queue[at..]);
        port.queued += 1;
        true
    }

    fn turn(&mut self, wait: Duration, arrived: &mut dyn FnMut(Mark, Instant)) -> io::Result<()> {
        let mut moved = false;
        for port in &mut self.ports {
            if port.queued > 0 {
                port.socket.send(self.to, &port.queue, self.size)?;
                port.queue.clear();
                port.queued = 0;
                moved = true;
            }
            // One datagram a call at worst: as many calls as a batch has.
            for _ in 0..BATCH {
                let received = port.socket.receive(|_, stride, payload| {
                    for mark in payload.chunks(stride).filter_map(Mark::read) {
                        arrived(mark, Instant::now());
                    }
                })?;
                if !received {
                    break;
                }
                moved = true;
            }
        }
        if moved || wait.is_zero() {
            return Ok(());
        }
        let fds: Vec<_> = self.ports.iter().map(|port| port.socket.as_fd()).collect();
        wait_readable(&fds, wait)
    }
}

/// Counts what comes, and sends it back if wanted.
pub(super) fn receive(listen: SocketAddr, echo: bool, lifetime: Duration) -> io::Result<()> {
    let control = Control::new(lifetime);
    let mut socket = BatchSocket::bind(listen, Offload::Segments)?;
    let answers = BatchSocket::reply_of(&socket)?;
    answer(&json!({ "ready": 1 }))?;
    let mut tally = Tally::default();
    let mut looked = Instant::now();
    loop {
        let mut failed = Ok(0);
        let moved = socket.receive(|from, stride, payload| {
            let now = Instant::now();
            for mark in payload.chunks(stride).filter_map(Mark::read) {
                tally.count(mark, now);
            }
            if echo && failed.is_ok() {
                failed = answers.send(from, payload, stride);
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
            Some(Command::Take) => answer(&tally.take())?,
            Some(Command::End) => return Ok(()),
            Some(command) => return Err(misplaced(command)),
        }
    }
}
