//! How deep the stack has been: what lies below is painted, and later searched for what is no longer paint.

use core::hint::black_box;
use core::ptr;

unsafe extern "C" {
    // From the linker scripts of cortex-m-rt and riscv-rt: the end of all statics, and the stack's upper end.
    static mut __euninit: u32;
    static mut _stack_start: u32;
}

const PAINT: u32 = 0xcccc_cccc;
/// Left alone below the place where [`paint`] runs: its own frame. Counts as used.
const MARGIN: usize = 256;

/// The lowest place that the stack may reach, and where it begins.
fn ends() -> (*mut u32, *mut u32) {
    (&raw mut __euninit, &raw mut _stack_start)
}

/// Paints all of the stack that is not in use.
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

/// Most bytes of stack that were in use since [`paint`].
pub fn deepest() -> usize {
    let (mut place, start) = ends();
    // SAFETY: as above; reading does no harm, whatever the stack holds.
    while place < start && unsafe { ptr::read_volatile(place) } == PAINT {
        place = place.wrapping_add(1);
    }
    start.addr() - place.addr()
}

/// Bytes between the statics and the begin of the stack: it may grow to this.
pub fn room() -> usize {
    let (low, start) = ends();
    start.addr() - low.addr()
}
