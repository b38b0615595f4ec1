//! Sixteen f32 in one register, and the primitive operations of this backend.

use core::arch::x86_64::*;

use crate::backend::simd::{primitives, whole};
pub(super) use crate::backend::x86::{largest, prefetch, sqrt};

/// Sixteen f32.
pub(super) type V = __m512;
/// Sixteen f32 that become bytes: bits 14 to 21 of each i32.
pub(super) type Estimates = __m512i;
/// A vector reduced to a quarter, for [`largest`].
pub(super) type Folded = __m128;

/// XOR of a stored byte with this is the two's complement of `q`: `dpbusd` takes `q + 128`.
pub(super) const FLIP: u8 = 0x80;
/// Whether loading and storing a part of a vector takes one instruction.
pub(super) const MASKS: bool = true;
/// Vectors whose exponentials are computed together.
pub(super) const WIDE: usize = 8;
/// Number of sums that a convolution keeps in registers.
pub(super) const SUMS: usize = 8;
/// Number of rows that are normalized together, so that the dependent instructions of one fill the gaps of another.
pub(super) const ROWS: usize = 4;
/// Number of vectors that are rounded together.
pub(super) const BLOCK: usize = 4;

/// 7 · 2⁷ and 1/2. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number to `t` in ±127 rounds to them, and
/// bits 14 to 21 of the sum are `t + 1/2` rounded down, plus 128.
const SHIFTER: f32 = 896.5;
/// The fraction in units of 2⁻¹⁴.
const FRACTION: i32 = (1 << 14) - 1;

/// Loads 16 f32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn load_from(x: *const f32) -> V {
    // SAFETY: the caller's.
    unsafe { _mm512_loadu_ps(x) }
}

/// Stores 16 f32.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn store_to(v: V, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe { _mm512_storeu_ps(out, v) }
}

/// Stores the byte of each lane.
///
/// # Safety
/// 64 bytes can be written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn store_bytes(x: [Estimates; BLOCK], out: *mut u8) {
    // Bytes 0 to 3 of lane i become those of lane i of the four registers. Ternary 0xCA is `a ? b : c`.
    let (words, bytes) = (_mm512_set1_epi32(0xffff), _mm512_set1_epi32(0x00ff_00ff));
    let even = _mm512_ternarylogic_epi32::<0xCA>(words, _mm512_srli_epi32::<14>(x[0]), _mm512_slli_epi32::<2>(x[2]));
    let odd = _mm512_ternarylogic_epi32::<0xCA>(words, _mm512_srli_epi32::<6>(x[1]), _mm512_slli_epi32::<10>(x[3]));
    let all = _mm512_ternarylogic_epi32::<0xCA>(bytes, even, odd);
    // Transposes each 4 × 4 bytes, then the 4 × 4 groups of four.
    let in_lane = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let across = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let all = _mm512_permutexvar_epi32(across, _mm512_shuffle_epi8(all, in_lane));
    // SAFETY: the caller's.
    unsafe { _mm512_storeu_si512(out.cast(), all) };
}

whole!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");

primitives! {
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni":
    /// Returns a vector with all lanes `x`.
    fn splat(x: f32) -> V {
        _mm512_set1_ps(x)
    }

    /// Loads fewer than 16; the lanes after them are +0.
    fn load_part(x: &[f32]) -> V {
        // SAFETY: the mask ends where `x` does.
        unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) }
    }

    /// Stores as many as `out` has, at most 16.
    fn store_part(v: V, out: &mut [f32]) {
        // SAFETY: the mask ends where `out` does.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), v) }
    }

    fn mask(n: usize) -> __mmask16 {
        if n < 16 { (1 << n) - 1 } else { !0 }
    }

    fn add(a: V, b: V) -> V {
        _mm512_add_ps(a, b)
    }

    fn sub(a: V, b: V) -> V {
        _mm512_sub_ps(a, b)
    }

    fn mul(a: V, b: V) -> V {
        _mm512_mul_ps(a, b)
    }

    fn div(a: V, b: V) -> V {
        _mm512_div_ps(a, b)
    }

    /// `a < b ? a : b`.
    fn min(a: V, b: V) -> V {
        _mm512_min_ps(a, b)
    }

    /// `a > b ? a : b`.
    fn max(a: V, b: V) -> V {
        _mm512_max_ps(a, b)
    }

    fn abs(a: V) -> V {
        _mm512_abs_ps(a)
    }

    fn negate(a: V) -> V {
        _mm512_xor_ps(a, _mm512_set1_ps(-0.0))
    }

    /// Returns the sum of all lanes: `lane[i] += lane[i + 8]`, then 4, 2, 1.
    fn sum(v: V) -> f32 {
        let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }

    /// Returns the first `n` lanes of `v`, the others +0.
    fn keep(v: V, n: usize) -> V {
        _mm512_maskz_mov_ps(mask(n), v)
    }

    /// `a > b ? a : b`, of two zeros `b`.
    fn larger(a: V, b: V) -> V {
        max(a, b)
    }

    /// Four lanes, the largest of which is that of `v`; no lane is NaN.
    fn fold_max(v: V) -> Folded {
        let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
    }

    /// `y·2ⁿ` by adding to the exponent; the result is normal. `n` is in the last bits of the f32 `n + 1.5·2²³`.
    fn scaled(y: V, shifted: V) -> V {
        let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), exponent))
    }

    /// `x·y + z`, where the product is exact.
    fn mul_add_exact(x: V, y: V, z: V) -> V {
        _mm512_fmadd_ps(x, y, z)
    }

    /// `x` times `1 / step`, rounded once to a multiple of 2⁻¹⁴ and then to the integer at or below that plus a half.
    ///
    /// If [`is_doubtful`] finds no fraction of zero, this is `x / step` rounded: two numbers less than 2⁻¹⁵ apart round
    /// to different integers only if a number half-way between two integers is between them.
    fn estimate(x: V, _step: V, inverse: V) -> Estimates {
        _mm512_castps_si512(_mm512_fmadd_ps(x, inverse, _mm512_set1_ps(SHIFTER)))
    }

    /// Returns whether the integer of an estimate may differ from that of the quotient: whether a fraction is zero.
    fn is_doubtful(x: [Estimates; BLOCK]) -> bool {
        let m = _mm512_set1_epi32(FRACTION);
        let found = |i: usize| _mm512_testn_epi32_mask(x[i], m);
        (found(0) | found(1)) | (found(2) | found(3)) != 0
    }

    /// `x / step`, rounded half to even.
    fn quotient(x: V, step: V) -> Estimates {
        let rounded = _mm512_cvtps_epi32(_mm512_div_ps(x, step));
        _mm512_slli_epi32::<14>(_mm512_xor_si512(rounded, _mm512_set1_epi32(i32::from(FLIP))))
    }

    /// 16 int8 as f32.
    fn widen(q: &[i8; 16]) -> V {
        // SAFETY: reads the 16 elements of `q`.
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(q.as_ptr().cast()) }))
    }

    /// Adds each lane, rounded half to even, to a sum. The lanes fit in 32 bits.
    fn accumulate(v: V, sums: &mut [i64; 16]) {
        let v = _mm512_cvtps_epi32(v);
        let parts = [_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)];
        for (part, sums) in parts.into_iter().zip(sums.as_chunks_mut::<8>().0) {
            // SAFETY: reads and writes the 8 elements of `sums`.
            unsafe {
                let sum = _mm512_loadu_si512(sums.as_ptr().cast());
                let sum = _mm512_add_epi64(sum, _mm512_cvtepi32_epi64(part));
                _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
            }
        }
    }
}
