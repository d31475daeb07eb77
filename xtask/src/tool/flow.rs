//! A steady stream of echoes, and an exact account of what came back.
//!
//! It runs until its standard input closes. A line `mark N` there makes it print `answered mark N after D ms` at the first
//! reply to anything sent after the mark: how a test learns that the way is open again, without guessing.

use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::payload::{HEADER, Reply, judge, make, socket};
use crate::args::Args;

/// How long replies are waited for after the last datagram was sent.
const LINGER: Duration = Duration::from_millis(800);

/// The account of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Datagrams sent.
    pub(crate) sent: u64,
    /// Distinct datagrams that came back unharmed.
    pub(crate) received: u64,
    /// Replies that belong to another sender.
    pub(crate) foreign: u64,
    /// Replies that are not what was sent.
    pub(crate) corrupt: u64,
    /// Replies that had come before.
    pub(crate) duplicate: u64,
    /// Times the network said at once that there is no way.
    pub(crate) unreachable: u64,
    /// The longest time without a reply.
    pub(crate) silence_ms: u64,
}

impl Account {
    /// Datagrams that never came back.
    pub(crate) fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            foreign,
            corrupt,
            duplicate,
            unreachable,
            silence_ms,
        } = self;
        write!(
            f,
            "flow {sent} {received} {foreign} {corrupt} {duplicate} {unreachable} {silence_ms}"
        )
    }
}

impl FromStr for Account {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .strip_prefix("flow ")
            .context("not an account")?
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [
            sent,
            received,
            foreign,
            corrupt,
            duplicate,
            unreachable,
            silence_ms,
        ] = *numbers.as_slice()
        else {
            anyhow::bail!("not an account: {line}");
        };
        Ok(Self {
            sent,
            received,
            foreign,
            corrupt,
            duplicate,
            unreachable,
            silence_ms,
        })
    }
}

struct Mark {
    number: u32,
    /// Sequence numbers from here on were sent after it.
    from: u64,
    at: Instant,
}

struct Flow {
    socket: UdpSocket,
    id: u32,
    size: usize,
    account: Account,
    answered: HashSet<u64>,
    last_reply: Instant,
    mark: Option<Mark>,
}

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let bind = args.value("--bind")?;
    let rate: u32 = args.value("--rate")?.unwrap_or(100);
    let count: u64 = args.value("--count")?.unwrap_or(u64::MAX);
    let mut flow = Flow {
        socket: socket(bind, to)?,
        id: args.required("--id")?,
        size: args.value("--size")?.unwrap_or(200).max(HEADER),
        account: Account::default(),
        answered: HashSet::new(),
        last_reply: Instant::now(),
        mark: None,
    };
    args.finish()?;
    let gap = Duration::from_secs(1) / rate.max(1);
    let commands = commands();
    let mut due = Instant::now();
    while flow.account.sent < count && flow.obey(&commands) {
        while due <= Instant::now() && flow.account.sent < count {
            flow.send();
            due += gap;
        }
        flow.receive(due.saturating_duration_since(Instant::now()));
        flow.listen_for_silence();
    }
    let end = Instant::now() + LINGER;
    while flow.account.lost() > 0 && Instant::now() < end {
        flow.receive(Duration::from_millis(10));
    }
    println!("{}", flow.account);
    Ok(())
}

/// What is said on standard input; the channel closes with it.
fn commands() -> Receiver<String> {
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

impl Flow {
    /// Whether to go on.
    fn obey(&mut self, commands: &Receiver<String>) -> bool {
        match commands.try_recv() {
            Ok(line) => {
                if let Some(Ok(number)) = line.strip_prefix("mark ").map(str::parse) {
                    self.mark = Some(Mark {
                        number,
                        from: self.account.sent,
                        at: Instant::now(),
                    });
                }
                true
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        }
    }

    fn send(&mut self) {
        let sent = self.socket.send(&make(self.id, self.account.sent, self.size));
        self.account.sent += 1;
        if sent.is_err() {
            self.account.unreachable += 1;
        }
    }

    fn receive(&mut self, wait: Duration) {
        let _ = self.socket.set_read_timeout(Some(
            wait.clamp(Duration::from_micros(50), Duration::from_millis(50)),
        ));
        let mut buffer = [0; 2048];
        match self.socket.recv(&mut buffer) {
            Ok(length) => self.on_reply(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.account.unreachable += 1,
        }
    }

    /// Takes the time since the last reply into the account; not after the last datagram, when silence is no loss.
    fn listen_for_silence(&mut self) {
        let silence = u64::try_from(self.last_reply.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.account.silence_ms = self.account.silence_ms.max(silence);
    }

    fn on_reply(&mut self, reply: &[u8]) {
        let sequence = match judge(self.id, self.size, reply) {
            Reply::Own(sequence) => sequence,
            Reply::Foreign => {
                self.account.foreign += 1;
                return;
            }
            Reply::Corrupt => {
                self.account.corrupt += 1;
                return;
            }
        };
        if sequence >= self.account.sent || !self.answered.insert(sequence) {
            self.account.duplicate += 1;
            return;
        }
        if self.account.received == 0 {
            println!("first reply");
        }
        self.account.received += 1;
        self.last_reply = Instant::now();
        if let Some(mark) = self.mark.take_if(|mark| sequence >= mark.from) {
            println!(
                "answered mark {} after {} ms",
                mark.number,
                mark.at.elapsed().as_millis()
            );
        }
    }
}

#[cfg(test)]
mod tests;
