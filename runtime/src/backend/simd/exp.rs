//! The GLU and the softmax, and their exponential.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! exp {
    ($features:literal) => {
        use super::lanes::*;
        use crate::backend::scalar;

        /// Runs of a softmax that are processed together.
        const RUNS: usize = 16;

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
                // The product is exact: 8 bits times 9.
                let high = mul_add_exact(whole, splat(-scalar::LN_2[0]), x);
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

        /// See [`crate::backend::Backend::glu`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn glu(value: &mut [f32], gate: &[f32]) {
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

        /// See [`crate::backend::Backend::softmax`].
        ///
        /// Runs are short: the exponentials ignore their boundaries, unless part of a vector costs as little as all of
        /// it.
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn softmax(x: &mut [f32], width: usize) {
            let Some(rest) = x.len().checked_rem(width) else { return };
            let x = x.split_at_mut_checked(x.len() - rest).unwrap_or_default().0;
            if MASKS && width <= 16 {
                return x.chunks_mut(RUNS * width).for_each(|runs| softmax_16(runs, width));
            }
            for run in x.chunks_exact_mut(width) {
                let most = run.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
                run.iter_mut().for_each(|v| *v -= most);
            }
            let (vectors, rest) = x.as_chunks_mut::<16>();
            for v in vectors {
                store(exp([load(v)])[0], v);
            }
            store_part(exp([load_part(rest)])[0], rest);
            for run in x.chunks_exact_mut(width) {
                // From +0, as in scalar; `Iterator::sum` begins with −0.
                let sum = run.iter().fold(0.0, |sum, e| sum + e);
                run.iter_mut().for_each(|v| *v /= sum);
            }
        }

        /// Softmax of at most [`RUNS`] runs of at most 16 elements. All are read before the first is written: a load
        /// next to a partial store would wait for it.
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
    };
}

pub(in crate::backend) use exp;
