//! Depthwise convolutions: a block of channels is kept in registers over all taps.

use core::arch::aarch64::*;
use core::array::from_fn;

use super::lanes::store_first;
use crate::backend::{Window, scalar};

/// Elements from the first to behind the last that a convolution with `rows` output rows reads, if `usize` can hold it.
fn extent(window: Window, rows: usize) -> Option<usize> {
    let last = window.taps.checked_sub(1)?.checked_mul(window.dilation)?;
    last.checked_add(rows)?.checked_mul(window.channels)
}

/// `w₀·x₀`, then `+ wⱼ·xⱼ` for `4·N` channels. `x` begins at the first row's channel, its taps are `x_step` apart.
/// `BROADCAST`: `w` holds one weight a tap, else `w` begins at the channel's first weight and its taps are `w_step` apart.
#[inline]
#[target_feature(enable = "neon")]
fn block<const N: usize, const BROADCAST: bool>(
    x: &[f32],
    x_step: usize,
    w: &[f32],
    w_step: usize,
    taps: usize,
) -> Option<[float32x4_t; N]> {
    let last = taps.checked_sub(1)?;
    let wide = if BROADCAST { 1 } else { 4 * N };
    let x_end = last.checked_mul(x_step)?.checked_add(4 * N)?;
    let w_end = last.checked_mul(w_step)?.checked_add(wide)?;
    if x_end > x.len() || w_end > w.len() {
        return None;
    }
    // SAFETY: called with j < taps and i < N, so that the elements end at x_end and w_end at most.
    let product = |j: usize, i: usize| unsafe {
        let x = vld1q_f32(x.as_ptr().add(j * x_step + 4 * i));
        let w = w.as_ptr().add(j * w_step);
        if BROADCAST { vmulq_n_f32(x, *w) } else { vmulq_f32(x, vld1q_f32(w.add(4 * i))) }
    };
    let mut sum = from_fn(|i| product(0, i));
    for j in 1..taps {
        sum = from_fn(|i| vaddq_f32(sum[i], product(j, i)));
    }
    Some(sum)
}

/// One row of `out`, which `x` and `w` begin together with; arguments as for [`block`].
#[inline]
#[target_feature(enable = "neon")]
fn row<const BROADCAST: bool>(x: &[f32], x_step: usize, w: &[f32], w_step: usize, taps: usize, out: &mut [f32]) {
    let mut at = 0;
    while at < out.len() {
        let (x, out) = (x.get(at..).unwrap_or_default(), out.get_mut(at..).unwrap_or_default());
        let w = if BROADCAST { w } else { w.get(at..).unwrap_or_default() };
        if out.len() >= 16 {
            if let Some(y) = block::<4, BROADCAST>(x, x_step, w, w_step, taps) {
                store_first(out, y);
            }
            at += 16;
        } else if out.len() >= 4 {
            if let Some(y) = block::<1, BROADCAST>(x, x_step, w, w_step, taps) {
                store_first(out, y);
            }
            at += 4;
        } else {
            for (c, y) in out.iter_mut().enumerate() {
                for j in 0..taps {
                    let w = w.get(j * w_step + if BROADCAST { 0 } else { c });
                    let product = w.copied().unwrap_or(0.0) * x.get(j * x_step + c).copied().unwrap_or(0.0);
                    *y = if j == 0 { product } else { *y + product };
                }
            }
            return;
        }
    }
}

/// [`Backend::convolve_shared`](crate::backend::Backend::convolve_shared).
#[target_feature(enable = "neon")]
pub(super) fn shared(x: &[f32], window: Window, taps: &[f32], taps_stride: usize, heads: usize, out: &mut [f32]) {
    let Window { channels, taps: k, dilation } = window;
    let rows = out.len().checked_div(channels).unwrap_or(0);
    let own = rows.saturating_sub(1).checked_mul(taps_stride);
    let weights = heads.checked_mul(k).zip(own).and_then(|(one, own)| one.checked_add(own));
    let steps = heads.checked_add(1).and_then(|heads| heads.checked_mul(channels));
    let fits = extent(window, rows).is_some_and(|n| n <= x.len()) && weights.is_some_and(|n| n <= taps.len());
    if channels == 0 || rows == 0 || k == 0 || dilation == 0 || heads == 0 || steps.is_none() || !fits {
        return (scalar::KERNELS.convolve_shared)(x, window, taps, taps_stride, heads, out);
    }
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let (mut x, mut out) = (x.get(r * channels..).unwrap_or_default(), out);
        let mut taps = taps.get(r * taps_stride..).unwrap_or_default().chunks_exact(k);
        let mut start = 0;
        for head in 1..=heads {
            // The first channel with ⌊c·heads / C⌋ = head.
            let end = (head * channels).div_ceil(heads);
            let (these, others) = out.split_at_mut_checked(end - start).unwrap_or_default();
            row::<true>(x, dilation * channels, taps.next().unwrap_or_default(), 1, k, these);
            x = x.get(end - start..).unwrap_or_default();
            (out, start) = (others, end);
        }
    }
}

/// [`Backend::convolve_channels`](crate::backend::Backend::convolve_channels).
#[target_feature(enable = "neon")]
pub(super) fn channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
    let Window { channels, taps: k, dilation } = window;
    let rows = out.len().checked_div(channels).unwrap_or(0);
    let weights = k.checked_mul(channels);
    let fits = extent(window, rows).is_some_and(|n| n <= x.len()) && weights.is_some_and(|n| n <= taps.len());
    if channels == 0 || rows == 0 || k == 0 || dilation == 0 || !fits {
        return (scalar::KERNELS.convolve_channels)(x, window, taps, out);
    }
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = x.get(r * channels..).unwrap_or_default();
        row::<false>(x, dilation * channels, taps, channels, k, out);
    }
}
