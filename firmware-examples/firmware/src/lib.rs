//! What the example programs for microcontrollers share. A board's own crate has its memory map, its clock and what it
//! reads from; everything else is here:
//!
//! - [`MODEL`], a bundle that is part of the program and read in place from flash, and [`CONFIG`], its configuration as a constant;
//! - [`arena_bytes`] and [`Arena`]: the engine's memory, whose size the compiler knows, so that a model which does not fit does
//!   not build;
//! - [`Session`]: bytes of text in, a label and a fingerprint a line out;
//! - [`Line`], for text that comes over a wire;
//! - [`clock`] and [`stack`], by which a program measures itself;
//! - `console` (feature `semihosting`): the program of the emulated boards.
//!
//! Nothing here allocates, and no allocator is linked.
#![no_std]

use core::hint::black_box;

use kinglet::bundle::{Aligned, Bundle};
use kinglet::engine::native::scratch_bytes;
use kinglet::spec::Config;

mod arena;
pub mod clock;
#[cfg(all(feature = "semihosting", target_os = "none"))]
pub mod console;
mod line;
mod session;
#[cfg(target_os = "none")]
pub mod stack;

pub use arena::Arena;
pub use line::{Line, Received};
pub use session::{All, Answer, Failure, Session, engine};

/// The model, in flash; 64-byte aligned as [`Bundle`] likes it.
pub static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.kinglet")));

/// The shape of [`MODEL`].
pub const CONFIG: Config = match Bundle::peek_config(&MODEL.0) {
    Some(config) => config,
    None => panic!("the file is no Kinglet bundle: it has no configuration"),
};

/// Returns the bytes of [`MODEL`] as they are in flash when the program runs. The compiler knows their intended content
/// and would otherwise leave out the checks that find damage in flash.
pub fn model() -> &'static [u8] {
    black_box(&MODEL.0)
}

/// Classes of [`MODEL`].
pub const LABELS: usize = CONFIG.num_labels;

/// Bytes kept free for the stack. The linker script stack.x demands that they are left after all statics.
pub const STACK: usize = 12 * 1024;

/// Returns the bytes of the engine's memory for chunks of `chunk` rows.
///
/// # Panics
/// If these and the stack need more than `ram` bytes; in a constant that ends the build.
pub const fn arena_bytes(chunk: usize, ram: usize) -> usize {
    let need = scratch_bytes(&CONFIG, chunk);
    assert!(need.saturating_add(STACK) <= ram, "the model's arena and the stack do not fit into this machine's memory");
    need
}
