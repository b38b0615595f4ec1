//! A 32-bit RISC-V core without FPU: every f32 operation is a call of the compiler's library, and the lines are the same.
//!
//! QEMU's virt with the core lowRISC Ibex (rv32imc). See `firmware::console` for what the program reads and prints.
#![no_std]
#![no_main]

use firmware::clock::Instructions;
use firmware::{Arena, arena_bytes, console};

/// Rows of a chunk: more need more memory and read the weights less often.
const CHUNK: usize = 8;
/// Bytes that the arena and the stack may have.
const RAM: usize = 64 * 1024;

static ARENA: Arena<{ arena_bytes(CHUNK, RAM) }> = Arena::new();

#[riscv_rt::entry]
fn main() -> ! {
    console::run(ARENA.take(), CHUNK, &Instructions)
}
