//! Depthwise convolutions: sums of a few vectors stay in registers over all taps.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! convolve {
    ($features:literal) => {
        use super::lanes::*;
        use crate::backend::table::Window;

        /// Half the number of sums that a convolution can keep.
        const HALF_SUMS: usize = SUMS / 2;

        /// One head of [`convolve_shared`] from one of its columns on. All slices begin there, `taps` with the head's
        /// first weight; rows of `x` and `out` are `channels` apart.
        struct Head<'a> {
            x: &'a [f32],
            window: Window,
            taps: &'a [f32],
            taps_stride: usize,
            rows: usize,
        }

        impl Head<'_> {
            /// Returns whether `x`, `taps` and an `out` of `out_len` elements hold all rows of `columns` elements.
            fn fits(&self, columns: usize, out_len: usize) -> bool {
                let Window { channels, taps, dilation } = self.window;
                let (Some(last), Some(before)) = (self.rows.checked_sub(1), taps.checked_sub(1)) else { return false };
                let out = last.saturating_mul(channels).saturating_add(columns);
                let x = before.saturating_mul(channels).saturating_mul(dilation).saturating_add(out);
                let weights = last.saturating_mul(self.taps_stride).saturating_add(taps);
                x <= self.x.len() && weights <= self.taps.len() && out <= out_len
            }
        }

        /// `w₀·x₀`, then `+= wⱼ·xⱼ`, in `N` vectors of columns of all rows.
        #[target_feature(enable = $features)]
        fn convolve_shared_columns<const N: usize>(head: &Head<'_>, out: &mut [f32]) {
            if !head.fits(16 * N, out.len()) {
                return;
            }
            let Window { channels, taps, dilation } = head.window;
            for r in 0..head.rows {
                // SAFETY: x, taps and out hold N vectors of row r, x also those of the rows j·dilation behind it, j < taps.
                unsafe {
                    let mut x = head.x.as_ptr().add(r * channels);
                    let w = head.taps.as_ptr().add(r * head.taps_stride);
                    let first = splat(*w);
                    let mut sums = [first; N];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = mul(first, load_from(x.add(16 * i)));
                    }
                    for j in 1..taps {
                        x = x.add(channels * dilation);
                        let w = splat(*w.add(j));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            *sum = add(*sum, mul(w, load_from(x.add(16 * i))));
                        }
                    }
                    let out = out.as_mut_ptr().add(r * channels);
                    for (i, sum) in sums.into_iter().enumerate() {
                        store_to(sum, out.add(16 * i));
                    }
                }
            }
        }

        /// As [`convolve_shared_columns`] for less than a vector of columns.
        #[cold]
        #[target_feature(enable = $features)]
        fn convolve_shared_part(head: &Head<'_>, columns: usize, out: &mut [f32]) {
            let Window { channels, taps, dilation } = head.window;
            for r in 0..head.rows {
                let Some(out) = out.get_mut(r * channels..).and_then(|out| out.get_mut(..columns)) else { return };
                let mut sum = splat(0.0);
                for j in 0..taps {
                    let x = head.x.get((r + j * dilation) * channels..).and_then(|x| x.get(..columns));
                    let w = head.taps.get(r * head.taps_stride + j).copied().unwrap_or_default();
                    let product = mul(splat(w), load_part(x.unwrap_or_default()));
                    sum = if j == 0 { product } else { add(sum, product) };
                }
                store_part(sum, out);
            }
        }

        /// See [`crate::backend::Backend::convolve_shared`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn convolve_shared(
            x: &[f32],
            window: Window,
            taps: &[f32],
            taps_stride: usize,
            heads: usize,
            out: &mut [f32],
        ) {
            let Window { channels, taps: k, .. } = window;
            let heads = heads.max(1);
            let rows = window.rows(x.len()).min(out.len().checked_div(channels).unwrap_or(0));
            let mut from = 0;
            for h in 0..heads {
                // Channel c has kernel ⌊c·heads / C⌋: the first of the next kernel is ⌈(h + 1)·C / heads⌉.
                let end = ((h + 1) * channels).div_ceil(heads);
                let taps = taps.get(h * k..).unwrap_or_default();
                let columns = end - from;
                let mut c = from;
                while c < end {
                    // The last vector overlaps the previous one, if there is one.
                    let left = end - c;
                    if left < 16 && columns >= 16 {
                        c = end - 16;
                    }
                    let (Some(x), Some(out)) = (x.get(c..), out.get_mut(c..)) else { return };
                    let head = Head { x, window, taps, taps_stride, rows };
                    let vectors = match left / 16 {
                        SUMS.. => SUMS,
                        HALF_SUMS.. => HALF_SUMS,
                        _ => 1,
                    };
                    match vectors {
                        // The next heads overwrite what a vector has beyond a narrow head.
                        _ if columns < 16 && c + 16 > channels => convolve_shared_part(&head, columns, out),
                        SUMS => convolve_shared_columns::<SUMS>(&head, out),
                        HALF_SUMS => convolve_shared_columns::<HALF_SUMS>(&head, out),
                        _ => convolve_shared_columns::<1>(&head, out),
                    }
                    c += 16 * vectors;
                }
                from = end;
            }
        }

        /// The same with one kernel per channel, with weights `channels` apart from tap to tap, for `R` rows of `N`
        /// vectors. `out` begins at the first of them, like `x` and `weights`.
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
            // SAFETY: called with j < taps and i < N; row j of `weights` has 16 · N elements.
            let weight = |j: usize, i: usize| unsafe { load_from(weights.as_ptr().add(j * channels + 16 * i)) };
            // SAFETY: called with r < R as well; so has row j·dilation + r of `x`.
            let input = |j, r, i| unsafe { load_from(x.as_ptr().add(j * step + r * channels + 16 * i)) };
            let mut sums = [[splat(0.0); N]; R];
            for i in 0..N {
                let w = weight(0, i);
                for r in 0..R {
                    sums[r][i] = mul(w, input(0, r, i));
                }
            }
            for j in 1..taps {
                for i in 0..N {
                    let w = weight(j, i);
                    for r in 0..R {
                        sums[r][i] = add(sums[r][i], mul(w, input(j, r, i)));
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

        /// See [`crate::backend::Backend::convolve_channels`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn convolve_channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
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
                // Where two vectors of one row fill the registers, each has its turn below.
                while HALF_SUMS > 1 && c + 32 <= channels && count == HALF_SUMS {
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

pub(in crate::backend) use convolve;
