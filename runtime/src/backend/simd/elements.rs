//! Element-wise operations: sums, int8 to f32, pooling.

/// Defines the operations with the target features `$features`, in terms of the names of `super::lanes`.
macro_rules! elements {
    ($features:literal) => {
        use super::lanes::*;
        use crate::backend::table::{POOL_LIMIT, POOL_SCALE};

        /// See [`crate::backend::Backend::add`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn add_to(a: &mut [f32], b: &[f32]) {
            let n = a.len().min(b.len());
            let (Some(a), Some(b)) = (a.get_mut(..n), b.get(..n)) else { return };
            let (a, a_rest) = a.as_chunks_mut::<16>();
            let (b, b_rest) = b.as_chunks::<16>();
            for (a, b) in a.iter_mut().zip(b) {
                store(add(load(a), load(b)), a);
            }
            if !a_rest.is_empty() {
                store_part(add(load_part(a_rest), load_part(b_rest)), a_rest);
            }
        }

        /// See [`crate::backend::Backend::dequantize`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn dequantize(q: &[i8], scale: f32, out: &mut [f32]) {
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

        /// See [`crate::backend::Backend::pool_mean`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn pool_mean(x: &[f32], sums: &mut [i64]) {
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

        /// See [`crate::backend::Backend::pool_max`].
        #[target_feature(enable = $features)]
        pub(in crate::backend) fn pool_max(x: &[f32], most: &mut [f32]) {
            if most.is_empty() {
                return;
            }
            for row in x.chunks_exact(most.len()) {
                let (most, most_rest) = most.as_chunks_mut::<16>();
                let (xs, rest) = row.as_chunks::<16>();
                for (most, x) in most.iter_mut().zip(xs) {
                    store(larger(load(x), load(most)), most);
                }
                if !rest.is_empty() {
                    store_part(larger(load_part(rest), load_part(most_rest)), most_rest);
                }
            }
        }
    };
}

pub(in crate::backend) use elements;
