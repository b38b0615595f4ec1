//! Operations that go over rows element by element: all but products and convolutions.

use core::arch::wasm32::*;
use core::array::from_fn;

use super::lanes::{Lanes, WIDTH, at_least, at_most, exp, load, load_first, store, store_first, sum};
use crate::backend::{PANEL_INPUTS, POOL_LIMIT, POOL_SCALE, scalar};
use crate::quant::{self, MAX_QUANTIZED, MIN_MAGNITUDE};
use crate::spec::NORM_EPS;

/// The square root of one number.
#[inline]
fn sqrt(x: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
}

/// `max(max|x|, 1e-30)`, NaN skipped.
#[inline]
fn magnitude(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks();
    let mut most = [f32x4_splat(MIN_MAGNITUDE); 4];
    for chunk in chunks {
        let x = load(chunk);
        most = from_fn(|i| at_least(f32x4_abs(x[i]), most[i]));
    }
    let mut lanes = [0.0; 4];
    store_first(&mut lanes, [at_least(at_least(most[0], most[1]), at_least(most[2], most[3]))]);
    lanes.iter().chain(rest).fold(MIN_MAGNITUDE, |m, x| m.max(x.abs()))
}

/// [`Backend::quantize`](crate::backend::Backend::quantize).
pub(super) fn quantize(x: &[f32], columns: usize, x_stride: usize, q: &mut [u8], q_stride: usize, scales: &mut [f32]) {
    let padded = columns.next_multiple_of(PANEL_INPUTS);
    if columns == 0 || x_stride < columns || q_stride == 0 || q_stride < padded {
        return;
    }
    for ((row, out), scale) in x.chunks(x_stride).zip(q.chunks_mut(q_stride)).zip(scales) {
        let Some(row) = row.get(..columns) else { return };
        let s = magnitude(row) / MAX_QUANTIZED;
        *scale = s;
        let Some((out, padding)) = out.split_at_mut_checked(columns) else { continue };
        padding.iter_mut().take(padded - columns).for_each(|q| *q = 0);
        let step = f32x4_splat(s);
        let ((row, rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut::<WIDTH>());
        for (x, out) in row.iter().zip(out) {
            let x = load(x);
            // NaN, of infinities too, becomes 0.
            let n: Lanes = from_fn(|i| i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_div(x[i], step))));
            let bytes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(n[0], n[1]), i16x8_narrow_i32x4(n[2], n[3]));
            // SAFETY: out has 16 bytes.
            unsafe { v128_store(out.as_mut_ptr().cast(), bytes) };
        }
        for (q, &v) in out_rest.iter_mut().zip(rest) {
            *q = (quant::round_half_even(v / s) as i8) as u8;
        }
    }
}

/// [`Backend::glu`](crate::backend::Backend::glu).
pub(super) fn glu(value: &mut [f32], gate: &[f32]) {
    let n = value.len().min(gate.len());
    let (value, value_rest) = value.get_mut(..n).unwrap_or_default().as_chunks_mut();
    let (gate, gate_rest) = gate.get(..n).unwrap_or_default().as_chunks();
    let one = f32x4_splat(1.0);
    for (value, gate) in value.iter_mut().zip(gate) {
        let (v, g) = (load(value), load(gate));
        store(value, from_fn(|i| f32x4_mul(v[i], f32x4_div(one, f32x4_add(one, exp(f32x4_neg(g[i])))))));
    }
    for (v, &g) in value_rest.iter_mut().zip(gate_rest) {
        *v *= scalar::sigmoid(g);
    }
}

/// [`Backend::softmax`](crate::backend::Backend::softmax).
pub(super) fn softmax(x: &mut [f32], width: usize) {
    let Some(rest) = x.len().checked_rem(width) else { return };
    let whole = x.len() - rest;
    let x = x.get_mut(..whole).unwrap_or_default();
    for run in x.chunks_exact_mut(width) {
        let most = run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        run.iter_mut().for_each(|v| *v -= most);
    }
    // Runs are short: the exponentials are taken without regard to them.
    let (chunks, rest) = x.as_chunks_mut();
    for chunk in chunks {
        let v = load(chunk);
        store(chunk, from_fn(|i| exp(v[i])));
    }
    rest.iter_mut().for_each(|v| *v = scalar::exp(*v));
    for run in x.chunks_exact_mut(width) {
        let sum = run.iter().fold(0.0, |sum, v| sum + v);
        run.iter_mut().for_each(|v| *v /= sum);
    }
}

/// [`Backend::layer_norm`](crate::backend::Backend::layer_norm).
pub(super) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 || shift.len() < columns {
        return (scalar::KERNELS.layer_norm)(x, gain, shift, out);
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let mean = sum(row, |x| x) / columns as f32;
        let mean_lanes = f32x4_splat(mean);
        let squares = sum(row, |x| {
            let d = f32x4_sub(x, mean_lanes);
            f32x4_mul(d, d)
        });
        let inverse = 1.0 / sqrt(squares / columns as f32 + NORM_EPS);
        let inverse_lanes = f32x4_splat(inverse);
        let ((row, row_rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut());
        let ((gain, gain_rest), (shift, shift_rest)) = (gain.as_chunks(), shift.as_chunks());
        for (((out, x), gain), shift) in out.iter_mut().zip(row).zip(gain).zip(shift) {
            let (y, x, gain, shift) = (load(out), load(x), load(gain), load(shift));
            let scaled: Lanes = from_fn(|i| f32x4_mul(f32x4_sub(x[i], mean_lanes), inverse_lanes));
            store(out, from_fn(|i| f32x4_add(y[i], f32x4_add(f32x4_mul(scaled[i], gain[i]), shift[i]))));
        }
        for (((y, &x), &gain), &shift) in out_rest.iter_mut().zip(row_rest).zip(gain_rest).zip(shift_rest) {
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
        let inverse = 1.0 / sqrt(sum(row, |x| f32x4_mul(x, x)) / columns as f32 + NORM_EPS);
        let inverse_lanes = f32x4_splat(inverse);
        let ((row, row_rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut());
        let (gain, gain_rest) = gain.as_chunks();
        for ((out, x), gain) in out.iter_mut().zip(row).zip(gain) {
            let (x, gain) = (load(x), load(gain));
            store(out, from_fn(|i| f32x4_mul(f32x4_mul(x[i], inverse_lanes), gain[i])));
        }
        for ((y, &x), &gain) in out_rest.iter_mut().zip(row_rest).zip(gain_rest) {
            *y = (x * inverse) * gain;
        }
    }
}

/// [`Backend::add`](crate::backend::Backend::add).
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    let n = a.len().min(b.len());
    let (a, a_rest) = a.get_mut(..n).unwrap_or_default().as_chunks_mut();
    let (b, b_rest) = b.get(..n).unwrap_or_default().as_chunks();
    for (a, b) in a.iter_mut().zip(b) {
        let (x, y) = (load(a), load(b));
        store(a, from_fn(|i| f32x4_add(x[i], y[i])));
    }
    for (a, &b) in a_rest.iter_mut().zip(b_rest) {
        *a += b;
    }
}

/// [`Backend::dequantize`](crate::backend::Backend::dequantize).
pub(super) fn dequantize(q: &[i8], scale: f32, out: &mut [f32]) {
    let n = q.len().min(out.len());
    let (q, q_rest) = q.get(..n).unwrap_or_default().as_chunks::<WIDTH>();
    let (out, out_rest) = out.get_mut(..n).unwrap_or_default().as_chunks_mut();
    let scales = f32x4_splat(scale);
    for (q, out) in q.iter().zip(out) {
        // SAFETY: q has 16 bytes.
        let q = unsafe { v128_load(q.as_ptr().cast()) };
        let (low, high) = (i16x8_extend_low_i8x16(q), i16x8_extend_high_i8x16(q));
        let wide = [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ];
        store(out, wide.map(|q| f32x4_mul(f32x4_convert_i32x4(q), scales)));
    }
    for (y, &q) in out_rest.iter_mut().zip(q_rest) {
        *y = f32::from(q) * scale;
    }
}

/// [`Backend::pool_mean`](crate::backend::Backend::pool_mean).
pub(super) fn pool_mean(x: &[f32], sums: &mut [i64]) {
    if sums.is_empty() {
        return;
    }
    for row in x.chunks_exact(sums.len()) {
        let ((row, row_rest), (sums, sums_rest)) = (row.as_chunks::<4>(), sums.as_chunks_mut::<4>());
        for (x, sums) in row.iter().zip(sums) {
            let Some([x]) = load_first(x) else { continue };
            let x = at_least(at_most(x, POOL_LIMIT), f32x4_splat(-POOL_LIMIT));
            let steps = i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_mul(x, f32x4_splat(POOL_SCALE))));
            let p: *mut v128 = sums.as_mut_ptr().cast();
            // SAFETY: sums has 4 elements, two vectors.
            unsafe {
                v128_store(p, i64x2_add(v128_load(p), i64x2_extend_low_i32x4(steps)));
                v128_store(p.add(1), i64x2_add(v128_load(p.add(1)), i64x2_extend_high_i32x4(steps)));
            }
        }
        (scalar::KERNELS.pool_mean)(row_rest, sums_rest);
    }
}

/// [`Backend::pool_max`](crate::backend::Backend::pool_max).
pub(super) fn pool_max(x: &[f32], most: &mut [f32]) {
    if most.is_empty() {
        return;
    }
    for row in x.chunks_exact(most.len()) {
        let ((row, row_rest), (most, most_rest)) = (row.as_chunks::<4>(), most.as_chunks_mut::<4>());
        for (x, most) in row.iter().zip(most) {
            if let (Some([x]), Some([m])) = (load_first(x), load_first(most)) {
                store_first(most, [at_least(x, m)]);
            }
        }
        (scalar::KERNELS.pool_max)(row_rest, most_rest);
    }
}
