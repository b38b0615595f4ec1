//! Layer norm and RMS norm.

/// Defines the operations with the target features `$features`, in terms of the names of `super::vector`.
macro_rules! norm {
    ($features:literal) => {
        use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};

        use super::vector::*;
        use crate::spec::NORM_EPS;

        /// Rows that are worked on together, so that the chains of dependent instructions of one fill the gaps of another.
        const ROWS: usize = 4;

        /// The sum over a row: 16 lanes from +0, then [`sum`].
        #[inline]
        #[target_feature(enable = $features)]
        fn total(row: &[f32]) -> f32 {
            let (parts, rest) = row.as_chunks::<16>();
            let mut lanes = splat(0.0);
            for x in parts {
                lanes = add(lanes, load(x));
            }
            if !rest.is_empty() {
                lanes = add(lanes, load_part(rest));
            }
            sum(lanes)
        }

        /// The sum of `(x − from)²` over a row.
        #[inline]
        #[target_feature(enable = $features)]
        fn squares(row: &[f32], from: f32) -> f32 {
            let (parts, rest) = row.as_chunks::<16>();
            let (mut lanes, from) = (splat(0.0), splat(from));
            for x in parts {
                let d = sub(load(x), from);
                lanes = add(lanes, mul(d, d));
            }
            if !rest.is_empty() {
                // What is added to the lanes beyond the end is +0.
                let d = keep(sub(load_part(rest), from), rest.len());
                lanes = add(lanes, mul(d, d));
            }
            sum(lanes)
        }

        /// `1 / sqrt(x)`, two roundings.
        #[inline]
        #[target_feature(enable = $features)]
        fn inverse_root(x: f32) -> f32 {
            1.0 / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)))
        }

        /// The next rows of `x` and `out`; empty ones where there are no more.
        #[inline]
        fn next_rows<'a, 'b>(
            x: &mut &'a [f32],
            out: &mut &'b mut [f32],
            columns: usize,
        ) -> [(&'a [f32], &'b mut [f32]); ROWS] {
            let mut rows: [(&[f32], &mut [f32]); ROWS] = Default::default();
            for row in &mut rows {
                if let (Some(x), Some(out)) = (x.split_off(..columns), out.split_off_mut(..columns)) {
                    *row = (x, out);
                }
            }
            rows
        }

        /// See [`crate::kernels::Kernels::layer_norm`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
            let columns = gain.len();
            let (Some(shift), 1..) = (shift.get(..columns), columns) else { return };
            let (gains, gain) = gain.as_chunks::<16>();
            let (shifts, shift) = shift.as_chunks::<16>();
            let (mut x, mut out) = (x, out);
            loop {
                // One step for all rows, then the next: the steps of a row depend on each other, the rows do not.
                let rows = next_rows(&mut x, &mut out, columns);
                if rows[0].0.is_empty() {
                    return;
                }
                let (mut means, mut inverses) = ([0.0; ROWS], [0.0; ROWS]);
                for (mean, (x, _)) in means.iter_mut().zip(&rows) {
                    *mean = total(x) / columns as f32;
                }
                for ((inverse, &mean), (x, _)) in inverses.iter_mut().zip(&means).zip(&rows) {
                    *inverse = inverse_root(squares(x, mean) / columns as f32 + NORM_EPS);
                }
                for (((x, out), mean), inverse) in rows.into_iter().zip(means).zip(inverses) {
                    let (mean, inverse) = (splat(mean), splat(inverse));
                    let (xs, x) = x.as_chunks::<16>();
                    let (outs, out) = out.as_chunks_mut::<16>();
                    for (((out, x), gain), shift) in outs.iter_mut().zip(xs).zip(gains).zip(shifts) {
                        let y = mul(mul(sub(load(x), mean), inverse), load(gain));
                        store(add(load(out), add(y, load(shift))), out);
                    }
                    if !x.is_empty() {
                        let y = mul(mul(sub(load_part(x), mean), inverse), load_part(gain));
                        store_part(add(load_part(out), add(y, load_part(shift))), out);
                    }
                }
            }
        }

        /// See [`crate::kernels::Kernels::rms_norm`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
            let columns = gain.len();
            if columns == 0 {
                return;
            }
            let (gains, gain) = gain.as_chunks::<16>();
            let (mut x, mut out) = (x, out);
            loop {
                let rows = next_rows(&mut x, &mut out, columns);
                if rows[0].0.is_empty() {
                    return;
                }
                let mut inverses = [0.0; ROWS];
                for (inverse, (x, _)) in inverses.iter_mut().zip(&rows) {
                    *inverse = inverse_root(squares(x, 0.0) / columns as f32 + NORM_EPS);
                }
                for ((x, out), inverse) in rows.into_iter().zip(inverses) {
                    let inverse = splat(inverse);
                    let (xs, x) = x.as_chunks::<16>();
                    let (outs, out) = out.as_chunks_mut::<16>();
                    for ((out, x), gain) in outs.iter_mut().zip(xs).zip(gains) {
                        store(mul(mul(load(x), inverse), load(gain)), out);
                    }
                    if !x.is_empty() {
                        store_part(mul(mul(load_part(x), inverse), load_part(gain)), out);
                    }
                }
            }
        }
    };
}

pub(in crate::kernels::x86) use norm;
