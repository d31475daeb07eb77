//! Agents of v2 that send frames of relay channels: what is in them is a mark, because the relay cannot tell.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use proto_core::id::ServiceId;
use proto_core::wire::channel::{PREFIX_LEN, channel_prefix};
use proto_core::wire::datagram::Role;
use serde_json::json;

use super::Relay;
use super::control::{Command, Control, LOOK, answer, misplaced};
use super::link::Link;
use super::plain::{BATCH, payload_len};
use super::sender::{Carrier, Rounds};
use crate::client::Speaks;
use crate::packet::Mark;
use crate::socket::wait_readable;

/// How long a channel may take to open.
const OPENING: Duration = Duration::from_secs(10);

/// Each agent shows itself this often, as the programs do.
const KEEPALIVE: Duration = Duration::from_secs(5);

struct Port {
    link: Link,
    prefix: [u8; PREFIX_LEN],
    queue: Vec<u8>,
    queued: usize,
}

struct Channels {
    ports: Vec<Port>,
    /// The UDP payload of one frame.
    size: usize,
    shown: Instant,
}

pub(super) fn run(relay: &Relay, count: usize, lifetime: Duration) -> io::Result<()> {
    let control = Control::new(lifetime);
    let service = ServiceId::parse(relay.service.as_bytes()).map_err(io::Error::other)?;
    let ports = (0..count).map(|_| Port::new(relay, &service));
    let mut channels = Channels {
        ports: ports.collect::<io::Result<_>>()?,
        size: 0,
        shown: Instant::now(),
    };
    answer(&json!({ "ready": count }))?;
    let mut rounds = Rounds::new();
    loop {
        let Some(command) = control.next()? else {
            channels.turn(LOOK, &mut |_, _| {})?;
            continue;
        };
        match command {
            Command::Run(plan) => answer(&rounds.run(&mut channels, plan)?)?,
            Command::End => return channels.ports.iter_mut().try_for_each(|port| port.link.close()),
            Command::Ping { .. }
            | Command::Handshakes { .. }
            | Command::Idle { .. }
            | Command::Take
            | Command::Measure { .. }
            | Command::Aead => return Err(misplaced(command)),
        }
    }
}

impl Port {
    /// A registered agent with an open channel.
    fn new(relay: &Relay, service: &ServiceId) -> io::Result<Self> {
        let mut link = Link::new(relay, (Role::Agent, Speaks::V2), vec![service.clone()], 4)?;
        link.settle(1)?;
        link.client.open_channel(service);
        let until = Instant::now() + OPENING;
        loop {
            if let Some(channel) = link.client.channel() {
                return Ok(Self {
                    link,
                    prefix: channel_prefix(channel),
                    queue: Vec::new(),
                    queued: 0,
                });
            }
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no channel"));
            }
            if !link.turn(&mut |_| None)? {
                wait_readable(&[link.as_fd()], LOOK)?;
            }
        }
    }
}

impl Carrier for Channels {
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
        self.size = payload_len(size).max(PREFIX_LEN + Mark::LEN);
        let at = port.queue.len();
        port.queue.extend_from_slice(&port.prefix);
        port.queue.resize(at + self.size, 0x5a);
        mark.write(&mut port.queue[at + PREFIX_LEN..]);
        port.queued += 1;
        true
    }

    fn turn(&mut self, wait: Duration, _: &mut dyn FnMut(Mark, Instant)) -> io::Result<()> {
        let show = self.shown.elapsed() > KEEPALIVE;
        if show {
            self.shown = Instant::now();
        }
        let mut moved = false;
        for port in &mut self.ports {
            if port.queued > 0 {
                port.link.send_frames(&port.queue, self.size)?;
                port.queue.clear();
                port.queued = 0;
                moved = true;
            }
            if show {
                port.link.client.ping_next();
            }
            moved |= port.link.turn(&mut |_| None)?;
        }
        if moved || wait.is_zero() {
            return Ok(());
        }
        let wait = self
            .ports
            .iter()
            .fold(wait, |wait, port| port.link.idle_for(wait));
        let fds: Vec<_> = self.ports.iter().map(|port| port.link.as_fd()).collect();
        wait_readable(&fds, wait)
    }
}
