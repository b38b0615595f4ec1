//! Sixteen f32 in four registers of NEON, and the primitive operations of this backend.
//!
//! NEON's f32 operations are the IEEE 754 ones on each lane, including subnormal numbers. Multiplications and additions
//! are separate and the compiler does not contract them.

use core::arch::aarch64::*;
use core::arch::asm;
use core::array::from_fn;

use crate::backend::simd::{lanewise, parts, primitives, whole};

/// Sixteen f32.
pub(super) type V = [float32x4_t; 4];
/// Sixteen f32 that become bytes: quotients, or products close to them.
pub(super) type Estimates = V;
/// A vector reduced to its largest lane, for [`largest`].
pub(super) type Folded = f32;

/// XOR of a stored byte with this is the two's complement of `q`.
pub(super) const FLIP: u8 = 0;
/// Whether loading and storing a part of a vector takes one instruction.
pub(super) const MASKS: bool = false;
/// Vectors whose exponentials are computed together.
pub(super) const WIDE: usize = 1;
/// Number of sums that a convolution keeps in registers.
pub(super) const SUMS: usize = 4;
/// Number of rows that are normalized together, so that the dependent instructions of one fill the gaps of another.
pub(super) const ROWS: usize = 4;
/// Number of vectors that are rounded together.
pub(super) const BLOCK: usize = 1;

/// A product this close to an integer rounds to the same integer as the quotient: 1/2 − 2⁻¹⁴.
const NEAR: f32 = 0.499_938_96;

/// Loads 16 f32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load_from(x: *const f32) -> V {
    // SAFETY: the caller's.
    from_fn(|i| unsafe { vld1q_f32(x.add(4 * i)) })
}

/// Stores 16 f32.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store_to(v: V, out: *mut f32) {
    for (i, v) in v.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { vst1q_f32(out.add(4 * i), v) };
    }
}

/// Stores the integer nearest to each lane, halves to even, as a byte.
///
/// # Safety
/// 16 bytes can be written.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store_bytes([x]: [Estimates; BLOCK], out: *mut u8) {
    let n = x.map(|x| vreinterpretq_s16_s32(vcvtnq_s32_f32(x)));
    let [low, high] = [(n[0], n[1]), (n[2], n[3])].map(|(a, b)| vreinterpretq_u8_s16(vuzp1q_s16(a, b)));
    // SAFETY: the caller's.
    unsafe { vst1q_u8(out, vuzp1q_u8(low, high)) };
}

/// Prefetches `q`.
pub(super) fn prefetch(q: &[i8]) {
    const LINE: usize = 64;
    for line in q.chunks(LINE) {
        // SAFETY: a hint about an address in a slice; it changes neither memory nor registers.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly)) };
    }
}

whole!("neon");
parts!("neon");

lanewise! {
    "neon":
    add(a, b) = vaddq_f32(a, b);
    sub(a, b) = vsubq_f32(a, b);
    mul(a, b) = vmulq_f32(a, b);
    div(a, b) = vdivq_f32(a, b);
    /// The smaller one, unless both are zero; of NaN and a number, the number.
    min(a, b) = vminnmq_f32(a, b);
    /// The larger one, unless both are zero; of NaN and a number, the number.
    max(a, b) = vmaxnmq_f32(a, b);
    /// `a > b ? a : b`, of two zeros `b`.
    larger(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
    abs(a) = vabsq_f32(a);
    negate(a) = vnegq_f32(a);
    /// `x·y + z`, where the product is exact.
    mul_add_exact(x, y, z) = vaddq_f32(vmulq_f32(x, y), z);
    /// `y·2ⁿ` by adding to the exponent; the result is normal. `n` is in the last bits of the f32 `n + 1.5·2²³`.
    scaled(y, shifted) = vreinterpretq_f32_s32(
        vaddq_s32(vreinterpretq_s32_f32(y), vshlq_n_s32::<23>(vreinterpretq_s32_f32(shifted))));
    /// `x` times `1 / step`, within 2⁻¹⁴ of `x / step`.
    estimate(x, _step, inverse) = vmulq_f32(x, inverse);
    /// `x / step`.
    quotient(x, step) = vdivq_f32(x, step);
}

primitives! {
    "neon":
    /// Returns a vector with all lanes `x`.
    fn splat(x: f32) -> V {
        [vdupq_n_f32(x); 4]
    }

    /// Returns the sum of all lanes: `lane[i] += lane[i + 8]`, then 4, 2, 1.
    fn sum(v: V) -> f32 {
        let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
        let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
    }

    /// Returns the largest lane; no lane is NaN.
    fn fold_max(v: V) -> Folded {
        vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(v[0], v[1]), vmaxnmq_f32(v[2], v[3])))
    }

    /// Returns the largest lane of each of four vectors.
    fn largest(v: [Folded; 4]) -> [f32; 4] {
        v
    }

    /// Returns the correctly rounded square root.
    fn sqrt(x: f32) -> f32 {
        vget_lane_f32::<0>(vsqrt_f32(vdup_n_f32(x)))
    }

    /// Returns whether the nearest integer of an estimate may differ from that of the quotient. NaN is never near.
    fn is_doubtful(x: [Estimates; BLOCK]) -> bool {
        let near = x[0].map(|x| vcltq_f32(vabdq_f32(x, vrndnq_f32(x)), vdupq_n_f32(NEAR)));
        vminvq_u32(vandq_u32(vandq_u32(near[0], near[1]), vandq_u32(near[2], near[3]))) == 0
    }

    /// 16 int8 as f32.
    fn widen(q: &[i8; 16]) -> V {
        // SAFETY: reads the 16 elements of `q`.
        let q = unsafe { vld1q_s8(q.as_ptr()) };
        let (low, high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
        [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
            .map(|q| vcvtq_f32_s32(q))
    }

    /// Adds each lane, rounded half to even, to a sum. The lanes fit in 32 bits.
    fn accumulate(v: V, sums: &mut [i64; 16]) {
        for (v, sums) in v.into_iter().zip(sums.as_chunks_mut::<4>().0) {
            let (steps, sums) = (vcvtnq_s32_f32(v), sums.as_mut_ptr());
            // SAFETY: reads and writes the 4 elements of `sums`.
            unsafe {
                vst1q_s64(sums, vaddw_s32(vld1q_s64(sums), vget_low_s32(steps)));
                vst1q_s64(sums.add(2), vaddw_high_s32(vld1q_s64(sums.add(2)), steps));
            }
        }
    }
}
