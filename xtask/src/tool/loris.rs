//! Clients that misbehave and stay: they keep a server's attention for as long as they can.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::args::Args;

/// Most that a talkative one says before it counts as stuck: more than all buffers on the way together.
const MOST: usize = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(20);

/// `tool tcp-loris --to ADDRESS --count N --kind talking|deaf|slow`: says `stuck`, and stays until nobody listens.
///
/// `talking` sends until nothing more is taken, `deaf` asks a web server for much and never reads, `slow` begins a request
/// and never ends it.
pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: usize = args.required("--count")?;
    let kind: String = args.required("--kind")?;
    args.finish()?;
    let started: Vec<_> = (0..count)
        .map(|_| {
            let kind = kind.clone();
            std::thread::spawn(move || {
                let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                begin(&stream, &kind).map(|()| stream)
            })
        })
        .collect();
    let mut held = Vec::new();
    for (number, thread) in started.into_iter().enumerate() {
        let stream = thread.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        held.push(stream.with_context(|| format!("session {number}"))?);
    }
    println!("stuck {}", held.len());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line)? > 0 {}
    Ok(())
}

fn begin(mut stream: &TcpStream, kind: &str) -> Result<()> {
    match kind {
        "deaf" => stream.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\n\r\n")?,
        "slow" => stream.write_all(b"GET /bytes/10 HT")?,
        "talking" => {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut greeting = [0];
            stream.read_exact(&mut greeting)?;
            // Half a second in which nothing is taken: every buffer on the way is full.
            stream.set_write_timeout(Some(Duration::from_millis(500)))?;
            let mut said = 0;
            while said < MOST {
                match stream.write(&[b'x'; 1 << 16]) {
                    Ok(taken) => said += taken,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            bail!("{MOST} bytes were taken for a server that does not read");
        }
        _ => bail!("no kind {kind}"),
    }
    Ok(())
}
