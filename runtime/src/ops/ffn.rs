//! The feed-forward network: `relu(X·W_up)·W_down`.

use super::linear::Operand;
use crate::kernels::{Activation, Kernels, Panels};

/// `x`: `R` rows of `C`; `inner`: at least `[R, FF]`; `y`: `[R, C]`.
pub(crate) fn ffn(
    kernels: &Kernels,
    x: Operand<'_>,
    up: &Panels<'_>,
    down: &Panels<'_>,
    inner: &mut [f32],
    y: &mut [f32],
) {
    let inner = inner.get_mut(..x.rows() * up.outputs).unwrap_or_default();
    x.linear(kernels, up, Activation::Relu, inner);
    x.into_room().quantise(kernels, inner, down.inputs).linear(kernels, down, Activation::Identity, y);
}
