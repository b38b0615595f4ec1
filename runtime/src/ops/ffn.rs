//! The feed-forward network: `relu(X·W_up)·W_down`.

use super::linear::{Operand, inner_stride};
use crate::kernels::{Activation, Kernels, Panels};

/// `x`: `R` rows of `C`; `inner`: at least `[R, inner_stride(FF)]`; `y`: `[R, C]`.
pub(crate) fn ffn(
    kernels: &Kernels,
    x: Operand<'_>,
    up: &Panels<'_>,
    down: &Panels<'_>,
    inner: &mut [f32],
    y: &mut [f32],
) {
    let stride = inner_stride(up.outputs);
    let inner = inner.get_mut(..x.rows() * stride).unwrap_or_default();
    x.linear_apart(kernels, up, Activation::Relu, inner, stride);
    x.into_room().quantise_apart(kernels, inner, down.inputs, stride).linear(kernels, down, Activation::Identity, y);
}
