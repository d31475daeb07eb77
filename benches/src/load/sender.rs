//! How packets are offered, whoever carries them: at a rate, as fast as they go, or one after the other.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tally::{Tally, Times};
use crate::packet::Mark;

/// The longest that a turn waits.
const TICK: Duration = Duration::from_millis(1);

/// Offered to one sender in a row, at most: what its queue takes in any case.
const BURST: u64 = 128;

/// How long stragglers are waited for after a round.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// How long one answer is waited for.
const PING_PATIENCE: Duration = Duration::from_millis(500);

/// What carries packets.
pub(super) trait Carrier {
    /// How many senders there are.
    fn senders(&self) -> usize;

    /// How many packets a sender takes now.
    fn room(&self, sender: usize) -> u64;

    /// Offers one packet of `size` bytes; `false` if it was not taken.
    fn offer(&mut self, mark: Mark, size: usize) -> bool;

    /// Sends and receives what there is; if there was nothing, waits for something, at most for `wait`.
    fn turn(&mut self, wait: Duration, arrived: &mut dyn FnMut(Mark, Instant)) -> io::Result<()>;
}

/// What one round offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// Packets a second; 0 for as many as are taken.
    pub(super) rate: u64,
    pub(super) time: Duration,
    /// The length of an IP packet.
    pub(super) size: usize,
    /// How often what is due is offered: the longer, the larger the bursts.
    pub(super) tick: Duration,
}

/// Rounds of one process.
#[derive(Debug)]
pub(super) struct Rounds {
    round: u32,
    started: Instant,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            // Rounds of different processes must not look the same to one receiver.
            round: std::process::id().wrapping_shl(10),
            started: Instant::now(),
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Offers packets for a time, at a rate or as many as are taken.
    pub(super) fn run(&mut self, carrier: &mut dyn Carrier, plan: Plan) -> io::Result<Value> {
        let Plan {
            rate,
            time,
            size,
            tick,
        } = plan;
        self.round = self.round.wrapping_add(1);
        let (mut tally, mut times) = (Tally::default(), Times::default());
        let senders = carrier.senders();
        let mut sequences = vec![0_u64; senders];
        let (mut offered, mut sent) = (0_u64, 0_u64);
        let start = Instant::now();
        let mut next = start;
        let (started, round) = (self.started, self.round);
        let mut arrived = |mark: Mark, now: Instant| {
            if mark.round == round && tally.count(mark, now) {
                let since = now
                    .saturating_duration_since(started)
                    .saturating_sub(Duration::from_nanos(mark.sent_at));
                times.add(since);
            }
        };
        loop {
            let now = Instant::now();
            let elapsed = now.saturating_duration_since(start);
            if elapsed >= time {
                break;
            }
            if rate > 0 && now < next {
                carrier.turn(next - now, &mut arrived)?;
                continue;
            }
            next = (next + tick).max(now);
            let due = (elapsed.as_secs_f64() * rate as f64) as u64;
            for (sender, sequence) in sequences.iter_mut().enumerate() {
                let wanted = if rate == 0 {
                    carrier.room(sender).min(BURST)
                } else {
                    let share =
                        due * (sender as u64 + 1) / senders as u64 - due * sender as u64 / senders as u64;
                    share.saturating_sub(*sequence).min(BURST)
                };
                for _ in 0..wanted {
                    let mark = Mark {
                        sender: sender as u32,
                        round,
                        sequence: *sequence,
                        sent_at: self.nanos(now),
                    };
                    *sequence += 1;
                    offered += 1;
                    sent += u64::from(carrier.offer(mark, size));
                }
            }
            let wait = if rate == 0 { TICK } else { Duration::ZERO };
            carrier.turn(wait, &mut arrived)?;
        }
        let elapsed = start.elapsed();
        let end = Instant::now() + STRAGGLERS;
        while Instant::now() < end {
            carrier.turn(TICK, &mut arrived)?;
        }
        let returned = tally.take();
        Ok(json!({
            "offered": offered, "sent": sent, "seconds": elapsed.as_secs_f64(),
            "returned": returned, "rtt": times.summary(),
        }))
    }

    /// One packet at a time.
    pub(super) fn ping(&mut self, carrier: &mut dyn Carrier, count: u64, size: usize) -> io::Result<Value> {
        self.round = self.round.wrapping_add(1);
        let mut times = Times::default();
        let mut lost = 0;
        for sequence in 0..count {
            let sent = Instant::now();
            carrier.offer(
                Mark {
                    sender: 0,
                    round: self.round,
                    sequence,
                    sent_at: self.nanos(sent),
                },
                size,
            );
            let mut answered = None;
            let round = self.round;
            while answered.is_none() && sent.elapsed() < PING_PATIENCE {
                carrier.turn(PING_PATIENCE, &mut |mark, now| {
                    if mark.round == round && mark.sequence == sequence {
                        answered = Some(now);
                    }
                })?;
            }
            match answered {
                Some(at) => times.add(at.saturating_duration_since(sent)),
                None => lost += 1,
            }
        }
        Ok(json!({ "lost": lost, "rtt": times.summary() }))
    }
}
