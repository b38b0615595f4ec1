//! Norms over channels and their place in a residual branch.
//!
//! ```text
//! LayerNorm(x) = (x − mean) / sqrt(variance + eps) ⊙ gain + shift
//! RmsNorm(x)   = x / sqrt(mean(x²) + eps) ⊙ gain
//! post_layer: x + LayerNorm(f(x))          pre_rms: x + f(RmsNorm(x))
//! ```

use crate::backend::Backend;
use crate::bundle::NormWeights;
use crate::spec::Norm;

/// Returns the input of a branch: `x` itself (post_layer) or its norm in `normed` (pre_rms). All `[R, C]`.
pub(crate) fn branch_input<'s>(
    backend: &Backend,
    norm: Norm,
    weights: &NormWeights<'_>,
    x: &'s [f32],
    normed: &'s mut [f32],
) -> &'s [f32] {
    match norm {
        Norm::PostLayer => x,
        Norm::PreRms => rms(backend, weights.gain, x, normed),
    }
}

/// Adds a branch's output `y` to `x`. Both `[R, C]`.
pub(crate) fn residual(backend: &Backend, norm: Norm, weights: &NormWeights<'_>, y: &[f32], x: &mut [f32]) {
    match norm {
        Norm::PostLayer => backend.layer_norm(y, weights.gain, weights.shift, x),
        Norm::PreRms => backend.add(x, y),
    }
}

/// `RmsNorm(x)` in the beginning of `normed`. `x`: `[R, C]`.
pub(crate) fn rms<'s>(backend: &Backend, gain: &[f32], x: &[f32], normed: &'s mut [f32]) -> &'s [f32] {
    debug_assert!(x.len() <= normed.len());
    let normed = normed.get_mut(..x.len()).unwrap_or_default();
    backend.rms_norm(x, gain, normed);
    normed
}
