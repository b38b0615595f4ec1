//! The gated linear unit (GLU) before the convolution: `(X·W_I) ⊙ sigmoid(X·W_S)` (Dauphin et al. 2017, Wu et al. 2019).

use super::linear::Operand;
use crate::backend::{Activation, Backend, PackedMatrix};

/// `x`: `R` rows; `spare`: at least `[R, C]`; `gated`: `[R, C]`.
pub(crate) fn glu(
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
    backend.glu(gated, opened);
}
