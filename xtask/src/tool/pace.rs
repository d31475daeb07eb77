//! A steady pace of numbered echoes that shows which way they went and how long nothing came.
//!
//! Where the way through a relay is longer than the direct one, no echo that used the relay can be as quick as one that did
//! not: a single one below the limit proves that both directions were direct when it travelled.
//!
//! Orders on standard input, answers on standard output: `mark NAME` starts an account, and then `NAME quick after N us` is
//! said at the first echo below the limit that was sent after the mark; `tell NAME` closes the account with one line
//! ([`Account`]). Ends when its standard input does.

mod account;

use std::io::{BufRead as _, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::payload::{HEADER, Reply, judge, make, socket};
use crate::args::Args;
pub(crate) use account::Account;

/// Sending times that are remembered: an echo that is later than this many others tells nothing about its way.
const REMEMBERED: usize = 1 << 15;

/// Bytes of each.
const SIZE: usize = 200;

/// An open account.
struct Mark {
    name: String,
    at: Instant,
    /// Numbers from here on were sent after it.
    from: u64,
    quick: bool,
    account: Account,
}

struct Pace {
    socket: UdpSocket,
    limit: Duration,
    sent: u64,
    sent_at: Vec<Instant>,
    /// When the last reply came, or when this began.
    last_reply: Instant,
    /// Numbers below this came already, as far as it is remembered.
    seen: Vec<u64>,
    replies: u64,
    mark: Mark,
}

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let rate: u32 = args.value("--rate")?.unwrap_or(1_000);
    let limit = Duration::from_millis(args.required("--quick-below")?);
    args.finish()?;
    // Without this every wait is up to 50 µs longer than asked for.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let now = Instant::now();
    let mut pace = Pace {
        socket: socket(None, to)?,
        limit,
        sent: 0,
        sent_at: vec![now; REMEMBERED],
        last_reply: now,
        seen: vec![u64::MAX; REMEMBERED],
        replies: 0,
        mark: Mark::new("start", 0),
    };
    let orders = orders();
    let gap = Duration::from_secs(1) / rate.max(1);
    let mut due = now;
    while pace.obey(&orders) {
        let late = Instant::now().saturating_duration_since(due);
        pace.mark.account.late_us = pace.mark.account.late_us.max(micros(late));
        while due <= Instant::now() {
            pace.send();
            due += gap;
        }
        pace.receive(due);
    }
    Ok(())
}

fn orders() -> Receiver<String> {
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

impl Mark {
    fn new(name: &str, from: u64) -> Self {
        Self {
            name: name.to_owned(),
            at: Instant::now(),
            from,
            quick: false,
            account: Account::default(),
        }
    }
}

impl Pace {
    /// Whether to go on.
    fn obey(&mut self, orders: &Receiver<String>) -> bool {
        match orders.try_recv() {
            Ok(order) => {
                match order.split_once(' ') {
                    Some(("mark", name)) => {
                        self.mark = Mark::new(name, self.sent);
                    }
                    Some(("tell", name)) => {
                        self.silence();
                        println!("{name} {}", self.mark.account);
                    }
                    _ => {}
                }
                true
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        }
    }

    fn send(&mut self) {
        if let Some(at) = self.sent_at.get_mut(slot(self.sent)) {
            *at = Instant::now();
        }
        // A network that has no way now may have one later.
        let _ = self.socket.send(&make(1, self.sent, SIZE.max(HEADER)));
        self.sent += 1;
        self.mark.account.sent += 1;
    }

    /// Takes in one reply, or waits until the next has to be sent.
    fn receive(&mut self, due: Instant) {
        let wait = due.saturating_duration_since(Instant::now());
        let _ = self
            .socket
            .set_read_timeout(Some(wait.max(Duration::from_micros(20))));
        let mut buffer = [0; 2048];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let reply = buffer.get(..length).unwrap_or_default();
                if let Reply::Own(number) = judge(1, SIZE.max(HEADER), reply) {
                    self.on_reply(number);
                } else {
                    self.mark.account.wrong += 1;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.mark.account.unreachable += 1,
        }
    }

    fn on_reply(&mut self, number: u64) {
        let slot = slot(number);
        let (Some(seen), Some(sent_at)) = (self.seen.get_mut(slot), self.sent_at.get(slot)) else {
            return;
        };
        if *seen == number {
            self.mark.account.duplicates += 1;
            return;
        }
        *seen = number;
        let took = sent_at.elapsed();
        self.replies += 1;
        if self.replies == 1 {
            println!("first reply after {} us", micros(self.mark.at.elapsed()));
        }
        self.silence();
        self.last_reply = Instant::now();
        let mark = &mut self.mark;
        mark.account.received += 1;
        if number < mark.from || self.sent - number > REMEMBERED as u64 {
            return;
        }
        if took < self.limit {
            mark.account.quick += 1;
            if !mark.quick {
                mark.quick = true;
                println!("{} quick after {} us", mark.name, micros(mark.at.elapsed()));
            }
        } else {
            mark.account.slow += 1;
        }
    }

    /// Takes the time since the last reply, as far as it is after the mark, into the account.
    fn silence(&mut self) {
        let since = self.last_reply.max(self.mark.at);
        let account = &mut self.mark.account;
        account.gap_us = account.gap_us.max(micros(since.elapsed()));
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number).unwrap_or_default() % REMEMBERED
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
