//! Ping-pong over UDP: `p50 N us p99 N us of N`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::payload::{Reply, judge, make, socket};
use crate::args::Args;

const SIZE: usize = 200;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: u64 = args.value("--count")?.unwrap_or(1000);
    args.finish()?;
    let socket = socket(None, to)?;
    let mut buffer = vec![0; 1 << 16];
    let mut times: Vec<Duration> = Vec::new();
    for sequence in 0..count {
        let started = Instant::now();
        socket.send(&make(1, sequence, SIZE))?;
        loop {
            if started.elapsed() > Duration::from_secs(2) {
                bail!("no reply to number {sequence}");
            }
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            if judge(1, SIZE, buffer.get(..length).unwrap_or_default()) == Reply::Own(sequence) {
                times.push(started.elapsed());
                break;
            }
        }
    }
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
            .as_micros()
    };
    println!("p50 {} us p99 {} us of {}", at(50), at(99), times.len());
    Ok(())
}
