//! Virtual time for code that reads the clock itself.
//!
//! quiche (and std's `Instant::now`) ask the C library for the time. This crate defines the symbol `clock_gettime`, so
//! that a binary which links it answers those calls itself: with the kernel's time on ordinary threads, with a time that
//! only [`VirtualClock::advance`] moves on a thread that has started a virtual clock. 35 simulated seconds of a QUIC
//! connection then take milliseconds, and run the same way every time.
//!
//! The switch is thread-local: tests that run beside each other in one process do not see each other's time. A thread
//! in virtual time must not block with a time-out: the kernel still counts real time.
//!
//! For test binaries only, on Linux only; elsewhere this crate is empty.

#![cfg(target_os = "linux")]

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime};

use libc::{c_int, c_long, clockid_t, time_t, timespec};

/// Where the monotonic clocks of a virtual thread begin. Far from zero, so that code may subtract hours.
const MONOTONIC_START: Duration = Duration::from_secs(1_000_000);

/// Where the wall clock of a virtual thread begins: 2026-07-01T00:00:00Z, the same in every run.
const REALTIME_START: Duration = Duration::from_secs(1_782_864_000);

thread_local! {
    /// The virtual time that has passed since the start; `None` while this thread lives in real time.
    ///
    /// Constant-initialised and without a destructor: reading it allocates nothing, registers nothing and works until
    /// the very end of a thread, which code below the C library's clock has to guarantee.
    static ELAPSED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Virtual time on the current thread, until dropped.
///
/// It stands still between calls of [`VirtualClock::advance`], and can neither leave its thread nor be nested.
#[derive(Debug)]
#[must_use = "time is virtual only while this lives"]
pub struct VirtualClock {
    /// Bound to the thread whose time it drives.
    thread: PhantomData<*const ()>,
}

impl VirtualClock {
    /// Stops the clocks of this thread: monotonic and wall clock begin at fixed values.
    ///
    /// # Panics
    /// If this thread's time is virtual already, or if the process uses another `clock_gettime` than ours.
    pub fn start() -> Self {
        // Taking the address makes the linker keep our definition, whichever archive it meets first.
        std::hint::black_box(clock_gettime as *const ());
        assert!(ELAPSED.get().is_none(), "this thread's time is virtual already");
        ELAPSED.set(Some(Duration::ZERO));
        let clock = Self { thread: PhantomData };
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(
            wall.ok(),
            Some(REALTIME_START),
            "std reads another clock than ours"
        );
        clock
    }

    /// Lets time pass, for this thread alone.
    pub fn advance(&self, by: Duration) {
        ELAPSED.set(ELAPSED.get().map(|elapsed| elapsed.saturating_add(by)));
    }

    /// The current instant of this thread, as std sees it.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// How much virtual time has passed since the start.
    pub fn elapsed(&self) -> Duration {
        ELAPSED.get().unwrap_or_default()
    }
}

impl Drop for VirtualClock {
    fn drop(&mut self) {
        ELAPSED.set(None);
    }
}

/// What a clock of a virtual thread shows; `None` for clocks that are not about the passing of time (CPU time).
fn virtual_reading(clock: clockid_t) -> Option<Duration> {
    let elapsed = ELAPSED.get()?;
    match clock {
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => Some(MONOTONIC_START.saturating_add(elapsed)),
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => {
            Some(REALTIME_START.saturating_add(elapsed))
        }
        _ => None,
    }
}

/// The C library's `clock_gettime`, answered with virtual time on threads that have started it.
///
/// # Safety
/// As in C: `out` is null or points to a writable `timespec`.
#[expect(
    unsafe_code,
    reason = "the symbol of the C library is the only place where others' clock reads pass by"
)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    let Some(reading) = virtual_reading(clock).filter(|_| !out.is_null()) else {
        // SAFETY: the kernel checks the clock id and the pointer, and reports what it does not like through errno.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), out) as c_int };
    };
    let value = timespec {
        tv_sec: time_t::try_from(reading.as_secs()).unwrap_or(time_t::MAX),
        tv_nsec: c_long::from(reading.subsec_nanos() as i32),
    };
    // SAFETY: not null as checked above; the caller promises that it points to a writable `timespec`.
    unsafe { out.write(value) };
    0
}
