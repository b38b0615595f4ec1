//! Token vectors: `x[r, c] = q[id[r], c] · s[id[r]]`, one scale a row of the table.

use crate::backend::Backend;
use crate::bundle::Weights;

/// Number of rows that are prefetched: they are anywhere in the table, so the processor cannot predict them.
pub const FETCHED_AHEAD: usize = 8;

/// `ids`: `[R]`, each in the vocabulary; `x`: `[R, C]`.
pub(crate) fn embedding(backend: &Backend, weights: &Weights<'_>, ids: &[u32], channels: usize, x: &mut [f32]) {
    if channels == 0 {
        return;
    }
    let prefetch = |id: &u32| {
        if let Some((row, _)) = weights.embedding(*id) {
            backend.prefetch(row);
        }
    };
    ids.iter().take(FETCHED_AHEAD).for_each(prefetch);
    for (i, (&id, x)) in ids.iter().zip(x.chunks_exact_mut(channels)).enumerate() {
        ids.get(i + FETCHED_AHEAD).iter().copied().for_each(prefetch);
        if let Some((row, scale)) = weights.embedding(id) {
            backend.dequantize(row, scale, x);
        }
    }
}
