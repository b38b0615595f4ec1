//! Arm's MPS2 board with a Cortex-M4F (application note AN386): 4 MB for the program, 4 MB of RAM, as QEMU's
//! mps2-an386. Also has room for `models/intents`.
//!
//! `firmware::console` documents input and output.
#![no_std]
#![no_main]

use cortex_m::peripheral::Peripherals;
use firmware::clock::SysTick;
use firmware::{Arena, arena_bytes, console};

/// Rows per chunk: more need more memory and read the weights less often.
const CHUNK: usize = 8;
/// Budget for the arena and the stack in bytes; intents-nano needs a quarter of it.
const RAM: usize = 256 * 1024;
/// Ticks of SysTick per second: the clock of the core.
const HZ: u32 = 25_000_000;

static ARENA: Arena<{ arena_bytes(CHUNK, RAM) }> = Arena::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { panic!("main runs once") };
    console::run(ARENA.take(), CHUNK, &SysTick::start(peripherals.SYST, HZ))
}
