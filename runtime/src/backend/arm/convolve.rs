//! Depthwise convolutions: the sums of neighbouring channels stay in registers over all taps.

use core::array::from_fn;

use crate::backend::scalar;
use crate::backend::table::Window;

/// Channels computed together.
const BLOCK: usize = 16;

/// `N` neighbours from the start of `x`, those `step` elements further on, and so on while there are any.
#[inline]
fn strided<const N: usize>(x: &[f32], step: usize) -> impl Iterator<Item = [f32; N]> {
    let mut rest = x;
    core::iter::from_fn(move || {
        let first = rest.first_chunk()?;
        rest = rest.get(step..).unwrap_or_default();
        Some(*first)
    })
}

/// `w₀·x₀`, then `+ wⱼ·xⱼ` for each further pair.
#[inline]
fn block<const N: usize>(x: impl Iterator<Item = [f32; N]>, w: impl Iterator<Item = [f32; N]>, out: &mut [f32; N]) {
    let mut taps = x.zip(w);
    let Some((x, w)) = taps.next() else { return };
    let mut y: [f32; N] = from_fn(|c| w[c] * x[c]);
    for (x, w) in taps {
        for c in 0..N {
            y[c] += w[c] * x[c];
        }
    }
    *out = y;
}

/// [`Backend::convolve_shared`](crate::backend::Backend::convolve_shared).
pub(super) fn shared(x: &[f32], window: Window, taps: &[f32], taps_stride: usize, heads: usize, out: &mut [f32]) {
    let Window { channels, taps: k, dilation } = window;
    let rows = out.len().checked_div(channels).unwrap_or(0);
    let enough = rows.saturating_sub(1).saturating_mul(taps_stride).saturating_add(heads.saturating_mul(k));
    let even = channels.checked_rem(heads) == Some(0);
    if rows == 0 || k == 0 || !even || window.rows(x.len()) < rows || taps.len() < enough {
        return (scalar::TABLE.convolve_shared)(x, window, taps, taps_stride, heads, out);
    }
    let (step, width) = (dilation * channels, channels.checked_div(heads).unwrap_or(0));
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = x.get(r * channels..).unwrap_or_default();
        let taps = taps.get(r * taps_stride..).unwrap_or_default();
        let heads = taps.chunks_exact(k).zip(out.chunks_exact_mut(width.max(1)));
        for (h, (taps, out)) in heads.enumerate() {
            let x = x.get(h * width..).unwrap_or_default();
            let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
            let first_of_rest = blocks.len() * BLOCK;
            for (b, out) in blocks.iter_mut().enumerate() {
                let x = x.get(b * BLOCK..).unwrap_or_default();
                block(strided(x, step), taps.iter().map(|&w| [w; BLOCK]), out);
            }
            for (c, out) in rest.iter_mut().enumerate() {
                let x = x.get(first_of_rest + c..).unwrap_or_default();
                block(strided(x, step), taps.iter().map(|&w| [w]), core::array::from_mut(out));
            }
        }
    }
}

/// [`Backend::convolve_channels`](crate::backend::Backend::convolve_channels).
pub(super) fn channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
    let Window { channels, taps: k, dilation } = window;
    let rows = out.len().checked_div(channels).unwrap_or(0);
    if rows == 0 || k == 0 || window.rows(x.len()) < rows || taps.len() < k.saturating_mul(channels) {
        return (scalar::TABLE.convolve_channels)(x, window, taps, out);
    }
    let step = dilation * channels;
    for (r, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = x.get(r * channels..).unwrap_or_default();
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        let first_of_rest = blocks.len() * BLOCK;
        for (b, out) in blocks.iter_mut().enumerate() {
            let (x, taps) = (x.get(b * BLOCK..).unwrap_or_default(), taps.get(b * BLOCK..).unwrap_or_default());
            block(strided(x, step), strided(taps, channels).take(k), out);
        }
        for (c, out) in rest.iter_mut().enumerate() {
            let c = first_of_rest + c;
            let (x, taps) = (x.get(c..).unwrap_or_default(), taps.get(c..).unwrap_or_default());
            block(strided(x, step), strided(taps, channels).take(k), core::array::from_mut(out));
        }
    }
}
