//! The engine's memory: a static that is handed out once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// `N` bytes of zeros in `.bss`, where the linker counts them.
#[repr(align(64))]
pub struct Arena<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
    taken: AtomicBool,
}

// SAFETY: `bytes` is reached through `take` alone, which gives it out once.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    /// Creates the arena, not yet handed out.
    pub const fn new() -> Self {
        Arena { bytes: UnsafeCell::new([0; N]), taken: AtomicBool::new(false) }
    }

    /// Returns the bytes the first time, then nothing.
    ///
    /// Not for interrupt handlers: two calls, one of them within the other, would both be the first. (Processors
    /// without atomic exchange, such as riscv32imc, run this too.)
    #[allow(clippy::mut_from_ref)] // the first call alone gets the bytes
    pub fn take(&'static self) -> &'static mut [u8] {
        if self.taken.load(Ordering::Relaxed) {
            return &mut [];
        }
        self.taken.store(true, Ordering::Relaxed);
        // SAFETY: `taken` was false, so this is the only reference there will ever be.
        unsafe { &mut *self.bytes.get() }
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}
