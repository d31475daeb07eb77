//! Commands as lines on standard input, answers as lines of JSON.

use std::io::{self, BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sender::Plan;

/// How often a busy or sleeping process looks for a command.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// One command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Command {
    Run(Plan),
    Ping {
        count: u64,
        size: usize,
    },
    Handshakes {
        time: Duration,
    },
    Idle {
        count: usize,
    },
    Take,
    Measure {
        time: Duration,
    },
    Aead,
    /// The input has ended, or the lifetime is over.
    End,
}

/// The channel to whoever drives this process.
pub(super) struct Control {
    lines: Receiver<String>,
    until: Instant,
}

impl Control {
    pub(super) fn new(lifetime: Duration) -> Self {
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            lines,
            until: Instant::now() + lifetime,
        }
    }

    /// The next command if there is one. What is not understood is an error, so that nobody waits for an answer.
    pub(super) fn next(&self) -> io::Result<Option<Command>> {
        if Instant::now() >= self.until {
            return Ok(Some(Command::End));
        }
        match self.lines.try_recv() {
            Ok(line) => parse(&line).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("not understood: {line}"))
            }),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Ok(Some(Command::End)),
        }
    }

    /// The next command, waited for.
    pub(super) fn wait(&self) -> io::Result<Command> {
        loop {
            if let Some(command) = self.next()? {
                return Ok(command);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn parse(line: &str) -> Option<Command> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let mut number = || {
        words
            .next()?
            .parse::<f64>()
            .ok()
            .filter(|number| (0.0..1e9).contains(number))
    };
    Some(match name {
        "run" => Command::Run(Plan {
            rate: number()? as u64,
            time: Duration::from_secs_f64(number()?.min(600.0)),
            size: number()? as usize,
            tick: Duration::from_secs_f64(number().unwrap_or(1_000.0) / 1e6),
        }),
        "ping" => Command::Ping {
            count: number()? as u64,
            size: number()? as usize,
        },
        "handshakes" => Command::Handshakes {
            time: Duration::from_secs_f64(number()?.min(600.0)),
        },
        "idle" => Command::Idle {
            count: number()? as usize,
        },
        "take" => Command::Take,
        "measure" => Command::Measure {
            time: Duration::from_secs_f64(number()?.min(60_000.0) / 1e3),
        },
        "aead" => Command::Aead,
        _ => return None,
    })
}

/// Answers.
pub(super) fn answer(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// The answer to a command that this tool has no use for.
pub(super) fn misplaced(command: Command) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("not a command of this tool: {command:?}"),
    )
}
