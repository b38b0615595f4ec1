//! Quantising rows without dividing every element, yet with the bits of the division.

use core::arch::x86_64::*;

use crate::kernels::PANEL_INPUTS;
use crate::quant::{MAX_QUANTISED, MIN_MAGNITUDE};

/// 7 · 2⁷. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number rounds to them, and bits 14 to 21
/// of the sum with `t` in ±127 are `t + 128`, rounded down.
const SHIFTER: f32 = 896.0;
/// 1/2 in units of 2⁻¹⁴.
const HALF: i32 = 1 << 13;
/// The fraction in units of 2⁻¹⁴.
const FRACTION: i32 = (1 << 14) - 1;
/// Rows whose scales are computed before the first is stored: the divisions of one row pass while the next is read.
const ROWS: usize = 4;

/// See [`crate::kernels::Kernels::quantise`]. Stores `q + 128`.
///
/// With `m` the row's magnitude, `s = fl(m / 127)` and `i = fl(127 / m)` are off by a factor of `1 ± u`, `u = 2⁻²⁴`, so
/// `x·i` is off from `x / s` by at most `2.1·u·|x / s|`, and `fl(x / s)`, which scalar rounds, by another `u·|x / s|`. As
/// `|x / s| < 127.1`, `x·i` and `fl(x / s)` differ by less than 2.4·10⁻⁵ < 2⁻¹⁵. Only where a number half-way between
/// two integers lies between them (or is one of them) can they round differently, and then `x·i`, rounded to multiples of
/// 2⁻¹⁴ by the one rounding of an FMA, is that number. Those few vectors, and only those, are divided.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in crate::kernels) fn quantise(x: &[f32], columns: usize, q: &mut [u8], q_stride: usize, scales: &mut [f32]) {
    let padded = columns.next_multiple_of(PANEL_INPUTS);
    if columns == 0 || q_stride < padded {
        return;
    }
    let rows = x.chunks(columns * ROWS).zip(q.chunks_mut(q_stride * ROWS)).zip(scales.chunks_mut(ROWS));
    for ((x, q), scales) in rows {
        let mut inverses = [0.0f32; ROWS];
        for ((row, scale), inverse) in x.chunks_exact(columns).zip(scales.iter_mut()).zip(&mut inverses) {
            let most = magnitude(row);
            *scale = most / MAX_QUANTISED;
            *inverse = MAX_QUANTISED / most;
        }
        let q = q.chunks_mut(q_stride);
        for (((row, q), &scale), &inverse) in x.chunks_exact(columns).zip(q).zip(scales.iter()).zip(&inverses) {
            if let Some((q, padding)) = q.split_at_mut_checked(columns) {
                round(row, scale, inverse, q);
                padding.iter_mut().take(padded - columns).for_each(|q| *q = 0x80);
            }
        }
    }
}

/// `max(max|x|, 1e-30)`, NaN skipped.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn magnitude(row: &[f32]) -> f32 {
    let mut most = [_mm512_set1_ps(MIN_MAGNITUDE); 4];
    let mut parts = row.chunks_exact(64);
    for part in &mut parts {
        for (i, most) in most.iter_mut().enumerate() {
            // SAFETY: `part` has 64 elements.
            let x = unsafe { _mm512_loadu_ps(part.as_ptr().add(16 * i)) };
            *most = _mm512_max_ps(_mm512_abs_ps(x), *most);
        }
    }
    for part in parts.remainder().chunks(16) {
        // SAFETY: the mask ends where `part` does.
        let x = unsafe { _mm512_maskz_loadu_ps(mask(part.len()), part.as_ptr()) };
        most[0] = _mm512_max_ps(_mm512_abs_ps(x), most[0]);
    }
    let [a, b, c, d] = most;
    _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)))
}

/// The first `n` ≤ 16 lanes.
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// One row, `x` and `q` of the same length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn round(x: &[f32], scale: f32, inverse: f32, q: &mut [u8]) {
    let (divisor, inverse) = (_mm512_set1_ps(scale), _mm512_set1_ps(inverse));
    let mut parts = x.chunks_exact(64);
    let mut out = q.chunks_exact_mut(64);
    for (x, q) in (&mut parts).zip(&mut out) {
        let mut v = [_mm512_setzero_ps(); 4];
        let mut sums = [_mm512_setzero_si512(); 4];
        let mut doubtful = 0;
        for i in 0..4 {
            // SAFETY: `x` has 64 elements.
            v[i] = unsafe { _mm512_loadu_ps(x.as_ptr().add(16 * i)) };
            sums[i] = shifted(v[i], inverse);
            doubtful |= is_doubtful(sums[i]);
        }
        if doubtful != 0 {
            sums = v.map(|v| divided(v, divisor));
        }
        for (i, &sum) in sums.iter().enumerate() {
            // SAFETY: `q` has 64 elements.
            unsafe {
                _mm_storeu_si128(q.as_mut_ptr().add(16 * i).cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<14>(sum)))
            };
        }
    }
    for (x, q) in parts.remainder().chunks(16).zip(out.into_remainder().chunks_mut(16)) {
        // SAFETY: the mask ends where `x` does.
        let v = unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) };
        let mut sum = shifted(v, inverse);
        if is_doubtful(sum) != 0 {
            sum = divided(v, divisor);
        }
        let bytes = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<14>(sum));
        // SAFETY: the mask ends where `q` does.
        unsafe { _mm_mask_storeu_epi8(q.as_mut_ptr().cast(), mask(q.len()), bytes) };
    }
}

/// `x·inverse + SHIFTER + 1/2` as bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn shifted(x: __m512, inverse: __m512) -> __m512i {
    let sum = _mm512_fmadd_ps(x, inverse, _mm512_set1_ps(SHIFTER));
    _mm512_add_epi32(_mm512_castps_si512(sum), _mm512_set1_epi32(HALF))
}

/// Lanes of [`shifted`] that lay half-way between two integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn is_doubtful(sum: __m512i) -> __mmask16 {
    _mm512_testn_epi32_mask(sum, _mm512_set1_epi32(FRACTION))
}

/// The same bits 14 to 21 from the quotient itself.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn divided(x: __m512, scale: __m512) -> __m512i {
    // The conversion rounds half to even.
    let q = _mm512_cvtps_epi32(_mm512_div_ps(x, scale));
    _mm512_slli_epi32::<14>(_mm512_add_epi32(q, _mm512_set1_epi32(128)))
}
