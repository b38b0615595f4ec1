//! Token vectors: `x[r, c] = q[id[r], c] · s[id[r]]`, one scale a row of the table.

use crate::bundle::Weights;
use crate::kernels::Kernels;

/// `ids`: `[R]`, each in the vocabulary; `x`: `[R, C]`.
pub(crate) fn embedding(kernels: &Kernels, weights: &Weights<'_>, ids: &[u32], channels: usize, x: &mut [f32]) {
    if channels == 0 {
        return;
    }
    for (&id, x) in ids.iter().zip(x.chunks_exact_mut(channels)) {
        if let Some((row, scale)) = weights.embedding(id) {
            kernels.dequantise(row, scale, x);
        }
    }
}
