//! Sixteen f32 in two registers, and the primitive operations of this backend.

use core::arch::x86_64::*;

use crate::backend::simd::{lanewise, parts, primitives, whole};
pub(super) use crate::backend::x86::{largest, prefetch, sqrt};

/// Sixteen f32.
pub(super) type V = [__m256; 2];
/// Sixteen f32 that become bytes: bits 14 to 21 of each i32.
pub(super) type Estimates = [__m256i; 2];
/// A vector reduced to a quarter, for [`largest`].
pub(super) type Folded = __m128;

/// XOR of a stored byte with this is the two's complement of `q`: nothing, `matmul` extends the sign.
pub(super) const FLIP: u8 = 0;
/// Whether loading and storing a part of a vector takes one instruction.
pub(super) const MASKS: bool = false;
/// Vectors whose exponentials are computed together.
pub(super) const WIDE: usize = 2;
/// Number of sums that a convolution keeps in registers.
pub(super) const SUMS: usize = 4;
/// Number of rows that are normalized together, so that the dependent instructions of one fill the gaps of another.
pub(super) const ROWS: usize = 4;
/// Number of vectors that are rounded together.
pub(super) const BLOCK: usize = 4;

/// 6 · 2⁷ and 1/2. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number to `t` in ±127 rounds to them, and
/// bits 14 to 21 of the sum are `t + 1/2` rounded down, modulo 256.
const SHIFTER: f32 = 768.5;
/// The fraction in units of 2⁻¹⁴.
const FRACTION: i32 = (1 << 14) - 1;

/// Loads 16 f32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn load_from(x: *const f32) -> V {
    // SAFETY: the caller's.
    unsafe { [_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))] }
}

/// Stores 16 f32.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn store_to(v: V, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        _mm256_storeu_ps(out, v[0]);
        _mm256_storeu_ps(out.add(8), v[1]);
    }
}

/// Stores the byte of each lane.
///
/// # Safety
/// 64 bytes can be written.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn store_bytes(x: [Estimates; BLOCK], out: *mut u8) {
    let [[a, b], [c, d], [e, f], [g, h]] = x;
    // Bytes 0 to 3 of lane i become those of lane i of four registers.
    let pack = |a, b, c, d| {
        let even = _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<14>(a), _mm256_slli_epi32::<2>(c));
        let odd = _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<6>(b), _mm256_slli_epi32::<10>(d));
        let all = _mm256_blendv_epi8(odd, even, _mm256_set1_epi16(0x00ff));
        // Transposes each 4 × 4 bytes, then the 2 × 4 groups of four.
        let in_lane = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(all, in_lane), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
    };
    let out: *mut __m256i = out.cast();
    // SAFETY: the caller's.
    unsafe {
        _mm256_storeu_si256(out, pack(a, b, c, d));
        _mm256_storeu_si256(out.add(1), pack(e, f, g, h));
    }
}

whole!("avx2,fma");
parts!("avx2,fma");

lanewise! {
    "avx2,fma":
    add(a, b) = _mm256_add_ps(a, b);
    sub(a, b) = _mm256_sub_ps(a, b);
    mul(a, b) = _mm256_mul_ps(a, b);
    div(a, b) = _mm256_div_ps(a, b);
    /// `a < b ? a : b`.
    min(a, b) = _mm256_min_ps(a, b);
    /// `a > b ? a : b`.
    max(a, b) = _mm256_max_ps(a, b);
    /// `a > b ? a : b`, of two zeros `b`.
    larger(a, b) = _mm256_max_ps(a, b);
    abs(a) = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
    negate(a) = _mm256_xor_ps(a, _mm256_set1_ps(-0.0));
    /// `x·y + z`, where the product is exact.
    mul_add_exact(x, y, z) = _mm256_fmadd_ps(x, y, z);
    /// `y·2ⁿ` by adding to the exponent; the result is normal. `n` is in the last bits of the f32 `n + 1.5·2²³`.
    scaled(y, shifted) = _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(y), _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted))));
}

primitives! {
    "avx2,fma":
    /// Returns a vector with all lanes `x`.
    fn splat(x: f32) -> V {
        [_mm256_set1_ps(x); 2]
    }

    /// Returns the sum of all lanes: `lane[i] += lane[i + 8]`, then 4, 2, 1.
    fn sum(v: V) -> f32 {
        let v = _mm256_add_ps(v[0], v[1]);
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }

    /// Four lanes, the largest of which is that of `v`; no lane is NaN.
    fn fold_max(v: V) -> Folded {
        let v = _mm256_max_ps(v[0], v[1]);
        _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
    }

    /// `x` times `1 / step`, rounded once to a multiple of 2⁻¹⁴ and then to the integer at or below that plus a half.
    ///
    /// If [`is_doubtful`] finds no fraction of zero, this is `x / step` rounded: two numbers less than 2⁻¹⁵ apart round
    /// to different integers only if a number half-way between two integers is between them.
    fn estimate(x: V, _step: V, inverse: V) -> Estimates {
        let shifter = _mm256_set1_ps(SHIFTER);
        let one = |x, inverse| _mm256_castps_si256(_mm256_fmadd_ps(x, inverse, shifter));
        [one(x[0], inverse[0]), one(x[1], inverse[1])]
    }

    /// Returns whether the integer of an estimate may differ from that of the quotient: whether a fraction is zero.
    fn is_doubtful(x: [Estimates; BLOCK]) -> bool {
        let mask = _mm256_set1_epi32(FRACTION);
        let mut least = mask;
        for x in x.as_flattened() {
            least = _mm256_min_epu32(least, _mm256_and_si256(*x, mask));
        }
        _mm256_movemask_epi8(_mm256_cmpeq_epi32(least, _mm256_setzero_si256())) != 0
    }

    /// `x / step`, rounded half to even.
    fn quotient(x: V, step: V) -> Estimates {
        let one = |x, step| _mm256_slli_epi32::<14>(_mm256_cvtps_epi32(_mm256_div_ps(x, step)));
        [one(x[0], step[0]), one(x[1], step[1])]
    }

    /// 16 int8 as f32.
    fn widen(q: &[i8; 16]) -> V {
        // SAFETY: reads the 16 elements of `q`.
        let q = unsafe { _mm_loadu_si128(q.as_ptr().cast()) };
        let one = |q| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
        [one(q), one(_mm_unpackhi_epi64(q, q))]
    }

    /// Adds each lane, rounded half to even, to a sum. The lanes fit in 32 bits.
    fn accumulate(v: V, sums: &mut [i64; 16]) {
        let [low, high] = v.map(|v| _mm256_cvtps_epi32(v));
        let quarters = [
            _mm256_castsi256_si128(low),
            _mm256_extracti128_si256::<1>(low),
            _mm256_castsi256_si128(high),
            _mm256_extracti128_si256::<1>(high),
        ];
        for (quarter, sums) in quarters.into_iter().zip(sums.as_chunks_mut::<4>().0) {
            let sums: *mut __m256i = sums.as_mut_ptr().cast();
            // SAFETY: reads and writes the 4 elements of `sums`.
            unsafe {
                let sum = _mm256_add_epi64(_mm256_loadu_si256(sums), _mm256_cvtepi32_epi64(quarter));
                _mm256_storeu_si256(sums, sum);
            }
        }
    }
}
