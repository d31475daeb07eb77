//! A wire with a character: two interfaces joined by delay, jitter, reordering, loss and a bottleneck, in both directions.
//!
//! The kernels of the test machines have no netem. This joins two TUN interfaces, which the laboratory then moves into the
//! namespaces the wire shall connect; a TUN interface announces no offload, so the kernel cuts super-packets before they
//! get here and every packet has its own fate. Each line on standard input sets new [`Conditions`] and starts both
//! directions anew from the seed; the answer is what happened since the line before.

mod conditions;
mod direction;

use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::os::fd::AsFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::args::Args;
pub(crate) use conditions::Conditions;
use direction::Direction;

/// Largest packet of the wire.
const MTU: u16 = 1_500;

/// Packets the kernel keeps for us while we are not scheduled. The bottleneck of the wire is ours to decide, not this.
const KERNEL_QUEUE: u32 = 20_000;

/// Packets read from one interface before the other has its turn.
const TURN: usize = 64;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let left = open(&args.required::<String>("--left")?)?;
    let right = open(&args.required::<String>("--right")?)?;
    args.finish()?;
    // Without this every wait is up to 50 µs longer than asked for.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    println!("ready");
    Wire::new(left, right).run()
}

fn open(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(MTU)
        .tx_queue_len(KERNEL_QUEUE)
        .enable(false)
        .build_sync()
        .with_context(|| format!("cannot make interface {name}"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// Both interfaces and what is between them.
struct Wire {
    left: SyncDevice,
    right: SyncDevice,
    /// From left to right.
    there: Direction,
    /// From right to left.
    back: Direction,
    buffer: Vec<u8>,
    heard: Vec<u8>,
}

impl Wire {
    fn new(left: SyncDevice, right: SyncDevice) -> Self {
        let conditions = Conditions::default();
        Self {
            left,
            right,
            there: Direction::new(&conditions, 0),
            back: Direction::new(&conditions, 1),
            buffer: vec![0; 1 << 16],
            heard: Vec::new(),
        }
    }

    /// Until standard input ends.
    fn run(mut self) -> Result<()> {
        loop {
            let Self {
                left,
                right,
                there,
                back,
                buffer,
                ..
            } = &mut self;
            let busy = carry(left, right, there, buffer) | carry(right, left, back, buffer);
            if !self.wait(busy)? {
                self.tell();
                return Ok(());
            }
        }
    }

    /// Sleeps until a packet comes, one is due, or somebody speaks; false when nobody will speak any more.
    fn wait(&mut self, busy: bool) -> Result<bool> {
        let now = Instant::now();
        let due = [self.there.next_due(), self.back.next_due()]
            .into_iter()
            .flatten()
            .min();
        let timeout = if busy {
            Some(std::time::Duration::ZERO)
        } else {
            due.map(|due| due.saturating_duration_since(now))
        };
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let stdin = io::stdin();
        let mut ready = [
            PollFd::from_borrowed_fd(self.left.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.right.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let spoken = !ready[2].revents().is_empty();
        if spoken { self.listen() } else { Ok(true) }
    }

    fn listen(&mut self) -> Result<bool> {
        let mut piece = [0; 512];
        let length = io::stdin().lock().read(&mut piece)?;
        if length == 0 {
            return Ok(false);
        }
        self.heard
            .extend_from_slice(piece.get(..length).unwrap_or_default());
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let conditions: Conditions = String::from_utf8_lossy(&line).parse()?;
            self.tell();
            self.there = Direction::new(&conditions, 0);
            self.back = Direction::new(&conditions, 1);
        }
        Ok(true)
    }

    fn tell(&self) {
        println!(
            "wire there: {} back: {}",
            self.there.account(),
            self.back.account()
        );
    }
}

/// Takes in what came and sends on what is due; whether there may be more to take in.
fn carry(from: &SyncDevice, to: &SyncDevice, direction: &mut Direction, buffer: &mut [u8]) -> bool {
    let mut read = 0;
    while read < TURN {
        // An error means empty, or an interface that is still (or again) down: the poll tells when that changes.
        let Ok(length) = from.recv(buffer) else {
            break;
        };
        read += 1;
        direction.take(buffer.get(..length).unwrap_or_default(), Instant::now());
    }
    while let Some(packet) = direction.release(Instant::now()) {
        // A receiver that is down loses packets, as receivers do.
        let _ = to.send(&packet);
    }
    read == TURN
}
