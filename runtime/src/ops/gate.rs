//! The gate before the convolution: `(X·W_I) ⊙ sigmoid(X·W_S)` (Wu et al. 2019, the GLU of their block).

use super::linear::Operand;
use crate::backend::{Activation, Backend, PackedMatrix};

/// `x`: `R` rows; `spare`: at least `[R, C]`; `gated`: `[R, C]`.
pub(crate) fn gate(
    backend: &Backend,
    x: &Operand<'_>,
    input: &PackedMatrix<'_>,
    gate: &PackedMatrix<'_>,
    spare: &mut [f32],
    gated: &mut [f32],
) {
    let opened = spare.get_mut(..gated.len()).unwrap_or_default();
    x.linear(backend, input, Activation::Identity, gated);
    x.linear(backend, gate, Activation::Identity, opened);
    backend.gate(gated, opened);
}
