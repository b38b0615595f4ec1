//! Row operations for which [`scalar`] does more than necessary.

use core::array::from_fn;

use crate::backend::scalar;
use crate::backend::table::PANEL_INPUTS;
use crate::quant::{MAX_QUANTIZED, MIN_MAGNITUDE};
use crate::spec::NORM_EPS;

/// Virtual lanes of a sum.
const LANES: usize = 16;

/// Sum of `f(x)` over a row in the order of the 16 virtual lanes.
#[inline]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes = from_fn(|i| lanes[i] + f(chunk[i]));
    }
    if !rest.is_empty() {
        // Indices known to the compiler, so that the lanes can be registers.
        lanes = from_fn(|i| rest.get(i).map_or(lanes[i], |&x| lanes[i] + f(x)));
    }
    let eight: [f32; 8] = from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = from_fn(|i| eight[i] + eight[i + 4]);
    let two: [f32; 2] = from_fn(|i| four[i] + four[i + 2]);
    two[0] + two[1]
}

/// Returns the bits of `max(max|x|, 1e-30)`: magnitudes are ordered like their bits.
#[inline]
fn magnitude(row: &[f32]) -> u32 {
    row.iter().fold(MIN_MAGNITUDE.to_bits(), |most, x| most.max(x.to_bits() & !SIGN))
}

/// The sign of an f32.
const SIGN: u32 = 1 << 31;

/// Adding this rounds to an integer, half to even, and leaves its two's complement in the last bits: 1.5 · 2²³.
const ROUND: f32 = 12_582_912.0;

/// [`Backend::quantize`](crate::backend::Backend::quantize). Quotients are at most 127.00002, far below the limit of
/// [`ROUND`].
pub(super) fn quantize(x: &[f32], columns: usize, x_stride: usize, q: &mut [u8], q_stride: usize, scales: &mut [f32]) {
    let padded = columns.next_multiple_of(PANEL_INPUTS);
    if columns == 0 || x_stride < columns || q_stride == 0 || q_stride < padded {
        return;
    }
    for ((row, out), scale) in x.chunks(x_stride).zip(q.chunks_mut(q_stride)).zip(scales) {
        let Some(row) = row.get(..columns) else { return };
        let s = f32::from_bits(magnitude(row)) / MAX_QUANTIZED;
        *scale = s;
        let Some((out, padding)) = out.split_at_mut_checked(columns) else { continue };
        for (q, &v) in out.iter_mut().zip(row) {
            *q = (v / s + ROUND).to_bits() as u8;
        }
        padding.iter_mut().take(padded - columns).for_each(|q| *q = 0);
    }
}

/// [`Backend::layer_norm`](crate::backend::Backend::layer_norm).
pub(super) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 {
        return;
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let mean = sum(row, |x| x) / columns as f32;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / columns as f32;
        let inverse = 1.0 / scalar::sqrt(variance + NORM_EPS);
        for (((y, &x), &gain), &shift) in out.iter_mut().zip(row).zip(gain).zip(shift) {
            *y += ((x - mean) * inverse) * gain + shift;
        }
    }
}

/// [`Backend::rms_norm`](crate::backend::Backend::rms_norm).
pub(super) fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 {
        return;
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let inverse = 1.0 / scalar::sqrt(sum(row, |x| x * x) / columns as f32 + NORM_EPS);
        for ((y, &x), &gain) in out.iter_mut().zip(row).zip(gain) {
            *y = (x * inverse) * gain;
        }
    }
}
