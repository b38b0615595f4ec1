//! The feed-forward network: `relu(X·W_up)·W_down`.

use super::linear::{Operand, inner_stride};
use crate::backend::{Activation, Backend, PackedMatrix};

/// `x`: `R` rows of `C`; `inner`: at least `[R, inner_stride(FF)]`; `y`: `[R, C]`.
pub(crate) fn ffn(
    backend: &Backend,
    x: Operand<'_>,
    up: &PackedMatrix<'_>,
    down: &PackedMatrix<'_>,
    inner: &mut [f32],
    y: &mut [f32],
) {
    let stride = inner_stride(up.outputs);
    let inner = inner.get_mut(..x.rows() * stride).unwrap_or_default();
    x.linear_strided(backend, up, Activation::Relu, inner, stride);
    x.into_room().quantize_strided(backend, inner, down.inputs, stride).linear(backend, down, Activation::Identity, y);
}
