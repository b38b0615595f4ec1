//! Quantizing rows without dividing every element, yet with the bits of the division.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! quantize {
    ($features:literal) => {
        use core::arch::x86_64::*;

        use super::lanes::*;
        use crate::backend::PANEL_INPUTS;
        use crate::backend::x86::fitting;
        use crate::quant::{MAX_QUANTIZED, MIN_MAGNITUDE};

        /// 7 · 2⁷ (6 · 2⁷ without [`FLIP`]) and 1/2. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number
        /// to `t` in ±127 rounds to them, and bits 14 to 21 of the sum are `t + 1/2` rounded down, plus 128.
        const SHIFTER: f32 = 896.5 - if FLIP == 0 { 128.0 } else { 0.0 };
        /// The fraction in units of 2⁻¹⁴.
        const FRACTION: i32 = (1 << 14) - 1;
        /// Rows whose magnitudes are divided together, while the rows before them are rounded.
        const ROWS: usize = 4;
        /// Elements that are rounded at a time.
        const WHOLE: usize = 64;

        /// See [`crate::backend::Backend::quantize`].
        ///
        /// With `m` the row's magnitude, `s = fl(m / 127)` and `i = fl(127 / m)` are off by a factor of `1 ± u`,
        /// `u = 2⁻²⁴`, so `x·i` is off from `x / s` by at most `2.1·u·|x / s|`, and `fl(x / s)`, which scalar rounds, by
        /// another `u·|x / s|`. As `|x / s| < 127.1`, `x·i` and `fl(x / s)` differ by less than 2.4·10⁻⁵ < 2⁻¹⁵. Only
        /// where a number half-way between two integers lies between them (or is one of them) can they round
        /// differently, and then `x·i`, rounded to multiples of 2⁻¹⁴ by the one rounding of an FMA, is that number.
        /// Those few, and only those, are divided.
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn quantize(
            x: &[f32],
            columns: usize,
            x_stride: usize,
            q: &mut [u8],
            q_stride: usize,
            scales: &mut [f32],
        ) {
            let padded = columns.next_multiple_of(PANEL_INPUTS);
            if columns == 0 || x_stride < columns || q_stride < padded {
                return;
            }
            let rows = scales.len().min(fitting(x.len(), columns, x_stride)).min(fitting(q.len(), padded, q_stride));
            let (mut x, mut q) = (x.as_ptr(), q.as_mut_ptr());
            let mut left = rows;
            let mut most = [_mm_set1_ps(MIN_MAGNITUDE); ROWS];
            for (r, most) in most.iter_mut().enumerate().take(left) {
                // SAFETY: `x` holds `left` rows.
                *most = unsafe { magnitude(x.add(r * x_stride), columns) };
            }
            for scales in scales.get_mut(..rows).unwrap_or_default().chunks_mut(ROWS) {
                let (steps, inverses) = steps(most);
                left -= scales.len();
                for (r, ((scale, step), inverse)) in scales.iter_mut().zip(steps).zip(inverses).enumerate() {
                    *scale = step;
                    // SAFETY: `x` holds this row and `left` behind those of `scales`, `q` as many as `x`.
                    unsafe {
                        if r < left {
                            most[r] = round_and_measure(x, columns, step, inverse, q, x.add(ROWS * x_stride));
                        } else {
                            round(x, columns, 0, step, inverse, q);
                        }
                    }
                    x = x.wrapping_add(x_stride);
                    q = q.wrapping_add(q_stride);
                }
            }
        }

        /// Of the magnitudes `m` of four rows `m / 127` and `127 / m`. `most`: [`magnitude`] of each.
        #[inline]
        #[target_feature(enable = $features)]
        fn steps(most: [__m128; ROWS]) -> ([f32; ROWS], [f32; ROWS]) {
            // Each becomes one lane.
            let ab = _mm_max_ps(_mm_unpacklo_ps(most[0], most[1]), _mm_unpackhi_ps(most[0], most[1]));
            let cd = _mm_max_ps(_mm_unpacklo_ps(most[2], most[3]), _mm_unpackhi_ps(most[2], most[3]));
            let most = _mm_max_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
            let limit = _mm_set1_ps(MAX_QUANTIZED);
            let (mut steps, mut inverses) = ([0.0; ROWS], [0.0; ROWS]);
            // SAFETY: each has four elements.
            unsafe {
                _mm_storeu_ps(steps.as_mut_ptr(), _mm_div_ps(most, limit));
                _mm_storeu_ps(inverses.as_mut_ptr(), _mm_div_ps(limit, most));
            }
            (steps, inverses)
        }

        /// Four lanes, the largest of which is `max(max|x|, 1e-30)`; NaN is skipped.
        ///
        /// # Safety
        /// `x` can be read for `columns` elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn magnitude(x: *const f32, columns: usize) -> __m128 {
            let mut most = [splat(MIN_MAGNITUDE); 4];
            let mut c = 0;
            while c + WHOLE <= columns {
                // SAFETY: c + 64 ≤ columns.
                most = unsafe { largest(most, x.add(c)) };
                c += WHOLE;
            }
            // SAFETY: the caller's.
            unsafe { rest_magnitude(most, x, columns, c) }
        }

        /// Of each lane the larger: of `most`, and of the magnitudes of 64 elements.
        ///
        /// # Safety
        /// `x` can be read for 64 elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn largest(mut most: [V; 4], x: *const f32) -> [V; 4] {
            for (i, most) in most.iter_mut().enumerate() {
                // SAFETY: 16 of the 64 elements.
                *most = max(abs(unsafe { load_from(x.add(16 * i)) }), *most);
            }
            most
        }

        /// The end of [`magnitude`]: columns from `c` on.
        ///
        /// # Safety
        /// As [`magnitude`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rest_magnitude(mut most: [V; 4], x: *const f32, columns: usize, mut c: usize) -> __m128 {
            while c < columns {
                // SAFETY: c < columns.
                let rest = unsafe { core::slice::from_raw_parts(x.add(c), (columns - c).min(16)) };
                most[0] = max(abs(load_part(rest)), most[0]);
                c += 16;
            }
            quarter_largest(max(max(most[0], most[1]), max(most[2], most[3])))
        }

        /// [`round`] of one row and [`magnitude`] of another, `next`, in turns: one multiplies, the other compares, and processors
        /// have units for each.
        ///
        /// # Safety
        /// As [`round`] and [`magnitude`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn round_and_measure(
            x: *const f32,
            columns: usize,
            step: f32,
            inverse: f32,
            q: *mut u8,
            next: *const f32,
        ) -> __m128 {
            let mut most = [splat(MIN_MAGNITUDE); 4];
            let mut c = 0;
            while c + WHOLE <= columns {
                // SAFETY: c + 64 ≤ columns.
                unsafe {
                    most = largest(most, next.add(c));
                    round_whole(x.add(c), step, inverse, q.add(c));
                }
                c += WHOLE;
            }
            // SAFETY: the caller's.
            unsafe {
                round(x, columns, c, step, inverse, q);
                rest_magnitude(most, next, columns, c)
            }
        }

        /// One row from column `c` on, a multiple of 64.
        ///
        /// # Safety
        /// `x` can be read for `columns` elements, `q` written for as many, rounded up to a multiple of [`PANEL_INPUTS`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn round(x: *const f32, columns: usize, mut c: usize, step: f32, inverse: f32, q: *mut u8) {
            while c + WHOLE <= columns {
                // SAFETY: c + 64 ≤ columns.
                unsafe { round_whole(x.add(c), step, inverse, q.add(c)) };
                c += WHOLE;
            }
            if c < columns {
                let n = columns - c;
                let (mut rest, mut bytes) = ([0.0; WHOLE], [0; WHOLE]);
                // SAFETY: n elements are left of `x`, and as many rounded up of `q`; n < 64, so that is 64 at most.
                unsafe {
                    core::ptr::copy_nonoverlapping(x.add(c), rest.as_mut_ptr(), n);
                    round_whole(rest.as_ptr(), step, inverse, bytes.as_mut_ptr());
                    core::ptr::copy_nonoverlapping(bytes.as_ptr(), q.add(c), n.next_multiple_of(PANEL_INPUTS));
                }
            }
        }

        /// 64 elements.
        ///
        /// # Safety
        /// `x` can be read and `q` written for 64 elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn round_whole(x: *const f32, step: f32, inverse: f32, q: *mut u8) {
            let (by, to) = (splat(inverse), splat(SHIFTER));
            let mut sums = [bits(to); 4];
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 16 of the 64 elements.
                *sum = bits(fused(unsafe { load_from(x.add(16 * i)) }, by, to));
            }
            if any_without(sums, FRACTION) {
                // SAFETY: the caller's.
                unsafe { divide_whole(x, step, q) };
            } else {
                // SAFETY: the caller's.
                unsafe { store_bytes(sums, q) };
            }
        }

        /// [`round_whole`] by division.
        ///
        /// # Safety
        /// As [`round_whole`].
        #[cold]
        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn divide_whole(x: *const f32, step: f32, q: *mut u8) {
            let step = splat(step);
            let mut whole = [bits(step); 4];
            for (i, whole) in whole.iter_mut().enumerate() {
                // SAFETY: 16 of the 64 elements.
                *whole = round_shifted(div(unsafe { load_from(x.add(16 * i)) }, step));
            }
            // SAFETY: the caller's.
            unsafe {
                store_bytes(whole, q);
                core::slice::from_raw_parts_mut(q, WHOLE).iter_mut().for_each(|q| *q ^= FLIP);
            }
        }
    };
}

pub(in crate::backend) use quantize;
