//! TCP sessions whose every byte is known: a server, and a client that runs many at once, holds many idle, or times
//! short ones.
//!
//! A session starts with its number, what the client will send and what it wants (8 + 4 + 4 bytes). Both sides send and
//! read in turns, so that all sessions make progress at once. Then the client closes its half; the server answers with
//! one byte, `+` if every byte was right, and closes too. Content follows from the number of the session: bytes that end
//! up in another session are found.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Barrier, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::content;
use crate::args::Args;

/// Bytes of a turn.
const TURN: usize = 8_192;

/// Longest silence inside a session.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stack of the thread of a session.
const STACK: usize = 128 * 1024;

/// `tool tcp-server --bind ADDRESS [--hold]`: with `--hold` it greets every caller with one byte and says no more.
pub(super) fn serve(args: &mut Args) -> Result<()> {
    let bind: SocketAddr = args.required("--bind")?;
    let hold = args.flag("--hold");
    args.finish()?;
    raise_limit()?;
    let listener = TcpListener::bind(bind).with_context(|| format!("bind {bind}"))?;
    // The standard library's backlog of 128 is short for a thousand callers at once; the kernel's own limit decides.
    rustix::net::listen(&listener, 4_096)?;
    println!("ready on {bind}");
    let mut held = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if hold {
            if stream.write_all(b"+").is_ok() {
                held.push(stream);
            }
            continue;
        }
        let session = thread::Builder::new().stack_size(STACK);
        session.spawn(move || {
            if let Err(error) = answer(&mut stream) {
                eprintln!("{error:#}");
            }
        })?;
    }
    Ok(())
}

fn answer(stream: &mut TcpStream) -> Result<()> {
    prepare(stream)?;
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let mut field = header
        .chunks_exact(4)
        .map(|part| part.try_into().map_or(0, u32::from_be_bytes));
    let mut next = || field.next().unwrap_or_default();
    let number = u64::from(next()) << 32 | u64::from(next());
    let (up, down) = (next(), next());
    let fine = exchange(
        stream,
        Flow {
            number,
            from: down,
            to: up,
            server: true,
        },
    )
    .is_ok();
    let mut rest = [0; 1];
    let ended = fine && stream.read(&mut rest)? == 0;
    stream.write_all(if ended { b"+" } else { b"-" })?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// What goes through a session: `from` here to there, `to` here from there.
#[derive(Clone, Copy, Debug)]
struct Flow {
    number: u64,
    from: u32,
    to: u32,
    server: bool,
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

/// Turn by turn, the server first reading.
fn exchange(stream: &mut TcpStream, flow: Flow) -> Result<()> {
    let Flow {
        number,
        from,
        to,
        server,
    } = flow;
    let (from, to) = (u64::from(from), u64::from(to));
    // The two directions carry different bytes.
    let (ours, theirs) = (
        number << 33 | u64::from(server) << 32,
        number << 33 | u64::from(!server) << 32,
    );
    let (mut sent, mut got) = (0, 0);
    let mut chunk = vec![0; TURN];
    let mut expected = vec![0; TURN];
    let mut reading = server;
    while sent < from || got < to {
        if reading {
            let length = usize::try_from(to - got)?.min(TURN);
            let piece = chunk.get_mut(..length).unwrap_or_default();
            stream
                .read_exact(piece)
                .with_context(|| format!("session {number} after {got} of {to} bytes"))?;
            content::fill(&mut expected, theirs + got);
            ensure!(
                *piece == expected[..length],
                "session {number}: other bytes after {got}"
            );
            got += length as u64;
        } else {
            let length = usize::try_from(from - sent)?.min(TURN);
            content::fill(&mut chunk, ours + sent);
            stream.write_all(chunk.get(..length).unwrap_or_default())?;
            sent += length as u64;
        }
        reading = !reading;
    }
    Ok(())
}

/// Opens a session, through a SOCKS proxy if there is one.
fn open(to: SocketAddr, proxy: Option<SocketAddr>) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&proxy.unwrap_or(to), PATIENCE).context("connect")?;
    prepare(&stream)?;
    if proxy.is_some() {
        ask_proxy(&stream, to)?;
    }
    Ok(stream)
}

/// No authentication, CONNECT (RFC 1928 §3 and §4).
fn ask_proxy(mut stream: &TcpStream, to: SocketAddr) -> Result<()> {
    let SocketAddr::V4(to) = to else {
        bail!("only IPv4 through a proxy");
    };
    stream.write_all(&[5, 1, 0])?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).context("the proxy's choice")?;
    let request = [&[5, 1, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()];
    stream.write_all(&request.concat())?;
    // With the IPv4 address where we are seen.
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).context("the proxy's reply")?;
    ensure!(
        chosen == [5, 0] && reply.starts_with(&[5, 0]),
        "the proxy says {chosen:?}, {reply:?}"
    );
    Ok(())
}

/// One session from the client's side.
fn session(mut stream: TcpStream, number: u64, up: u32, down: u32) -> Result<()> {
    let header = [&number.to_be_bytes()[..], &up.to_be_bytes(), &down.to_be_bytes()].concat();
    stream.write_all(&header)?;
    exchange(
        &mut stream,
        Flow {
            number,
            from: up,
            to: down,
            server: false,
        },
    )?;
    stream.shutdown(Shutdown::Write)?;
    let mut verdict = Vec::new();
    stream.read_to_end(&mut verdict).context("the end")?;
    ensure!(verdict == b"+", "session {number}: the server says {verdict:?}");
    Ok(())
}

/// Lets so many through at a time.
#[derive(Debug, Default)]
struct Door {
    inside: Mutex<usize>,
    moved: Condvar,
}

impl Door {
    const ROOM: usize = 100;

    fn enter(&self) {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inside = self
            .moved
            .wait_while(inside, |inside| *inside >= Self::ROOM)
            .unwrap_or_else(PoisonError::into_inner);
        *inside += 1;
    }

    fn leave(&self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.moved.notify_one();
    }
}

/// `tool tcp-sessions --to ADDRESS --count N --bytes N [--socks ADDRESS]`: all at once, a third up, a third down, a third both ways.
pub(super) fn many(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: u64 = args.required("--count")?;
    let bytes: u32 = args.value("--bytes")?.unwrap_or(100_000);
    let first: u64 = args.value("--id")?.unwrap_or(0) << 16;
    let proxy: Option<SocketAddr> = args.value("--socks")?;
    args.finish()?;
    raise_limit()?;
    // All are open before the first one ends; a hundred at a time are being opened, as a browser farm might.
    let (door, all_open) = (Door::default(), Barrier::new(usize::try_from(count)?));
    let started = Instant::now();
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..count)
            .map(|number| {
                let (door, all_open) = (&door, &all_open);
                let (up, down) = match number % 3 {
                    0 => (bytes, 0),
                    1 => (0, bytes),
                    _ => (bytes / 2, bytes / 2),
                };
                let builder = thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, move || {
                    door.enter();
                    let stream = open(to, proxy);
                    door.leave();
                    all_open.wait();
                    session(stream?, first + number, up, down)
                })
            })
            .collect();
        let end = |thread: std::io::Result<thread::ScopedJoinHandle<'_, Result<()>>>| {
            thread?
                .join()
                .map_err(|_| anyhow::anyhow!("a session panicked"))?
        };
        sessions.into_iter().map(end).collect()
    });
    let failed: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    for error in failed.iter().take(5) {
        println!("{error:#}");
    }
    println!(
        "sessions {count} failed {} in {} ms",
        failed.len(),
        started.elapsed().as_millis()
    );
    if !failed.is_empty() {
        bail!("{} of {count} sessions failed", failed.len());
    }
    Ok(())
}

/// `tool tcp-idle --to ADDRESS --count N`: opens sessions, hears one byte on each, and holds them until nobody listens.
pub(super) fn idle(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: usize = args.required("--count")?;
    args.finish()?;
    raise_limit()?;
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream =
            TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("session {number}"))?;
        prepare(&stream)?;
        let mut greeting = [0];
        stream
            .read_exact(&mut greeting)
            .with_context(|| format!("session {number}"))?;
        held.push(stream);
    }
    println!("holding {}", held.len());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line)? > 0 {}
    // Whoever was dropped meanwhile shows it now: an open session has nothing to read.
    let mut gone = 0;
    for stream in &held {
        stream.set_nonblocking(true)?;
        let mut rest = [0];
        let open = stream
            .peek(&mut rest)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        gone += usize::from(!open);
    }
    println!("held {} gone {gone}", held.len());
    Ok(())
}

/// `tool tcp-latency --to ADDRESS --count N`: short sessions one after another, `p50 N us p99 N us of N`.
pub(super) fn latency(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: u64 = args.value("--count")?.unwrap_or(200);
    args.finish()?;
    let mut times = Vec::new();
    for number in 0..count {
        let started = Instant::now();
        session(open(to, None)?, number, 100, 100)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!(
        "p50 {} us p99 {} us of {count}",
        at(50).as_micros(),
        at(99).as_micros()
    );
    Ok(())
}

/// As many sockets as we may have.
fn raise_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(())
}
