//! The relay in memory: batches of 32 packets of 1,200 bytes from agents to a connector.
//!
//! `relay only` is the CPU time of the intermediate alone; `whole` is everyone's, agents and connector included. `bare
//! quiche` is the floor: the same batches through two connections of the same library and nothing else.

use std::time::{Duration, Instant};

use benches::cpu::Cost;
use benches::memory::bare::BareRelay;
use benches::memory::{Fake, MemoryRelay, Quiche, Stack};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 32;
const LEN: usize = 1_200;

fn machine<S: Stack + Default>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, agents: usize) {
    let mut relay = MemoryRelay::new(&mut S::default(), agents, LEN, Instant::now);
    relay.warm_up(BATCH / agents, Instant::now);
    group.bench_function(format!("{name}, relay only"), |bench| {
        bench.iter_custom(|turns| {
            let mut cost = Cost::default();
            for _ in 0..turns {
                relay.turn(BATCH / agents, &mut cost, Instant::now());
            }
            cost.cpu
        });
    });
    group.bench_function(format!("{name}, whole"), |bench| {
        bench.iter(|| relay.turn(BATCH / agents, &mut Cost::default(), Instant::now()));
    });
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay of 32");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.measurement_time(Duration::from_secs(3));
    let mut bare = BareRelay::new(LEN);
    bare.warm_up(BATCH, || {});
    group.bench_function("bare quiche, relay only", |bench| {
        bench.iter_custom(|turns| {
            let mut cost = Cost::default();
            for _ in 0..turns {
                bare.turn(BATCH, &mut cost);
            }
            cost.cpu
        });
    });
    for agents in [1, 8, 32] {
        machine::<Quiche>(&mut group, &format!("quiche, {agents} agents"), agents);
    }
    for agents in [1, 32] {
        machine::<Fake>(&mut group, &format!("stand-in, {agents} agents"), agents);
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
