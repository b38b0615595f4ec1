//! Layer norm and RMS norm.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! norm {
    ($features:literal) => {
        use super::lanes::*;
        use crate::spec::NORM_EPS;

        /// Shared parameters of the rows of a block, and their positions.
        struct Block<'a> {
            columns: usize,
            gain: &'a [f32],
            /// Empty for RMS norm.
            shift: &'a [f32],
        }

        /// Processes all rows, [`ROWS`] at a time and then one by one; `centred` selects the layer norm.
        #[inline]
        #[target_feature(enable = $features)]
        fn for_rows(x: &[f32], out: &mut [f32], block: &Block<'_>, centred: bool) {
            let Block { columns, .. } = *block;
            let rows = x.len().min(out.len()).checked_div(columns).unwrap_or(0);
            let (mut x, mut out) = (x.as_ptr(), out.as_mut_ptr());
            let mut left = rows;
            while left > 0 {
                let n = if left < ROWS { 1 } else { ROWS };
                // SAFETY: `left` rows of `x` and of `out` are there, n ≤ left.
                unsafe {
                    match (n, centred) {
                        (1, true) => layer_rows::<1>(x, block, out),
                        (1, false) => rms_rows::<1>(x, block, out),
                        (_, true) => layer_rows::<ROWS>(x, block, out),
                        (_, false) => rms_rows::<ROWS>(x, block, out),
                    }
                    (x, out) = (x.add(n * columns), out.add(n * columns));
                }
                left -= n;
            }
        }

        /// Returns sums over `R` rows: 16 lanes from +0, then [`sum`]. With `mean`, of the elements' distances from it;
        /// with `SQUARED`, of the squares.
        ///
        /// # Safety
        /// `x` can be read for `R` rows of `columns` elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn totals<const R: usize, const SQUARED: bool>(
            x: *const f32,
            columns: usize,
            mean: Option<[f32; R]>,
        ) -> [f32; R] {
            let means = mean.map(|mean| mean.map(|mean| splat(mean)));
            let distance = |v, r: usize| means.map_or(v, |means| sub(v, means[r]));
            let term = |d| if SQUARED { mul(d, d) } else { d };
            // Rows in turn: the sum of one row is a chain of dependent instructions.
            let mut lanes = [splat(0.0); R];
            let mut c = 0;
            while c + 16 <= columns {
                for r in 0..R {
                    // SAFETY: 16 elements of row r from column c on.
                    let v = unsafe { load_from(x.add(r * columns + c)) };
                    lanes[r] = add(lanes[r], term(distance(v, r)));
                }
                c += 16;
            }
            if c < columns {
                let n = columns - c;
                for r in 0..R {
                    // SAFETY: what is left of row r, less than 16 elements.
                    let v = load_part(unsafe { core::slice::from_raw_parts(x.add(r * columns + c), n) });
                    // The lanes beyond the end add +0.
                    lanes[r] = add(lanes[r], term(keep(distance(v, r), n)));
                }
            }
            lanes.map(|lanes| sum(lanes))
        }

        /// `1 / sqrt(x / columns + eps)`.
        #[inline]
        #[target_feature(enable = $features)]
        fn inverse_root(x: f32, columns: usize) -> f32 {
            1.0 / sqrt(x / columns as f32 + NORM_EPS)
        }

        /// `R` rows of [`layer_norm`].
        ///
        /// # Safety
        /// `x` can be read and `out` written for `R` rows of `columns` elements, and `gain` and `shift` are as long as one.
        #[target_feature(enable = $features)]
        unsafe fn layer_rows<const R: usize>(x: *const f32, block: &Block<'_>, out: *mut f32) {
            let Block { columns, gain, shift } = *block;
            // SAFETY: R rows.
            let (mean, inverse) = unsafe {
                let mean = totals::<R, false>(x, columns, None).map(|sum| sum / columns as f32);
                (mean, totals::<R, true>(x, columns, Some(mean)).map(|sum| inverse_root(sum, columns)))
            };
            let (mean, inverse) = (mean.map(|mean| splat(mean)), inverse.map(|inverse| splat(inverse)));
            let mut c = 0;
            while c + 16 <= columns {
                // SAFETY: 16 elements of each row, of `gain` and of `shift` from column c on.
                unsafe {
                    let (gain, shift) = (load_from(gain.as_ptr().add(c)), load_from(shift.as_ptr().add(c)));
                    for r in 0..R {
                        let (x, out) = (x.add(r * columns + c), out.add(r * columns + c));
                        let y = mul(mul(sub(load_from(x), mean[r]), inverse[r]), gain);
                        store_to(add(load_from(out), add(y, shift)), out);
                    }
                }
                c += 16;
            }
            if c < columns {
                let (gain, shift) = (gain.get(c..).unwrap_or_default(), shift.get(c..).unwrap_or_default());
                let (gain, shift) = (load_part(gain), load_part(shift));
                for r in 0..R {
                    // SAFETY: what is left of row r, less than 16 elements.
                    let (x, out) = unsafe {
                        let at = r * columns + c;
                        let n = columns - c;
                        (core::slice::from_raw_parts(x.add(at), n), core::slice::from_raw_parts_mut(out.add(at), n))
                    };
                    let y = mul(mul(sub(load_part(x), mean[r]), inverse[r]), gain);
                    store_part(add(load_part(out), add(y, shift)), out);
                }
            }
        }

        /// `R` rows of [`rms_norm`].
        ///
        /// # Safety
        /// As [`layer_rows`]; `shift` is not read.
        #[target_feature(enable = $features)]
        unsafe fn rms_rows<const R: usize>(x: *const f32, block: &Block<'_>, out: *mut f32) {
            let Block { columns, gain, .. } = *block;
            // SAFETY: R rows.
            let inverse = unsafe { totals::<R, true>(x, columns, None) }.map(|sum| inverse_root(sum, columns));
            let inverse = inverse.map(|inverse| splat(inverse));
            let mut c = 0;
            while c + 16 <= columns {
                // SAFETY: 16 elements of each row and of `gain` from column c on.
                unsafe {
                    let gain = load_from(gain.as_ptr().add(c));
                    for r in 0..R {
                        let (x, out) = (x.add(r * columns + c), out.add(r * columns + c));
                        store_to(mul(mul(load_from(x), inverse[r]), gain), out);
                    }
                }
                c += 16;
            }
            if c < columns {
                let gain = load_part(gain.get(c..).unwrap_or_default());
                for r in 0..R {
                    // SAFETY: what is left of row r, less than 16 elements.
                    let (x, out) = unsafe {
                        let at = r * columns + c;
                        let n = columns - c;
                        (core::slice::from_raw_parts(x.add(at), n), core::slice::from_raw_parts_mut(out.add(at), n))
                    };
                    store_part(mul(mul(load_part(x), inverse[r]), gain), out);
                }
            }
        }

        /// See [`crate::backend::Backend::layer_norm`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
            let Some(shift) = shift.get(..gain.len()) else { return };
            for_rows(x, out, &Block { columns: gain.len(), gain, shift }, true);
        }

        /// See [`crate::backend::Backend::rms_norm`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
            for_rows(x, out, &Block { columns: gain.len(), gain, shift: &[] }, false);
        }
    };
}

pub(in crate::backend) use norm;
