//! Products of quantised rows with a matrix: one or two rows by two outputs at a time, whose sums stay in registers.
//!
//! None of the instructions is declared pure, though each is: so they keep the order in which they stand here, the one that needs
//! least registers.

use core::arch::asm;

use crate::kernels::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Panels};

/// Outputs computed together.
const PAIR: usize = 2;
/// Groups of [`PANEL_INPUTS`] inputs that are widened at once: the room for them, 1 KiB, is on the stack.
const GROUPS: usize = 64;

/// Four activations as two pairs of 16 bits: the first and third, the second and fourth.
type Widened = [u32; 2];
/// Four weights of each output of a panel, in pairs of outputs.
type Group = [[[i8; PANEL_INPUTS]; PAIR]; PANEL_OUTPUTS / PAIR];
/// Sums of a panel for `R` rows, in pairs of outputs.
type Sums<const R: usize> = [[[i32; R]; PAIR]; PANEL_OUTPUTS / PAIR];

/// Bytes 0 and 2, extended by their signs to 16 bits.
#[inline(always)]
fn even(x: u32) -> u32 {
    let pairs;
    // SAFETY: the instruction touches nothing but its operands; the target has it, else it would not assemble.
    unsafe {
        asm!("sxtb16 {}, {}", lateout(reg) pairs, in(reg) x, options(nomem, nostack, preserves_flags));
    }
    pairs
}

/// Bytes 1 and 3, extended by their signs to 16 bits.
#[inline(always)]
fn odd(x: u32) -> u32 {
    let pairs;
    // SAFETY: as in `even`.
    unsafe {
        asm!("sxtb16 {}, {}, ror #8", lateout(reg) pairs, in(reg) x, options(nomem, nostack, preserves_flags));
    }
    pairs
}

/// `sum` and the products of the two pairs of 16-bit numbers. A sum that overflows wraps around.
#[inline(always)]
fn smlad(x: u32, w: u32, mut sum: i32) -> i32 {
    // SAFETY: the instruction touches nothing but its operands and the flag Q, which is not among those preserved; the target has it,
    // else it would not assemble.
    unsafe {
        asm!("smlad {0}, {1}, {2}, {0}", inlateout(reg) sum, in(reg) x, in(reg) w, options(nomem, nostack));
    }
    sum
}

/// The four activations that begin at group `i` of a row.
#[inline]
fn widen(row: &[[u8; PANEL_INPUTS]], i: usize) -> Widened {
    let x = u32::from_le_bytes(row.get(i).copied().unwrap_or_default());
    [even(x), odd(x)]
}

/// Adds the products of a run of groups to the sums of one panel. `x`: `[G, R]`; `w`: `[G]`.
#[inline]
fn add_products<const R: usize>(x: &[[Widened; R]], w: &[Group], sums: &mut Sums<R>) {
    for (p, sums) in sums.iter_mut().enumerate() {
        let mut inner = *sums;
        for (x, group) in x.iter().zip(w) {
            for (weights, sums) in group[p].iter().zip(&mut inner) {
                let weights = u32::from_le_bytes(weights.map(|w| w as u8));
                for (k, half) in [even, odd].into_iter().enumerate() {
                    let weights = half(weights);
                    for (x, sum) in x.iter().zip(sums.iter_mut()) {
                        *sum = smlad(x[k], weights, *sum);
                    }
                }
            }
        }
        *sums = inner;
    }
}

/// Computes `R` rows. `q`, `scales`, `out`: these rows; `panels`: of each the weights and the scales of its outputs.
#[inline]
fn rows<'w, const R: usize>(
    q: [&[[u8; PANEL_INPUTS]]; R],
    scales: [f32; R],
    panels: impl Iterator<Item = (&'w [Group], &'w [f32; PANEL_OUTPUTS])>,
    activation: Activation,
    mut out: [&mut [f32]; R],
) {
    let mut room = [[Widened::default(); R]; GROUPS];
    for (p, (groups, channels)) in panels.enumerate() {
        let mut sums: Sums<R> = [[[0; R]; PAIR]; PANEL_OUTPUTS / PAIR];
        for (part, groups_of_part) in groups.chunks(GROUPS).enumerate() {
            // What fits into the room as a whole is widened for the first panel and stays there.
            if p == 0 || groups.len() > GROUPS {
                for (i, x) in room.iter_mut().enumerate().take(groups_of_part.len()) {
                    *x = q.map(|row| widen(row, part * GROUPS + i));
                }
            }
            add_products(&room, groups_of_part, &mut sums);
        }
        for (r, (out, s)) in out.iter_mut().zip(scales).enumerate() {
            let out = out.get_mut(p * PANEL_OUTPUTS..).unwrap_or_default();
            for ((y, sums), &c) in out.iter_mut().zip(sums.as_flattened()).zip(channels) {
                let v = (sums[r] as f32 * s) * c;
                *y = match activation {
                    Activation::Relu if v <= 0.0 || v.is_nan() => 0.0,
                    _ => v,
                };
            }
        }
    }
}

/// The groups of one panel.
#[inline]
fn groups(panel: &[i8]) -> &[Group] {
    panel.as_chunks().0.as_chunks().0.as_chunks().0
}

/// [`Kernels::matmul`](crate::kernels::Kernels::matmul).
pub(super) fn matmul(
    q: &[u8],
    q_stride: usize,
    scales: &[f32],
    w: &Panels<'_>,
    activation: Activation,
    out: &mut [f32],
    out_stride: usize,
) {
    let inputs = w.inputs.next_multiple_of(PANEL_INPUTS);
    if inputs == 0 || w.outputs == 0 || q_stride < inputs || out_stride < w.outputs {
        return;
    }
    let values = w.values.chunks_exact(inputs.saturating_mul(PANEL_OUTPUTS).max(1));
    let panels = values.map(groups).zip(w.scales.as_chunks().0);
    let q = q.chunks(q_stride).map(|q| q.get(..inputs).unwrap_or(q).as_chunks().0);
    let out = out.chunks_mut(out_stride).map(|out| out.get_mut(..w.outputs).unwrap_or_default());
    let mut each = q.zip(out).zip(scales);
    while let Some(((q0, out0), &s0)) = each.next() {
        match each.next() {
            Some(((q1, out1), &s1)) => rows([q0, q1], [s0, s1], panels.clone(), activation, [out0, out1]),
            None => rows([q0], [s0], panels.clone(), activation, [out0]),
        }
    }
}
