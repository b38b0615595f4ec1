//! Operations that go over rows element by element: all but products and convolutions.

use core::arch::aarch64::*;
use core::arch::asm;
use core::array::from_fn;

use super::lanes::{Lanes, WIDTH, exp, load, load_first, store, store_first, sum};
use crate::backend::{PANEL_INPUTS, POOL_LIMIT, POOL_SCALE, scalar};
use crate::quant::{self, MAX_QUANTIZED, MIN_MAGNITUDE};
use crate::spec::NORM_EPS;

/// The square root of one number.
#[inline]
#[target_feature(enable = "neon")]
fn sqrt(x: f32) -> f32 {
    vget_lane_f32::<0>(vsqrt_f32(vdup_n_f32(x)))
}

/// `max(max|x|, 1e-30)`, NaN skipped.
#[inline]
#[target_feature(enable = "neon")]
fn magnitude(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks();
    let mut most = [vdupq_n_f32(MIN_MAGNITUDE); 4];
    for chunk in chunks {
        let x = load(chunk);
        most = from_fn(|i| vmaxnmq_f32(most[i], vabsq_f32(x[i])));
    }
    let most = vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(most[0], most[1]), vmaxnmq_f32(most[2], most[3])));
    rest.iter().fold(most, |m, x| m.max(x.abs()))
}

/// An estimate of a quotient this near to an integer has the quotient's nearest integer: 1/2 − 2⁻¹⁴.
const NEAR: f32 = 0.499_938_96;

/// 16 elements divided by `s` and rounded, halves to even. `inverse` is `1 / s`.
///
/// The division is made only where its rounding could depend on it. Let `u` = 2⁻²⁴. Neither `s` (1e-30 / 127 to 2.7e36)
/// nor `1 / s` leaves the normal numbers, and `|x / s| ≤ 127·(1 + 2u)`. The product `x·inverse` carries two roundings: it
/// is off by less than 127.1·2.1·u < 2⁻¹⁵, the quotient in f32 by less than 127.1·1.1·u < 2⁻¹⁶. So they are less than
/// 2⁻¹⁴ apart, and where the product is less than 1/2 − 2⁻¹⁴ from an integer, the quotient is less than 1/2 from it. NaN
/// is near to nothing: such elements are divided.
#[inline]
#[target_feature(enable = "neon")]
fn round(x: Lanes, s: f32, inverse: f32) -> [int32x4_t; 4] {
    let product: Lanes = from_fn(|i| vmulq_n_f32(x[i], inverse));
    let near: [uint32x4_t; 4] =
        from_fn(|i| vcltq_f32(vabdq_f32(product[i], vrndnq_f32(product[i])), vdupq_n_f32(NEAR)));
    let all = vandq_u32(vandq_u32(near[0], near[1]), vandq_u32(near[2], near[3]));
    if vminvq_u32(all) != 0 {
        from_fn(|i| vcvtnq_s32_f32(product[i]))
    } else {
        from_fn(|i| vcvtnq_s32_f32(vdivq_f32(x[i], vdupq_n_f32(s))))
    }
}

/// [`Backend::quantize`](crate::backend::Backend::quantize).
#[target_feature(enable = "neon")]
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
        let inverse = 1.0 / s;
        let ((row, rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut::<WIDTH>());
        for (x, out) in row.iter().zip(out) {
            let n = round(load(x), s, inverse);
            let low = vcombine_s16(vqmovn_s32(n[0]), vqmovn_s32(n[1]));
            let high = vcombine_s16(vqmovn_s32(n[2]), vqmovn_s32(n[3]));
            let bytes = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
            // SAFETY: out has 16 bytes.
            unsafe { vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_s8(bytes)) };
        }
        for (q, &v) in out_rest.iter_mut().zip(rest) {
            *q = (quant::round_half_even(v / s) as i8) as u8;
        }
    }
}

/// [`Backend::glu`](crate::backend::Backend::glu).
#[target_feature(enable = "neon")]
pub(super) fn glu(value: &mut [f32], gate: &[f32]) {
    let n = value.len().min(gate.len());
    let (value, value_rest) = value.get_mut(..n).unwrap_or_default().as_chunks_mut();
    let (gate, gate_rest) = gate.get(..n).unwrap_or_default().as_chunks();
    let one = vdupq_n_f32(1.0);
    for (value, gate) in value.iter_mut().zip(gate) {
        let (v, g) = (load(value), load(gate));
        store(value, from_fn(|i| vmulq_f32(v[i], vdivq_f32(one, vaddq_f32(one, exp(vnegq_f32(g[i])))))));
    }
    for (v, &g) in value_rest.iter_mut().zip(gate_rest) {
        *v *= scalar::sigmoid(g);
    }
}

/// [`Backend::softmax`](crate::backend::Backend::softmax).
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
pub(super) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 || shift.len() < columns {
        return (scalar::KERNELS.layer_norm)(x, gain, shift, out);
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let mean = sum(row, |x| x) / columns as f32;
        let mean_lanes = vdupq_n_f32(mean);
        let squares = sum(row, |x| {
            let d = vsubq_f32(x, mean_lanes);
            vmulq_f32(d, d)
        });
        let inverse = 1.0 / sqrt(squares / columns as f32 + NORM_EPS);
        let ((row, row_rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut());
        let ((gain, gain_rest), (shift, shift_rest)) = (gain.as_chunks(), shift.as_chunks());
        for (((out, x), gain), shift) in out.iter_mut().zip(row).zip(gain).zip(shift) {
            let (y, x, gain, shift) = (load(out), load(x), load(gain), load(shift));
            let scaled: Lanes = from_fn(|i| vmulq_n_f32(vsubq_f32(x[i], mean_lanes), inverse));
            store(out, from_fn(|i| vaddq_f32(y[i], vaddq_f32(vmulq_f32(scaled[i], gain[i]), shift[i]))));
        }
        for (((y, &x), &gain), &shift) in out_rest.iter_mut().zip(row_rest).zip(gain_rest).zip(shift_rest) {
            *y += ((x - mean) * inverse) * gain + shift;
        }
    }
}

/// [`Backend::rms_norm`](crate::backend::Backend::rms_norm).
#[target_feature(enable = "neon")]
pub(super) fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 {
        return;
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let inverse = 1.0 / sqrt(sum(row, |x| vmulq_f32(x, x)) / columns as f32 + NORM_EPS);
        let ((row, row_rest), (out, out_rest)) = (row.as_chunks(), out.as_chunks_mut());
        let (gain, gain_rest) = gain.as_chunks();
        for ((out, x), gain) in out.iter_mut().zip(row).zip(gain) {
            let (x, gain) = (load(x), load(gain));
            store(out, from_fn(|i| vmulq_f32(vmulq_n_f32(x[i], inverse), gain[i])));
        }
        for ((y, &x), &gain) in out_rest.iter_mut().zip(row_rest).zip(gain_rest) {
            *y = (x * inverse) * gain;
        }
    }
}

/// [`Backend::add`](crate::backend::Backend::add).
#[target_feature(enable = "neon")]
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    let n = a.len().min(b.len());
    let (a, a_rest) = a.get_mut(..n).unwrap_or_default().as_chunks_mut();
    let (b, b_rest) = b.get(..n).unwrap_or_default().as_chunks();
    for (a, b) in a.iter_mut().zip(b) {
        let (x, y) = (load(a), load(b));
        store(a, from_fn(|i| vaddq_f32(x[i], y[i])));
    }
    for (a, &b) in a_rest.iter_mut().zip(b_rest) {
        *a += b;
    }
}

/// [`Backend::dequantize`](crate::backend::Backend::dequantize).
#[target_feature(enable = "neon")]
pub(super) fn dequantize(q: &[i8], scale: f32, out: &mut [f32]) {
    let n = q.len().min(out.len());
    let (q, q_rest) = q.get(..n).unwrap_or_default().as_chunks::<WIDTH>();
    let (out, out_rest) = out.get_mut(..n).unwrap_or_default().as_chunks_mut();
    for (q, out) in q.iter().zip(out) {
        // SAFETY: q has 16 bytes.
        let q = unsafe { vld1q_s8(q.as_ptr()) };
        let (low, high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
        let wide =
            [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)];
        store(out, wide.map(|q| vmulq_n_f32(vcvtq_f32_s32(q), scale)));
    }
    for (y, &q) in out_rest.iter_mut().zip(q_rest) {
        *y = f32::from(q) * scale;
    }
}

/// [`Backend::prefetch`](crate::backend::Backend::prefetch).
pub(super) fn prefetch(q: &[i8]) {
    const LINE: usize = 64;
    for line in q.chunks(LINE) {
        // SAFETY: a hint about an address in a slice; it changes neither memory nor registers.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly)) };
    }
}

/// [`Backend::pool_mean`](crate::backend::Backend::pool_mean).
#[target_feature(enable = "neon")]
pub(super) fn pool_mean(x: &[f32], sums: &mut [i64]) {
    if sums.is_empty() {
        return;
    }
    for row in x.chunks_exact(sums.len()) {
        let ((row, row_rest), (sums, sums_rest)) = (row.as_chunks::<4>(), sums.as_chunks_mut::<4>());
        for (x, sums) in row.iter().zip(sums) {
            let Some([x]) = load_first(x) else { continue };
            let x = vminnmq_f32(x, vdupq_n_f32(POOL_LIMIT));
            let x = vmaxnmq_f32(x, vdupq_n_f32(-POOL_LIMIT));
            let steps = vcvtnq_s32_f32(vmulq_n_f32(x, POOL_SCALE));
            let p = sums.as_mut_ptr();
            // SAFETY: sums has 4 elements.
            unsafe {
                vst1q_s64(p, vaddw_s32(vld1q_s64(p), vget_low_s32(steps)));
                vst1q_s64(p.add(2), vaddw_high_s32(vld1q_s64(p.add(2)), steps));
            }
        }
        (scalar::KERNELS.pool_mean)(row_rest, sums_rest);
    }
}

/// [`Backend::pool_max`](crate::backend::Backend::pool_max).
#[target_feature(enable = "neon")]
pub(super) fn pool_max(x: &[f32], most: &mut [f32]) {
    if most.is_empty() {
        return;
    }
    for row in x.chunks_exact(most.len()) {
        let ((row, row_rest), (most, most_rest)) = (row.as_chunks::<4>(), most.as_chunks_mut::<4>());
        for (x, most) in row.iter().zip(most) {
            if let (Some([x]), Some([m])) = (load_first(x), load_first(most)) {
                store_first(most, [vbslq_f32(vcgtq_f32(x, m), x, m)]);
            }
        }
        (scalar::KERNELS.pool_max)(row_rest, most_rest);
    }
}
