//! The side of the prober that is on the public network: it has several addresses and tells everybody how they look from there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Args;

/// Answers that wait for their time; more are not given.
const WAITING: usize = 1_000;

/// An answer: when, from which socket, to whom.
type Answer = (Instant, usize, SocketAddr, String);

pub(crate) fn main(args: &mut Args) -> Result<()> {
    let list: String = args.required("--bind")?;
    args.finish()?;
    let mut sockets = Vec::new();
    for address in list.split(',') {
        let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    println!("ready on {list}");
    let mut reflector = Reflector {
        sockets,
        waiting: BinaryHeap::new(),
        names: BTreeMap::new(),
    };
    loop {
        reflector.turn()?;
    }
}

struct Reflector {
    sockets: Vec<UdpSocket>,
    waiting: BinaryHeap<Reverse<Answer>>,
    /// Who wants to meet, and how they look.
    names: BTreeMap<String, SocketAddr>,
}

impl Reflector {
    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = self.waiting.peek()
            && *due <= now
        {
            let Some(Reverse((_, index, to, text))) = self.waiting.pop() else {
                break;
            };
            self.send(index, to, &text);
        }
        let due = self.waiting.peek().map(|Reverse((due, ..))| *due);
        self.wait(due)?;
        let mut buffer = [0; 512];
        for index in 0..self.sockets.len() {
            while let Some((length, from)) = self
                .sockets
                .get(index)
                .and_then(|socket| socket.recv_from(&mut buffer).ok())
            {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                // What makes no sense is nobody's.
                let _ = self.on_message(index, &text, from);
            }
        }
        Ok(())
    }

    /// Until something comes, or until `due`.
    fn wait(&self, due: Option<Instant>) -> Result<()> {
        let mut ready: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn on_message(&mut self, index: usize, text: &str, from: SocketAddr) -> Option<()> {
        let words: Vec<&str> = text.split(' ').collect();
        match *words.as_slice() {
            ["tell", token] => self.send(index, from, &format!("seen {token} {from}")),
            ["from", other, millis, token] => {
                let due = Instant::now() + Duration::from_millis(millis.parse().ok()?);
                if self.waiting.len() < WAITING {
                    let answer = (due, other.parse().ok()?, from, format!("seen {token} {from}"));
                    self.waiting.push(Reverse(answer));
                }
            }
            ["to", address, other, token] => {
                self.send(
                    other.parse().ok()?,
                    address.parse().ok()?,
                    &format!("stranger {token}"),
                );
            }
            ["meet", name, peer] => {
                self.names.insert(name.to_owned(), from);
                if let Some(peer) = self.names.get(peer).copied() {
                    // Both at once: whoever asked first has been waiting for this.
                    self.send(index, from, &format!("peer {peer}"));
                    self.send(index, peer, &format!("peer {from}"));
                }
            }
            _ => {}
        }
        Some(())
    }

    fn send(&self, index: usize, to: SocketAddr, text: &str) {
        if let Some(socket) = self.sockets.get(index) {
            // A network that has no way is a finding of whoever waits for the answer.
            let _ = socket.send_to(text.as_bytes(), to);
        }
    }
}
