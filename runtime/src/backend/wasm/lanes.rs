//! Sixteen f32 in four vectors of WebAssembly, and the primitive operations of this backend.
//!
//! The f32 operations are the IEEE 754 ones on each lane, including subnormal numbers. Relaxed SIMD, whose results
//! differ between processors, is not used.

use core::arch::wasm32::*;
use core::array::from_fn;

use crate::backend::simd::{lanewise, parts, primitives, whole};

/// Sixteen f32.
pub(super) type V = [v128; 4];
/// Sixteen f32 that become bytes: quotients.
pub(super) type Estimates = V;
/// A vector reduced to a quarter, for [`largest`].
pub(super) type Folded = v128;

/// XOR of a stored byte with this is the two's complement of `q`.
pub(super) const FLIP: u8 = 0;
/// Whether loading and storing a part of a vector takes one instruction.
pub(super) const MASKS: bool = false;
/// Vectors whose exponentials are computed together.
pub(super) const WIDE: usize = 1;
/// Number of sums that a convolution keeps in registers.
pub(super) const SUMS: usize = 2;
/// Number of rows that are normalized together, so that the dependent instructions of one fill the gaps of another.
pub(super) const ROWS: usize = 2;
/// Number of vectors that are rounded together.
pub(super) const BLOCK: usize = 1;

/// Adding this rounds to an integer, half to even, and leaves its two's complement in the last bits: 1.5 · 2²³.
const ROUND: f32 = 12_582_912.0;

/// Loads 16 f32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "simd128")]
pub(super) unsafe fn load_from(x: *const f32) -> V {
    // SAFETY: the caller's.
    from_fn(|i| unsafe { v128_load(x.add(4 * i).cast()) })
}

/// Stores 16 f32.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "simd128")]
pub(super) unsafe fn store_to(v: V, out: *mut f32) {
    for (i, v) in v.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { v128_store(out.add(4 * i).cast(), v) };
    }
}

/// Stores the integer nearest to each lane, halves to even, as a byte.
///
/// # Safety
/// 16 bytes can be written.
#[inline]
#[target_feature(enable = "simd128")]
pub(super) unsafe fn store_bytes([x]: [Estimates; BLOCK], out: *mut u8) {
    let n = x.map(|x| f32x4_add(x, f32x4_splat(ROUND)));
    // The last bytes of the lanes of two vectors.
    let bytes = |a, b| i8x16_shuffle::<0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28>(a, b);
    let all = i64x2_shuffle::<0, 2>(bytes(n[0], n[1]), bytes(n[2], n[3]));
    // SAFETY: the caller's.
    unsafe { v128_store(out.cast(), all) };
}

/// Prefetches `q`. There is no instruction for it.
pub(super) fn prefetch(_: &[i8]) {}

whole!("simd128");
parts!("simd128");

lanewise! {
    "simd128":
    add(a, b) = f32x4_add(a, b);
    sub(a, b) = f32x4_sub(a, b);
    mul(a, b) = f32x4_mul(a, b);
    div(a, b) = f32x4_div(a, b);
    /// `a < b ? a : b`.
    min(a, b) = f32x4_pmin(b, a);
    /// `a > b ? a : b`.
    max(a, b) = f32x4_pmax(b, a);
    /// `a > b ? a : b`, of two zeros `b`.
    larger(a, b) = f32x4_pmax(b, a);
    abs(a) = f32x4_abs(a);
    negate(a) = f32x4_neg(a);
    /// `x·y + z`, where the product is exact.
    mul_add_exact(x, y, z) = f32x4_add(f32x4_mul(x, y), z);
    /// `y·2ⁿ` by adding to the exponent; the result is normal. `n` is in the last bits of the f32 `n + 1.5·2²³`.
    scaled(y, shifted) = i32x4_add(y, i32x4_shl(shifted, 23));
    /// The quotient itself.
    estimate(x, step, _inverse) = f32x4_div(x, step);
    /// `x / step`.
    quotient(x, step) = f32x4_div(x, step);
}

primitives! {
    "simd128":
    /// Returns a vector with all lanes `x`.
    fn splat(x: f32) -> V {
        [f32x4_splat(x); 4]
    }

    /// Returns the sum of all lanes: `lane[i] += lane[i + 8]`, then 4, 2, 1.
    fn sum(v: V) -> f32 {
        let four = f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3]));
        (f32x4_extract_lane::<0>(four) + f32x4_extract_lane::<2>(four))
            + (f32x4_extract_lane::<1>(four) + f32x4_extract_lane::<3>(four))
    }

    /// Four lanes, the largest of which is that of `v`; no lane is NaN.
    fn fold_max(v: V) -> Folded {
        f32x4_pmax(f32x4_pmax(v[0], v[1]), f32x4_pmax(v[2], v[3]))
    }

    /// Returns the largest lane of each of four vectors.
    fn largest(v: [Folded; 4]) -> [f32; 4] {
        v.map(|v| {
            let two = f32x4_pmax(v, i64x2_shuffle::<1, 1>(v, v));
            f32x4_extract_lane::<0>(two).max(f32x4_extract_lane::<1>(two))
        })
    }

    /// Returns the correctly rounded square root.
    fn sqrt(x: f32) -> f32 {
        f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
    }

    /// Returns whether the nearest integer of an estimate may differ from that of the quotient: never, since it is the
    /// quotient.
    fn is_doubtful(_x: [Estimates; BLOCK]) -> bool {
        false
    }

    /// 16 int8 as f32.
    fn widen(q: &[i8; 16]) -> V {
        // SAFETY: reads the 16 elements of `q`.
        let q = unsafe { v128_load(q.as_ptr().cast()) };
        let (low, high) = (i16x8_extend_low_i8x16(q), i16x8_extend_high_i8x16(q));
        [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ]
        .map(|q| f32x4_convert_i32x4(q))
    }

    /// Adds each lane, rounded half to even, to a sum. The lanes fit in 32 bits.
    fn accumulate(v: V, sums: &mut [i64; 16]) {
        for (v, sums) in v.into_iter().zip(sums.as_chunks_mut::<4>().0) {
            let (steps, sums) = (i32x4_trunc_sat_f32x4(f32x4_nearest(v)), sums.as_mut_ptr().cast::<v128>());
            // SAFETY: reads and writes the 4 elements of `sums`, two vectors.
            unsafe {
                v128_store(sums, i64x2_add(v128_load(sums), i64x2_extend_low_i32x4(steps)));
                v128_store(sums.add(1), i64x2_add(v128_load(sums.add(1)), i64x2_extend_high_i32x4(steps)));
            }
        }
    }
}
