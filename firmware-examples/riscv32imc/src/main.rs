//! A 32-bit RISC-V core without FPU: every f32 operation is a call into the compiler's library, and the output is the
//! same.
//!
//! QEMU's virt with the core lowRISC Ibex (rv32imc). `firmware::console` documents input and output.
#![no_std]
#![no_main]

use firmware::clock::Instructions;
use firmware::{Arena, arena_bytes, console};

/// Rows per chunk: more need more memory and read the weights less often.
const CHUNK: usize = 8;
/// Budget for the arena and the stack in bytes.
const RAM: usize = 64 * 1024;

static ARENA: Arena<{ arena_bytes(CHUNK, RAM) }> = Arena::new();

#[riscv_rt::entry]
fn main() -> ! {
    console::run(ARENA.take(), CHUNK, &Instructions)
}
