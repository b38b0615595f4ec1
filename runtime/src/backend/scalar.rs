//! The specification: the simplest correct loops. Never tuned; every other backend equals it bit for bit.

use super::table::{Activation, Backend, PANEL_INPUTS, PANEL_OUTPUTS, POOL_LIMIT, POOL_SCALE, Product, Window};
use crate::quant;
use crate::spec::NORM_EPS;

/// The table of this backend.
pub(super) const TABLE: Backend = Backend {
    name: "scalar",
    flip: 0,
    quantize,
    matmul,
    glu,
    softmax,
    convolve_shared,
    convolve_channels,
    layer_norm,
    rms_norm,
    add,
    dequantize,
    prefetch: |_| {},
    pool_mean,
    pool_max,
};

/// Virtual lanes of a sum.
const LANES: usize = 16;

/// Returns the sum of `f(x)` over a row in the documented order.
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for part in row.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += f(x);
        }
    }
    for half in [8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            *a += *b;
        }
    }
    lanes[0]
}

/// Returns the square root, correctly rounded, without an instruction for it (`core` has none). Negative numbers return
/// NaN.
pub fn sqrt(x: f32) -> f32 {
    if x == 0.0 || x == f32::INFINITY {
        return x;
    }
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x < f32::MIN_POSITIVE {
        // 2⁴⁸ makes a subnormal normal; its root is 2²⁴. Both products are exact.
        return sqrt(x * 281_474_976_710_656.0) * (1.0 / 16_777_216.0);
    }
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 150;
    let mantissa = u64::from(bits & 0x7f_ffff | 0x80_0000);
    // x = m · 2^e with e even and 2²⁴ <= m < 2²⁶; the root of m · 2²⁴ has 25 bits: 24 and one for rounding. The root of
    // a 24-bit number is never half-way between two others.
    let (m, e) = if exponent & 1 == 0 { (mantissa << 2, exponent - 2) } else { (mantissa << 1, exponent - 1) };
    let root = ((m << 24).isqrt() + 1) >> 1;
    // root · 2^((e − 24) / 2 + 1), with the power of two made from its bits: its exponent is far inside the range.
    root as f32 * f32::from_bits((((e - 24) / 2 + 1 + 127) as u32) << 23)
}

/// Smallest argument of [`exp`].
pub(super) const EXP_LOW: f32 = -87.3;
/// Largest argument of [`exp`].
pub(super) const EXP_HIGH: f32 = 88.3;
/// Adding and subtracting 1.5 · 2²³ rounds to an integer, half to even.
pub(super) const ROUND: f32 = 12_582_912.0;
/// `c₁` and `c₂` of [`exp`].
#[allow(clippy::excessive_precision)] // as published
pub(super) const LN_2: [f32; 2] = [0.693_359_375, -2.121_944_4e-4];
/// The polynomial of [`exp`], highest power first.
#[allow(clippy::excessive_precision)] // as published
pub(super) const EXP_POLYNOMIAL: [f32; 6] = [
    1.987_569_150_0e-4,
    1.398_199_950_7e-3,
    8.333_451_907_3e-3,
    4.166_579_589_4e-2,
    1.666_666_545_9e-1,
    5.000_000_120_1e-1,
];

/// Returns `eˣ`, within 2 units in the last place; `x` is clamped to −87.3 ..= 88.3.
///
/// Cephes' `expf` (S. Moshier): `n = round(x·log₂e)`, `r = (x − n·c₁) − n·c₂` with `c₁ + c₂ = ln 2`, a polynomial of
/// degree 5 for `(eʳ − 1 − r) / r²`, then `((p·(r·r)) + r) + 1`, times `2ⁿ`. Horner's scheme, with each product and sum
/// rounded separately.
pub fn exp(x: f32) -> f32 {
    let x = if x < EXP_HIGH { x } else { EXP_HIGH };
    let x = if x > EXP_LOW { x } else { EXP_LOW };
    let n = (x * core::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let [mut p, next @ ..] = EXP_POLYNOMIAL;
    for c in next {
        p = p * r + c;
    }
    let y = (p * (r * r) + r) + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// Returns `1 / (1 + e⁻ˣ)`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

fn quantize(x: &[f32], columns: usize, x_stride: usize, q: &mut [u8], q_stride: usize, scales: &mut [f32]) {
    if columns == 0 || x_stride < columns || q_stride == 0 || q_stride < columns.next_multiple_of(PANEL_INPUTS) {
        return;
    }
    for ((row, out), scale) in x.chunks(x_stride).zip(q.chunks_mut(q_stride)).zip(scales) {
        let Some(row) = row.get(..columns) else { return };
        *scale = quant::scale(row);
        let (out, padding) = out.split_at_mut_checked(columns).unwrap_or_default();
        for (q, &v) in out.iter_mut().zip(row) {
            *q = (quant::round_half_even(v / *scale) as i8) as u8;
        }
        padding.iter_mut().take(columns.next_multiple_of(PANEL_INPUTS) - columns).for_each(|q| *q = 0);
    }
}

fn matmul(product: Product<'_>) {
    let Product { q, q_stride, scales, w, activation, out, out_stride } = product;
    for ((row, out), &s) in q.chunks(q_stride.max(1)).zip(out.chunks_mut(out_stride.max(1))).zip(scales) {
        let out = out.get_mut(..w.outputs).unwrap_or_default();
        for ((values, channel), out) in w.panels().zip(out.chunks_mut(PANEL_OUTPUTS)) {
            let mut sums = [0i32; PANEL_OUTPUTS];
            for (group, x) in values.chunks_exact(PANEL_OUTPUTS * PANEL_INPUTS).zip(row.chunks_exact(PANEL_INPUTS)) {
                for (sum, w) in sums.iter_mut().zip(group.chunks_exact(PANEL_INPUTS)) {
                    for (&x, &w) in x.iter().zip(w) {
                        *sum += i32::from(x as i8) * i32::from(w);
                    }
                }
            }
            for ((y, &sum), &c) in out.iter_mut().zip(&sums).zip(channel) {
                let v = (sum as f32 * s) * c;
                *y = match activation {
                    Activation::Relu if v <= 0.0 || v.is_nan() => 0.0,
                    _ => v,
                };
            }
        }
    }
}

fn glu(value: &mut [f32], gate: &[f32]) {
    for (v, &g) in value.iter_mut().zip(gate) {
        *v *= sigmoid(g);
    }
}

fn softmax(x: &mut [f32], width: usize) {
    if width == 0 {
        return;
    }
    for run in x.chunks_exact_mut(width) {
        let most = run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        let mut sum = 0.0;
        for v in run.iter_mut() {
            *v = exp(*v - most);
            sum += *v;
        }
        run.iter_mut().for_each(|v| *v /= sum);
    }
}

/// Computes `out = w₀·x₀`, `out += wⱼ·xⱼ`; tap `j` reads row `j·dilation` of `x` and takes its weight for channel `c`
/// from `weight(j, c)`.
fn convolve_row(x: &[f32], window: Window, out: &mut [f32], weight: impl Fn(usize, usize) -> f32) {
    let rows = x.chunks_exact(window.channels).step_by(window.dilation).take(window.taps);
    for (j, row) in rows.enumerate() {
        for (c, (y, &x)) in out.iter_mut().zip(row).enumerate() {
            let product = weight(j, c) * x;
            *y = if j == 0 { product } else { *y + product };
        }
    }
}

fn convolve_shared(x: &[f32], window: Window, taps: &[f32], taps_stride: usize, heads: usize, out: &mut [f32]) {
    let Window { channels, taps: k, dilation } = window;
    if channels == 0 || dilation == 0 {
        return;
    }
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = x.get(r * channels..).unwrap_or_default();
        let taps = taps.get(r * taps_stride..).unwrap_or_default();
        convolve_row(x, window, out, |j, c| taps.get(c * heads / channels * k + j).copied().unwrap_or(0.0));
    }
}

fn convolve_channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
    let Window { channels, dilation, .. } = window;
    if channels == 0 || dilation == 0 {
        return;
    }
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = x.get(r * channels..).unwrap_or_default();
        convolve_row(x, window, out, |j, c| taps.get(j * channels + c).copied().unwrap_or(0.0));
    }
}

fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 {
        return;
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let mean = sum(row, |x| x) / columns as f32;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / columns as f32;
        let inverse = 1.0 / sqrt(variance + NORM_EPS);
        for (((y, &x), &gain), &shift) in out.iter_mut().zip(row).zip(gain).zip(shift) {
            *y += ((x - mean) * inverse) * gain + shift;
        }
    }
}

fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
    let columns = gain.len();
    if columns == 0 {
        return;
    }
    for (row, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let inverse = 1.0 / sqrt(sum(row, |x| x * x) / columns as f32 + NORM_EPS);
        for ((y, &x), &gain) in out.iter_mut().zip(row).zip(gain) {
            *y = (x * inverse) * gain;
        }
    }
}

fn add(a: &mut [f32], b: &[f32]) {
    for (a, &b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

fn dequantize(q: &[i8], scale: f32, out: &mut [f32]) {
    for (y, &q) in out.iter_mut().zip(q) {
        *y = f32::from(q) * scale;
    }
}

fn pool_mean(x: &[f32], sums: &mut [i64]) {
    if sums.is_empty() {
        return;
    }
    for row in x.chunks_exact(sums.len()) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            let x = if x < POOL_LIMIT { x } else { POOL_LIMIT };
            let x = if x > -POOL_LIMIT { x } else { -POOL_LIMIT };
            *sum = sum.wrapping_add(i64::from(quant::round_half_even(x * POOL_SCALE) as i32));
        }
    }
}

fn pool_max(x: &[f32], most: &mut [f32]) {
    if most.is_empty() {
        return;
    }
    for row in x.chunks_exact(most.len()) {
        for (most, &x) in most.iter_mut().zip(row) {
            if x > *most {
                *most = x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_is_off_by_two_units_at_most() {
        let mut worst = 0.0f64;
        let mut x = -87.3f32;
        while x < 88.3 {
            let want = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
            worst = worst.max((f64::from(exp(x)) - want).abs() / unit);
            x += 0.000_37;
        }
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(1e9).is_finite() && exp(-1e9) > 0.0);
    }

    proptest! {
        #[test]
        fn the_square_root_is_ieee(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let (got, want) = (sqrt(x), x.sqrt());
            prop_assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{x}: {got} {want}");
        }

        #[test]
        fn a_sum_equals_the_exact_one_within_rounding(x in prop::collection::vec(-1e3f32..1e3, 0..100)) {
            let exact: f64 = x.iter().map(|&v| f64::from(v)).sum();
            let size: f64 = x.iter().map(|&v| f64::from(v).abs()).sum();
            prop_assert!((f64::from(sum(&x, |v| v)) - exact).abs() <= 1e-6 * size);
        }
    }
}
