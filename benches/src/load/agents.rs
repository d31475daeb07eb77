//! Agents: some that send, many that only stay, and handshakes without end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use proto_core::config::limits::SEND_QUEUE;
use proto_core::id::ServiceId;
use proto_core::quic::Datagram;
use proto_core::wire::datagram::{Role, routed_prefix};
use serde_json::{Value, json};

use super::Relay;
use super::control::{Command, Control, LOOK, answer, misplaced};
use super::link::Link;
use super::sender::{Carrier, Rounds};
use crate::client::Speaks;
use crate::packet::{self, HEADERS, Mark, agent_address};
use crate::socket::wait_readable;

/// Each idle client shows itself this often, as the programs do.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Packets in a queue beyond which a sender that goes as fast as it can waits: more only adds delay.
const DEEP_ENOUGH: usize = 256;

/// How long a connection lives before it makes room for the next: until its last handshake packet is out.
const SETTLED: Duration = Duration::from_millis(2);

/// Handshakes under way at one time.
const HANDSHAKES: usize = 32;

struct Agents {
    target: SocketAddr,
    prefix: Box<[u8]>,
    links: Vec<Link>,
    templates: Vec<Vec<u8>>,
    idle: Option<Link>,
    pinged: Instant,
}

pub(super) fn run(
    relay: &Relay,
    target: SocketAddr,
    (count, speaks): (usize, Speaks),
    lifetime: Duration,
) -> io::Result<()> {
    let control = Control::new(lifetime);
    let service = ServiceId::parse(relay.service.as_bytes()).map_err(io::Error::other)?;
    let mut agents = Agents {
        target,
        prefix: routed_prefix(&service),
        links: Vec::new(),
        templates: Vec::new(),
        idle: None,
        pinged: Instant::now(),
    };
    for _ in 0..count {
        let mut link = Link::new(relay, (Role::Agent, speaks), vec![service.clone()], 4)?;
        link.settle(1)?;
        agents.links.push(link);
    }
    answer(&json!({ "ready": count }))?;
    let mut rounds = Rounds::new();
    loop {
        let command = control.next()?;
        let Some(command) = command else {
            agents.turn(LOOK, &mut |_, _| {})?;
            continue;
        };
        let result = match command {
            Command::Run(plan) => {
                agents.make_templates(plan.size);
                rounds.run(&mut agents, plan)?
            }
            Command::Ping { count, size } => {
                agents.make_templates(size);
                rounds.ping(&mut agents, count, size)?
            }
            Command::Idle { count } => {
                let mut link = Link::new(relay, (Role::Agent, speaks), vec![service.clone()], count + 1)?;
                link.settle(count)?;
                agents.idle = Some(link);
                json!({ "idle": count })
            }
            Command::Handshakes { time } => handshakes(relay, speaks, time)?,
            Command::End => {
                return agents
                    .links
                    .iter_mut()
                    .chain(&mut agents.idle)
                    .try_for_each(Link::close);
            }
            Command::Take | Command::Measure { .. } | Command::Aead => return Err(misplaced(command)),
        };
        answer(&result)?;
    }
}

impl Agents {
    fn make_templates(&mut self, size: usize) {
        let size = size.max(HEADERS + Mark::LEN);
        self.templates = (0..self.links.len())
            .map(|index| {
                let packet = packet::template(agent_address(index), self.target, size);
                [&self.prefix[..], &packet].concat()
            })
            .collect();
    }

    /// Keeps the idle ones alive, one after the other.
    fn look_after_idle(&mut self) -> io::Result<()> {
        let Some(idle) = &mut self.idle else { return Ok(()) };
        let each = KEEPALIVE / u32::try_from(idle.client.connections().max(1)).unwrap_or(u32::MAX);
        let now = Instant::now();
        // Not more than a handful at once, even after a pause.
        for _ in 0..4 {
            if now.saturating_duration_since(self.pinged) < each {
                break;
            }
            idle.client.ping_next();
            self.pinged = (self.pinged + each).max(now.checked_sub(each * 4).unwrap_or(now));
        }
        idle.turn(&mut |_| None)?;
        Ok(())
    }
}

impl Carrier for Agents {
    fn senders(&self) -> usize {
        self.links.len()
    }

    fn room(&self, sender: usize) -> u64 {
        let queued = self
            .links
            .get(sender)
            .map_or(SEND_QUEUE, |link| link.client.queued());
        DEEP_ENOUGH.saturating_sub(queued) as u64
    }

    fn offer(&mut self, mark: Mark, _: usize) -> bool {
        let index = mark.sender as usize;
        let (Some(link), Some(template)) = (self.links.get_mut(index), self.templates.get(index)) else {
            return false;
        };
        let mut bytes = template.clone();
        mark.write(&mut bytes[self.prefix.len() + HEADERS..]);
        link.client.send(Datagram::from(bytes)).is_ok()
    }

    fn turn(&mut self, wait: Duration, arrived: &mut dyn FnMut(Mark, Instant)) -> io::Result<()> {
        let mut moved = false;
        for link in &mut self.links {
            moved |= link.turn(&mut |packet| {
                if let Some(mark) = packet.get(HEADERS..).and_then(Mark::read) {
                    arrived(mark, Instant::now());
                }
                None
            })?;
        }
        self.look_after_idle()?;
        if moved || wait.is_zero() {
            return Ok(());
        }
        let wait = self
            .links
            .iter()
            .chain(&self.idle)
            .fold(wait, |wait, link| link.idle_for(wait));
        let fds: Vec<_> = self.links.iter().chain(&self.idle).map(Link::as_fd).collect();
        wait_readable(&fds, wait)
    }
}

/// Connects, and closes what is connected, for `time`.
fn handshakes(relay: &Relay, speaks: Speaks, time: Duration) -> io::Result<Value> {
    let mut link = Link::new(relay, (Role::Agent, speaks), Vec::new(), 4_096)?;
    let start = Instant::now();
    let (mut done, mut open) = (0, 0);
    while start.elapsed() < time {
        let now = Instant::now();
        while open < HANDSHAKES {
            if link.client.connect(now).is_err() {
                break;
            }
            open += 1;
        }
        let moved = link.turn(&mut |_| None)?;
        let completed = link.client.close_established(SETTLED, now);
        done += completed;
        open -= completed.min(open);
        if !moved && completed == 0 {
            wait_readable(&[link.as_fd()], link.idle_for(LOOK))?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    link.close()?;
    Ok(json!({ "handshakes": done, "seconds": seconds }))
}
