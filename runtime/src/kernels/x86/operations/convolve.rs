//! Depthwise convolutions: sums of a few vectors stay in registers while the taps pass.

/// Defines the operations with the target features `$features`, in terms of the names of `super::vector`.
macro_rules! convolve {
    ($features:literal) => {
        use super::vector::*;
        use crate::kernels::Window;

        /// Half as many sums as a convolution can keep.
        const HALF_SUMS: usize = SUMS / 2;

        /// `w₀·x₀`, then `+= wⱼ·xⱼ`, for the `N` vectors of columns at the start of `x`, whose rows are `step` apart.
        #[inline]
        #[target_feature(enable = $features)]
        fn convolve_shared_block<const N: usize>(x: &[f32], step: usize, weights: &[f32], out: &mut [[f32; 16]]) {
            let Some((&first, weights)) = weights.split_first() else { return };
            if x.len() < weights.len().saturating_mul(step).saturating_add(16 * N) {
                return;
            }
            let mut sums = [splat(0.0); N];
            let mut row = x.as_ptr();
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: row 0 of `x` has 16 · N elements.
                *sum = mul(splat(first), unsafe { load_from(row.add(16 * i)) });
            }
            for &w in weights {
                // SAFETY: so has row j, j < number of weights: checked above.
                row = unsafe { row.add(step) };
                for (i, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *sum = add(*sum, mul(splat(w), unsafe { load_from(row.add(16 * i)) }));
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                store(sum, out);
            }
        }

        /// One row of one head: all columns of `out`.
        #[target_feature(enable = $features)]
        fn convolve_shared_row(x: &[f32], step: usize, weights: &[f32], out: &mut [f32]) {
            let columns = out.len();
            let mut rest = x;
            let mut parts = out.as_chunks_mut::<16>().0;
            while !parts.is_empty() {
                let n = match parts.len() {
                    SUMS.. => SUMS,
                    HALF_SUMS.. => HALF_SUMS,
                    _ => 1,
                };
                let Some(block) = parts.split_off_mut(..n) else { return };
                match n {
                    SUMS => convolve_shared_block::<SUMS>(rest, step, weights, block),
                    HALF_SUMS => convolve_shared_block::<HALF_SUMS>(rest, step, weights, block),
                    _ => convolve_shared_block::<1>(rest, step, weights, block),
                }
                rest = rest.get(16 * n..).unwrap_or_default();
            }
            if columns.is_multiple_of(16) {
                return;
            }
            // The last columns: a vector that overlaps the one before, or else a part of one.
            if let Some(last) = out.last_chunk_mut::<16>() {
                let x = x.get(columns - 16..).unwrap_or_default();
                convolve_shared_block::<1>(x, step, weights, core::slice::from_mut(last));
            } else {
                let mut sum = splat(0.0);
                for (j, &w) in weights.iter().enumerate() {
                    let x = x.get(j * step..).and_then(|x| x.get(..columns)).unwrap_or_default();
                    let product = mul(splat(w), load_part(x));
                    sum = if j == 0 { product } else { add(sum, product) };
                }
                store_part(sum, out);
            }
        }

        /// See [`crate::kernels::Kernels::convolve_shared`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn convolve_shared(
            x: &[f32],
            window: Window,
            taps: &[f32],
            taps_stride: usize,
            heads: usize,
            out: &mut [f32],
        ) {
            let Window { channels, taps: k, dilation } = window;
            let heads = heads.max(1);
            let step = channels.saturating_mul(dilation);
            let (mut x, mut taps, mut out) = (x, taps, out);
            for _ in 0..window.rows(x.len()) {
                let Some(mut row) = out.split_off_mut(..channels) else { return };
                let (mut weights, mut from) = (taps, 0);
                for h in 1..=heads {
                    // Channel c has kernel ⌊c·heads / C⌋: the first of kernel h is ⌈h·C / heads⌉.
                    let end = (h * channels).div_ceil(heads);
                    let (Some(head), Some(w)) = (row.split_off_mut(..end - from), weights.split_off(..k)) else {
                        return;
                    };
                    convolve_shared_row(x.get(from..).unwrap_or_default(), step, w, head);
                    from = end;
                }
                x = x.get(channels..).unwrap_or_default();
                taps = taps.get(taps_stride..).unwrap_or_default();
            }
        }

        /// As [`convolve_shared_block`], with weights of `channels` to a tap, for `R` rows of `N` vectors. `out` begins
        /// at the first of them, like `x` and `weights`.
        #[inline]
        #[target_feature(enable = $features)]
        fn convolve_channels_block<const R: usize, const N: usize>(
            x: &[f32],
            window: Window,
            weights: &[f32],
            out: &mut [f32],
        ) {
            let Window { channels, taps, dilation } = window;
            let step = channels.saturating_mul(dilation);
            let before = taps.saturating_sub(1);
            let block = (R - 1).saturating_mul(channels).saturating_add(16 * N);
            if taps == 0
                || x.len() < before.saturating_mul(step).saturating_add(block)
                || weights.len() < before.saturating_mul(channels).saturating_add(16 * N)
                || out.len() < block
            {
                return;
            }
            let mut sums = [[splat(0.0); N]; R];
            for j in 0..taps {
                let mut w = [splat(0.0); N];
                for (i, w) in w.iter_mut().enumerate() {
                    // SAFETY: row j of `weights` has 16 · N elements.
                    *w = unsafe { load_from(weights.as_ptr().add(j * channels + 16 * i)) };
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (i, (sum, &w)) in sums.iter_mut().zip(&w).enumerate() {
                        // SAFETY: so has row j·dilation + r of `x`, j < taps and r < R: checked above.
                        let product = mul(w, unsafe { load_from(x.as_ptr().add(j * step + r * channels + 16 * i)) });
                        *sum = if j == 0 { product } else { add(*sum, product) };
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (i, sum) in sums.into_iter().enumerate() {
                    // SAFETY: `out` has R rows like those of `x`.
                    unsafe { store_to(sum, out.as_mut_ptr().add(r * channels + 16 * i)) };
                }
            }
        }

        /// See [`crate::kernels::Kernels::convolve_channels`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn convolve_channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
            let Window { channels, taps: k, dilation } = window;
            let rows = window.rows(x.len());
            if channels == 0 || k == 0 || taps.len() / channels < k {
                return;
            }
            let step = channels.saturating_mul(dilation).max(1);
            for (i, out) in out.chunks_mut(channels.saturating_mul(HALF_SUMS).max(1)).enumerate() {
                let first = i * HALF_SUMS;
                let count = (out.len() / channels).min(rows.saturating_sub(first));
                let mut c = 0;
                while c + 32 <= channels && count == HALF_SUMS {
                    let (x, w) = (x.get(first * channels + c..), taps.get(c..));
                    let (Some(x), Some(w), Some(out)) = (x, w, out.get_mut(c..)) else { return };
                    convolve_channels_block::<HALF_SUMS, 2>(x, window, w, out);
                    c += 32;
                }
                for r in 0..count {
                    let (x, w) = (x.get((first + r) * channels + c..), taps.get(c..));
                    let (Some(mut x), Some(mut w), Some(out)) = (x, w, out.get_mut(r * channels + c..)) else { return };
                    let out = out.split_at_mut_checked(channels - c).unwrap_or_default().0;
                    let (parts, last) = out.as_chunks_mut::<16>();
                    for part in parts {
                        convolve_channels_block::<1, 1>(x, window, w, part);
                        (x, w) = (x.get(16..).unwrap_or_default(), w.get(16..).unwrap_or_default());
                    }
                    if !last.is_empty() {
                        let mut sum = splat(0.0);
                        for (j, (w, x)) in w.chunks(channels.max(1)).zip(x.chunks(step)).take(k).enumerate() {
                            let (w, x) = (w.get(..last.len()), x.get(..last.len()));
                            let product = mul(load_part(w.unwrap_or_default()), load_part(x.unwrap_or_default()));
                            sum = if j == 0 { product } else { add(sum, product) };
                        }
                        store_part(sum, last);
                    }
                }
            }
        }
    };
}

pub(in crate::kernels::x86) use convolve;
