//! Clocks for measurements.
//!
//! Under QEMU with `-icount shift=0`, an instruction takes one nanosecond of the machine's time, so ticks, and with
//! them instructions, repeat exactly. On a real board the same code counts the ticks of its clock.

/// A counter that counts up.
pub trait Clock {
    /// Returns ticks per second.
    fn hz(&self) -> u32;

    /// Returns ticks since the start.
    fn ticks(&self) -> u64;
}

#[cfg(all(target_arch = "arm", target_os = "none"))]
pub use systick::SysTick;

#[cfg(all(target_arch = "arm", target_os = "none"))]
mod systick {
    use core::sync::atomic::{AtomicU32, Ordering};

    use cortex_m::peripheral::syst::SystClkSource;
    use cortex_m::peripheral::{SCB, SYST};
    use cortex_m_rt::exception;

    use super::Clock;

    /// The counter has 24 bits and counts down.
    const TOP: u32 = 0xff_ffff;
    /// Number of wraparounds.
    static WRAPS: AtomicU32 = AtomicU32::new(0);

    #[exception]
    fn SysTick() {
        // Nothing else writes, so a load and a store are enough.
        WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The timer of every Cortex-M core, at the speed of the core.
    pub struct SysTick {
        hz: u32,
    }

    impl SysTick {
        /// Starts the timer. `hz`: ticks per second, the frequency of the core's clock.
        pub fn start(mut timer: SYST, hz: u32) -> Self {
            timer.set_clock_source(SystClkSource::Core);
            timer.set_reload(TOP);
            timer.clear_current();
            timer.enable_interrupt();
            timer.enable_counter();
            SysTick { hz }
        }
    }

    impl Clock for SysTick {
        fn hz(&self) -> u32 {
            self.hz
        }

        fn ticks(&self) -> u64 {
            cortex_m::interrupt::free(|_| {
                let (mut left, mut wraps) = (SYST::get_current(), WRAPS.load(Ordering::Relaxed));
                // It has wrapped, and the handler has not run yet.
                if SCB::is_pendst_pending() {
                    left = SYST::get_current();
                    wraps = wraps.wrapping_add(1);
                }
                u64::from(wraps) * (u64::from(TOP) + 1) + u64::from(TOP - left)
            })
        }
    }
}

/// The counter of instructions that every RISC-V core has.
#[cfg(target_arch = "riscv32")]
pub struct Instructions;

#[cfg(target_arch = "riscv32")]
impl Clock for Instructions {
    /// As if an instruction took a nanosecond: a tick is an instruction.
    fn hz(&self) -> u32 {
        1_000_000_000
    }

    fn ticks(&self) -> u64 {
        riscv::register::minstret::read64()
    }
}
