//! STM32F405: a Cortex-M4F with 1 MB of flash and 128 KB of RAM, as QEMU's netduinoplus2.
//!
//! `firmware::console` documents input and output.
#![no_std]
#![no_main]

use cortex_m::peripheral::Peripherals;
use firmware::clock::SysTick;
use firmware::{Arena, arena_bytes, console};

/// Rows per chunk: more need more memory and read the weights less often.
const CHUNK: usize = 8;
/// Budget for the arena and the stack in bytes: half of this machine's RAM, the rest is for the application.
const RAM: usize = 64 * 1024;
/// Ticks of SysTick per second: the clock of the core.
const HZ: u32 = 168_000_000;

static ARENA: Arena<{ arena_bytes(CHUNK, RAM) }> = Arena::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { panic!("main runs once") };
    console::run(ARENA.take(), CHUNK, &SysTick::start(peripherals.SYST, HZ))
}
