//! Products of quantized rows with a matrix: up to four rows by one output at a time, whose sums stay in registers.
//!
//! Weights are widened as they are read, for all these rows at once; activations before, once for all outputs.

use core::arch::asm;
use core::array::from_fn;

use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Groups of [`PANEL_INPUTS`] inputs whose activations are widened at once; the buffer for them, up to 2 KiB, is on the
/// stack.
const GROUPS: usize = 64;

/// Four activations as two pairs of 16 bits: the first and third, the second and fourth.
type Widened = [u32; 2];
/// Four weights of each output of a panel.
type Group = [[i8; PANEL_INPUTS]; PANEL_OUTPUTS];
/// Sums of a panel for `R` rows.
type Sums<const R: usize> = [[i32; R]; PANEL_OUTPUTS];

/// Sign-extends four bytes to 16 bits each.
#[inline(always)]
fn widen(bytes: u32) -> Widened {
    let (even, odd);
    // SAFETY: the instructions touch nothing but their operands; the target has them, else they would not assemble.
    unsafe {
        asm!("sxtb16 {}, {}", lateout(reg) even, in(reg) bytes, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {}, {}, ror #8", lateout(reg) odd, in(reg) bytes, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// Returns `sum` plus the four products of `w` with the activations at `x`, and advances `x`. A sum that overflows
/// wraps around.
///
/// # Safety
/// `x` points to activations.
#[inline(always)]
unsafe fn add_products(x: &mut *const Widened, w: Widened, sum: &mut i32) {
    // SAFETY: the caller vouches for the place that is read. The flag Q, which the instructions may set, is not among what is
    // preserved. The target has them, else they would not assemble.
    unsafe {
        asm!(
            "ldrd {even}, {odd}, [{x}], #8",
            "smlad {sum}, {even}, {w_even}, {sum}",
            "smlad {sum}, {odd}, {w_odd}, {sum}",
            x = inout(reg) *x,
            sum = inout(reg) *sum,
            even = out(reg) _,
            odd = out(reg) _,
            w_even = in(reg) w[0],
            w_odd = in(reg) w[1],
            options(readonly, nostack),
        );
    }
}

/// Adds the products of a run of groups to the sums of one panel.
#[inline]
fn add_groups<const R: usize>(x: &[[Widened; R]], w: &[Group], sums: &mut Sums<R>) {
    let w = w.get(..x.len()).unwrap_or(w);
    for (o, sums) in sums.iter_mut().enumerate() {
        let mut inner = *sums;
        let mut next = x.as_ptr().cast();
        for group in w {
            let w = widen(u32::from_le_bytes(group[o].map(|w| w as u8)));
            // SAFETY: x has R elements for each of the groups, which are at most as many.
            inner.iter_mut().for_each(|sum| unsafe { add_products(&mut next, w, sum) });
        }
        *sums = inner;
    }
}

/// Returns the activation of each element. Numbers below +0 have the sign bit set: then no bit is kept.
#[inline]
fn activate(y: [f32; PANEL_OUTPUTS], activation: Activation) -> [f32; PANEL_OUTPUTS] {
    match activation {
        Activation::Identity => y,
        Activation::Relu => y.map(|y| f32::from_bits(y.to_bits() & !((y.to_bits() as i32 >> 31) as u32))),
    }
}

/// Stores as much as fits.
#[inline]
fn store(out: &mut [f32], y: [f32; PANEL_OUTPUTS]) {
    match out.as_chunks_mut() {
        ([whole], _) => *whole = y,
        (_, part) => part.iter_mut().zip(y).for_each(|(out, y)| *out = y),
    }
}

/// Computes `R` rows.
#[inline]
fn rows<const R: usize>(product: Product<'_>) {
    let Product { q, q_stride, scales, w, activation, out, out_stride } = product;
    let inputs = w.padded_inputs();
    let q: [&[[u8; PANEL_INPUTS]]; R] = from_fn(|r| {
        let row = q.get(r * q_stride..).unwrap_or_default();
        row.get(..inputs).unwrap_or(row).as_chunks().0
    });
    let mut room = [[Widened::default(); R]; GROUPS];
    for (p, (panel, channels)) in w.panels().enumerate() {
        let groups: &[Group] = panel.as_chunks().0.as_chunks().0;
        let mut sums: Sums<R> = [[0; R]; PANEL_OUTPUTS];
        for (part, run) in groups.chunks(GROUPS).enumerate() {
            // What fits in the buffer as a whole is widened for the first panel and stays there.
            if p == 0 || groups.len() > GROUPS {
                for (i, x) in room.iter_mut().enumerate().take(run.len()) {
                    let at = part * GROUPS + i;
                    *x = q.map(|row| widen(u32::from_le_bytes(row.get(at).copied().unwrap_or_default())));
                }
            }
            add_groups(&room, run, &mut sums);
        }
        let first = p * PANEL_OUTPUTS;
        let width = w.outputs.saturating_sub(first).min(PANEL_OUTPUTS);
        for (r, &s) in scales.iter().enumerate().take(R) {
            let out = out.get_mut(r * out_stride + first..).unwrap_or_default();
            let y: [f32; PANEL_OUTPUTS] = from_fn(|o| (sums[o][r] as f32 * s) * channels[o]);
            let width = width.min(out.len());
            store(out.get_mut(..width).unwrap_or_default(), activate(y, activation));
        }
    }
}

/// [`Backend::matmul`](crate::backend::Backend::matmul).
pub(super) fn matmul(mut product: Product<'_>) {
    const KERNELS: [fn(Product<'_>); 4] = [rows::<1>, rows::<2>, rows::<3>, rows::<4>];
    let count = product.scales.len();
    let mut r = 0;
    while r < count {
        let n = KERNELS.len().min(count - r);
        let Some(kernel) = KERNELS.get(n - 1) else { return };
        kernel(product.rows(r, n));
        r += n;
    }
}
