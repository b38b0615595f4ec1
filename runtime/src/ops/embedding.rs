//! Token vectors: `x[r, c] = q[id[r], c] · s[id[r]]`, one scale a row of the table.

use crate::bundle::Weights;
use crate::kernels::Kernels;

/// Rows that are fetched ahead: they lie anywhere in the table, so the processor cannot foresee them.
pub const FETCHED_AHEAD: usize = 8;

/// `ids`: `[R]`, each in the vocabulary; `x`: `[R, C]`.
pub(crate) fn embedding(kernels: &Kernels, weights: &Weights<'_>, ids: &[u32], channels: usize, x: &mut [f32]) {
    if channels == 0 {
        return;
    }
    let fetch = |id: &u32| {
        if let Some((row, _)) = weights.embedding(*id) {
            kernels.fetch(row);
        }
    };
    ids.iter().take(FETCHED_AHEAD).for_each(fetch);
    for (i, (&id, x)) in ids.iter().zip(x.chunks_exact_mut(channels)).enumerate() {
        ids.get(i + FETCHED_AHEAD).iter().copied().for_each(fetch);
        if let Some((row, scale)) = weights.embedding(id) {
            kernels.dequantise(row, scale, x);
        }
    }
}
