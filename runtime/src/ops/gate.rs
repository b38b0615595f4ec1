//! The gate before the convolution: `(X·W_I) ⊙ sigmoid(X·W_S)` (Wu et al. 2019, the GLU of their block).

use super::linear::Operand;
use crate::kernels::{Activation, Kernels, Panels};

/// `x`: `R` rows; `spare`: at least `[R, C]`; `gated`: `[R, C]`.
pub(crate) fn gate(
    kernels: &Kernels,
    x: &Operand<'_>,
    input: &Panels<'_>,
    gate: &Panels<'_>,
    spare: &mut [f32],
    gated: &mut [f32],
) {
    let opened = spare.get_mut(..gated.len()).unwrap_or_default();
    x.linear(kernels, input, Activation::Identity, gated);
    x.linear(kernels, gate, Activation::Identity, opened);
    kernels.gate(gated, opened);
}
