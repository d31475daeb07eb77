//! CPU time of the current thread, and what is measured around a piece of work.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::count::{Allocations, allocations};

/// CPU time that the current thread has used so far.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What a piece of work has cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU time of the thread.
    pub cpu: Duration,
    /// Allocations of the thread.
    pub allocations: Allocations,
}

impl Cost {
    /// Runs `work` and adds what it costs.
    pub fn measure<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let allocations_before = allocations();
        let before = thread_cpu();
        let result = work();
        self.cpu += thread_cpu().saturating_sub(before);
        let added = allocations().since(allocations_before);
        self.allocations.ours += added.ours;
        self.allocations.theirs += added.theirs;
        result
    }

    /// Microseconds of CPU per item.
    pub fn micros_per(&self, items: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / items.max(1) as f64
    }
}

/// The CPU time, in microseconds, of AES-128-GCM sealing and opening 1,200 bytes with *ring*: how fast this core is now.
///
/// # Panics
/// Never: the key has the length that the algorithm asks for.
pub fn reference(rounds: u32) -> f64 {
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16])
        .map(LessSafeKey::new)
        .expect("16 bytes are a key");
    let mut buffer = Vec::with_capacity(1_200 + 16);
    buffer.resize(1_200, 0x5a);
    let mut cost = Cost::default();
    cost.measure(|| {
        for _ in 0..rounds {
            let nonce = || Nonce::assume_unique_for_key([9; 12]);
            let sealed = key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut buffer);
            let opened = key
                .open_in_place(nonce(), Aad::empty(), &mut buffer)
                .map(|plain| plain.len());
            std::hint::black_box((sealed.is_ok(), opened.ok()));
            buffer.truncate(1_200);
        }
    });
    cost.micros_per(u64::from(rounds))
}
