//! Vectors of 16 and 4 elements: loads, stores, and the two operations with an order of their own, `exp` and the sum.

use core::arch::wasm32::*;
use core::array::from_fn;

use crate::backend::scalar;

/// The 16 virtual lanes of a sum, or 16 elements of a row.
pub(super) type Lanes = [v128; 4];

/// Elements in [`Lanes`].
pub(super) const WIDTH: usize = 16;

/// Loads 4 · `N` elements from the start of `x`, none if there are fewer.
#[inline]
pub(super) fn load_first<const N: usize>(x: &[f32]) -> Option<[v128; N]> {
    // SAFETY: x has 4·N elements.
    (x.len() >= 4 * N).then(|| from_fn(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) }))
}

/// Loads 16 elements.
#[inline]
pub(super) fn load(x: &[f32; WIDTH]) -> Lanes {
    // SAFETY: x has 16 elements.
    from_fn(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) })
}

/// Stores 4 · `N` elements at the start of `out`, none if there is less room.
#[inline]
pub(super) fn store_first<const N: usize>(out: &mut [f32], v: [v128; N]) {
    if out.len() >= 4 * N {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: out has 4·N elements.
            unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), v) };
        }
    }
}

/// Stores 16 elements.
#[inline]
pub(super) fn store(out: &mut [f32; WIDTH], v: Lanes) {
    store_first(out, v);
}

/// `x < most ? x : most`, so that NaN becomes `most`.
#[inline]
pub(super) fn at_most(x: v128, most: f32) -> v128 {
    f32x4_pmin(f32x4_splat(most), x)
}

/// `x > least ? x : least`, so that NaN becomes `least`.
#[inline]
pub(super) fn at_least(x: v128, least: v128) -> v128 {
    f32x4_pmax(least, x)
}

/// [`scalar::exp`] of each element.
#[inline]
pub(super) fn exp(x: v128) -> v128 {
    let x = at_least(at_most(x, scalar::EXP_HIGH), f32x4_splat(scalar::EXP_LOW));
    let round = f32x4_splat(scalar::ROUND);
    let n = f32x4_sub(f32x4_add(f32x4_mul(x, f32x4_splat(core::f32::consts::LOG2_E)), round), round);
    let r = f32x4_sub(x, f32x4_mul(n, f32x4_splat(scalar::LN_2[0])));
    let r = f32x4_sub(r, f32x4_mul(n, f32x4_splat(scalar::LN_2[1])));
    let [first, next @ ..] = scalar::EXP_POLYNOMIAL;
    let mut p = f32x4_splat(first);
    for c in next {
        p = f32x4_add(f32x4_mul(p, r), f32x4_splat(c));
    }
    let y = f32x4_add(f32x4_add(f32x4_mul(p, f32x4_mul(r, r)), r), f32x4_splat(1.0));
    let power = i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23);
    f32x4_mul(y, power)
}

/// Sum of `f(x)` over a row in the order of the 16 virtual lanes.
#[inline]
pub(super) fn sum(row: &[f32], f: impl Fn(v128) -> v128) -> f32 {
    let mut lanes = [f32x4_splat(0.0); 4];
    let (chunks, rest) = row.as_chunks();
    for chunk in chunks {
        let x = load(chunk);
        lanes = from_fn(|i| f32x4_add(lanes[i], f(x[i])));
    }
    if !rest.is_empty() {
        let (mut padded, mut there) = ([0.0; WIDTH], [0.0; WIDTH]);
        for ((p, t), &x) in padded.iter_mut().zip(&mut there).zip(rest) {
            (*p, *t) = (x, 1.0);
        }
        let (x, there) = (load(&padded), load(&there));
        // Lanes behind the end stay as they are.
        lanes =
            from_fn(|i| v128_bitselect(f32x4_add(lanes[i], f(x[i])), lanes[i], f32x4_gt(there[i], f32x4_splat(0.0))));
    }
    let four = f32x4_add(f32x4_add(lanes[0], lanes[2]), f32x4_add(lanes[1], lanes[3]));
    (f32x4_extract_lane::<0>(four) + f32x4_extract_lane::<2>(four))
        + (f32x4_extract_lane::<1>(four) + f32x4_extract_lane::<3>(four))
}
