//! Vectors of 16 and 4 elements: loads, stores, and the two operations with an order of their own, `exp` and the sum.

use core::arch::aarch64::*;
use core::array::from_fn;

use crate::backend::scalar;

/// The 16 virtual lanes of a sum, or 16 elements of a row.
pub(super) type Lanes = [float32x4_t; 4];

/// Elements in [`Lanes`].
pub(super) const WIDTH: usize = 16;

/// Loads 4 · `N` elements from the start of `x`, none if there are fewer.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_first<const N: usize>(x: &[f32]) -> Option<[float32x4_t; N]> {
    // SAFETY: x has 4·N elements.
    (x.len() >= 4 * N).then(|| from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) }))
}

/// Loads 16 elements.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(x: &[f32; WIDTH]) -> Lanes {
    // SAFETY: x has 16 elements.
    from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
}

/// Stores 4 · `N` elements at the start of `out`, none if there is less room.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_first<const N: usize>(out: &mut [f32], v: [float32x4_t; N]) {
    if out.len() >= 4 * N {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: out has 4·N elements.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), v) };
        }
    }
}

/// Stores 16 elements.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(out: &mut [f32; WIDTH], v: Lanes) {
    store_first(out, v);
}

/// [`scalar::exp`] of each element.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp(x: float32x4_t) -> float32x4_t {
    let x = vminnmq_f32(x, vdupq_n_f32(scalar::EXP_HIGH));
    let x = vmaxnmq_f32(x, vdupq_n_f32(scalar::EXP_LOW));
    let round = vdupq_n_f32(scalar::ROUND);
    let n = vsubq_f32(vaddq_f32(vmulq_n_f32(x, core::f32::consts::LOG2_E), round), round);
    let r = vsubq_f32(x, vmulq_n_f32(n, scalar::LN_2[0]));
    let r = vsubq_f32(r, vmulq_n_f32(n, scalar::LN_2[1]));
    let [first, next @ ..] = scalar::EXP_POLYNOMIAL;
    let mut p = vdupq_n_f32(first);
    for c in next {
        p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(c));
    }
    let y = vaddq_f32(vaddq_f32(vmulq_f32(p, vmulq_f32(r, r)), r), vdupq_n_f32(1.0));
    let power = vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
    vmulq_f32(y, vreinterpretq_f32_s32(power))
}

/// Sum of `f(x)` over a row in the order of the 16 virtual lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sum(row: &[f32], f: impl Fn(float32x4_t) -> float32x4_t) -> f32 {
    let mut lanes = [vdupq_n_f32(0.0); 4];
    let (chunks, rest) = row.as_chunks();
    for chunk in chunks {
        let x = load(chunk);
        lanes = from_fn(|i| vaddq_f32(lanes[i], f(x[i])));
    }
    if !rest.is_empty() {
        let (mut padded, mut there) = ([0.0; WIDTH], [0.0; WIDTH]);
        for ((p, t), &x) in padded.iter_mut().zip(&mut there).zip(rest) {
            (*p, *t) = (x, 1.0);
        }
        let (x, there) = (load(&padded), load(&there));
        lanes = from_fn(|i| vbslq_f32(vcgtzq_f32(there[i]), vaddq_f32(lanes[i], f(x[i])), lanes[i]));
    }
    let four = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}
