//! One vector from all tokens, and the classifier on it.
//!
//! ```text
//! mean: (Σ_t round_half_even(clamp(x[t, c]) · S)) / (T · S)     the sum in 64-bit fixed point, S = POOL_SCALE
//! max:  max_t x[t, c]
//! logits = pooled·W_head + b_head
//! ```
//! Neither the order of the tokens nor how they are grouped changes a bit.

use super::linear::Room;
use crate::backend::{Activation, Backend, POOL_SCALE, PackedMatrix};

/// State of pooling over the tokens so far, `[C]`.
pub(crate) enum Pool<'s> {
    /// Sums in steps of 1 / [`POOL_SCALE`].
    Mean(&'s mut [i64]),
    /// Largest values.
    Max(&'s mut [f32]),
}

impl Pool<'_> {
    /// Resets the pool.
    pub(crate) fn clear(&mut self) {
        match self {
            Pool::Mean(sums) => sums.fill(0),
            Pool::Max(most) => most.fill(f32::NEG_INFINITY),
        }
    }

    /// Adds tokens. `x`: `[R, C]`.
    pub(crate) fn add(&mut self, backend: &Backend, x: &[f32]) {
        match self {
            Pool::Mean(sums) => backend.pool_mean(x, sums),
            Pool::Max(most) => backend.pool_max(x, most),
        }
    }

    /// Computes the pooled vector of `tokens` tokens. `out`: `[C]`.
    pub(crate) fn vector(&self, tokens: u64, out: &mut [f32]) {
        match self {
            Pool::Mean(sums) => {
                let whole = tokens as f64 * f64::from(POOL_SCALE);
                out.iter_mut().zip(sums.iter()).for_each(|(y, &sum)| *y = (sum as f64 / whole) as f32);
            }
            Pool::Max(most) => out.iter_mut().zip(most.iter()).for_each(|(y, &x)| *y = x),
        }
    }
}

/// `pooled`: `[R, C]`, a row per text; `w`: `[num_labels, C]`; `bias`: `[num_labels]`; `out`: `[R, num_labels]`.
pub(crate) fn head(
    backend: &Backend,
    room: &mut Room<'_>,
    pooled: &[f32],
    channels: usize,
    (w, bias): (PackedMatrix<'_>, &[f32]),
    out: &mut [f32],
) {
    room.quantize(backend, pooled, channels).linear(backend, &w, Activation::Identity, out);
    out.chunks_exact_mut(bias.len().max(1)).for_each(|out| backend.add(out, bias));
}
