//! Our code allocates nothing per relayed DATAGRAM.
//!
//! Counted, not timed: quiche runs in virtual time, so that its timers fire at the same turns in every run. What happens
//! inside a call to QUIC is QUIC's; everything else on the relay's side is ours.

use std::time::{Duration, Instant};

use benches::count::Counting;
use benches::cpu::Cost;
use benches::memory::bare::BareRelay;
use benches::memory::channel::MemoryChannels;
use benches::memory::{Apart, Fake, MemoryRelay, Quiche, Stack};
use virtual_clock::VirtualClock;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TURNS: u64 = 300;
const STEP: Duration = Duration::from_micros(500);

/// The relay's cost over [`TURNS`] turns of `agents × per_agent` packets, after warm-up.
fn relay<S: Stack + Default>(
    agents: usize,
    per_agent: usize,
    now: impl Fn() -> Instant,
    step: impl Fn(),
) -> Cost {
    let mut stack = S::default();
    let mut relay = MemoryRelay::new(&mut stack, agents, 1_200, || {
        step();
        now()
    });
    let between = || {
        step();
        now()
    };
    relay.warm_up(per_agent, between);
    let before = relay.stats();
    let mut cost = Cost::default();
    for _ in 0..TURNS {
        step();
        relay.turn(per_agent, &mut cost, now());
    }
    let after = relay.stats();
    assert_eq!(
        after.relayed - before.relayed,
        TURNS * (agents * per_agent) as u64
    );
    assert_eq!(after.dropped, before.dropped);
    cost
}

fn in_virtual_time<S: Stack + Default>(agents: usize, per_agent: usize) -> Cost {
    let clock = VirtualClock::start();
    relay::<S>(agents, per_agent, || clock.now(), || clock.advance(STEP))
}

#[test]
fn nothing_is_allocated_per_datagram_over_quiche() {
    for (agents, per_agent) in [(1, 32), (4, 8), (32, 1)] {
        let cost = in_virtual_time::<Apart<Quiche>>(agents, per_agent);
        assert_eq!(cost.allocations.ours, 0, "{agents} agents × {per_agent}");
        assert_ne!(cost.allocations.theirs, 0, "nothing was counted at all");
    }
}

#[test]
fn nothing_is_allocated_per_datagram_over_the_stand_in() {
    for (agents, per_agent) in [(1, 32), (4, 8), (32, 1)] {
        let cost = in_virtual_time::<Apart<Fake>>(agents, per_agent);
        assert_eq!(cost.allocations.ours, 0, "{agents} agents × {per_agent}");
        assert_ne!(cost.allocations.theirs, 0, "nothing was counted at all");
    }
}

/// The adapter to quiche lies inside the seam, so it is compared from outside: the whole relay asks for memory no more
/// often than quiche does when it relays the same batches alone. The rounds of quiche's congestion control begin at other
/// packets in the two, which is worth an allocation now and then; one of ours would be one per DATAGRAM.
#[test]
fn the_whole_relay_allocates_no_more_than_quiche_alone() {
    let whole = in_virtual_time::<Quiche>(1, 32).allocations.total();
    let clock = VirtualClock::start();
    let mut bare = BareRelay::new(1_200);
    bare.warm_up(32, || clock.advance(STEP));
    let mut cost = Cost::default();
    for _ in 0..TURNS {
        clock.advance(STEP);
        assert_eq!(bare.turn(32, &mut cost).arrived, 32);
    }
    let alone = cost.allocations.total();
    assert!(
        whole <= alone + TURNS * 32 / 100,
        "{whole} by the relay, {alone} by quiche alone, for {} DATAGRAMs",
        TURNS * 32
    );
}

/// Not even QUIC's: no frame of a channel reaches it.
#[test]
fn nothing_at_all_is_allocated_per_frame_of_a_channel() {
    for (agents, batch) in [(1, 32), (1, 1), (4, 8)] {
        let clock = VirtualClock::start();
        let mut channels = MemoryChannels::new(&mut Quiche::default(), agents, (batch, 1_200), || {
            clock.advance(STEP);
            clock.now()
        });
        // Once around, so that nothing of the handshakes is left to be said.
        for _ in 0..100 {
            clock.advance(STEP);
            channels.turn(&mut Cost::default(), clock.now());
        }
        let before = channels.stats();
        let mut cost = Cost::default();
        let mut forwarded = 0;
        for _ in 0..TURNS {
            forwarded += channels.turn(&mut cost, clock.now());
        }
        let after = channels.stats();
        assert_eq!(forwarded, TURNS * (agents * batch) as u64);
        assert_eq!(after.forwarded - before.forwarded, forwarded);
        assert_eq!(cost.allocations.total(), 0, "{agents} agents × {batch}");
    }
}
