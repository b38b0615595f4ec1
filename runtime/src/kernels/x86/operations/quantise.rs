//! Quantising rows without dividing every element, yet with the bits of the division.

/// Defines the operations with the target features `$features`, in terms of the names of `super::vector`.
macro_rules! quantise {
    ($features:literal) => {
        use super::vector::*;
        use crate::kernels::PANEL_INPUTS;
        use crate::quant::{MAX_QUANTISED, MIN_MAGNITUDE};

        /// 7 · 2⁷ (6 · 2⁷ without [`FLIP`]) and 1/2. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number
        /// to `t` in ±127 rounds to them, and bits 14 to 21 of the sum are `t + 1/2` rounded down, plus 128.
        const SHIFTER: f32 = 896.5 - if FLIP == 0 { 128.0 } else { 0.0 };
        /// The fraction in units of 2⁻¹⁴.
        const FRACTION: i32 = (1 << 14) - 1;

        /// Rows that are worked on together, so that the chains of dependent instructions of one fill the gaps of another.
        const ROWS: usize = 4;

        /// See [`crate::kernels::Kernels::quantise`].
        ///
        /// With `m` the row's magnitude, `s = fl(m / 127)` and `i = fl(127 / m)` are off by a factor of `1 ± u`,
        /// `u = 2⁻²⁴`, so `x·i` is off from `x / s` by at most `2.1·u·|x / s|`, and `fl(x / s)`, which scalar rounds, by
        /// another `u·|x / s|`. As `|x / s| < 127.1`, `x·i` and `fl(x / s)` differ by less than 2.4·10⁻⁵ < 2⁻¹⁵. Only
        /// where a number half-way between two integers lies between them (or is one of them) can they round
        /// differently, and then `x·i`, rounded to multiples of 2⁻¹⁴ by the one rounding of an FMA, is that number.
        /// Those few, and only those, are divided.
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn quantise(
            x: &[f32],
            columns: usize,
            q: &mut [u8],
            q_stride: usize,
            scales: &mut [f32],
        ) {
            let padded = columns.next_multiple_of(PANEL_INPUTS);
            if columns == 0 || q_stride < padded {
                return;
            }
            let (mut x, mut q, mut scales) = (x, q, scales);
            while !scales.is_empty() {
                // All magnitudes, then all roundings: the divisions between them pass while other rows are read.
                let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
                let mut inverses = [0.0; ROWS];
                for (row, (scale, inverse)) in rows.iter_mut().zip(scales.iter_mut().zip(&mut inverses)) {
                    let Some(next) = x.split_off(..columns) else { break };
                    *row = next;
                    let most = magnitude(row);
                    *scale = most / MAX_QUANTISED;
                    *inverse = MAX_QUANTISED / most;
                }
                let count = scales.len().min(ROWS);
                let Some(now) = scales.split_off_mut(..count) else { return };
                for ((row, &inverse), &scale) in rows.iter().zip(&inverses).zip(&*now) {
                    let size = q_stride.min(q.len());
                    let (Some(q), false) = (q.split_off_mut(..size), row.is_empty()) else { return };
                    let Some((q, padding)) = q.split_at_mut_checked(columns) else { return };
                    round(row, scale, inverse, q);
                    padding.iter_mut().take(padded - columns).for_each(|q| *q = FLIP);
                }
            }
        }

        /// `max(max|x|, 1e-30)`, NaN skipped.
        #[target_feature(enable = $features)]
        fn magnitude(row: &[f32]) -> f32 {
            let mut most = [splat(MIN_MAGNITUDE); 4];
            let (parts, rest) = row.as_chunks::<64>();
            for part in parts {
                for (most, x) in most.iter_mut().zip(part.as_chunks::<16>().0) {
                    *most = max(abs(load(x)), *most);
                }
            }
            for x in rest.chunks(16) {
                most[0] = max(abs(load_part(x)), most[0]);
            }
            largest(max(max(most[0], most[1]), max(most[2], most[3])))
        }

        /// One row, `x` and `q` of the same length.
        #[target_feature(enable = $features)]
        fn round(x: &[f32], scale: f32, inverse: f32, q: &mut [u8]) {
            let (parts, rest) = x.as_chunks::<64>();
            let (out, out_rest) = q.as_chunks_mut::<64>();
            for (x, q) in parts.iter().zip(out) {
                round_64(x, scale, inverse, q);
            }
            if !rest.is_empty() {
                let (mut x, mut q) = ([0.0; 64], [0; 64]);
                x.iter_mut().zip(rest).for_each(|(x, &v)| *x = v);
                round_64(&x, scale, inverse, &mut q);
                out_rest.iter_mut().zip(q).for_each(|(out, q)| *out = q);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn round_64(x: &[f32; 64], scale: f32, inverse: f32, q: &mut [u8; 64]) {
            let mut v = [splat(0.0); 4];
            for (v, x) in v.iter_mut().zip(x.as_chunks::<16>().0) {
                *v = load(x);
            }
            let (by, to) = (splat(inverse), splat(SHIFTER));
            let sums = [
                bits(fused(v[0], by, to)),
                bits(fused(v[1], by, to)),
                bits(fused(v[2], by, to)),
                bits(fused(v[3], by, to)),
            ];
            if any_without(sums, FRACTION) {
                divide_64(v, scale, q);
            } else {
                store_bytes(sums, q);
            }
        }

        /// [`round_64`] by division.
        #[cold]
        #[target_feature(enable = $features)]
        fn divide_64(v: [V; 4], scale: f32, q: &mut [u8; 64]) {
            let s = splat(scale);
            let quotient = |i: usize| round_shifted(div(v[i], s));
            store_bytes([quotient(0), quotient(1), quotient(2), quotient(3)], q);
            q.iter_mut().for_each(|q| *q ^= FLIP);
        }
    };
}

pub(in crate::kernels::x86) use quantise;
