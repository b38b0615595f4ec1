//! All operations but `matmul`, written once in the vectors of 16 lanes that a backend's `vector` module offers: one
//! register of AVX-512, two of AVX2. The lanes are the virtual lanes of [`crate::kernels`], so that sums have its order.

/// Defines the operations with the target features `$features`, in terms of the names of `super::vector`.
macro_rules! operations {
    ($features:literal) => {
        use crate::kernels::{PANEL_INPUTS, POOL_LIMIT, POOL_SCALE, Window, scalar};
        use crate::quant::{MAX_QUANTISED, MIN_MAGNITUDE};
        use crate::spec::NORM_EPS;

        /// 7 · 2⁷. The f32 of [512, 1024) are the multiples of 2⁻¹⁴, so adding this number rounds to them, and bits 14
        /// to 21 of the sum with `t` in ±127 are `t + 128`, rounded down.
        const SHIFTER: f32 = 896.0 - if FLIP == 0 { 128.0 } else { 0.0 };
        /// 1/2 in units of 2⁻¹⁴.
        const HALF: i32 = 1 << 13;
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
            if columns == 0 || q_stride == 0 || q_stride < padded {
                return;
            }
            let (Some(x_part), Some(q_part)) = (columns.checked_mul(ROWS), q_stride.checked_mul(ROWS)) else { return };
            for ((x, q), scales) in
                x.chunks(x_part.max(1)).zip(q.chunks_mut(q_part.max(1))).zip(scales.chunks_mut(ROWS))
            {
                let mut inverses = [0.0f32; ROWS];
                for ((row, scale), inverse) in x.chunks_exact(columns).zip(scales.iter_mut()).zip(&mut inverses) {
                    let most = magnitude(row);
                    *scale = most / MAX_QUANTISED;
                    *inverse = MAX_QUANTISED / most;
                }
                let q = q.chunks_mut(q_stride);
                for (((row, q), &scale), &inverse) in x.chunks_exact(columns).zip(q).zip(&*scales).zip(&inverses) {
                    if let Some((q, padding)) = q.split_at_mut_checked(columns) {
                        round(row, scale, inverse, q);
                        padding.iter_mut().take(padded - columns).for_each(|q| *q = FLIP);
                    }
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
                fused_bits(v[0], by, to, HALF),
                fused_bits(v[1], by, to, HALF),
                fused_bits(v[2], by, to, HALF),
                fused_bits(v[3], by, to, HALF),
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
                let high = sub(x, mul(whole, splat(scalar::LN_2[0])));
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
                p[i] = mul(y, power_of_two(n[i]));
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
            for run in x.chunks_exact_mut(width) {
                let most = run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
                let most = splat(most);
                for part in run.chunks_mut(16) {
                    let [y] = exp([sub(load_part(part), most)]);
                    store_part(y, part);
                }
                // From +0, as scalar does; `Iterator::sum` begins with −0.
                let sum = splat(run.iter().fold(0.0, |sum, v| sum + v));
                for part in run.chunks_mut(16) {
                    store_part(div(load_part(part), sum), part);
                }
            }
        }

        /// `w₀·x₀`, then `+= wⱼ·xⱼ`, for `N` vectors of columns at the start of `x`, whose rows are `step` apart.
        #[inline]
        #[target_feature(enable = $features)]
        fn convolve_shared_block<const N: usize>(x: &[f32], step: usize, weights: &[f32], out: &mut [[f32; 16]]) {
            let mut sums = [splat(0.0); N];
            for (j, (&w, x)) in weights.iter().zip(x.chunks(step.max(1))).enumerate() {
                let w = splat(w);
                let Some(x) = x.as_chunks::<16>().0.first_chunk::<N>() else { return };
                for (sum, x) in sums.iter_mut().zip(x) {
                    let product = mul(w, load(x));
                    *sum = if j == 0 { product } else { add(*sum, product) };
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                store(sum, out);
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
            let rows = window.rows(x.len());
            if channels == 0 || k == 0 {
                return;
            }
            let step = channels.saturating_mul(dilation).max(1);
            for (r, out) in out.chunks_exact_mut(channels).enumerate().take(rows) {
                let x = x.get(r * channels..).unwrap_or_default();
                let taps = taps.get(r * taps_stride..).unwrap_or_default();
                let (mut from, mut out) = (0, out);
                for (h, weights) in taps.chunks_exact(k).enumerate().take(heads) {
                    // Channel c has kernel ⌊c·heads / C⌋: the first of the next kernel is ⌈(h + 1)·C / heads⌉.
                    let end = ((h + 1) * channels).div_ceil(heads);
                    let Some((head, rest)) = core::mem::take(&mut out).split_at_mut_checked(end - from) else { return };
                    out = rest;
                    let (parts, last) = head.as_chunks_mut::<16>();
                    for parts in parts.chunks_mut(SUMS) {
                        let x = x.get(from..).unwrap_or_default();
                        match parts.len() {
                            SUMS => convolve_shared_block::<SUMS>(x, step, weights, parts),
                            4 => convolve_shared_block::<4>(x, step, weights, parts),
                            _ => {
                                for (i, part) in parts.chunks_mut(1).enumerate() {
                                    let x = x.get(16 * i..).unwrap_or_default();
                                    convolve_shared_block::<1>(x, step, weights, part);
                                }
                            }
                        }
                        from += 16 * parts.len();
                    }
                    if !last.is_empty() {
                        let mut sum = splat(0.0);
                        for (j, (&w, x)) in
                            weights.iter().zip(x.get(from..).unwrap_or_default().chunks(step)).enumerate()
                        {
                            let product = mul(splat(w), load_part(x.get(..last.len()).unwrap_or_default()));
                            sum = if j == 0 { product } else { add(sum, product) };
                        }
                        store_part(sum, last);
                        from = end;
                    }
                }
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
            let mut sums = [[splat(0.0); N]; R];
            for (j, weights) in weights.chunks(channels.max(1)).take(taps).enumerate() {
                let Some(weights) = weights.as_chunks::<16>().0.first_chunk::<N>() else { return };
                let mut w = [splat(0.0); N];
                w.iter_mut().zip(weights).for_each(|(w, weights)| *w = load(weights));
                let rows = x.get(j.saturating_mul(step)..).unwrap_or_default().chunks(channels.max(1));
                for (sums, x) in sums.iter_mut().zip(rows) {
                    let Some(x) = x.as_chunks::<16>().0.first_chunk::<N>() else { return };
                    for ((sum, &w), x) in sums.iter_mut().zip(&w).zip(x) {
                        let product = mul(w, load(x));
                        *sum = if j == 0 { product } else { add(*sum, product) };
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(out.chunks_mut(channels)) {
                for (sum, out) in sums.into_iter().zip(out.as_chunks_mut::<16>().0) {
                    store(sum, out);
                }
            }
        }

        /// See [`crate::kernels::Kernels::convolve_channels`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn convolve_channels(x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
            const BLOCK: usize = SUMS / 2;
            let Window { channels, taps: k, dilation } = window;
            let rows = window.rows(x.len());
            if channels == 0 || k == 0 || taps.len() / channels < k {
                return;
            }
            let step = channels.saturating_mul(dilation).max(1);
            for (i, out) in out.chunks_mut(channels.saturating_mul(BLOCK).max(1)).enumerate() {
                let first = i * BLOCK;
                let count = (out.len() / channels).min(rows.saturating_sub(first));
                let mut c = 0;
                while c + 32 <= channels && count == BLOCK {
                    let (x, w) = (x.get(first * channels + c..), taps.get(c..));
                    let (Some(x), Some(w), Some(out)) = (x, w, out.get_mut(c..)) else { return };
                    convolve_channels_block::<BLOCK, 2>(x, window, w, out);
                    c += 32;
                }
                for r in 0..count {
                    let (x, w) = (x.get((first + r) * channels + c..), taps.get(c..));
                    let (Some(mut x), Some(mut w), Some(out)) = (x, w, out.get_mut(r * channels + c..)) else { return };
                    let (parts, last) =
                        out.split_at_mut_checked(channels - c).unwrap_or_default().0.as_chunks_mut::<16>();
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
            1.0 / square_root(x)
        }

        /// See [`crate::kernels::Kernels::layer_norm`].
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
            let columns = gain.len();
            let (Some(part), Some(shift)) = (columns.checked_mul(ROWS), shift.get(..columns)) else { return };
            if columns == 0 {
                return;
            }
            let (gains, gain) = gain.as_chunks::<16>();
            let (shifts, shift) = shift.as_chunks::<16>();
            for (x, out) in x.chunks(part).zip(out.chunks_mut(part)) {
                // One step for all rows, then the next: the steps of a row depend on each other, the rows do not.
                let (mut means, mut inverses) = ([0.0; ROWS], [0.0; ROWS]);
                for (mean, row) in means.iter_mut().zip(x.chunks_exact(columns)) {
                    *mean = total(row) / columns as f32;
                }
                for ((inverse, &mean), row) in inverses.iter_mut().zip(&means).zip(x.chunks_exact(columns)) {
                    *inverse = inverse_root(squares(row, mean) / columns as f32 + NORM_EPS);
                }
                let rows = x.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
                for ((row, out), (mean, inverse)) in rows.zip(means.into_iter().zip(inverses)) {
                    let (mean, inverse) = (splat(mean), splat(inverse));
                    let (xs, x) = row.as_chunks::<16>();
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
            let Some(part) = columns.checked_mul(ROWS).filter(|&part| part > 0) else { return };
            let (gains, gain) = gain.as_chunks::<16>();
            for (x, out) in x.chunks(part).zip(out.chunks_mut(part)) {
                let mut inverses = [0.0; ROWS];
                for (inverse, row) in inverses.iter_mut().zip(x.chunks_exact(columns)) {
                    *inverse = inverse_root(squares(row, 0.0) / columns as f32 + NORM_EPS);
                }
                let rows = x.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
                for ((row, out), inverse) in rows.zip(inverses) {
                    let inverse = splat(inverse);
                    let (xs, x) = row.as_chunks::<16>();
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
