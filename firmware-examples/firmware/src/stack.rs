//! Depth of the stack: unused memory is painted, and later searched for what is no longer paint.

use core::hint::black_box;
use core::ptr;

unsafe extern "C" {
    // From the linker scripts of cortex-m-rt and riscv-rt: the end of all statics, and the upper end of the stack.
    static mut __euninit: u32;
    static mut _stack_start: u32;
}

const PAINT: u32 = 0xcccc_cccc;
/// Not painted below the frame of [`paint`]. Counts as used.
const MARGIN: usize = 256;

/// Returns the lowest address that the stack may reach, and where it begins.
fn ends() -> (*mut u32, *mut u32) {
    (&raw mut __euninit, &raw mut _stack_start)
}

/// Paints the unused part of the stack.
#[inline(never)]
pub fn paint() {
    let here = black_box(0u32);
    let end = (&raw const here).addr().saturating_sub(MARGIN);
    let (mut place, _) = ends();
    while place.addr() < end {
        // SAFETY: between the statics and the stack pointer is memory that nothing uses: there is no heap, and an interrupt that
        // comes now leaves nothing behind.
        unsafe { ptr::write_volatile(place, PAINT) };
        place = place.wrapping_add(1);
    }
}

/// Returns the maximum stack use in bytes since [`paint`].
pub fn deepest() -> usize {
    let (mut place, start) = ends();
    // SAFETY: as above; reading does no harm, whatever the stack holds.
    while place < start && unsafe { ptr::read_volatile(place) } == PAINT {
        place = place.wrapping_add(1);
    }
    start.addr() - place.addr()
}

/// Returns the bytes between the statics and the beginning of the stack: its maximum size.
pub fn room() -> usize {
    let (low, start) = ends();
    start.addr() - low.addr()
}
