//! All operations but `matmul`, written once in the vectors of 16 lanes that a backend's `vector` module offers: one
//! register of AVX-512, two of AVX2. The lanes are the virtual lanes of [`crate::kernels`], so that sums have its order.

/// Defines the operations with the target features `$features`, in terms of the names of `super::vector`.
macro_rules! operations {
    ($features:literal) => {
        use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};

        use crate::kernels::{PANEL_INPUTS, POOL_LIMIT, POOL_SCALE, Window, scalar};
        use crate::quant::{MAX_QUANTISED, MIN_MAGNITUDE};
        use crate::spec::NORM_EPS;

        /// 7 · 2⁷ (6 · 2⁷ without [`FLIP`]) and 1/2. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number
        /// to `t` in ±127 rounds to them, and bits 14 to 21 of the sum are `t + 1/2` rounded down, plus 128.
        const SHIFTER: f32 = 896.5 - if FLIP == 0 { 128.0 } else { 0.0 };
        /// The fraction in units of 2⁻¹⁴.
        const FRACTION: i32 = (1 << 14) - 1;
        /// Rows that are worked on together, so that the chains of dependent instructions of one fill the gaps of another.
        const ROWS: usize = 4;

        /// Runs of a softmax that are worked on together.
        const RUNS: usize = 16;
        /// Half as many sums as a convolution can keep.
        const HALF_SUMS: usize = SUMS / 2;

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

        /// [`scalar::exp`].
        #[inline]
        #[target_feature(enable = $features)]
        fn exp<const N: usize>(x: [V; N]) -> [V; N] {
            let (mut n, mut r, mut p) = (x, x, x);
            let [first, next @ ..] = scalar::EXP_POLYNOMIAL;
            for i in 0..N {
                let x = max(min(x[i], splat(scalar::EXP_HIGH)), splat(scalar::EXP_LOW));
                n[i] = add(mul(x, splat(core::f32::consts::LOG2_E)), splat(scalar::ROUND));
                let whole = sub(n[i], splat(scalar::ROUND));
                // The product is exact (8 bits times 9), so that fusing it changes nothing.
                let high = fused(whole, splat(-scalar::LN_2[0]), x);
                r[i] = sub(high, mul(whole, splat(scalar::LN_2[1])));
                p[i] = splat(first);
            }
            for c in next {
                for i in 0..N {
                    p[i] = add(mul(p[i], r[i]), splat(c));
                }
            }
            for i in 0..N {
                let y = add(add(mul(p[i], mul(r[i], r[i])), r[i]), splat(1.0));
                p[i] = scaled(y, n[i]);
            }
            p
        }

        /// `value · sigmoid(gate)`.
        #[inline]
        #[target_feature(enable = $features)]
        fn gated<const N: usize>(value: [V; N], gate: [V; N]) -> [V; N] {
            let (mut x, mut y) = (gate, value);
            for i in 0..N {
                x[i] = negate(gate[i]);
            }
            let e = exp(x);
            for i in 0..N {
                y[i] = mul(value[i], div(splat(1.0), add(splat(1.0), e[i])));
            }
            y
        }

        /// See [`crate::kernels::Kernels::gate`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn gate(value: &mut [f32], gate: &[f32]) {
            let n = value.len().min(gate.len());
            let (Some(value), Some(gate)) = (value.get_mut(..n), gate.get(..n)) else { return };
            let (values, value_rest) = value.as_chunks_mut::<{ 16 * WIDE }>();
            let (gates, gate_rest) = gate.as_chunks::<{ 16 * WIDE }>();
            for (value, gate) in values.iter_mut().zip(gates) {
                let (mut v, mut g) = ([splat(0.0); WIDE], [splat(0.0); WIDE]);
                let value = value.as_chunks_mut::<16>().0;
                for (((v, g), value), gate) in v.iter_mut().zip(&mut g).zip(&*value).zip(gate.as_chunks::<16>().0) {
                    (*v, *g) = (load(value), load(gate));
                }
                for (value, y) in value.iter_mut().zip(gated(v, g)) {
                    store(y, value);
                }
            }
            for (value, gate) in value_rest.chunks_mut(16).zip(gate_rest.chunks(16)) {
                let [y] = gated([load_part(value)], [load_part(gate)]);
                store_part(y, value);
            }
        }

        /// See [`crate::kernels::Kernels::softmax`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn softmax(x: &mut [f32], width: usize) {
            if width == 0 {
                return;
            }
            let mut x = x;
            if width <= 16 {
                while !x.is_empty() {
                    let runs = (x.len() / width).min(RUNS);
                    let Some(part) = x.split_off_mut(..runs * width).filter(|part| !part.is_empty()) else { return };
                    softmax_16(part, width);
                }
                return;
            }
            while let Some(run) = x.split_off_mut(..width) {
                let most = splat(run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }));
                // From +0, as scalar does; `Iterator::sum` begins with −0.
                let mut sum = 0.0;
                for part in run.chunks_mut(16) {
                    let mut e = [0.0; 16];
                    store(exp([sub(load_part(part), most)])[0], &mut e);
                    part.iter_mut().zip(e).for_each(|(x, e)| *x = e);
                    sum = part.iter().fold(sum, |sum, e| sum + e);
                }
                for part in run.chunks_mut(16) {
                    store_part(div(load_part(part), splat(sum)), part);
                }
            }
        }

        /// Softmax of at most [`RUNS`] runs of at most 16 elements. All are read before the first is written: a load
        /// beside a partial store would wait for it.
        #[inline]
        #[target_feature(enable = $features)]
        fn softmax_16(x: &mut [f32], width: usize) {
            let mut stored = [[0.0; 16]; RUNS];
            for (run, stored) in x.chunks_exact(width).zip(&mut stored) {
                let most = run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
                store(exp([sub(load_part(run), splat(most))])[0], stored);
            }
            for (run, stored) in x.chunks_exact_mut(width).zip(&stored) {
                let sum = stored.iter().take(width).fold(0.0, |sum, e| sum + e);
                store_part(div(load(stored), splat(sum)), run);
            }
        }

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
            if taps == 0
                || x.len() < before.saturating_mul(step).saturating_add((R - 1) * channels + 16 * N)
                || weights.len() < before.saturating_mul(channels).saturating_add(16 * N)
                || out.len() < (R - 1) * channels + 16 * N
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
            for (i, out) in out.chunks_mut(channels * HALF_SUMS).enumerate() {
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
                    let (parts, last) = out.split_at_mut(channels - c).0.as_chunks_mut::<16>();
                    for part in parts {
                        convolve_channels_block::<1, 1>(x, window, w, part);
                        (x, w) = (x.get(16..).unwrap_or_default(), w.get(16..).unwrap_or_default());
                    }
                    if !last.is_empty() {
                        let mut sum = splat(0.0);
                        for (j, (w, x)) in w.chunks(channels).zip(x.chunks(step)).take(k).enumerate() {
                            let (w, x) = (w.get(..last.len()), x.get(..last.len()));
                            let product = mul(load_part(w.unwrap_or_default()), load_part(x.unwrap_or_default()));
                            sum = if j == 0 { product } else { add(sum, product) };
                        }
                        store_part(sum, last);
                    }
                }
            }
        }

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

        /// See [`crate::kernels::Kernels::add`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn add_to(a: &mut [f32], b: &[f32]) {
            let n = a.len().min(b.len());
            let (Some(a), Some(b)) = (a.get_mut(..n), b.get(..n)) else { return };
            let (a, a_rest) = a.as_chunks_mut::<16>();
            let (b, b_rest) = b.as_chunks::<16>();
            for (a, b) in a.iter_mut().zip(b) {
                store(add(load(a), load(b)), a);
            }
            store_part(add(load_part(a_rest), load_part(b_rest)), a_rest);
        }

        /// See [`crate::kernels::Kernels::dequantise`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn dequantise(q: &[i8], scale: f32, out: &mut [f32]) {
            let n = q.len().min(out.len());
            let (Some(q), Some(out)) = (q.get(..n), out.get_mut(..n)) else { return };
            let (q, q_rest) = q.as_chunks::<16>();
            let (out, out_rest) = out.as_chunks_mut::<16>();
            for (out, q) in out.iter_mut().zip(q) {
                store(mul(widen(q), splat(scale)), out);
            }
            for (out, &q) in out_rest.iter_mut().zip(q_rest) {
                *out = f32::from(q) * scale;
            }
        }

        /// See [`crate::kernels::Kernels::pool_mean`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn pool_mean(x: &[f32], sums: &mut [i64]) {
            if sums.is_empty() {
                return;
            }
            let steps = |x: V| mul(max(min(x, splat(POOL_LIMIT)), splat(-POOL_LIMIT)), splat(POOL_SCALE));
            for row in x.chunks_exact(sums.len()) {
                let (sums, sums_rest) = sums.as_chunks_mut::<16>();
                let (xs, rest) = row.as_chunks::<16>();
                for (sums, x) in sums.iter_mut().zip(xs) {
                    accumulate(steps(load(x)), sums);
                }
                if !rest.is_empty() {
                    let mut steps_of_rest = [0; 16];
                    accumulate(steps(load_part(rest)), &mut steps_of_rest);
                    sums_rest.iter_mut().zip(steps_of_rest).for_each(|(sum, steps)| *sum = sum.wrapping_add(steps));
                }
            }
        }

        /// See [`crate::kernels::Kernels::pool_max`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn pool_max(x: &[f32], most: &mut [f32]) {
            if most.is_empty() {
                return;
            }
            for row in x.chunks_exact(most.len()) {
                let (most, most_rest) = most.as_chunks_mut::<16>();
                let (xs, rest) = row.as_chunks::<16>();
                for (most, x) in most.iter_mut().zip(xs) {
                    store(max(load(x), load(most)), most);
                }
                store_part(max(load_part(rest), load_part(most_rest)), most_rest);
            }
        }
    };
}

pub(super) use operations;
