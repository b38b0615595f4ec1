//! Dynamic convolution: lightweight, with the kernel of each position computed from the block's input there (Tay et al.
//! 2021, eq. 3).
//!
//! ```text
//! y[i, c] = Σ_j softmax((X·W_K)[i, h(c)])[j] · x[i + j − offset, c],   h(c) = ⌊c·H/C⌋
//! ```
//! Row `h·K + j` of `W_K` computes tap `j` of head `h`.

use super::linear::Operand;
use crate::backend::{Activation, Backend, PackedMatrix, Window};

/// `input`: the block's input at the `R` output rows; `projection`: `[H·K, C]`; `x`: `[R + (K − 1)·dilation, C]`;
/// `taps`: room for at least `[R, H·K]`; `y`: `[R, C]`.
pub(crate) fn dynamicconv(
    backend: &Backend,
    input: &Operand<'_>,
    projection: &PackedMatrix<'_>,
    x: &[f32],
    window: Window,
    heads: usize,
    taps: &mut [f32],
    y: &mut [f32],
) {
    let rows = y.len().checked_div(window.channels).unwrap_or(0);
    let taps = taps.get_mut(..rows * projection.outputs).unwrap_or_default();
    input.linear(backend, projection, Activation::Identity, taps);
    backend.softmax(taps, window.taps);
    backend.convolve_shared(x, window, taps, projection.outputs, heads, y);
}
