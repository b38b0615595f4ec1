//! Quantizes rows without dividing every element, yet with the bits of the division.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! quantize {
    ($features:literal) => {
        use super::lanes::*;
        use crate::backend::table::{PANEL_INPUTS, fitting};
        use crate::quant::{MAX_QUANTIZED, MIN_MAGNITUDE};

        /// Rows whose magnitudes are divided together, while earlier rows are rounded.
        const MEASURED: usize = 4;
        /// Elements that are rounded at a time.
        const WHOLE: usize = 16 * BLOCK;

        /// See [`crate::backend::Backend::quantize`].
        ///
        /// With `m` the row's magnitude, `s = fl(m / 127)` and `i = fl(127 / m)` are off by a factor of `1 ± u`, `u =
        /// 2⁻²⁴`, so `x·i` is off from `x / s` by at most `2.1·u·|x / s|`, and `fl(x / s)`, which scalar rounds, by
        /// another `u·|x / s|`. As `|x / s| < 127.1`, `x·i` and `fl(x / s)` differ by less than 2.4·10⁻⁵ < 2⁻¹⁵. They
        /// can only round differently if a number half-way between two integers is between them (or is one of them).
        /// `is_doubtful` finds at least those few, and they are divided.
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
            let mut most = [fold_max(splat(MIN_MAGNITUDE)); MEASURED];
            for (r, most) in most.iter_mut().enumerate().take(left) {
                // SAFETY: `x` holds `left` rows.
                *most = unsafe { magnitude(x.add(r * x_stride), columns) };
            }
            for scales in scales.get_mut(..rows).unwrap_or_default().chunks_mut(MEASURED) {
                let (steps, inverses) = steps(most);
                left -= scales.len();
                for (r, ((scale, step), inverse)) in scales.iter_mut().zip(steps).zip(inverses).enumerate() {
                    *scale = step;
                    // SAFETY: `x` holds this row and `left` behind those of `scales`, `q` as many as `x`.
                    unsafe {
                        if r < left {
                            most[r] = round_and_measure(x, columns, step, inverse, q, x.add(MEASURED * x_stride));
                        } else {
                            round(x, columns, 0, step, inverse, q);
                        }
                    }
                    x = x.wrapping_add(x_stride);
                    q = q.wrapping_add(q_stride);
                }
            }
        }

        /// Returns `m / 127` and `127 / m` of the magnitudes `m` of four rows; `most` has the [`magnitude`] of each.
        #[inline]
        #[target_feature(enable = $features)]
        fn steps(most: [Folded; MEASURED]) -> ([f32; MEASURED], [f32; MEASURED]) {
            let most = largest(most);
            (most.map(|most| most / MAX_QUANTIZED), most.map(|most| MAX_QUANTIZED / most))
        }

        /// Returns the input from which [`largest`] computes `max(max|x|, 1e-30)`; NaN is skipped.
        ///
        /// # Safety
        /// `x` can be read for `columns` elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn magnitude(x: *const f32, columns: usize) -> Folded {
            let mut most = [splat(MIN_MAGNITUDE); BLOCK];
            let mut c = 0;
            while c + WHOLE <= columns {
                // SAFETY: c + WHOLE ≤ columns.
                most = unsafe { measure(most, x.add(c)) };
                c += WHOLE;
            }
            // SAFETY: the caller's.
            unsafe { rest_magnitude(most, x, columns, c) }
        }

        /// Returns the larger of each lane: of `most`, and of the magnitudes of [`WHOLE`] elements.
        ///
        /// # Safety
        /// `x` can be read for [`WHOLE`] elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn measure(mut most: [V; BLOCK], x: *const f32) -> [V; BLOCK] {
            for (i, most) in most.iter_mut().enumerate() {
                // SAFETY: 16 of the elements.
                *most = max(abs(unsafe { load_from(x.add(16 * i)) }), *most);
            }
            most
        }

        /// Computes the rest of [`magnitude`]: columns from `c` on.
        ///
        /// # Safety
        /// As [`magnitude`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rest_magnitude(mut most: [V; BLOCK], x: *const f32, columns: usize, mut c: usize) -> Folded {
            while c < columns {
                // SAFETY: c < columns.
                let rest = unsafe { core::slice::from_raw_parts(x.add(c), (columns - c).min(16)) };
                most[0] = max(abs(load_part(rest)), most[0]);
                c += 16;
            }
            // In pairs: the shortest chain of dependent instructions.
            let mut left = BLOCK;
            while left > 1 {
                left /= 2;
                for i in 0..left {
                    most[i] = max(most[i], most[i + left]);
                }
            }
            fold_max(most[0])
        }

        /// [`round`] of one row and [`magnitude`] of another, `next`, in turns: one multiplies, the other compares, and
        /// processors have separate units for them.
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
        ) -> Folded {
            let mut most = [splat(MIN_MAGNITUDE); BLOCK];
            let mut c = 0;
            while c + WHOLE <= columns {
                // SAFETY: c + WHOLE ≤ columns.
                unsafe {
                    most = measure(most, next.add(c));
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

        /// One row from column `c` on, a multiple of [`WHOLE`].
        ///
        /// # Safety
        /// `x` can be read for `columns` elements, `q` written for as many, rounded up to a multiple of [`PANEL_INPUTS`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn round(x: *const f32, columns: usize, mut c: usize, step: f32, inverse: f32, q: *mut u8) {
            while c + WHOLE <= columns {
                // SAFETY: c + WHOLE ≤ columns.
                unsafe { round_whole(x.add(c), step, inverse, q.add(c)) };
                c += WHOLE;
            }
            if c < columns {
                let n = columns - c;
                let (mut rest, mut bytes) = ([0.0; WHOLE], [0; WHOLE]);
                // SAFETY: n elements are left of `x`, and as many rounded up of `q`; n < WHOLE, so that is WHOLE at most.
                unsafe {
                    core::ptr::copy_nonoverlapping(x.add(c), rest.as_mut_ptr(), n);
                    round_whole(rest.as_ptr(), step, inverse, bytes.as_mut_ptr());
                    core::ptr::copy_nonoverlapping(bytes.as_ptr(), q.add(c), n.next_multiple_of(PANEL_INPUTS));
                }
            }
        }

        /// Rounds [`WHOLE`] elements.
        ///
        /// # Safety
        /// `x` can be read and `q` written for [`WHOLE`] elements.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn round_whole(x: *const f32, step: f32, inverse: f32, q: *mut u8) {
            let (divisor, factor) = (splat(step), splat(inverse));
            let mut block = [estimate(splat(0.0), divisor, factor); BLOCK];
            for (i, estimates) in block.iter_mut().enumerate() {
                // SAFETY: 16 of the elements.
                *estimates = estimate(unsafe { load_from(x.add(16 * i)) }, divisor, factor);
            }
            if is_doubtful(block) {
                // SAFETY: the caller's.
                unsafe { divide_whole(x, step, q) };
            } else {
                // SAFETY: the caller's.
                unsafe { store_bytes(block, q) };
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
            let mut block = [quotient(splat(0.0), step); BLOCK];
            for (i, quotients) in block.iter_mut().enumerate() {
                // SAFETY: 16 of the elements.
                *quotients = quotient(unsafe { load_from(x.add(16 * i)) }, step);
            }
            // SAFETY: the caller's.
            unsafe { store_bytes(block, q) };
        }
    };
}

pub(in crate::backend) use quantize;
