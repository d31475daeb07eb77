//! How often the current thread asks for memory, and on whose behalf.
//!
//! A binary that wants the count installs [`Counting`] as its global allocator. Allocations inside [`theirs`] belong to
//! the QUIC implementation, all others to our own code. Reallocations count as well: a buffer that grows has asked.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Allocations of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// By our own code.
    pub ours: u64,
    /// By what ran inside [`theirs`].
    pub theirs: u64,
}

impl Allocations {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            ours: self.ours - earlier.ours,
            theirs: self.theirs - earlier.theirs,
        }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.ours + self.theirs
    }
}

thread_local! {
    // Constant and without a destructor: reading them inside the allocator neither allocates nor registers anything.
    static OURS: Cell<u64> = const { Cell::new(0) };
    static THEIRS: Cell<u64> = const { Cell::new(0) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The allocations of this thread so far; zero for ever unless [`Counting`] is installed.
pub fn allocations() -> Allocations {
    Allocations {
        ours: OURS.get(),
        theirs: THEIRS.get(),
    }
}

/// Runs `call` on the account of the QUIC implementation.
pub fn theirs<R>(call: impl FnOnce() -> R) -> R {
    let before = INSIDE.replace(true);
    let result = call();
    INSIDE.set(before);
    result
}

fn count() {
    let counter = if INSIDE.get() { &THEIRS } else { &OURS };
    counter.set(counter.get() + 1);
}

/// The system's allocator, counted.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

#[expect(
    unsafe_code,
    reason = "a global allocator is unsafe to implement; this one only counts and passes on"
)]
// SAFETY: every call goes to the system's allocator unchanged, so its guarantees are ours.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the same.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(block, layout) }
    }
}
