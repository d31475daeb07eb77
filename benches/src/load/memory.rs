//! The relay in memory beside bare quiche, and the reference that tells how fast the core is at that moment.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::control::{Command, Control, answer, misplaced};
use crate::cpu::{Cost, reference};
use crate::memory::bare::BareRelay;
use crate::memory::channel::MemoryChannels;
use crate::memory::{Apart, Fake, MemoryRelay, Quiche, Stack};

/// Packets of one turn.
const BATCH: usize = 32;

/// The size of a packet.
const LEN: usize = 1_200;

/// Seals and opens for one look at the reference.
const REFERENCE: u32 = 4_000;

pub(super) fn run(lifetime: Duration) -> io::Result<()> {
    let control = Control::new(lifetime);
    answer(&json!({ "ready": 1 }))?;
    loop {
        let result = match control.wait()? {
            Command::Measure { time } => measure(time),
            Command::Aead => json!({ "aead_us": reference(REFERENCE) }),
            Command::End => return Ok(()),
            command @ (Command::Run(_)
            | Command::Ping { .. }
            | Command::Handshakes { .. }
            | Command::Idle { .. }
            | Command::Take) => return Err(misplaced(command)),
        };
        answer(&result)?;
    }
}

/// Microseconds of CPU and allocations per DATAGRAM, of each relay, for about `time` each.
fn measure(time: Duration) -> Value {
    let before = reference(REFERENCE);
    let first = bare(time);
    let relay = whole::<Quiche>(1, BATCH, time);
    let spread = whole::<Quiche>(8, BATCH / 8, time);
    let again = bare(time);
    let apart = whole::<Apart<Quiche>>(1, BATCH, time);
    let fake = whole::<Fake>(1, BATCH, time);
    json!({
        "aead_us": [before, reference(REFERENCE)],
        "channel": channel(time),
        "bare": first, "bare_again": again, "relay": relay, "relay_8_agents": spread, "fake": fake, "apart": apart,
    })
}

fn figures(cost: &Cost, datagrams: u64) -> Value {
    let per = |count: u64| count as f64 / datagrams.max(1) as f64;
    json!({
        "datagrams": datagrams,
        "us": cost.micros_per(datagrams),
        "allocations": per(cost.allocations.total()),
        "allocations_ours": per(cost.allocations.ours),
    })
}

fn bare(time: Duration) -> Value {
    let mut relay = BareRelay::new(LEN);
    relay.warm_up(BATCH, || {});
    let (mut cost, mut datagrams) = (Cost::default(), 0);
    let start = Instant::now();
    while start.elapsed() < time {
        datagrams += relay.turn(BATCH, &mut cost).arrived;
    }
    figures(&cost, datagrams)
}

/// Frames of channels, of which nothing is read but the number. The connections beside them have their timers, at which QUIC
/// may well ask for memory.
fn channel(time: Duration) -> Value {
    let mut channels = MemoryChannels::new(&mut Apart::<Quiche>::default(), 1, (BATCH, LEN), Instant::now);
    let start = Instant::now();
    while start.elapsed() < time / 4 {
        channels.turn(&mut Cost::default(), Instant::now());
    }
    let (mut cost, mut frames) = (Cost::default(), 0);
    let start = Instant::now();
    while start.elapsed() < time {
        frames += channels.turn(&mut cost, Instant::now());
    }
    figures(&cost, frames)
}

fn whole<S: Stack + Default>(agents: usize, per_agent: usize, time: Duration) -> Value {
    let mut relay = MemoryRelay::new(&mut S::default(), agents, LEN, Instant::now);
    relay.warm_up(per_agent, Instant::now);
    let (mut cost, mut datagrams) = (Cost::default(), 0);
    let start = Instant::now();
    while start.elapsed() < time {
        datagrams += relay.turn(per_agent, &mut cost, Instant::now()).arrived;
    }
    figures(&cost, datagrams)
}
